"""What a classifier reads from reconstructions: who has a condition, by method (Table 5).

The probability of a record is the average over its draws. It is judged against the statements of
PTB-XL: ranking (AUROC, average precision), decisions at thresholds that were chosen on real ECGs
of fold 9 and, if a run on fold 9 is given, on the same method's reconstructions there (a
reconstruction shifts scores), and calibration. Intervals are over patients; the differences from
the real ECG and from a reference are computed within each replicate.

Controls on the same records: the real ECG (ceiling), what was observed with all else zero (floor),
and a classifier that was trained on lead I alone, where lead I is all that was observed.
"""

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from ecgdiff.classifier import Classifier
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.diagnosis.calibration import RULES, thresholds
from ecgdiff.ecg.leads import LEADS_8, derive_12
from ecgdiff.errors import DataError
from ecgdiff.evaluation.bootstrap import Statistic
from ecgdiff.evaluation.diagnosis import (
    balanced_accuracies,
    brier_scores,
    calibration_errors,
)
from ecgdiff.evaluation.estimates import Estimate, cell, estimates
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.ranking import Ranking
from ecgdiff.evaluation.tables import Table
from ecgdiff.evaluation.tasks import Case, Problem, Task, problem

__all__ = ["COLUMNS", "DIFFERENCES", "control_rows", "figures", "own_thresholds", "tables"]

Array = NDArray[np.float64]
Thresholds = Mapping[str, Array]
Figures = dict[str, dict[str, Estimate]]
REAL, FLOOR, ONE_LEAD = "real ECG", "observed, else zero", "lead-I classifier"
COLUMNS = {
    "auroc": "AUROC",
    "average_precision": "AP",
    "youden": "bal. acc., Youden",
    "f1": "bal. acc., F1",
    "own youden": "bal. acc., own Youden",
    "own f1": "bal. acc., own F1",
    "brier": "Brier",
    "ece": "cal. error",
}
DIFFERENCES = ("auroc", "average_precision", "youden", "f1")


def control_rows(
    task: Task,
    records: Sequence[Case],
    weights: Mapping[int, float],
    classifier: Classifier,
    one_lead: Classifier,
    *,
    seed: int,
    noise: float,
) -> list[Row]:
    """Reads the controls of a task.

    Arguments:
        task: What is observed.
        records: The records.
        weights: The inverse inclusion probability of each.
        classifier: The one that read the reconstructions.
        one_lead: A classifier of lead I; it is asked where lead I alone was observed.
        seed: The run's seed, for masks and noise.
        noise: The standard deviation of the noise in mV.

    Returns:
        One row per record and control, with probabilities and without scores.
    """
    rows = []
    for case in records:
        given = problem(task, case, seed, noise)
        mask, scored = task.masks(case, seed)
        at = np.flatnonzero((mask | scored).any(axis=0))
        span = slice(at[0], at[-1] + 1)
        shown = {
            REAL: (classifier, derive_12(case.truth[:, span])),
            FLOOR: (classifier, _observed_12(given)[:, span]),
        }
        if mask.any(axis=1).tolist() == [lead == "I" for lead in LEADS_8]:
            shown[ONE_LEAD] = (one_lead, derive_12(given.y[:, span]))
        for name, (reader, signal) in shown.items():
            found = dict(
                zip(reader.classes, reader.probabilities(signal[None])[0].tolist(), strict=True)
            )
            rows.append(
                {
                    "task": task.name,
                    "method": name,
                    "ecg_id": case.ecg_id,
                    "patient_id": case.patient_id,
                    "weight": weights[case.ecg_id],
                    "statements": sorted(case.statements),
                    "probabilities": {"mean": found},
                }
            )
    return rows


def _observed_12(given: Problem) -> NDArray[np.float32]:
    """Twelve leads, zero where they were neither observed nor follow from what was."""
    limb = np.broadcast_to(given.mask[0] & given.mask[1], (6, given.mask.shape[1])).copy()
    limb[:2] = given.mask[:2]
    known = np.concatenate([limb, given.mask[2:]])
    return np.where(known, derive_12(given.y), np.float32(0))


def own_thresholds(rows: Sequence[Row]) -> dict[str, Array]:
    """Chooses thresholds on the reconstructions of one method, by rule, one per condition.

    Arguments:
        rows: Its rows on records of fold 9, of one task.

    Returns:
        By rule an array, chosen with the weights of the rows; NaN where a condition was never or
        always there.
    """
    weights = np.array([row["weight"] for row in rows])
    return thresholds(_labels(rows), _scores(rows), weights)


def figures(
    methods: Mapping[str, Sequence[Row]],
    chosen: Mapping[str, Thresholds],
    own: Mapping[str, Thresholds],
    reference: str,
    *,
    resamples: int = 1000,
) -> Figures:
    """Judges every method on the same records.

    Arguments:
        methods: The rows of each method, in the same order of records.
        chosen: For each method, by rule, the thresholds of the classifier that read it.
        own: The same from :func:`own_thresholds`, where there are any.
        reference: The method from which differences are taken, beside the real ECG.
        resamples: Bootstrap replicates.

    Returns:
        By method and figure the lists `value`, `low`, `high`, one number per condition,
        None where there is none. Of the figures in `DIFFERENCES`, "FIGURE less reference" is the
        difference from the reference, "FIGURE less real ECG" that from the real ECG, if that is
        among the methods.

    Raises:
        DataError: If the methods were not read on the same records.
    """
    some = next(iter(methods.values()))
    ids = [row["ecg_id"] for row in some]
    if other := [m for m, rows in methods.items() if [r["ecg_id"] for r in rows] != ids]:
        raise DataError(
            f"{other[0]} was read on {len(methods[other[0]])} records, {next(iter(methods))} on "
            f"{len(ids)}, and they must be the same; finish the run of every method."
        )
    labels, weights = _labels(some), np.array([row["weight"] for row in some])
    scores = {name: _scores(rows) for name, rows in methods.items()}

    statistic = _statistic(scores, labels, weights, chosen, own, reference)
    out: Figures = {name: {} for name in methods}
    found = estimates(statistic, [row["patient_id"] for row in some], resamples)
    for key, estimate in found.items():
        name, figure = key.rsplit("/", 1)
        out[name][figure] = estimate
    return out


def _statistic(
    scores: Mapping[str, Array],
    labels: NDArray[np.int64],
    weights: Array,
    chosen: Mapping[str, Thresholds],
    own: Mapping[str, Thresholds],
    reference: str,
) -> Statistic:
    """Every figure of every method as a function of the records that count."""
    rankings = {name: Ranking(labels, p) for name, p in scores.items()}
    bases = {"reference": reference, **({REAL: REAL} if REAL in scores else {})}

    def statistic(at: NDArray[np.intp]) -> dict[str, Array]:
        found = {}
        y, w = labels[at], weights[at]
        counted = np.bincount(at, w, len(labels)).astype(np.float64)
        for name, p in scores.items():
            q = p[at]
            found[f"{name}/auroc"], found[f"{name}/average_precision"] = rankings[name].scores(
                counted
            )
            for rule in RULES:
                found[f"{name}/{rule}"] = balanced_accuracies(y, q, chosen[name][rule], w)
                if name in own:
                    found[f"{name}/own {rule}"] = balanced_accuracies(y, q, own[name][rule], w)
            found[f"{name}/brier"] = brier_scores(y, q, w)
            found[f"{name}/ece"] = calibration_errors(y, q, w)
        for kind, base in bases.items():
            for name, key in product(scores, DIFFERENCES):
                change = found[f"{name}/{key}"] - found[f"{base}/{key}"]
                found[f"{name}/{key} less {kind}"] = change
        return found

    return statistic


def tables(found: Figures, task: str, reference: str) -> list[Table]:
    """Makes one table per condition, and the tables of differences.

    Arguments:
        found: From :func:`figures`.
        task: The name of the task.
        reference: The method from which differences were taken.
    """
    present = [key for key in COLUMNS if any(key in entry for entry in found.values())]
    head = ["method", *(COLUMNS[key] for key in present)]
    out = []
    for k, code in enumerate(CONDITIONS):
        body = [
            [f"`{name}`", *(_cell(entry.get(key), k) for key in present)]
            for name, entry in found.items()
        ]
        out.append(Table(f"{code}, task {task}", "", head, body, task=task))
    if REAL in found:
        out.append(_difference_table(found, task, REAL, REAL))
    return [*out, _difference_table(found, task, reference, "reference")]


def _difference_table(found: Figures, task: str, base: str, kind: str) -> Table:
    """What the other methods have more, or less, than one; the real ECG has a table of its own."""
    body = [
        [
            code,
            f"`{name}`",
            *(_cell(entry[f"{key} less {kind}"], k, "+.3f") for key in DIFFERENCES),
        ]
        for k, code in enumerate(CONDITIONS)
        for name, entry in found.items()
        if name not in (base, REAL)
    ]
    note = (
        f"Method less `{base}` on the same records; patients are drawn for both at once. "
        "Thresholds are those of real ECGs."
    )
    head = ["condition", "method", *(COLUMNS[key] for key in DIFFERENCES)]
    return Table(f"Differences from `{base}`, task {task}", note, head, body, task=task)


def _cell(entry: Estimate | None, k: int, form: str = ".3f") -> str:
    return "-" if entry is None else cell(entry, k, form)


def _labels(rows: Sequence[Row]) -> NDArray[np.int64]:
    return np.array([[code in row["statements"] for code in CONDITIONS] for row in rows], int)


def _scores(rows: Sequence[Row]) -> Array:
    return np.array([[row["probabilities"]["mean"][code] for code in CONDITIONS] for row in rows])
