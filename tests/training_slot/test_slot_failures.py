"""Training by the clock where steps or the compiler fail: it goes on, and says so."""

import csv
import functools
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.models import s4, sashimi

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "training"))  # the programs are files beside one another, no package
pack, join, slot, slot_run = map(importlib.import_module, ("pack", "join", "slot", "slot_run"))

TINY = {"d_model": 8, "n_layers": 1, "pool": (2,), "state": 8, "t_features": 8, "t_width": 8}
HONEST_LOSS, HONEST_GO_BACK = slot_run.edm_loss, slot.go_back


def words(folder: Path, *more: str) -> list[str]:
    places = ["--data", str(folder / "data"), "--out", str(folder / "out")]
    fixed = "--preset small --batch 16 --lr 0.01 --lengths 64,32 --device cpu --minutes 0.3"
    often = "--decays 0.9,0.99 --log-steps 4 --snapshot-seconds 4 --validate-seconds 15 --draws 0"
    return [*places, *fixed.split(), *often.split(), *more]


def made(folder: Path, *more: str) -> Any:
    """A run, not started."""
    a = slot._parser().parse_args(words(folder, "--compile", "off", *more))
    return slot_run.Run(slot._settings(a), a)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A packed set, a tiny network and a clock on which every look takes a tenth of a second."""
    looks = iter(range(1, 10**6))
    generator, blocks = np.random.default_rng(0), []
    for fold, records in ((1, 40), (9, 12)):
        phase = generator.uniform(0, 6, (records, 8, 1))
        steps = (80 * np.sin(np.arange(64) / 5 + phase)).astype(np.int16)
        blocks.append((fold, records, pack.pack_block(steps)))
    header = {"leads": list(LEADS_8), "length": 64, "step_uv": 4, "clipped": {}}
    pack.write_parts(blocks, tmp_path / "data", header, 10**6)
    monkeypatch.setitem(sashimi.PRESETS, "small", TINY)
    monkeypatch.setattr(
        slot, "Budget", functools.partial(slot.Budget, now=lambda: next(looks) / 10)
    )
    return tmp_path


def failing(bad: Callable[[int], bool]) -> Callable[..., torch.Tensor]:
    """The loss, but not a number in the calls for which `bad` says so."""
    calls = iter(range(10**6))

    def loss(*given: Any) -> torch.Tensor:
        return HONEST_LOSS(*given) * (float("nan") if bad(next(calls)) else 1.0)

    return loss


def test_an_infinite_gradient_changes_nothing_but_the_count(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = made(small)
    run.train_step(1.0)
    before = [p.detach().clone() for p in run.parameters]
    state = run.optimizer.state[run.parameters[0]]
    kept = {key: value.clone() for key, value in state.items()}
    hook = run.parameters[0].register_hook(lambda grad: grad / 0)
    run.train_step(1.0)
    hook.remove()
    assert all(torch.equal(a, b) for a, b in zip(before, run.parameters, strict=True))
    assert all(torch.equal(kept[key], value) for key, value in state.items())
    run.train_step(1.0)
    assert any(not torch.equal(a, b) for a, b in zip(before, run.parameters, strict=True))
    assert 0 < run.mean_loss() < 10
    assert "step 3: 1 steps were not finite and left out" in capsys.readouterr().out


def test_a_run_that_fails_goes_back_and_slows_down(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slot, "rate", lambda progress: 1.0)
    backs: list[Any] = []

    def go_back(*given: Any) -> None:
        backs.append(given)
        HONEST_GO_BACK(*given)

    monkeypatch.setattr(slot, "go_back", go_back)
    monkeypatch.setattr(slot_run, "edm_loss", failing(lambda call: call >= 30 and not backs))
    assert slot.main(words(small, "--compile", "off")) == 0
    assert "learning rates x 0.5" in capsys.readouterr().out
    with (small / "out" / "log.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["loss"]]
    steps = [int(row["step"]) for row in rows]
    assert steps == sorted(set(steps)) and all(float(row["loss"]) < 10 for row in rows)
    assert {float(row["lr"]) for row in rows} == {0.01, 0.005}
    slow = next(int(row["step"]) for row in rows if float(row["lr"]) < 0.01)
    assert slow <= 30
    config, _ = join.read_shards(small / "out" / "weights")
    assert config["training"]["slot"]["restarts"] == 1
    join.join(small / "out" / "weights", small / "prior", "mine")
    assert "went back 1 times" in (small / "prior" / "README.md").read_text(encoding="utf-8")
    # A later process goes on at the rate that was left.
    a = slot._parser().parse_args(words(small, "--compile", "off", "--resume"))
    again = slot_run.Run(slot._settings(a), a)
    slot.load_snapshot(again)
    assert again.cut == 0.5


def test_a_run_that_fails_again_and_again_ends(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slot_run, "edm_loss", failing(lambda call: call >= 20))
    assert slot.main(words(small, "--compile", "off")) == 1
    said = capsys.readouterr()
    assert said.out.count("Back to step") == 2 and "learning rates x 0.25" in said.out
    assert "The loss is not finite in" in said.err


@pytest.mark.parametrize("late", [False, True])
def test_where_the_compiler_fails_it_goes_on_without(
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    late: bool,
) -> None:
    """Compilers work when the network is first called, or when its gradient first is."""

    class Broken(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            raise OSError("no compiler here")

    def compiled(net: Any, **_: Any) -> Callable[..., torch.Tensor]:
        def call(*given: torch.Tensor) -> torch.Tensor:
            if not late:
                raise OSError("no compiler here")
            return Broken.apply(net(*given))

        return call

    monkeypatch.setattr(torch, "compile", compiled)
    assert slot.main(words(small, "--compile", "default")) == 0
    assert "going on without: OSError('no compiler here')" in capsys.readouterr().out
    config, _ = join.read_shards(small / "out" / "weights")
    assert config["training"]["steps"] > 20


def test_what_is_no_fault_of_the_compiler_ends_the_run(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any) -> torch.Tensor:
        raise OSError("not the compiler's")

    monkeypatch.setattr(slot_run, "edm_loss", broken)
    monkeypatch.setattr(torch, "compile", lambda net, **_: functools.partial(net))
    with pytest.raises(OSError, match="not the compiler's"):
        slot.main(words(small, "--compile", "default"))


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # torch, of its own tracing
def test_compiled_steps_are_the_plain_ones(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced and differentiated ahead of time, as by the compiler, but run as it stands."""
    compiler, shown = torch.compile, ["--shown", "0.6"]
    traced: list[Any] = []

    def compiled(net: Any, mode: str | None, dynamic: bool) -> Any:
        traced.append(net)
        return compiler(net, backend="aot_eager", dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compiled)
    runs = []
    for how in ("off", "default"):
        a = slot._parser().parse_args(words(small, "--compile", how, *shown))
        run = slot_run.Run(slot._settings(a), a)
        run.prepare()
        for _ in range(4):
            run.train_step(1.0)
        runs.append(run)
    assert len(traced) == 1 and traced[0] is runs[1].net
    assert runs[1].called is not runs[1].net  # it did not go on without
    assert runs[1].mean_loss() == pytest.approx(runs[0].mean_loss(), rel=1e-2)
    start = torch.cat([p.detach().flatten() for p in made(small, *shown).parameters])
    plain, fast = (torch.cat([p.detach().flatten() for p in run.parameters]) for run in runs)
    assert (fast - plain).norm() < 0.05 * (plain - start).norm()


def test_what_the_benchmark_finds_can_be_used(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s4, "TOEPLITZ_LENGTH", s4.TOEPLITZ_LENGTH)  # put back afterwards
    by_fft, long_convolve = set(), s4.long_convolve

    def watched(u: torch.Tensor, kernel: torch.Tensor) -> torch.Tensor:
        by_fft.add(u.shape[-1])
        return long_convolve(u, kernel)

    monkeypatch.setattr(s4, "long_convolve", watched)
    assert slot.main(words(small, "--compile", "off", "--toeplitz", "32")) == 0
    assert by_fft == {64}
