"""Table of the spectra of reconstructions: how far from those of ECGs, and the power by band.

For each task that scores whole leads. Densities are averaged over draws and records before they
are compared; records are weighted as everywhere, by the inverse of the probability with which they
were included. Rows without spectra are left out, and the table says how many and why.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.evaluation.bootstrap import replicates
from ecgdiff.evaluation.comonotone import left_out, without
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.scoring import densities, has_spectra
from ecgdiff.evaluation.shape_tables import bracketed, ends
from ecgdiff.evaluation.spectra import BANDS, SpectraComparison, compare_spectra
from ecgdiff.evaluation.summary import lacking
from ecgdiff.evaluation.tables import Table, listed, unfinished
from ecgdiff.evaluation.tasks import SAMPLING_RATE, TASKS, Case, Task

__all__ = ["absent", "averaged", "spectra_tables"]

Array = NDArray[np.float64]

_DISTANCE = "distance, dB"
_HEAD = ("method", "records", _DISTANCE, *(f"power ratio, {band}" for band in BANDS))
_DEFINITIONS = (
    "Power spectral densities by Welch's method (Hann windows of 2.56 s, half overlapping, mean "
    "removed), averaged over draws and records before they are compared, lead by lead.",
    f"`{_DISTANCE}`: log-spectral distance, the root mean square over the frequencies from 0.5 to "
    "40 Hz of 10 log10 (density of the draws / density of the truth), then the mean over the "
    "scored leads; densities below the quantization noise of the recordings count as that noise. "
    "Target 0, which chance keeps finitely many records from reaching: bootstrap replicates, in "
    "which records repeat, lie farther from it, so an interval may lie above a small distance.",
    "`power ratio`: power of the draws in a band over that of the truth, then the mean over the "
    "scored leads; the upper end of a band is excluded. Target 1.",
)


def averaged(rows: Sequence[Row]) -> dict[str, dict[str, SpectraComparison]]:
    """Averages and compares the spectra of each method on each task.

    Arguments:
        rows: The rows, each with its `weight`; those without `spectra` are left out.

    Returns:
        By task and method the comparison, whose leads are the scored leads of the task; no task
        and no method without a spectrum, and none whose draws are no curves of an ECG.
    """
    return {
        name: {label: _comparison(*_stacked(these)) for label, these in methods.items()}
        for name, methods in _by_method(without(rows)).items()
    }


def spectra_tables(
    rows: Sequence[Row], header: Mapping[str, Any], *, resamples: int = 1000
) -> list[Table]:
    """Makes the table of spectra, for each task whose rows have them.

    Arguments:
        rows: The rows, each with its `weight`; those without `spectra` are left out and counted.
        header: What the run was, from the file of its rows.
        resamples: The number of bootstrap replicates.

    Returns:
        One table per task, none if no row has `spectra`; :func:`absent` says why.
    """
    out, every = [], rows
    rows = without(rows)
    for name, methods in _by_method(rows).items():
        body = [
            [label, str(len(these)), *_cells(these, resamples)] for label, these in methods.items()
        ]
        of_task = [row for row in rows if row["task"] == name]
        lost = lacking(of_task, "spectra")
        lost += unfinished(Counter(row["method"] for row in of_task), listed(header))
        curves = left_out((row["method"] for row in every if row["task"] == name), "no spectra")
        remarks = [*_DEFINITIONS, *lost, *curves]
        out.append(Table(f"Spectra, task {name}", "", _HEAD, body, remarks, name))
    return out


def absent(rows: Sequence[Row]) -> str | None:
    """Says why there is no table of spectra, if there is none for a task that should have one.

    Arguments:
        rows: The rows.

    Returns:
        A sentence, or None if each task that scores whole leads has spectra.
    """
    rows = without(rows)
    found = _by_method(rows)
    tasks = dict.fromkeys(row["task"] for row in rows)
    missing = [name for name in tasks if name not in found and _scores_leads(TASKS[name])]
    if not missing:
        return None
    these = [row for row in rows if row["task"] in missing]
    reasons = " ".join(lacking(these, "spectra"))
    return (
        f"No spectra of task {', '.join(missing)}. {reasons} Rows made before spectra were "
        "measured do not get them: run again with another --out."
    )


def _scores_leads(task: Task) -> bool:
    """Whether a record of 10 s has scored leads that are scored as a whole."""
    record = Case(0, 0, np.zeros((len(LEADS_8), round(10 * SAMPLING_RATE)), dtype=np.float32))
    return has_spectra(task.masks(record, 0)[1])


def _by_method(rows: Sequence[Row]) -> dict[str, dict[str, list[Row]]]:
    """The rows with spectra by task, in the order of the tasks, and method."""
    out: dict[str, dict[str, list[Row]]] = {}
    for name in TASKS:
        for row in rows:
            if row["task"] == name and "spectra" in row:
                out.setdefault(name, {}).setdefault(row["method"], []).append(row)
    return out


def _stacked(rows: Sequence[Row]) -> tuple[Array, Array, Array, Array]:
    """Frequencies, densities of draws and truth, and weights."""
    weights = np.array([row["weight"] for row in rows], dtype=np.float64)
    return (*densities([row["spectra"] for row in rows]), weights)


def _comparison(f: Array, drawn: Array, true: Array, weights: Array) -> SpectraComparison:
    return compare_spectra(f, drawn[:, None], true, weights)


def _figures(f: Array, drawn: Array, true: Array, weights: Array, at: Any) -> dict[str, Array]:
    """Distance and power ratios, each the mean over leads, of records that may repeat."""
    # A record drawn twice is one of twice the weight: nothing is copied.
    counted = np.bincount(at, weights[at], minlength=len(weights)).astype(np.float64)
    found = _comparison(f, drawn, true, counted)
    figures = {_DISTANCE: found.distance_db, **found.power_ratio}
    return {name: np.asarray(values.mean()) for name, values in figures.items()}


def _cells(rows: Sequence[Row], resamples: int) -> list[str]:
    """The figures of one method with their intervals."""
    statistic = partial(_figures, *_stacked(rows))
    limits = ends(statistic, replicates([row["patient_id"] for row in rows], resamples))
    value = statistic(np.arange(len(rows)))
    return [bracketed(float(v), *map(float, limits[name])) for name, v in value.items()]
