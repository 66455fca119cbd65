"""The U-Net controls: quantiles read right, draws calibrated sample by sample, clear refusals."""

import json
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import ndtri

from ecgdiff.errors import CheckpointError
from ecgdiff.evaluation.calibration import coverage, nominal_coverage
from ecgdiff.evaluation.signal import crps
from ecgdiff.evaluation.tasks import Problem
from ecgdiff.evaluation.unet import QuantileControl, UNet, UNetControl, at_levels, load_unet
from ecgdiff.models.checkpoint import save_checkpoint
from ecgdiff.models.unet1d import UNet1d

# Those of training/unet_quantile.yaml.
TENTHS = tuple(k / 10 for k in range(2, 9))
LEVELS = (0.01, 0.025, 0.05, 0.1, 0.15, *TENTHS, 0.85, 0.9, 0.95, 0.975, 0.99)
LEADS, TIME = 4, 25
SPREAD = np.linspace(0.1, 1.0, LEADS)[:, None]


@dataclass(frozen=True)
class TrueQuantiles:
    """Knows the normal distribution of the truth, of another width in each lead."""

    levels: tuple[float, ...] = LEVELS
    sha256: str = "0" * 64
    center: NDArray[np.floating] = field(default_factory=lambda: np.sin(np.arange(TIME)))

    def curves(self, p: Problem) -> NDArray[np.floating]:
        return self.center + ndtri(np.array(self.levels))[:, None, None] * SPREAD


def nothing(name: str) -> Problem:
    shape = (LEADS, TIME)
    return Problem(name, np.zeros(shape, np.float32), np.zeros(shape, bool), 0.02)


def test_quantiles_between_levels() -> None:
    """The quantile function of the uniform distribution is the identity, beyond the ends held."""
    asked = np.array([0.0, 0.004, 0.01, 0.3, 0.5123, 0.975, 0.99, 0.999, 1.0])
    curves = np.broadcast_to(np.array(LEVELS)[:, None, None], (len(LEVELS), 2, 3))
    found = at_levels(LEVELS, curves, asked)
    expected = np.broadcast_to(np.clip(asked, 0.01, 0.99)[:, None, None], found.shape)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert at_levels([0.25, 0.75], np.array([1.0, 3.0]), np.array([0.5, 0.0])).tolist() == [2, 1]


@pytest.fixture(scope="module")
def made() -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Draws (draws, records, leads, time) of 3000 records, and their truths."""
    control = QuantileControl(TrueQuantiles(), draws=10, seed=0)  # type: ignore[arg-type]
    draws = np.stack(control([nothing(f"record-{k}") for k in range(3000)]), axis=1)
    rng = np.random.default_rng(0)
    truth = TrueQuantiles().center + SPREAD * rng.normal(size=draws.shape[1:])
    return draws, truth


def test_comonotone_draws_of_true_quantiles_have_uniform_ranks(
    made: tuple[NDArray[np.floating], NDArray[np.floating]],
) -> None:
    draws, truth = made
    ranks = np.bincount((draws < truth).sum(axis=0).ravel(), minlength=11) / truth.size
    # Levels are shared within a record: 3000 records, each with its own ten.
    np.testing.assert_allclose(ranks, 1 / 11, atol=0.005)
    for level in (0.5, 0.8, 0.9):
        found = coverage(draws, truth, level).mean()
        assert found == pytest.approx(nominal_coverage(level, 10), abs=0.01)


def test_comonotone_draws_of_true_quantiles_have_the_right_crps(
    made: tuple[NDArray[np.floating], NDArray[np.floating]],
) -> None:
    """A calibrated normal has the expected CRPS sigma / sqrt(pi)."""
    draws, truth = made
    found = crps(draws, truth).mean(axis=(0, 2))
    np.testing.assert_allclose(found, SPREAD[:, 0] / np.sqrt(np.pi), rtol=0.02)


def test_fixed_levels_would_flatter_the_fair_crps() -> None:
    """Why levels are random: for the uniform distribution the score is m / (m + 1) of the true."""
    truth = (np.arange(100_000) + 0.5) / 100_000
    draws = np.broadcast_to(np.arange(1, 11)[:, None] / 11, (10, len(truth)))
    assert crps(draws, truth).mean() == pytest.approx(10 / 11 / 6, rel=1e-4)


def test_a_draw_has_one_level_everywhere_and_its_own_stream() -> None:
    control = QuantileControl(TrueQuantiles(), draws=5, seed=3)  # type: ignore[arg-type]
    first, other = control([nothing("a"), nothing("b")])
    order = np.argsort(first, axis=0)
    assert (order == order[:, :1, :1]).all()
    assert not np.array_equal(first, other)
    assert np.array_equal(first, control([nothing("a")])[0])  # the batch does not matter
    fewer = QuantileControl(TrueQuantiles(), draws=2, seed=3)  # type: ignore[arg-type]
    assert np.array_equal(fewer([nothing("a")])[0], first[:2])


def folder(path: Path, levels: tuple[float, ...] = (), curves: int = 1, **more: object) -> Path:
    network = {"channels": 8, "curves": curves, "widths": [4, 4], "kernel": 3}
    config = {"network": network, "levels": list(levels), "scale_mv": 0.236, **more}
    net = UNet1d(8, curves, [4, 4], 3)
    half = {k: v.half() if v.ndim == 3 else v for k, v in net.state_dict().items()}
    save_checkpoint(path, config, half, "# a card\n")
    return path


def shown() -> Problem:
    rng = np.random.default_rng(0)
    mask = np.zeros((8, 260), dtype=bool)
    mask[0], mask[3, :100] = True, True
    y = np.where(mask, rng.normal(size=mask.shape), 0).astype(np.float32)
    return Problem("x", y, mask, 0.02)


@pytest.mark.parametrize("levels", [(), (0.1, 0.5, 0.9)], ids=["regression", "quantiles"])
def test_methods_put_back_what_was_observed(tmp_path: Path, levels: tuple[float, ...]) -> None:
    model, p = load_unet(folder(tmp_path, levels, max(1, len(levels)))), shown()
    method = QuantileControl(model, 4, 0) if levels else UNetControl(model)
    (out,) = method([p])
    assert out.shape == (4 if levels else 1, 8, 260)
    assert (out[:, p.mask] == p.y[p.mask]).all()
    assert np.isfinite(out).all() and np.ptp(out[0][~p.mask]) > 0
    again = pickle.loads(pickle.dumps(method))([p])[0]  # as a worker process gets it
    assert np.array_equal(again, out)
    assert method.arguments["model"] == model.sha256 and method.calls == (1, 0)
    if not levels:
        assert np.array_equal(out[0][~p.mask], model.curves(p)[0][~p.mask])


def test_the_answer_is_in_millivolts(tmp_path: Path) -> None:
    model, p = load_unet(folder(tmp_path)), shown()
    with torch.no_grad():
        units = model.net(torch.from_numpy(p.y / 0.236)[None], torch.from_numpy(p.mask)[None])
    np.testing.assert_allclose(model.curves(p), 0.236 * units[0].numpy(), rtol=1e-4, atol=1e-6)


def test_networks_of_the_other_kind_are_refused() -> None:
    net = UNet1d(8, 1, [4, 4], 3).eval()
    with pytest.raises(ValueError, match="use UNetControl"):
        QuantileControl(UNet(net, (), 0.236, ""), 10, 0)
    with pytest.raises(ValueError, match="use QuantileControl"):
        UNetControl(UNet(net, (0.1, 0.9), 0.236, ""))


def test_folders_that_hold_no_control_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="export it again"):
        load_unet(folder(tmp_path / "a", levels=(0.1, 0.9), curves=1))
    config = json.loads((folder(tmp_path / "b") / "config.json").read_text())
    del config["scale_mv"]
    (tmp_path / "b" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"no U-Net control.*scale_mv"):
        load_unet(tmp_path / "b")
