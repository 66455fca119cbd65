"""The table of calibration by part of the beat, from rows of a run made with `--morphology`."""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.beat_parts import PARTS
from ecgdiff.evaluation.calibration import nominal_coverage, spread_skill
from ecgdiff.evaluation.estimates import Estimate, cell, estimates
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.tables import Table

__all__ = ["part_table"]

Array = NDArray[np.float64]

_COLUMNS = {
    "crps": "CRPS, mV",
    "coverage_50": "50 % band",
    "coverage_90": "90 % band",
    "spread_skill": "spread/skill",
}
_NOTE = (
    "Lost samples in each part of the beat, whose bounds are those of the true ECG's median beat "
    "at the R peaks of lead I; weighted to the prevalence of the fold. `records`: how many have "
    "such a part; without a P wave there is no first one."
)


def part_table(task: str, rows: Sequence[Row], resamples: int = 1000) -> Table:
    """Makes the table of one task.

    Arguments:
        task: Its name.
        rows: Its rows, each with `weight` and `shape`; of any methods.
        resamples: The number of bootstrap replicates.
    """
    body = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        for part, title in PARTS.items():
            having = [row for row in mine if (row["shape"].get("parts") or {}).get(part)]
            if len(having) > 1:
                cells = _cells(having, part, resamples)
                body.append([method, title, str(len(having)), *cells])
    head = ["method", "part of the beat", "records", *_COLUMNS.values()]
    return Table(f"Calibration by part of the beat, task {task}", _NOTE, head, body)


def _cells(rows: Sequence[Row], part: str, resamples: int) -> list[str]:
    """One line of figures with their intervals; "-" for what a point estimate has not."""
    draws = len(rows[0]["shape"]["qrs_ms"]) - 1
    entries = [row["shape"]["parts"][part] for row in rows]
    names = [
        n for n in ("crps", "mse_mean", "variance", *_COLUMNS) if entries[0].get(n) is not None
    ]
    table = {name: np.array([[entry[name]] for entry in entries]) for name in names}
    weights = np.array([row["weight"] for row in rows], dtype=np.float64)
    patients = [row["patient_id"] for row in rows]
    found = estimates(partial(_figures, table, weights, draws), patients, resamples)
    return [_cell(found[name], name, draws) if name in found else "-" for name in _COLUMNS]


def _figures(
    table: Mapping[str, Array], weights: Array, draws: int, at: NDArray[np.intp]
) -> dict[str, Array]:
    """Averages over records, weighted; spread over skill is a ratio of such averages."""
    mean = {name: np.average(x[at], axis=0, weights=weights[at]) for name, x in table.items()}
    out = {name: mean[name] for name in _COLUMNS if name in mean}
    if "variance" in mean:
        # Where nothing is wrong no spread can be compared with it.
        error = np.where(mean["mse_mean"] > 0, mean["mse_mean"], np.nan)
        out["spread_skill"] = spread_skill(mean["variance"][None], error[None], draws)
    return out


def _cell(found: Estimate, name: str, draws: int) -> str:
    if not name.startswith("coverage"):
        return cell(found, 0, ".2f" if name == "spread_skill" else ".4f")
    nominal = 100 * nominal_coverage(int(name.removeprefix("coverage_")) / 100, draws)
    return f"{cell(found, 0, '.1f', 100)} (nominal {nominal:.1f})"
