r"""Errors of a reconstruction on the samples it had to make up.

All functions work along whole arrays in mV. The CRPS is the fair form for an ensemble of m draws,

.. math:: \frac1m \sum_i |x_i - y| - \frac1{2 m (m - 1)} \sum_{i,j} |x_i - x_j|,

whose mean does not depend on m when the draws are independent. It is in the unit of the signal
and is the absolute error itself for a point estimate (m = 1), so that draws and regressions can
stand in one column.

References:
    | Fair scores for ensemble forecasts (Ferro, 2014), doi:10.1002/qj.2270
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["correlation", "crps", "mae", "peak_to_peak", "rmse"]


def mae(estimate: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Computes the mean absolute error over the last axis, in the unit of the signal."""
    return np.abs(np.asarray(estimate, np.float64) - truth).mean(axis=-1)


def rmse(estimate: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Computes the root mean square error over the last axis, in the unit of the signal."""
    return np.sqrt(np.square(np.asarray(estimate, np.float64) - truth).mean(axis=-1))


def crps(draws: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.float64]:
    """Computes the fair continuous ranked probability score of every sample.

    Arguments:
        draws: The m draws, with shape (m, ...).
        truth: The true signal, with shape (...).

    Returns:
        The score in the unit of the signal, with the shape of `truth`.
    """
    x = np.sort(np.asarray(draws, np.float64), axis=0)
    m = len(x)
    error = np.abs(x - truth).mean(axis=0)
    if m == 1:
        return error
    # Of sorted draws, sum_ij |x_i - x_j| = 2 sum_k (2k - m - 1) x_k.
    weights = 2.0 * np.arange(1, m + 1) - m - 1
    return error - np.tensordot(weights, x, axes=1) / (m * (m - 1))


def peak_to_peak(signal: NDArray[np.floating]) -> NDArray[np.float64]:
    """Computes largest minus smallest sample over the last axis: mostly the size of the QRS."""
    return np.ptp(np.asarray(signal, np.float64), axis=-1)


def correlation(
    estimate: NDArray[np.floating], truth: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Computes Pearson's correlation over the last axis; 0 where either is constant."""
    x, y = np.asarray(estimate, np.float64), np.asarray(truth, np.float64)
    x, y = x - x.mean(axis=-1, keepdims=True), y - y.mean(axis=-1, keepdims=True)
    size = np.sqrt(np.square(x).sum(axis=-1) * np.square(y).sum(axis=-1))
    return (x * y).sum(axis=-1) / np.where(size > 0, size, np.inf)
