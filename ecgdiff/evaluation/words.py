"""What the words of a diagnosis are worth: how often each is said, with a condition and without.

Each record is read as :func:`ecgdiff.diagnose` would: "above threshold" or "below threshold" if
the interval over draws lies there, else "undecided", and the share of draws that vote for the
condition.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.diagnosis.result import Diagnosis
from ecgdiff.evaluation.estimates import Estimate, cell, estimates
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.tables import Table

__all__ = ["WORDS", "shares", "table"]

Array = NDArray[np.float64]
Shares = dict[str, dict[str, Estimate]]
WORDS = ("above threshold", "undecided", "below threshold")
TRUTHS = ("with it", "without")


def shares(
    methods: Mapping[str, Sequence[Row]], thresholds: Array, *, resamples: int = 1000
) -> Shares:
    """Computes the shares of records that get each word, and their mean vote.

    Arguments:
        methods: The rows of each method, with the probabilities of every draw and weights; a
            method of a single draw, or none, is left out.
        thresholds: One per condition.
        resamples: Bootstrap replicates, over patients.

    Returns:
        By method and "WORD, TRUTH" (and "votes, TRUTH") the lists `value`, `low`, `high`, one
        number per condition, None where no record has that truth.
    """
    return {
        name: _of_one(rows, thresholds, resamples)
        for name, rows in methods.items()
        if all(len(_draws(row, CONDITIONS[0])) > 1 for row in rows)
    }


def _of_one(rows: Sequence[Row], thresholds: Array, resamples: int) -> dict[str, Estimate]:
    read = [_read(row, thresholds) for row in rows]
    words = np.array([d.readings() for d in read])
    said = {word: (words == word).astype(float) for word in WORDS}
    said["votes"] = np.array([d.votes() for d in read])
    labels = np.array([[code in row["statements"] for code in CONDITIONS] for row in rows])
    weights = np.array([row["weight"] for row in rows], float)

    def statistic(at: NDArray[np.intp]) -> dict[str, Array]:
        found = {}
        for truth, there in zip(TRUTHS, (labels, ~labels), strict=True):
            w = weights[at, None] * there[at]
            for word, s in said.items():
                with np.errstate(invalid="ignore"):
                    found[f"{word}, {truth}"] = (w * s[at]).sum(0) / w.sum(0)
        return found

    return estimates(statistic, [row["patient_id"] for row in rows], resamples)


def _draws(row: Row, code: str) -> Sequence[float]:
    found: Sequence[float] = (row["probabilities"].get("draws") or {}).get(code, ())
    return found


def _read(row: Row, thresholds: Array) -> Diagnosis:
    probability = np.array([_draws(row, code) for code in CONDITIONS]).T
    return Diagnosis(CONDITIONS, CONDITIONS, probability, thresholds)


def table(found: Shares, task: str) -> Table:
    """Makes one table of all methods and conditions.

    Arguments:
        found: From :func:`shares`.
        task: The name of the task.
    """
    keys = [f"{word}, {truth}" for truth in TRUTHS for word in (*WORDS, "votes")]
    body = [
        [code, f"`{name}`", *(cell(entry[key], k, ".1f", 100) for key in keys)]
        for k, code in enumerate(CONDITIONS)
        for name, entry in found.items()
    ]
    return Table(
        f"Words and votes, task {task}",
        "Shares of records in %: the word that `diagnose` gives them (Youden thresholds of real "
        "ECGs; interval over draws), and the mean share of draws that vote for it.",
        ["condition", "method", *keys],
        body,
        task=task,
    )
