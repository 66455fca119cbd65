"""What a row holds of the shape of one reconstructed record: morphology and band powers.

The entry `shape` of a row, for tasks that observe lead I over the whole record:

====================================================  =================================  ==========
key                                                   quantity                           shape
====================================================  =================================  ==========
`qrs_ms`, `pr_ms`, `qt_ms`, `qtc_ms`, `axis_deg`      as in `evaluation.morphology`      (1 + m,)
`r_mv`, `s_mv`, `st_mv`                               the same, in each of `LEADS`       (1 + m, 7)
`power_mv2`                                           by band, in each unobserved lead   (2, leads)
`parts`                                               scores by part of the beat, as     by name
                                                      in `evaluation.beat_parts`
`failed`                                              why lead I has no beats, if so     a text
====================================================  =================================  ==========

Every list begins with the truth; the m draws follow, or, for powers, their mean over draws. What
could not be measured is None in the row (null in JSON and Parquet) and NaN again in
:func:`measures`. Truth and draws are measured at the same R peaks, found once in the observed lead
I, as a device would find them: it carries the noise of the observation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8, LEADS_12
from ecgdiff.evaluation.beat_parts import by_part, label
from ecgdiff.evaluation.morphology import Measures, find_beats, measure
from ecgdiff.evaluation.spectra import BANDS, band_power, power_spectrum
from ecgdiff.evaluation.tasks import SAMPLING_RATE, Problem

__all__ = [
    "LEADS",
    "PER_LEAD",
    "PER_RECORD",
    "has_rhythm_lead",
    "measures",
    "powers",
    "require_neurokit",
    "shape",
]

LEADS = tuple(lead for lead in LEADS_8 if lead != "II")
PER_RECORD = ("qrs_ms", "pr_ms", "qt_ms", "qtc_ms", "axis_deg")
PER_LEAD = ("r_mv", "s_mv", "st_mv")

_FIRST = LEADS_8.index("I")
_COLUMNS = [LEADS_12.index(lead) for lead in LEADS]
_NO_BEATS = (
    "No beats in the observed lead I: it is flat, has fewer than 3 of them or a rate outside 25 "
    "to 240 per minute, or they are unlike each other."
)


def require_neurokit() -> None:
    """Says how to get neurokit2 where it is missing.

    Raises:
        ImportError: If neurokit2 is not installed.
    """
    find_beats(np.zeros(1), SAMPLING_RATE)  # asks for the library before it looks at the lead


def has_rhythm_lead(problem: Problem) -> bool:
    """Whether lead I is observed over the whole record, so that beats can be found in it."""
    return bool(problem.mask[_FIRST].all())


def shape(
    draws: NDArray[np.floating], truth: NDArray[np.floating], problem: Problem
) -> dict[str, Any]:
    """Measures one reconstructed record, with what was observed put back as it was observed.

    Arguments:
        draws: With shape (draws, 8, time), mV; one draw is a point estimate.
        truth: With shape (8, time), mV.
        problem: What was observed.

    Returns:
        The entry of the table above in plain numbers: amplitudes in whole µV, the step of the
        recordings, which Parquet stores in half the space; all else in four significant digits.

    Raises:
        ValueError: If lead I is not observed over the whole record.
        ImportError: If neurokit2 is not installed.
    """
    if not has_rhythm_lead(problem):
        raise ValueError(
            "Beats are found in lead I, which is not observed over the whole record. Measure only "
            "tasks that observe it."
        )
    both = np.concatenate([truth[None], np.where(problem.mask, problem.y, draws)])
    beats = find_beats(problem.y[_FIRST], SAMPLING_RATE)
    found = measure(both, beats, SAMPLING_RATE)
    out: dict[str, Any] = {name: _plain(found[name]) for name in PER_RECORD}
    out |= {name: _plain(found[name][:, _COLUMNS].round(3)) for name in PER_LEAD}
    lost = both[:, ~problem.mask.all(axis=1)]
    frequencies, density = power_spectrum(lost, SAMPLING_RATE)
    density = np.stack([density[0], density[1:].mean(axis=0)])
    out["power_mv2"] = {
        name: _plain(band_power(frequencies, density, band)) for name, band in BANDS.items()
    }
    if (labels := label(truth, beats, SAMPLING_RATE)) is not None:
        out["parts"] = by_part(lost[1:], lost[0], labels)
    return out if len(beats.peaks) else out | {"failed": _NO_BEATS}


def measures(shapes: Sequence[Mapping[str, Any]]) -> tuple[Measures, Measures]:
    """Stacks the morphology of many records.

    Arguments:
        shapes: The entries of :func:`shape`, all with the same number of draws.

    Returns:
        The measures of the draws, each with shape (records, draws) or (records, draws, 7), and
        those of the truth, (records,) or (records, 7); NaN where not measured.
    """
    both = {
        name: np.array([entry[name] for entry in shapes], dtype=np.float64)
        for name in PER_RECORD + PER_LEAD
    }
    return {n: x[:, 1:] for n, x in both.items()}, {n: x[:, 0] for n, x in both.items()}


def powers(shapes: Sequence[Mapping[str, Any]]) -> tuple[Measures, Measures]:
    """Stacks the band powers of many records.

    Arguments:
        shapes: The entries of :func:`shape` for one task.

    Returns:
        Those of the draws, averaged over draws, and those of the truth in mV², by band, each with
        shape (records, leads).
    """
    both = {
        name: np.array([entry["power_mv2"][name] for entry in shapes], dtype=np.float64)
        for name in BANDS
    }
    return {n: x[:, 1] for n, x in both.items()}, {n: x[:, 0] for n, x in both.items()}


def _plain(values: NDArray[np.floating]) -> Any:
    """Nested lists of four significant digits, None for NaN."""
    if values.ndim:
        return [_plain(v) for v in values]
    return None if np.isnan(values) else float(f"{values:.4g}")
