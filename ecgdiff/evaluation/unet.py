r"""The U-Net controls of the benchmark: a regression, and marginal quantiles to draw from.

The quantile network knows the distribution of each sample by itself and nothing of how samples
depend on each other. A draw therefore takes *one* uniform number u and, everywhere, the quantile
at level u: a comonotone curve, high in all leads at all times or low in all. Sample by sample
such draws are as good as any: CRPS, coverage and rank histograms mean what they should. A draw is
no ECG, though: what joins samples (amplitude of a QRS, intervals, the diagnosis of a draw,
spectra) must not be read from it.

Why random levels and not the fixed levels :math:`k / (m + 1)`: those would give exactly uniform
ranks, but the fair CRPS assumes independent draws. For a uniform distribution that is right it
would come out too small, by :math:`m / (m + 1)`: 9 % for ten draws, a gift to this
control. Independent levels leave ranks and fair CRPS without bias, at the price of scatter between
records.

Between the network's levels the quantile function is linear. Beyond the outermost ones, 1 % and
99 % in the shipped network, a draw stays at the outermost quantile. The smallest and the largest
rank of ten draws are then each taken 0.05 percentage points more often than in 1 case of 11.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtr

from ecgdiff.errors import CheckpointError
from ecgdiff.evaluation.tasks import Problem
from ecgdiff.models.checkpoint import load_checkpoint
from ecgdiff.models.unet1d import UNet1d
from ecgdiff.random import streams

__all__ = ["QuantileControl", "UNet", "UNetControl", "at_levels", "load_unet"]


@dataclass(frozen=True)
class UNet:
    """A trained network.

    Arguments:
        net: The network, in evaluation mode.
        levels: The levels of its curves, ascending; none if its one curve is an estimate.
        scale: mV per model unit.
        sha256: The checksum of the weights.
    """

    net: UNet1d
    levels: tuple[float, ...]
    scale: float
    sha256: str

    def curves(self, p: Problem) -> NDArray[np.float32]:
        """Gives the curves of a problem in mV, with shape (curves, leads, time).

        The answer holds for what the network was trained to answer; far from what was observed
        it is not meant to.
        """
        place = next(self.net.parameters()).device
        y, mask = (
            torch.from_numpy(np.ascontiguousarray(a))[None].to(place) for a in (p.y, p.mask)
        )
        with torch.no_grad():
            return self.net(y / self.scale, mask)[0].cpu().numpy() * np.float32(self.scale)


def load_unet(folder: str | Path) -> UNet:
    """Loads a folder written by :func:`ecgdiff.lightning.export_unet.export`.

    Raises:
        CheckpointError: If it is damaged or holds another kind of model.
    """
    config, tensors = load_checkpoint(folder)
    try:
        net = UNet1d(**config["network"])
        net.load_state_dict(tensors)
        levels = tuple(float(level) for level in config["levels"])
        model = UNet(net.eval(), levels, float(config["scale_mv"]), config["sha256"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} holds no U-Net control: {error}") from error
    if net.curves != max(1, len(levels)):
        raise CheckpointError(
            f"{folder}: the network gives {net.curves} curves, config.json names {len(levels)} "
            "levels; export it again."
        )
    return model


def at_levels(
    levels: Sequence[float], curves: NDArray[np.floating], wanted: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Reads quantiles between known ones by linear interpolation.

    Arguments:
        levels: The levels of the curves, ascending.
        curves: Their quantiles, with shape (levels, ...).
        wanted: The levels asked for, with shape (m,); those outside the known are moved to the
            outermost.

    Returns:
        An array with shape (m, ...).
    """
    known = np.asarray(levels)
    at = np.interp(wanted, known, np.arange(len(known)))
    low = np.minimum(at.astype(np.intp), len(known) - 2)
    share = (at - low).reshape(-1, *[1] * (curves.ndim - 1))
    return (1 - share) * curves[low] + share * curves[low + 1]


@dataclass(frozen=True)
class UNetControl:
    """The U-Net regression as a method of the benchmark: one draw, an estimate.

    Arguments:
        model: A network without levels.
        label: Its name in tables.
    """

    model: UNet
    label: str = "unet"
    calls: tuple[int, int] = (1, 0)

    def __post_init__(self) -> None:
        if self.model.levels:
            raise ValueError("This U-Net gives quantiles; use QuantileControl.")

    @property
    def arguments(self) -> Mapping[str, object]:
        """What decides its output."""
        return {"model": self.model.sha256}

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        """Estimates each record: one array (1, leads, time) in mV per problem."""
        return [np.where(p.mask, p.y, self.model.curves(p)) for p in problems]


@dataclass(frozen=True)
class QuantileControl:
    """The quantile U-Net as a method of the benchmark; its draws are comonotone curves.

    Arguments:
        model: A network with at least two levels.
        draws: How many draws per record.
        seed: The run's seed.
        label: Its name in tables.
    """

    model: UNet
    draws: int
    seed: int
    label: str = "quantile-unet"
    # One evaluation serves all draws of a record.
    calls: tuple[int, int] = (1, 0)

    def __post_init__(self) -> None:
        if len(self.model.levels) < 2:
            raise ValueError("This U-Net gives no quantiles to draw from; use UNetControl.")

    @property
    def arguments(self) -> Mapping[str, object]:
        """What decides its output."""
        return {"model": self.model.sha256, "levels": "random, one per draw"}

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        """Draws for each record: one array (draws, leads, time) in mV per problem."""
        return [self._draw(p) for p in problems]

    def _draw(self, p: Problem) -> NDArray[np.floating]:
        stream = streams(self.seed, p.name, range(self.draws))
        wanted = ndtr(stream.normal((self.draws, 1), dtype=torch.float64).numpy()[:, 0])
        return np.where(p.mask, p.y, at_levels(self.model.levels, self.model.curves(p), wanted))
