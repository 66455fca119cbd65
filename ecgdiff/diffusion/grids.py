r"""Time grids: which noise levels a sampler visits.

With K = `steps` levels from noisy to clean, the targets are

.. math::
    \text{uniform:} \quad t_i = T\,(i + 1)/K \qquad
    \text{rho:} \quad \sigma_i = \left( \sigma_{\min}^{1/\rho}
        + \tfrac{i}{K-1} (\sigma_{\max}^{1/\rho} - \sigma_{\min}^{1/\rho}) \right)^{\rho} \qquad
    \text{log-snr:} \quad \ln \sigma_i \text{ equally spaced, the limit } \rho \to \infty

for i = K-1, ..., 0, each replaced by the nearest level and moved by as little as it takes to keep
all K distinct.

References:
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
    | arXiv:2206.00364
"""

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from ecgdiff.diffusion.schedule import Schedule

__all__ = ["GridKind", "check_grid", "time_grid"]

GridKind = Literal["uniform", "rho", "log-snr"]


def time_grid(
    schedule: Schedule,
    steps: int,
    kind: GridKind = "uniform",
    *,
    sigma_min: float = 0.02,
    sigma_max: float | None = None,
    rho: float = 7.0,
) -> list[int]:
    r"""The levels of a sampler, from noisy to clean; the sampler adds the level 0 itself.

    Arguments:
        schedule: The noise levels.
        steps: The number of levels, in 2..T.
        kind: "uniform" in t, "rho" (Karras) or "log-snr" (uniform in the logarithm of sigma).
        sigma_min: The last noise level of "rho" and "log-snr", in model units.
        sigma_max: Their first noise level; that of T if None.
        rho: The exponent of "rho".

    Returns:
        Exactly `steps` strictly decreasing integers >= 1.

    Raises:
        ValueError: If there cannot be so many levels, or the arguments name no grid.
    """
    if not 2 <= steps <= schedule.T:
        raise ValueError(f"steps is {steps}; this schedule allows 2..{schedule.T}.")
    share = torch.linspace(0, 1, steps, dtype=torch.float64)
    if kind == "uniform":
        return _distinct(
            (torch.arange(1, steps + 1).double() * schedule.T / steps).round(), schedule.T
        )
    top = float(schedule.sigma(schedule.T)) if sigma_max is None else sigma_max
    check_grid(kind, sigma_min, top)
    ends = torch.tensor([sigma_min, top], dtype=torch.float64)
    if kind == "rho":
        low, high = ends ** (1 / rho)
        sigma = (low + share * (high - low)) ** rho
    else:
        low, high = ends.log()
        sigma = (low + share * (high - low)).exp()
    return _distinct(schedule.index(sigma), schedule.T)


def check_grid(kind: GridKind, sigma_min: float, sigma_max: float | None) -> None:
    """Refuses what names no grid, as far as that can be told without a schedule.

    Arguments:
        kind: The spacing of the levels.
        sigma_min: The last noise level.
        sigma_max: The first noise level; any above `sigma_min` if None.

    Raises:
        ValueError: If there is no such spacing, or the levels are not positive and ascending.
    """
    if kind not in get_args(GridKind):
        raise ValueError(f"Unknown grid {kind!r}; choose 'uniform', 'rho' or 'log-snr'.")
    # Without a highest level any will do that is finite and above the lowest one.
    if not 0 < sigma_min < (2 * sigma_min if sigma_max is None else sigma_max) < math.inf:
        raise ValueError(
            f"The grid needs 0 < sigma_min < sigma_max, got {sigma_min!r} and {sigma_max!r}."
        )


def _distinct(ascending: Tensor, top: int) -> list[int]:
    """Decreasing distinct levels in 1..top nearest to non-decreasing ones."""
    levels = [int(t) for t in ascending]
    for i in range(len(levels)):
        levels[i] = max(levels[i], levels[i - 1] + 1 if i else 1)
    for i in reversed(range(len(levels))):
        levels[i] = min(levels[i], levels[i + 1] - 1 if i + 1 < len(levels) else top)
    return levels[::-1]
