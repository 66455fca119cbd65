"""Errors and spread by part of the beat: P wave, QRS complex, ST segment with T wave, the rest.

A band that holds its share of all samples may be too narrow in the QRS complex, which is short,
and too wide between the beats. The bounds of the parts are those of the median beat of the *true*
ECG (:mod:`ecgdiff.evaluation.delineation`), laid on every R peak of the observed lead I. Where two
beats overlap, QRS comes before P and P before T. A record without a P wave, as in atrial
fibrillation, has no part `p`; one whose T wave has no end has neither `st_t` nor `rest`.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.calibration import coverage
from ecgdiff.evaluation.delineation import RATE, Beats, marked_beat
from ecgdiff.evaluation.signal import crps

__all__ = ["PARTS", "by_part", "label"]

PARTS = {
    "p": "P onset to QRS",
    "qrs": "QRS",
    "st_t": "QRS to the end of T",
    "rest": "between beats",
}
_NAMES = tuple(PARTS)
_UNKNOWN = -1


def label(
    truth: NDArray[np.floating], beats: Beats, sampling_rate: float
) -> NDArray[np.int8] | None:
    """Says of every sample which part of a beat it is in.

    Arguments:
        truth: The true ECG in mV, with shape (leads, time).
        beats: The beats of the observed lead I.
        sampling_rate: In Hz.

    Returns:
        Places in :data:`PARTS`, -1 where unknown, with shape (time,); None if there are no beats
        or the median beat has no bounds of QRS.

    Raises:
        ImportError: If neurokit2 is not installed.
    """
    found = marked_beat(truth, beats, sampling_rate)
    if found is None:
        return None
    _, marks = found
    ended = not np.isnan(marks.t_offset)
    out = np.full(truth.shape[-1], _NAMES.index("rest") if ended else _UNKNOWN, np.int8)
    # From the one that gives way to the one that stays.
    bounds = {
        "st_t": (marks.qrs_offset, marks.t_offset),
        "p": (marks.p_onset, marks.qrs_onset),
        "qrs": (marks.qrs_onset, marks.qrs_offset),
    }
    at = np.arange(truth.shape[-1]) * (RATE / sampling_rate)
    for name, (first, last) in bounds.items():
        if np.isnan(first + last):
            continue
        for peak in beats.peaks - beats.window[0]:
            out[(at >= peak + first) & (at < peak + last)] = _NAMES.index(name)
    # Before the first and after the last beat found, waves of others may lie.
    edge = RATE * beats.interval
    out[(at < beats.peaks[0] - 0.4 * edge) | (at > beats.peaks[-1] + 0.6 * edge)] = _UNKNOWN
    return out


def by_part(
    draws: NDArray[np.floating], truth: NDArray[np.floating], labels: NDArray[np.integer]
) -> dict[str, dict[str, Any]]:
    """Scores each part of the beat that a record has.

    Arguments:
        draws: The scored leads of the m draws in mV, with shape (m, leads, time).
        truth: Those of the truth, with shape (leads, time).
        labels: Of every sample, from :func:`label`.

    Returns:
        By name of the part `samples`, how many there are in a lead, and averages over them and the
        leads: `crps` in mV, `mse_mean` in mV² and, for two draws or more, `variance` in mV²,
        `coverage_50` and `coverage_90`.
    """
    mean = draws.mean(axis=0, dtype=np.float64)
    each = {"crps": crps(draws, truth), "mse_mean": np.square(mean - truth)}
    if len(draws) > 1:
        each["variance"] = draws.var(axis=0, ddof=1, dtype=np.float64)
        each |= {f"coverage_{level}": coverage(draws, truth, level / 100) for level in (50, 90)}
    out = {}
    for place, name in enumerate(_NAMES):
        here = labels == place
        if here.any():
            scores = {k: float(f"{v[:, here].mean():.4g}") for k, v in each.items()}
            out[name] = {"samples": int(here.sum()), **scores}
    return out
