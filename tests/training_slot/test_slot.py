"""Training by the clock: packed data, schedule, a tiny run, kill and resume, broken weights."""

import csv
import functools
import importlib
import json
import math
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecgdiff.errors import CheckpointError, DataError
from ecgdiff.models import sashimi
from ecgdiff.prior import load_prior

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "training"))  # the programs are files beside one another, no package
pack, join, slot, slot_run = map(importlib.import_module, ("pack", "join", "slot", "slot_run"))

TINY = {"d_model": 8, "n_layers": 1, "pool": (2,), "state": 8, "t_features": 8, "t_width": 8}
LEADS = ["I", "II", "V1", "V2", "V3", "V4", "V5", "V6"]
ABSENT = ("wfdb", "neurokit2", "sklearn", "pandas", "plotly", "pytorch_lightning")
# A process of its own that lacks the packages a lent machine lacks, counts time by looks at the
# clock, and is killed without warning in the middle. The rate is constant: that of the clock would
# differ between a run of one process and one of two.
KILLED = """
import functools, os, signal, sys
for name in {absent}:
    sys.modules[name] = None
sys.path[:0] = [{training!r}, {root!r}]
import slot, torch
from ecgdiff.models import sashimi
torch.set_num_threads(1)
sashimi.PRESETS["small"] = {tiny}
looks = 0
def now():
    global looks
    looks += 1
    if looks == 70:
        os.kill(os.getpid(), signal.SIGKILL)
    return looks / 10
slot.Budget = functools.partial(slot.Budget, now=now)
slot.rate = lambda progress: 1.0
slot.main({arguments})
"""


def waves(records: int, seed: int) -> np.ndarray:
    """Eight correlated leads of 64 samples, in microvolts."""
    generator = np.random.default_rng(seed)
    phase, size = generator.uniform(0, 6, (records, 1, 1)), np.linspace(0.5, 1.5, 8)[:, None]
    return (300 * np.sin(np.arange(64) / 5 + phase) * size).astype(np.int16)


def write_set(folder: Path, part_bytes: int = 10**6) -> list[Path]:
    blocks = []
    for fold, records in ((1, 30), (2, 20), (9, 12)):
        steps = pack.quantize(waves(records, fold))
        blocks.append((fold, records, pack.pack_block(steps)))
    clipped = {"1": 3, "2": 4, "9": 50}
    header = {"leads": LEADS, "length": 64, "step_uv": 4, "clipped": clipped}
    return pack.write_parts(blocks, folder, header, part_bytes)


def arguments(folder: Path, *more: str, minutes: float = 0.2) -> list[str]:
    fixed = "--preset small --batch 16 --lr 0.01 --lengths 64,32 --device cpu --compile off"
    often = "--decays 0.9,0.99 --log-steps 4 --snapshot-seconds 4 --validate-seconds 15 --draws 0"
    places = ["--data", str(folder / "data"), "--out", str(folder / "out")]
    return [*places, "--minutes", str(minutes), *fixed.split(), *often.split(), *more]


def ticking(event: int = 0, act: Callable[[], None] = lambda: None) -> Callable[[], float]:
    """A clock on which every look takes a tenth of a second; at one look something happens."""
    looks = 0

    def now() -> float:
        nonlocal looks
        looks += 1
        if looks == event:
            act()
        return looks / 10

    return now


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "out" / "log.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def newest(folder: Path) -> dict[str, Any]:
    """The last snapshot of a run."""
    path = max((folder / "out" / "snapshots").glob("*.pt"))
    found: dict[str, Any] = torch.load(path, weights_only=True)
    return found


def assert_same_bits(run: Any, snapshot: dict[str, Any]) -> None:
    """Weights, averages and the optimizer's state are those of a snapshot, which says the step."""
    assert run.step == snapshot["step"]
    found = {
        "weights": [p.detach() for p in run.parameters],
        "averages": {str(decay): average for decay, average in run.averages.items()},
        "optimizer": run.optimizer.state_dict(),
    }
    expected = {key: snapshot[key] for key in found}
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A packed set, a tiny network and a clock that counts looks."""
    write_set(tmp_path / "data")
    monkeypatch.setitem(sashimi.PRESETS, "small", TINY)
    monkeypatch.setattr(slot, "Budget", functools.partial(slot.Budget, now=ticking()))
    return tmp_path


def test_packing_keeps_every_step(tmp_path: Path) -> None:
    microvolts = waves(7, 0)
    microvolts[3] = np.random.default_rng(1).choice([-5000, 4999], (8, 64))
    steps = pack.quantize(microvolts)
    assert np.abs(steps.astype(int) * 4 - microvolts).max() <= 2
    data = pack.pack_block(steps)
    assert (pack.unpack_block(data, 7, 64) == steps).all()
    paths = write_set(tmp_path, part_bytes=max(len(pack.pack_block(waves(30, 1))), 1500))
    assert len(paths) > 1
    found = pack.read_parts(tmp_path)
    expected = np.concatenate([waves(30, 1), waves(20, 2), waves(12, 9)])
    assert (found.samples == pack.quantize(expected)).all()
    assert found.folds.tolist() == [1] * 30 + [2] * 20 + [9] * 12
    assert (found.leads, found.step_uv) == (tuple(LEADS), 4)
    assert found.clipped == {1: 3, 2: 4, 9: 50}


def test_what_leads_share_is_not_stored_twice() -> None:
    steps = pack.quantize(waves(40, 0))
    apart = steps.copy()
    for lead in range(8):  # the same leads, of different records
        apart[:, lead] = np.roll(steps[:, lead], lead, axis=0)
    assert len(pack.pack_block(steps)) < 0.95 * len(pack.pack_block(apart))
    with pytest.raises(ValueError, match="clip them"):
        pack.pack_block(np.tile(np.int16([-32768, 32767]), (1, 8, 8)))


@pytest.mark.parametrize("at", [5, 60, -1, -200])
def test_a_changed_byte_is_found(tmp_path: Path, at: int) -> None:
    (path,) = write_set(tmp_path)
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="copy it again"):
        pack.read_parts(tmp_path)


def test_missing_and_foreign_parts_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no \.part files"):
        pack.read_parts(tmp_path)
    paths = write_set(tmp_path, part_bytes=8000)
    kept = paths[1].read_bytes()
    paths[1].unlink()
    with pytest.raises(DataError, match="missing"):
        pack.read_parts(tmp_path)
    line, _, payload = kept.partition(b"\n")
    header = {k: v for k, v in json.loads(line).items() if k != "sha256"} | {"step_uv": 8}
    header["sha256"] = pack._checksum(header, payload)
    paths[1].write_bytes(json.dumps(header, sort_keys=True).encode() + b"\n" + payload)
    with pytest.raises(DataError, match="different sets"):
        pack.read_parts(tmp_path)


def test_the_rate_follows_its_formula() -> None:
    assert slot.rate(0) == 0
    assert slot.rate(0.015) == pytest.approx(0.5)
    assert slot.rate(0.03) == pytest.approx(1)
    middle = 0.03 + 0.97 / 2
    assert slot.rate(middle) == pytest.approx(0.505)
    assert slot.rate(0.03 + 0.97 / 3) == pytest.approx(
        0.01 + 0.99 * (1 + math.cos(math.pi / 3)) / 2
    )
    assert slot.rate(1) == pytest.approx(0.01)


def test_the_budget_counts_all_processes() -> None:
    time = [1000.0]
    budget = slot.Budget(100, now=lambda: time[0])
    time[0] += 20  # loading and compiling
    assert budget.progress() == 0
    budget.start()
    time[0] += 20
    assert (budget.elapsed(), budget.progress()) == (40, 0.25)
    again = slot.Budget(100, used=40, before=0.25, now=lambda: time[0])
    time[0] += 10
    assert again.progress() == 0.25
    again.start()
    assert again.progress() == 0.25
    time[0] += 25
    assert (again.elapsed(), again.progress()) == (75, 0.625)
    time[0] += 26
    assert again.progress() == 1


def test_a_run_learns_and_leaves_a_prior(small: Path) -> None:
    assert slot.main(arguments(small, minutes=0.4)) == 0
    torch.manual_seed(0)
    untrained = sashimi.SaShiMi(t_scale=400.0, **TINY).eval().requires_grad_(False)
    held = torch.from_numpy(pack.quantize(waves(12, 9))) * (4 / 236)
    (before,) = slot_run.band_losses([untrained], held, torch.device("cpu"))
    last = rows(small)[-1]
    best = min(("0.9", "0.99"), key=lambda decay: float(last[f"val_{decay}"]))
    learned = [float(last[f"val_{best}/{sigma:.3g}"]) for sigma in slot.BANDS]
    assert sum(learned[3:]) < 0.75 * sum(before[3:])  # where so small a network can learn much

    join.join(small / "out" / "weights", small / "prior", "mine")
    prior = load_prior(small / "prior")
    assert (prior.name, prior.leads, prior.n_samples) == ("mine", tuple(LEADS), 64)
    (after,) = slot_run.band_losses([prior.denoiser.net], held, torch.device("cpu"))
    assert after == pytest.approx(learned, rel=1e-2)
    training = prior.config["training"]
    assert (training["folds"], training["records"], training["clipped_samples"]) == ([1, 2], 50, 7)
    assert training["ema_decay"] == best
    assert training["slot"]["seconds"] == pytest.approx(24, abs=1)
    assert len(list((small / "out" / "snapshots").iterdir())) == 2

    a = slot._parser().parse_args(arguments(small, "--start", str(small / "prior")))
    run = slot_run.Run(slot._settings(a), a)
    started, weights = run.net.state_dict(), prior.denoiser.net.state_dict()
    assert all(torch.equal(started[k], weights[k]) for k in weights)
    assert (run.earlier["name"], run.earlier["steps"]) == ("mine", training["steps"])
    sashimi.PRESETS["small"] = {**TINY, "d_model": 16}
    with pytest.raises(CheckpointError, match="another size"):
        slot_run.Run(slot._settings(a), a)


def test_runs_that_cannot_be_are_refused(small: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert slot.main(arguments(small, "--resume")) == 1
    assert slot.main(arguments(small, minutes=0)) == 1
    assert slot.main(arguments(small, "--lengths", "33")) == 1
    assert slot.main(arguments(small, "--batch", "51")) == 1
    header = {"leads": LEADS, "length": 64, "step_uv": 4, "clipped": {}}
    data = pack.pack_block(waves(20, 0))
    pack.write_parts([(9, 20, data), (10, 20, data)], small / "data", header, 10**6)
    assert slot.main(arguments(small)) == 1
    for line, part in zip(
        capsys.readouterr().err.splitlines(),
        ("no snapshot", "before the first step", "multiples of 2", "lower --batch", "fold 10"),
        strict=True,
    ):
        assert part in line


def test_a_new_run_does_not_mix_with_an_older_one(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The older run's snapshots have higher step numbers and would be taken for the newest."""
    assert slot.main(arguments(small)) == 0
    kept = sorted((small / "out" / "snapshots").iterdir())
    assert slot.main(arguments(small, minutes=0.1)) == 1
    assert "give --resume to go on, or another --out" in capsys.readouterr().err
    assert sorted((small / "out" / "snapshots").iterdir()) == kept


def test_every_record_once_per_epoch(small: Path) -> None:
    a = slot._parser().parse_args(arguments(small))
    run = slot_run.Run(slot._settings(a), a)
    seen = []
    for step in range(6):
        run.step = step
        seen.append(run.rows())
    for epoch in (seen[:3], seen[3:]):
        assert len(torch.cat(epoch).unique()) == 48
    assert not torch.equal(torch.cat(seen[:3]), torch.cat(seen[3:]))


def test_averages_follow_their_formula(small: Path) -> None:
    a = slot._parser().parse_args(arguments(small))
    run = slot_run.Run(slot._settings(a), a)
    expected = run.parameters[0].detach().clone()
    for k in range(1, 12):
        run.train_step(1.0)
        keep = min(0.9, (1 + k) / (10 + k))
        expected = keep * expected + (1 - keep) * run.parameters[0].detach()
    torch.testing.assert_close(run.averages[0.9][0], expected)
    with torch.no_grad():
        assert torch.equal(next(run.averaged(0.9).parameters()), run.averages[0.9][0])


def test_killed_without_the_missing_packages_it_goes_on_bit_for_bit(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = KILLED.format(
        absent=ABSENT,
        training=str(ROOT / "training"),
        root=str(ROOT),
        tiny=TINY,
        arguments=arguments(small),
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    saved = newest(small)
    assert saved["used"] > 4 and saved["step"] > 0
    logged = max(int(row["step"]) for row in rows(small))
    assert logged > saved["step"]  # so some steps are lost, and have to be made again

    monkeypatch.setattr(slot, "rate", lambda progress: 1.0)
    assert slot.main(arguments(small, "--resume")) == 0
    ended = newest(small)
    assert ended["step"] > logged
    steps = [int(row["step"]) for row in rows(small) if row["loss"]]
    times = [float(row["elapsed_s"]) for row in rows(small)]
    assert steps == sorted(set(steps)) and steps[0] <= 4 and steps[-1] > saved["step"]
    assert times == sorted(times) and times[-1] == pytest.approx(12, abs=1)
    config, _ = join.read_shards(small / "out" / "weights")
    assert config["training"]["steps"] == ended["step"]

    # One that nobody stopped: a batch repeated or left out would show in every number after it.
    a = slot._parser().parse_args(arguments(small))
    straight = slot_run.Run(slot._settings(a), a)
    for snapshot in (saved, ended):
        while straight.step < snapshot["step"]:
            straight.train_step(1.0)
        assert_same_bits(straight, snapshot)


def test_a_damaged_snapshot_gives_way_to_the_one_before(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert slot.main(arguments(small, minutes=0.1)) == 0
    newest = max((small / "out" / "snapshots").glob("*.pt"))
    newest.write_bytes(newest.read_bytes()[:1000])
    assert slot.main(arguments(small, "--resume")) == 0
    assert slot.main(arguments(small, "--resume", "--batch", "8")) == 1
    assert "of a run with" in capsys.readouterr().err


def test_sigterm_ends_a_run_in_order(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ticking(60, lambda: os.kill(os.getpid(), signal.SIGTERM))
    monkeypatch.setattr(slot, "Budget", functools.partial(slot.Budget.func, now=clock))
    before = signal.getsignal(signal.SIGTERM)
    assert slot.main(arguments(small, minutes=10)) == 0
    assert signal.getsignal(signal.SIGTERM) is before
    config, _ = join.read_shards(small / "out" / "weights")
    assert 0 < config["training"]["steps"] < 40 and config["training"]["slot"]["seconds"] < 20


def test_a_run_that_diverges_is_no_success(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slot_run, "edm_loss", lambda net, x, s, n: (net(x, s[:, 0, 0]) / 0).sum())
    assert slot.main(arguments(small)) == 1
    assert "The loss is not finite in" in capsys.readouterr().err
    assert not (small / "out" / "snapshots").exists()


def test_weights_that_changed_on_the_way_fail(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = slot.stored
    monkeypatch.setattr(slot, "stored", lambda net: {k: 1.2 * v for k, v in honest(net).items()})
    assert slot.main(arguments(small, minutes=0.1)) == 1
    assert "do not use" in capsys.readouterr().err


def test_shards_are_small_and_checked(tmp_path: Path) -> None:
    tensors = {f"t{k}": torch.randn(50) for k in range(5)}
    join.write_shards(tmp_path / "w", {"a": 1}, tensors, limit=500)
    files = sorted((tmp_path / "w").glob("*.safetensors"))
    assert len(files) == 3
    config, read = join.read_shards(tmp_path / "w")
    assert config == {"a": 1} and all(torch.equal(read[k], tensors[k]) for k in tensors)
    with pytest.raises(ValueError, match="a shard at most 100"):
        join.write_shards(tmp_path / "v", {}, tensors, limit=100)
    damaged = bytearray(files[1].read_bytes())
    damaged[-1] ^= 1
    files[1].write_bytes(damaged)
    with pytest.raises(CheckpointError, match="damaged"):
        join.read_shards(tmp_path / "w")
    join.write_shards(tmp_path / "w", {}, {"t": torch.tensor([math.inf])})
    with pytest.raises(CheckpointError, match="not finite"):
        join.read_shards(tmp_path / "w")
