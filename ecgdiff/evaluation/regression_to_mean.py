r"""Do reconstructed amplitudes shrink toward the average patient?

Let x be a true amplitude, y the observation, :math:`V = \operatorname{Var} x` over records and
:math:`R^2 = \operatorname{Var} E[x|y] / V` the share of it that y explains. A draw
:math:`\tilde x` from the right posterior has the same law as x and, given y, is independent of
it, so :math:`\operatorname{Cov}(\tilde x, x) = \operatorname{Var} E[x|y] = R^2 V`: the slope of
a draw on the truth is :math:`R^2`. Errors regressed on the truth over records therefore have

=================  ====================  ====================================
error of           slope on the truth    share of it that the truth explains
=================  ====================  ====================================
a draw             :math:`R^2 - 1`       :math:`(1 - R^2) / 2`
mean of m draws    :math:`R^2 - 1`       :math:`(1 - R^2) m / (m + 1)`
=================  ====================  ====================================

A slope below zero is thus no fault in itself: it says how little y tells. Faults are a slope of
draws other than the one they claim themselves, :math:`\rho - 1` with :math:`\rho` the correlation
over records of two draws of one record (an estimate of :math:`R^2` that needs no truth), and a
share above one half, which calibrated draws never reach but every weak regression does (0.92 is
published for V3).

The second test is between leads. Draws from the right posterior have the joint law of observed
and unobserved leads, so the R² between the amplitudes of leads I and V3 is the same in truth and
draws. A regression makes one a function of the other and raises it (published for a generative
network without posterior draws: 0.04 in real, 0.49 in recreated ECGs).

References:
    | Communications Medicine (2025), doi:10.1038/s43856-025-00814-w
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Line", "RegressionToMean", "fit", "regression_to_mean", "shared_variance"]


@dataclass(frozen=True)
class Line:
    """A least-squares line through records, one per lead.

    Arguments:
        slope: With shape (leads,); NaN with fewer than 3 records or a constant abscissa.
        intercept: With shape (leads,), in the unit of the ordinate.
        r2: The share of the ordinate's variance on the line, with shape (leads,).
        records: How many records had both values, with shape (leads,).
    """

    slope: NDArray[np.float64]
    intercept: NDArray[np.float64]
    r2: NDArray[np.float64]
    records: NDArray[np.int64]


def fit(
    x: NDArray[np.floating], y: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> Line:
    """Fits y = slope x + intercept lead by lead.

    Arguments:
        x: With shape (records, leads); NaN where not measured.
        y: Same shape; records where one of the two is NaN are left out and not counted.
        weights: The weight of each record, with shape (records,); all equal unless given.
    """
    known = np.isfinite(x) & np.isfinite(y)
    n = known.sum(axis=0)
    few = n < 3
    w = np.where(known, _column(weights, len(x)), 0.0)
    total = np.where(n > 0, w.sum(axis=0), 1.0)
    mx, my = (np.where(known, w * v, 0.0).sum(axis=0) / total for v in (x, y))
    dx, dy = np.where(known, x - mx, 0.0), np.where(known, y - my, 0.0)
    xx, yy, xy = ((w * a).sum(axis=0) for a in (dx * dx, dy * dy, dx * dy))
    xx, yy = np.where(few | (xx <= 0), np.nan, xx), np.where(few | (yy <= 0), np.nan, yy)
    slope = xy / xx
    return Line(slope, my - slope * mx, xy**2 / (xx * yy), n)


@dataclass(frozen=True)
class RegressionToMean:
    """How errors depend on the truth over records, lead by lead.

    Arguments:
        draw: The line of the error of single draws on the truth; slope, intercept and share
            averaged over draws.
        mean: The line of the error of the draws' mean amplitude.
        expected: The slope that the draws themselves claim, with shape (leads,): the correlation
            of two draws of one record over records, minus 1; NaN for a single draw.
    """

    draw: Line
    mean: Line
    expected: NDArray[np.float64]


def _column(weights: NDArray[np.floating] | None, records: int) -> NDArray[np.floating]:
    return (np.ones(records) if weights is None else weights)[:, None]


def regression_to_mean(
    drawn: NDArray[np.floating],
    true: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> RegressionToMean:
    """Regresses the error of an amplitude on its true value.

    Arguments:
        drawn: Amplitudes of the draws, e.g. R peaks in mV, with shape (draws, records, leads);
            NaN where not measured.
        true: The true ones, with shape (records, leads).
        weights: The weight of each record, with shape (records,); all equal unless given.
    """
    lines = [fit(true, x - true, weights) for x in drawn]
    draw = Line(
        np.mean([line.slope for line in lines], axis=0),
        np.mean([line.intercept for line in lines], axis=0),
        np.mean([line.r2 for line in lines], axis=0),
        np.min([line.records for line in lines], axis=0),
    )
    mean = fit(true, drawn.mean(axis=0) - true, weights)
    return RegressionToMean(draw, mean, _correlation(drawn, weights) - 1)


def _correlation(
    drawn: NDArray[np.floating], weights: NDArray[np.floating] | None
) -> NDArray[np.float64]:
    """The intraclass correlation of draws, from records in which every draw was measured.

    With m draws the variance of their mean is V (1 + (m - 1) rho) / m.
    """
    m = len(drawn)
    whole = np.isfinite(drawn).all(axis=0)
    n = whole.sum(axis=0)
    if m < 2:
        return np.full(n.shape, np.nan)
    x = np.where(whole, drawn, 0.0)
    w = np.where(whole, _column(weights, drawn.shape[1]), 0.0)
    w = w / np.where(n > 2, w.sum(axis=0), np.nan)
    center = (w * x.mean(axis=0)).sum(axis=0)
    inside = (w * x.var(axis=0, ddof=1)).sum(axis=0)
    between = (w * np.square(x.mean(axis=0) - center)).sum(axis=0)
    shared = between * n / (n - 1) - inside / m
    total = shared + inside
    return shared / np.where(total > 0, total, np.nan)


def shared_variance(
    x: NDArray[np.floating], y: NDArray[np.floating], weights: NDArray[np.floating] | None = None
) -> float:
    """Computes the R² of two amplitudes over records, e.g. the R peaks of leads I and V3.

    Arguments:
        x: With shape (records,) or (draws, records); NaN where not measured.
        y: Same shape.
        weights: The weight of each record, with shape (records,); all equal unless given.

    Returns:
        The squared correlation, averaged over draws if there are any.
    """
    pairs = zip(np.atleast_2d(x), np.atleast_2d(y), strict=True)
    return float(np.mean([fit(a[:, None], b[:, None], weights).r2[0] for a, b in pairs]))
