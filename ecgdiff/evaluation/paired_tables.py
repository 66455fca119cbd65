"""Tables of paired differences: is a method better than another on the same records?

Intervals of two methods may overlap though one is better on nearly every record, because most of
their width is that of the records. The difference is taken record by record, on the records that
both have, and again in each bootstrap replicate of patients.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.bootstrap import intervals, replicates
from ecgdiff.evaluation.journal import Row, failed
from ecgdiff.evaluation.summary import Figures
from ecgdiff.evaluation.tables import ERRORS, Table, listed, remarks

__all__ = ["differences", "paired_tables"]

Array = NDArray[np.float64]

DEFAULT = "conditional"
SCORES = ("crps", "mae_mean", "rmse_mean")
_NOTE = (
    "Method less `{}`, record by record, on the records that both have: negative is better. "
    "Brackets that leave out 0 tell them apart."
)


def differences(
    rows: Sequence[Row], others: Sequence[Row], *, resamples: int = 1000
) -> dict[str, tuple[float, float, float]]:
    """Compares two methods on one task.

    Arguments:
        rows: The rows of one, each with its `weight`.
        others: The rows of the other, of the same records in the same order.
        resamples: The number of bootstrap replicates.

    Returns:
        For each of `SCORES` the weighted mean over records of the first's less the other's, in mV,
        and the ends of its interval.
    """
    gaps = {score: _values(rows, score) - _values(others, score) for score in SCORES}
    weights = np.array([row["weight"] for row in rows], dtype=np.float64)
    statistic = partial(_means, gaps, weights)
    value = statistic(np.arange(len(rows)))
    ends = intervals(statistic, replicates([row["patient_id"] for row in rows], resamples))
    return {
        score: (float(value[score]), float(ends[score][0]), float(ends[score][1]))
        for score in SCORES
    }


def _values(rows: Sequence[Row], score: str) -> Array:
    """One number per record: the mean over leads, or the score of all leads at once."""
    return np.array([np.mean(row["scores"][score]) for row in rows])


def _means(gaps: Mapping[str, Array], weights: Array, at: NDArray[np.intp]) -> dict[str, Array]:
    w = weights[at]
    return {name: np.asarray(w @ gap[at] / w.sum()) for name, gap in gaps.items()}


def paired_tables(
    rows: Sequence[Row],
    header: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Figures]],
    *,
    resamples: int = 1000,
) -> list[Table]:
    """Makes the table of differences from the default sampler, or the first method without it.

    Arguments:
        rows: The rows, each with its `weight`.
        header: What the run was, from the file of its rows.
        found: The figures of all records, from :func:`ecgdiff.evaluation.tables.collect`.
        resamples: The number of bootstrap replicates.

    Returns:
        One table for each task with two methods or more.
    """
    head = ["method", "records of both", *(f"{ERRORS[score]}, mV" for score in SCORES)]
    out = []
    for name, methods in found.items():
        if len(methods) < 2:
            continue
        reference = DEFAULT if DEFAULT in methods else next(iter(methods))
        scored = {
            label: {
                row["ecg_id"]: row
                for row in rows
                if (row["task"], row["method"]) == (name, label) and not failed(row)
            }
            for label in methods
        }
        body = [
            [label, *_cells(mine, scored[reference], resamples)]
            for label, mine in scored.items()
            if label != reference
        ]
        title = f"Differences from {reference}, task {name}"
        lost = remarks(methods, listed(header))
        out.append(Table(title, _NOTE.format(reference), head, body, lost, name))
    return out


def _cells(mine: Mapping[int, Row], reference: Mapping[int, Row], resamples: int) -> list[str]:
    both = sorted(mine.keys() & reference.keys())
    if len(both) < 2:
        return [str(len(both)), *("-" for _ in SCORES)]
    pair = ([of[i] for i in both] for of in (mine, reference))
    found = differences(*pair, resamples=resamples)
    return [
        str(len(both)),
        *("{:+.4f} [{:+.4f}, {:+.4f}]".format(*found[score]) for score in SCORES),
    ]
