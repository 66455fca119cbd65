r"""Is the reconstructed ECG's shape the true one, in the numbers a reader takes from it?

Intervals, amplitudes, ST levels, T polarity and the frontal axis of the median beat, measured in
the same way and at the same R peaks (those of the observed lead I) on the truth and on every
draw. A quantity that cannot be measured is NaN, and :func:`compare` counts it.

====================  ==================================================================  ========
name                  quantity                                                            shape
====================  ==================================================================  ========
`qrs_ms`              QRS duration over all leads                                         (...)
`pr_ms`               P onset to QRS onset                                                (...)
`qt_ms`               QRS onset to T offset                                               (...)
`qtc_ms`              the same, Fridericia: divided by the cube root of RR in s           (...)
`axis_deg`            frontal axis, positive downward, in (-180, 180]                     (...)
`r_mv`, `s_mv`        height above and depth below the PR baseline within the QRS         (..., 12)
`st_mv`               level at J + 60 ms above the PR baseline                            (..., 12)
`t_sign`              1, -1 or, below 0.05 mV, 0: the largest deflection after J + 80 ms  (..., 12)
====================  ==================================================================  ========

The PR baseline is the median of the 20 ms before QRS onset. The axis is that of the net areas
:math:`A` of the QRS complex above it: a dipole :math:`p` at angle :math:`\theta` gives
:math:`I = p \cos\theta` and, by Goldberger's shorter arm, :math:`aVF = \tfrac{\sqrt3}2 p
\sin\theta`, so

.. math:: \theta = \operatorname{atan2}\bigl(\tfrac{2}{\sqrt3} A_{aVF},\, A_I\bigr).

`TOLERANCE` holds the largest mean and standard deviation of the error of an interval against a
reference that are commonly cited as those of IEC 60601-2-51, that of PR as the one cited for PQ;
they were not verified against the standard. They are a yardstick here, as is the rule of thumb
that 20 ms in QRS and 0.05 mV in ST are visible to a reader. None of it makes a reconstruction fit
for diagnosis.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8, LEADS_12, derive_12
from ecgdiff.evaluation.delineation import RATE, Beats, Marks, find_beats, marked_beat

__all__ = ["TOLERANCE", "Comparison", "Measures", "compare", "errors", "find_beats", "measure"]

TOLERANCE: dict[str, tuple[float, float]] = {
    "qrs_ms": (10.0, 10.0),
    "pr_ms": (10.0, 10.0),
    "qt_ms": (25.0, 30.0),
}

Measures = dict[str, NDArray[np.float64]]

_GLOBAL = ("qrs_ms", "pr_ms", "qt_ms", "qtc_ms", "axis_deg")
_PER_LEAD = ("r_mv", "s_mv", "st_mv", "t_sign")
_FLAT_T = 0.05  # mV
_MS = 1e3 / RATE


def measure(signal_8: NDArray[np.floating], beats: Beats, sampling_rate: float) -> Measures:
    """Measures one signal or a stack of them.

    Arguments:
        signal_8: Leads in the order of `LEADS_8`, mV, with shape (..., 8, time).
        beats: The beats of the observed lead I (:func:`find_beats`), for truth and draws alike.
        sampling_rate: In Hz.

    Returns:
        The quantities of the table above by name; last axis in the order of `LEADS_12`.

    Raises:
        ValueError: If the last axis but one does not have length 8.
        ImportError: If neurokit2 is not installed.
    """
    if signal_8.ndim < 2 or signal_8.shape[-2] != len(LEADS_8):
        raise ValueError(
            f"Expected shape (..., 8, time) for leads {', '.join(LEADS_8)}, got {signal_8.shape}."
        )
    stack = signal_8.reshape(-1, *signal_8.shape[-2:])
    found = [_measure_one(x, beats, sampling_rate) for x in stack]
    shape = signal_8.shape[:-2]
    return {
        name: np.reshape([row[name] for row in found], shape + (12,) * (name in _PER_LEAD))
        for name in _GLOBAL + _PER_LEAD
    }


def _measure_one(signal: NDArray[np.floating], beats: Beats, rate: float) -> Measures:
    found = marked_beat(signal, beats, rate) if np.isfinite(signal).all() else None
    nothing = {name: np.array(np.nan) for name in _GLOBAL}
    nothing |= {name: np.full(12, np.nan) for name in _PER_LEAD}
    if found is None:
        return nothing
    beat, marks = found
    out = _intervals(marks, beats.interval) | _levels(derive_12(beat), marks)
    return nothing | {name: np.asarray(value, np.float64) for name, value in out.items()}


def _intervals(marks: Marks, rr: float) -> Measures:
    qt = (marks.t_offset - marks.qrs_onset) * _MS
    return {
        "qrs_ms": np.asarray((marks.qrs_offset - marks.qrs_onset) * _MS),
        "pr_ms": np.asarray((marks.qrs_onset - marks.p_onset) * _MS),
        "qt_ms": np.asarray(qt),
        "qtc_ms": np.asarray(qt / np.cbrt(rr)),
    }


def _levels(beat: NDArray[np.float64], marks: Marks) -> Measures:
    """Amplitudes, ST, T and axis of a beat of 12 leads; marks with a QRS complex."""
    onset, offset = int(marks.qrs_onset), int(marks.qrs_offset)
    quiet = beat[:, max(onset - _samples(20), 0) : onset]
    if quiet.shape[1] == 0:
        return {}
    x = beat - np.median(quiet, axis=1, keepdims=True)
    qrs = x[:, onset : offset + 1]
    area = dict(zip(LEADS_12, qrs.sum(axis=1), strict=True))
    out = {
        "r_mv": np.maximum(qrs.max(axis=1), 0.0),
        "s_mv": np.maximum(-qrs.min(axis=1), 0.0),
        "axis_deg": np.degrees(np.arctan2(2 / np.sqrt(3) * area["aVF"], area["I"])),
    }
    if (at := offset + _samples(60)) < x.shape[1]:
        out["st_mv"] = x[:, at]
    if (tail := x[:, offset + _samples(80) :]).shape[1]:
        peak = np.take_along_axis(tail, np.abs(tail).argmax(axis=1)[:, None], axis=1)[:, 0]
        out["t_sign"] = np.where(np.abs(peak) < _FLAT_T, 0.0, np.sign(peak))
    return out


def _samples(ms: float) -> int:
    return round(ms / _MS)


def errors(drawn: Mapping[str, NDArray], true: Mapping[str, NDArray]) -> Measures:
    """Subtracts the truth.

    Arguments:
        drawn: The measures of draws, each with shape (records, draws, ...).
        true: Those of the truth, each with shape (records, ...).

    Returns:
        Drawn minus true with the shape of `drawn`; the axis by the shorter way round; for
        `t_sign` 1 where an upright T is drawn inverted or the reverse, else 0. NaN where one of
        the two could not be measured.
    """
    out = {}
    for name, x in drawn.items():
        y = true[name][:, None]
        out[name] = np.asarray(x - y, np.float64)
        if name == "axis_deg":
            out[name] = 180.0 - (180.0 - out[name]) % 360.0
        elif name == "t_sign":
            out[name] = np.where(np.isfinite(out[name]), (x * y < 0).astype(np.float64), np.nan)
    return out


@dataclass(frozen=True)
class Comparison:
    """What became of one quantity over records and draws; scalars, or arrays over the 12 leads.

    Arguments:
        mean: The mean error, over all draws that could be compared; NaN if there are none.
        sd: Its standard deviation over them.
        compared: How many records have at least one draw that could be compared.
        truth_failed: The share of records whose truth could not be measured.
        draw_failed: The share of draws that could not be measured, where the truth could.
        invented: The share of draws that could be measured where the truth could not (a P wave in
            atrial fibrillation); NaN if no truth failed.
        within: Whether mean and standard deviation keep the `TOLERANCE`; None if there is none.
    """

    mean: NDArray[np.float64]
    sd: NDArray[np.float64]
    compared: NDArray[np.int64]
    truth_failed: NDArray[np.float64]
    draw_failed: NDArray[np.float64]
    invented: NDArray[np.float64]
    within: bool | None


def compare(
    drawn: Mapping[str, NDArray],
    true: Mapping[str, NDArray],
    weights: NDArray[np.floating] | None = None,
) -> dict[str, Comparison]:
    """Summarizes the errors of all records, with what could not be measured.

    Arguments:
        drawn: The measures of draws, each with shape (records, draws, ...).
        true: Those of the truth, each with shape (records, ...).
        weights: The weight of each record, with shape (records,); all equal unless given. Counts
            are not weighted.

    Returns:
        One :class:`Comparison` per quantity. For `t_sign` its mean is the share of draws with an
        inverted T wave.
    """
    return {
        name: _compare(drawn[name], true[name], e, name, weights)
        for name, e in errors(drawn, true).items()
    }


def _compare(
    x: NDArray,
    y: NDArray,
    error: NDArray[np.float64],
    name: str,
    weights: NDArray[np.floating] | None,
) -> Comparison:
    known = np.isfinite(error)
    count = known.sum(axis=(0, 1))
    each = np.ones(len(x)) if weights is None else weights
    w = each.reshape(-1, *(1,) * (x.ndim - 1))

    def share(found: NDArray, among: NDArray) -> NDArray:
        return _ratio((w * found).sum(axis=(0, 1)), (w * among).sum(axis=(0, 1)))

    filled = np.where(known, error, 0.0)
    mean = share(filled, known)
    spread = np.where(known, error - mean, 0.0)
    sd = np.sqrt(share(np.square(spread), known) * _ratio(count, count - 1))
    measured, truth = np.isfinite(x), np.broadcast_to(np.isfinite(y)[:, None], x.shape)
    limit = TOLERANCE.get(name)
    return Comparison(
        mean=mean,
        sd=sd,
        compared=known.any(axis=1).sum(axis=0),
        truth_failed=share(~truth, np.ones_like(truth)),
        draw_failed=share(truth & ~measured, truth),
        invented=share(~truth & measured, ~truth),
        within=None if limit is None else bool(abs(mean) <= limit[0] and sd <= limit[1]),
    )


def _ratio(a: NDArray, b: NDArray) -> NDArray[np.float64]:
    """Divides, NaN where b is not positive."""
    return np.asarray(a, np.float64) / np.where(np.asarray(b) > 0, b, np.nan)
