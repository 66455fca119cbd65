"""Tables of calibration by condition: draws that are right on the whole may be too sure of some.

Weighted to the prevalence of the fold, records with a condition count little, so a figure of all
records says nothing of them. Here each condition stands alone, and its records are alike: none is
weighted. A record with two conditions counts for both.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.evaluation import comonotone
from ecgdiff.evaluation.journal import Row, failed
from ecgdiff.evaluation.summary import Figures, cell, summarize
from ecgdiff.evaluation.tables import CALIBRATION, Table, amplitude_remarks, listed, remarks
from ecgdiff.evaluation.tasks import TASKS

__all__ = ["NONE", "by_condition", "condition_tables"]

NONE = "none of these"
LEAST = 10  # records; the bootstrap of fewer says little, and of a variance nothing
_SHOWN = ("coverage_90", "coverage_50", "spread_skill", "amplitude_ratio")
_COLUMNS = {"crps": "CRPS, mV"} | {name: CALIBRATION[name] for name in _SHOWN}
_NOTE = (
    "Records by the statements of PTB-XL, not weighted; one with two of these conditions counts "
    f"for both. `{NONE}`: those of the list without any. Fewer than {LEAST} records have no "
    "figures."
)


def by_condition(
    rows: Sequence[Row], leads: Sequence[str], *, resamples: int = 1000
) -> dict[str, Figures]:
    """Summarizes one method on one task for each condition.

    Arguments:
        rows: Its rows, each with its `statements`; those that failed are left out.
        leads: The scored leads.
        resamples: The number of bootstrap replicates.

    Returns:
        By condition, and for records with `NONE`, the figures of
        :func:`ecgdiff.evaluation.summary.summarize`, of which `scores` is empty where there are
        fewer than `LEAST` records.
    """
    good = [row for row in rows if not failed(row)]
    groups = {code: [row for row in good if code in row["statements"]] for code in CONDITIONS}
    groups[NONE] = [row for row in good if not set(CONDITIONS) & set(row["statements"])]
    return {
        name: summarize(these, leads, resamples=resamples)
        if len(these) >= LEAST
        else {"scores": {}, "records": len(these)}
        for name, these in groups.items()
    }


def condition_tables(
    rows: Sequence[Row],
    header: Mapping[str, Any],
    found: Mapping[str, Mapping[str, Figures]],
    *,
    resamples: int = 1000,
) -> list[Table]:
    """Makes the table of calibration by condition, for each task.

    Arguments:
        rows: The rows; those without `statements` are left out.
        header: What the run was, from the file of its rows.
        found: The figures of all records, from :func:`ecgdiff.evaluation.tables.collect`.
        resamples: The number of bootstrap replicates.

    Returns:
        One table per task, with one line per method and condition; none without `statements`.
    """
    out = []
    for name, methods in found.items():
        these = [row for row in rows if row["task"] == name and "statements" in row]
        body = [line for label in methods for line in _lines(name, label, these, resamples)]
        if body:
            head = ["method", "condition", "records", *_headings(methods)]
            lost = [*remarks(methods, listed(header)), *amplitude_remarks(methods)]
            title = f"Calibration by condition, task {name}"
            out.append(Table(title, _NOTE, head, body, lost, name))
    return out


def _headings(methods: Mapping[str, Figures]) -> list[str]:
    """Those of the scores, with the nominal value of bands, which is that of all methods."""
    nominal: dict[str, float] = {}
    for figures in methods.values():
        nominal |= figures.get("nominal_coverage", {})
    return [
        f"{title} (nominal {100 * nominal[score]:.1f})" if score in nominal else title
        for score, title in _COLUMNS.items()
    ]


def _lines(name: str, label: str, rows: Sequence[Row], resamples: int) -> list[list[str]]:
    mine = [row for row in rows if row["method"] == label]
    if not mine:
        return []
    out = []
    groups = by_condition(mine, TASKS[name].scored_leads, resamples=resamples)
    for condition, figures in groups.items():
        if label in comonotone.LABELS:
            figures["scores"].pop("amplitude_ratio", None)
        cells = (cell(figures, score, nominal=False) for score in _COLUMNS)
        out.append([label, condition, str(figures["records"]), *cells])
    return out
