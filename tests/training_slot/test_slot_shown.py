"""Training by the clock of a network that is shown observations in a share of the records."""

import csv
import functools
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.diffusion.quality import BANDS
from ecgdiff.errors import CheckpointError
from ecgdiff.lightning import export as export_file
from ecgdiff.lightning.prior import DiffusionPrior
from ecgdiff.lightning.share import Share
from ecgdiff.lightning.validation import band_losses
from ecgdiff.models import sashimi
from ecgdiff.operators import Mask
from ecgdiff.operators.base import Observation
from ecgdiff.prior import load_prior
from ecgdiff.samplers import MMPS, Conditional

ROOT = Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "training"))  # the programs are files beside one another, no package
pack, join, slot, slot_run = map(importlib.import_module, ("pack", "join", "slot", "slot_run"))
curve = importlib.import_module("curve")

TINY = {"d_model": 8, "n_layers": 1, "pool": (2,), "state": 8, "t_features": 8, "t_width": 8}


def steps(records: int, seed: int) -> np.ndarray:
    """Correlated leads in steps of 4 uV."""
    generator = np.random.default_rng(seed)
    phase, size = generator.uniform(0, 6, (records, 1, 1)), np.linspace(0.5, 1.5, 8)[:, None]
    return (80 * np.sin(np.arange(64) / 5 + phase) * size).astype(np.int16)


def words(folder: Path, *more: str, minutes: float = 0.2) -> list[str]:
    places = ["--data", str(folder / "data"), "--out", str(folder / "out")]
    fixed = "--preset small --batch 16 --lr 0.01 --lengths 64,32 --device cpu --compile off"
    often = "--decays 0.9,0.99 --log-steps 4 --snapshot-seconds 4 --validate-seconds 15 --draws 0"
    return [*places, "--minutes", str(minutes), *fixed.split(), *often.split(), *more]


def made(folder: Path, *more: str) -> Any:
    """A run, not started."""
    a = slot._parser().parse_args(words(folder, *more))
    return slot_run.Run(slot._settings(a), a)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A packed set of folds 1-9, a tiny network and a clock that counts looks."""
    looks = 0

    def now() -> float:
        nonlocal looks
        looks += 1
        return looks / 10

    blocks = [(f, n, pack.pack_block(steps(n, f))) for f, n in enumerate([4] * 8 + [70], 1)]
    header = {"leads": list(export_file.LEADS_8), "length": 64, "step_uv": 4, "clipped": {}}
    pack.write_parts(blocks, tmp_path / "data", header, 10**6)
    monkeypatch.setitem(sashimi.PRESETS, "small", TINY)
    monkeypatch.setattr(slot, "Budget", functools.partial(slot.Budget, now=now))
    return tmp_path


def assert_logged(out: Path) -> None:
    """Both views are in the log, and the average with the lowest mean of both was written."""
    log = out / "log.csv"
    with log.open(newline="", encoding="utf-8") as file:
        last = list(csv.DictReader(file))[-1]
    config, _ = join.read_shards(out / "weights")
    training = config["training"]
    best, found = training["ema_decay"], training["slot"]
    for decay in ("0.9", "0.99"):
        assert float(last[f"val_{best}"]) <= float(last[f"val_{decay}"])
        for band in ("", f"/{BANDS[0]:.3g}", f"/{BANDS[5]:.3g}"):
            mean, nothing, shown = (
                float(last[f"val_{decay}{view}{band}"]) for view in ("", "_nothing", "_shown")
            )
            assert mean == pytest.approx((nothing + shown) / 2) and nothing != shown
    for view in ("", "_nothing", "_shown"):
        values = [float(last[f"val_{best}{view}/{sigma:.3g}"]) for sigma in BANDS]
        assert found[f"validation_losses{view}"] == pytest.approx(values)
    drawn = curve.curves(curve.read_logs([str(log)]))
    assert list(drawn)[1] == f"fold 9, EMA {best}" and len(drawn) == 2 + len(BANDS)


def assert_checked(out: Path) -> None:
    """The checks at the end are those of the weights that were written, and of all of fold 9."""
    config, _ = join.read_shards(out / "weights")
    found = json.loads((out / "acceptance.json").read_text(encoding="utf-8"))
    assert (found["draws"], len(found["total_variance_fold9"])) == (6, 6)
    # Half precision moves them a little; 70 records are few enough to be validated on whole.
    losses = config["training"]["slot"]["validation_losses_shown"]
    assert found["losses_fold9"] == pytest.approx(losses, rel=1e-2)
    real = np.quantile(4e-3 * steps(70, 9).std(axis=-1), found["std_quantiles"], axis=0)
    np.testing.assert_allclose(found["std_mv_fold9"], real, atol=1e-3)
    with np.load(out / "draws.npz") as file:
        drawn = file["draws_mv"].astype(float)
    assert drawn.shape == (6, 8, 64)
    spread = np.quantile(drawn.std(axis=-1), found["std_quantiles"], axis=0)
    np.testing.assert_allclose(found["std_mv_draws"], spread, rtol=2e-2)


def test_one_network_serves_conditional_and_guided_samplers(small: Path) -> None:
    assert slot.main(words(small, "--shown", "0.6", "--draws", "6")) == 0
    assert_logged(small / "out")
    assert_checked(small / "out")
    join.join(small / "out" / "weights", small / "prior", "mine")
    prior = load_prior(small / "prior")
    denoiser = prior.denoiser
    assert isinstance(denoiser, InpaintingDenoiser)
    assert prior.config["inpainting"] and prior.config["network"]["context"] == 8
    assert "60% of the records showed" in (small / "prior" / "README.md").read_text("utf-8")

    mask = torch.zeros(1, 8, 64, dtype=torch.bool)
    mask[:, 0] = True
    x0 = torch.from_numpy(4 * steps(2, 5)).float() / 236
    for sampler in (Conditional(steps=2), MMPS(steps=2)):
        first, second = (
            sampler(
                denoiser,
                Observation(x[None] * mask, Mask(mask), 0.05),
                (2, 8, 64),
                generator=torch.Generator().manual_seed(0),
            )
            for x in x0
        )
        assert not torch.allclose(first[:, 1:], second[:, 1:])  # what is seen tells of the rest
        if isinstance(sampler, Conditional):
            assert torch.equal(first[:, 0], x0[:1, 0].expand(2, 64))


@pytest.mark.parametrize("step", [2, 3])
def test_a_step_that_shows_is_that_of_lightning(small: Path, step: int) -> None:
    run = made(small, "--shown", "0.3")
    run.train_step(1.0)
    run.step = step
    other = DiffusionPrior(**{**run.h, "total_steps": 10})
    other.net.load_state_dict(run.net.state_dict())
    share = Share(run.h["seed"], step, 0, 1)
    x0 = other._varied(other.to_units(4 * run.records[run.rows()]), share)
    noise = share.normal(x0.shape)
    with torch.autocast("cpu", torch.bfloat16):
        expected = other._inpainting_loss(x0, noise, share)
    found = run.loss([64, 32][step % 2])
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)


def test_validation_that_shows_is_that_of_lightning(small: Path) -> None:
    run = made(small, "--shown", "0.6")
    for _ in range(3):
        run.train_step(1.0)
    other = DiffusionPrior(**{**run.h, "total_steps": 10}).eval()
    other.net.load_state_dict(run.net.state_dict())
    (found,) = run.losses([other.net])
    batches = list(enumerate(run.validation.split(64)))
    assert len(batches) == 2
    shown = [band_losses(*other.to_validate(x, k), k) for k, x in batches]
    nothing = [band_losses(other.denoiser(), x, None, k) for k, x in batches]
    for view, parts in (("_shown", shown), ("_nothing", nothing)):
        expected = np.average(parts, axis=0, weights=[64, 6])
        assert found[view] == pytest.approx(expected.tolist(), rel=1e-6)


def test_a_prior_shown_nothing_is_widened(small: Path) -> None:
    assert slot.main(words(small, minutes=0.05)) == 0
    join.join(small / "out" / "weights", small / "prior", "plain")
    plain = load_prior(small / "prior").denoiser
    run = made(small, "--shown", "0.6", "--start", str(small / "prior"))
    assert run.earlier["name"] == "plain"
    wide = InpaintingDenoiser(run.net, plain.schedule)
    x = torch.randn(2, 8, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(wide(x, 400), plain(x, 400))
    own = run.parameters[[n for n, _ in run.net.named_parameters()].index("input.weight")]
    run.train_step(1.0)
    run.train_step(1.0)
    assert own[:, 8:].abs().max() > 0  # what was zero learns

    run = made(small, "--shown", "0.6")
    slot.publish(run, 1.0, check=True)
    join.join(small / "out" / "weights", small / "wide", "wide")
    with pytest.raises(CheckpointError, match="another size"):
        made(small, "--start", str(small / "wide"))


def test_a_resumed_run_that_shows_is_the_same_bit_for_bit(
    small: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(slot, "rate", lambda progress: 1.0)
    assert slot.main(words(small, "--shown", "0.6", minutes=0.05)) == 0
    stopped = max((small / "out" / "snapshots").glob("*.pt"))
    assert slot.main(words(small, "--shown", "0.6", "--resume", minutes=0.15)) == 0
    last = max((small / "out" / "snapshots").glob("*.pt"))
    assert 0 < int(stopped.stem[5:]) < int(last.stem[5:])
    ended = torch.load(last, weights_only=True)
    straight = made(small, "--shown", "0.6")
    while straight.step < ended["step"]:
        straight.train_step(1.0)
    found = {
        "weights": [p.detach() for p in straight.parameters],
        "averages": {str(decay): average for decay, average in straight.averages.items()},
        "optimizer": straight.optimizer.state_dict(),
    }
    torch.testing.assert_close(found, {key: ended[key] for key in found}, rtol=0, atol=0)
    for other in ([], ["--shown", "0.5"]):
        assert slot.main(words(small, "--resume", *other)) == 1
        assert "of a run with" in capsys.readouterr().err


@pytest.mark.parametrize("share", ["1.5", "-0.2", "nan"])
def test_what_is_no_share_is_refused(
    small: Path, capsys: pytest.CaptureFixture[str], share: str
) -> None:
    assert slot.main(words(small, f"--shown={share}")) == 1
    assert "--shown: shown is a share above 0 and up to 1" in capsys.readouterr().err


def test_shards_that_saw_observations_go_through_the_export(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(small, "--shown", "0.6")
    for _ in range(3):
        run.train_step(1.0)
    slot.publish(run, 60.0, check=True)

    def folds(root: str, wanted: object, leads: object) -> tuple[torch.Tensor, int]:
        return torch.from_numpy(4 * steps(40, 9 if list(wanted) == [9] else 1)), 5  # type: ignore[call-overload]

    monkeypatch.setattr(export_file, "load_fold_set", folds)
    out = small / "prior"
    join.join(small / "out" / "weights", out, "mine", root="PTB-XL", draws=4)
    prior = load_prior(out)
    assert isinstance(prior.denoiser, InpaintingDenoiser)
    assert prior.denoiser.covariance is not None
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert config["inpainting"] and config["network"]["context"] == 8
    assert config["training"]["hyperparameters"]["shown"] == 0.6
    card = (out / "README.md").read_text(encoding="utf-8")
    assert "The network is shown what was observed" in card and "60% of the records" in card
