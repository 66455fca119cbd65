r"""Do the draws spread as much as they err?

**Coverage.** If the truth is exchangeable with m draws, its rank r among them is uniform on 0..m.
The central band of level L is the middle share L of these m + 1 equally likely ranks; where its
edge falls inside a rank, that rank counts by the share inside. The expected coverage of a
calibrated ensemble is then exactly L, whatever the distribution and however few the draws.
Outside all draws nothing is known, so the band never reaches beyond [smallest, largest]: its
expected coverage is

.. math:: \min\bigl(L, \tfrac{m-1}{m+1}\bigr),

9/11 = 81.8 % for m = 10 draws and L = 90 %. This *nominal* value, not L, is what a figure must be
compared with. Where the truth equals t of the draws, its rank may be any of t + 1 neighbors: its
coverage is the mean over them, as if ties were broken at random.

**Spread and skill.** The square root of (m + 1)/m times the mean variance of the draws, divided
by the root mean square error of their mean: 1 if calibrated, below 1 if too sure.

**Amplitude variance ratio.** Variance over records of the amplitude of the reconstructed lead,
divided by that of the true lead: 1 for draws from the right posterior, below 1 for estimates that
regress to the mean.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["coverage", "nominal_coverage", "ranks", "spread_skill", "variance_ratio"]


def coverage(
    draws: NDArray[np.floating], truth: NDArray[np.floating], level: float
) -> NDArray[np.float64]:
    """Says of every sample whether the central band of the draws holds the truth.

    Arguments:
        draws: The m >= 2 draws, with shape (m, ...).
        truth: The true signal, with shape (...).
        level: The level of the band, in (0, 1).

    Returns:
        1 inside, 0 outside, a share of 1 at the edge of the band, the mean over its ranks where
        the truth equals a draw; with the shape of `truth`.
    """
    weights = _rank_weights(level, len(draws))
    first, ties = ranks(draws, truth)
    below = np.append(0.0, np.cumsum(weights))
    shared = (below[first + ties + 1] - below[first]) / (ties + 1)
    return np.where(ties > 0, shared, weights[first])


def ranks(
    draws: NDArray[np.floating], truth: NDArray[np.floating]
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Finds the ranks that the truth may have among the draws.

    Arguments:
        draws: The m draws, with shape (m, ...).
        truth: The true signal, with shape (...).

    Returns:
        The number of draws below the truth, its lowest rank, and of those equal to it, by which
        its highest rank is larger; both with the shape of `truth`.
    """
    draws = np.asarray(draws)
    return (draws < truth).sum(axis=0), (draws == truth).sum(axis=0)


def nominal_coverage(level: float, draws: int) -> float:
    """Computes the expected :func:`coverage` of calibrated draws."""
    _rank_weights(level, draws)
    return min(level, (draws - 1) / (draws + 1))


def _rank_weights(level: float, draws: int) -> NDArray[np.float64]:
    if draws < 2 or not 0 < level < 1:
        raise ValueError(
            f"A band needs at least 2 draws and a level in (0, 1), got {draws} and {level}."
        )
    low, high = (draws + 1) * (1 - level) / 2, (draws + 1) * (1 + level) / 2
    rank = np.arange(draws + 1)
    weights = np.clip(np.minimum(rank + 1, high) - np.maximum(rank, low), 0.0, 1.0)
    weights[[0, -1]] = 0.0
    return weights


def spread_skill(
    variance: NDArray[np.floating], squared_error: NDArray[np.floating], draws: int
) -> NDArray[np.float64]:
    """Computes the spread-skill ratio.

    Arguments:
        variance: The draws' variance (divisor m - 1), mV², with shape (records, ...); averaged
            over records.
        squared_error: The squared error of the draws' mean, mV², same shape; averaged over
            records.
        draws: The number of draws m >= 2.

    Returns:
        The ratio, with shape (...).
    """
    skill = np.mean(squared_error, axis=0)
    return np.sqrt((draws + 1) / draws * np.mean(variance, axis=0) / skill)


def variance_ratio(
    reconstructed: NDArray[np.floating], truth: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Computes the variance over records of reconstructed quantities relative to the true ones.

    Arguments:
        reconstructed: One value per record and lead, with shape (..., records, leads).
        truth: The true values, with shape (records, leads).

    Returns:
        The ratio, with shape (..., leads); NaN where all true values are equal.
    """
    below = np.var(truth, axis=-2, ddof=1)
    return np.var(reconstructed, axis=-2, ddof=1) / np.where(below > 0, below, np.nan)
