"""From rows to figures: each score over all records, its bootstrap interval, and their table.

Scores over all scored leads weigh each lead alike (each has the same number of scored samples).
Errors are averaged over records; spread-skill, the variance explained and the amplitude variance
ratio are ratios of sums over records, recomputed in each replicate. With weights (inverse
inclusion probabilities) all means and variances over records are weighted, and records keep their
weights in replicates.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.errors import DataError
from ecgdiff.evaluation.benchmark import LEVELS, Row
from ecgdiff.evaluation.bootstrap import counts, percentiles, replicates
from ecgdiff.evaluation.calibration import nominal_coverage
from ecgdiff.evaluation.journal import failed
from ecgdiff.evaluation.weighted_scores import (
    COVERAGES,
    PER_LEAD,
    score_table,
    weighted_mean,
    weighted_scores,
)

__all__ = [
    "COLUMNS",
    "DEFINITIONS",
    "Figures",
    "amplitudes",
    "cell",
    "failures",
    "grid",
    "lacking",
    "main_table",
    "summarize",
]

Figures = dict[str, Any]
Array = NDArray[np.float64]
SHARES = ("pearson_draw", "pearson_mean", "explained")
AMPLITUDES = {"amplitude_ratio": "draws", "amplitude_ratio_mean": "mean of draws"}

DEFINITIONS = {
    "mae_draw": "mV; mean absolute error of a single draw, averaged over draws, leads and records",
    "rmse_draw": "mV; RMSE of a single draw over the scored samples of a record, averaged over "
    "draws, then records",
    "mae_mean": "mV; mean absolute error of the mean of the draws",
    "mae_median": "mV; mean absolute error of the pointwise median of the draws",
    "rmse_mean": "mV; RMSE of the mean of the draws over the scored samples of a record, averaged "
    "over records",
    "crps": "mV; fair continuous ranked probability score; absolute error for a point estimate",
    "pearson_draw": "Pearson correlation of a single draw with the truth over the scored samples "
    "of a lead, averaged over draws, leads and records",
    "pearson_mean": "the same of the mean of the draws",
    "explained": "1 - squared error of the mean of the draws / variance of the truth over the "
    "scored samples of a lead, both averaged over leads and records; below 0 where a flat line "
    "is nearer",
    "coverage_90": "share of samples inside the central 90 % rank band of the draws; compare with "
    "nominal_coverage, which m draws bound by (m - 1)/(m + 1)",
    "coverage_80": "the same for the central 80 % band",
    "coverage_50": "the same for the central 50 % band",
    "spread_skill": "sqrt((m + 1)/m mean variance of the draws) / root mean square error of their "
    "mean; target 1",
    "amplitude_ratio": "variance over records of the peak-to-peak amplitude of a lead (largest "
    "minus smallest scored sample), reconstructed / true; computed for each draw number and "
    "lead, then averaged; target 1",
    "amplitude_ratio_mean": "the same for the mean of the draws, which regresses to the mean",
    "seconds": "median wall time per record for all its draws",
    "calls": "network evaluations and vector-Jacobian products per draw",
    "interval": "95 % percentile bootstrap over patients",
}
COLUMNS = {
    "mae_draw": "MAE draw",
    "rmse_draw": "RMSE draw",
    "mae_mean": "MAE mean",
    "mae_median": "MAE median",
    "rmse_mean": "RMSE mean",
    "crps": "CRPS",
    "coverage_90": "90 % band",
    "coverage_50": "50 % band",
    "spread_skill": "spread/skill",
    "amplitude_ratio": "amplitude var. ratio",
}


def summarize(
    rows: Sequence[Row],
    leads: Sequence[str],
    *,
    weights: Sequence[float] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> Figures:
    """Computes the figures of one method on one task.

    Arguments:
        rows: Its rows, one per record, none of them failed.
        leads: The names of the scored leads.
        weights: One positive number per record; all alike if None.
        resamples: The number of bootstrap replicates.
        seed: The seed of the bootstrap; the same for all methods, so replicates are paired.

    Returns:
        `scores` with value, low, high each, `per_lead` with the same for each lead, `draws`,
        `records`, `seconds`, `devices` and, for two draws or more, `nominal_coverage` and `ranks`,
        the share of samples with each rank, over all leads.
    """
    if len(rows) < 2:
        raise DataError(f"A summary needs at least 2 records, got {len(rows)}.")
    table, w = (
        score_table(rows),
        np.asarray(weights if weights is not None else np.ones(len(rows))),
    )
    draws = table["amplitude_draws"].shape[1]
    value = {name: v[0] for name, v in weighted_scores(table, w[None]).items()}
    drawn = replicates([r["patient_id"] for r in rows], resamples, seed)
    again = weighted_scores(table, w * counts(drawn, len(rows)))
    entries = {name: _entry(v, *percentiles(again[name])) for name, v in value.items()}
    figures: Figures = {
        "records": len(rows),
        "draws": draws,
        "scores": {name: e[0] for name, e in entries.items() if value[name].ndim == 0},
        "per_lead": {
            lead: {
                name.removeprefix(PER_LEAD): e[k]
                for name, e in entries.items()
                if name.startswith(PER_LEAD)
            }
            for k, lead in enumerate(leads)
        },
        "seconds": float(np.median([r["seconds"] for r in rows])),
        "devices": sorted({r["device"] for r in rows}),
    }
    if draws > 1:
        figures["nominal_coverage"] = {
            name: round(nominal_coverage(level, draws), 6)
            for name, level in zip(COVERAGES, LEVELS, strict=True)
            if name in table
        }
        if all("ranks" in row["scores"] for row in rows):
            tally = np.array([np.sum(row["scores"]["ranks"], axis=0) for row in rows])
            (shares,) = weighted_mean(tally / tally.sum(axis=1, keepdims=True), w[None])
            figures["ranks"] = [float(f"{share:.5g}") for share in shares]
    return figures


def _entry(value: Array, low: Array, high: Array) -> list[dict[str, float]]:
    """One value with its interval for each lead, or a single one."""
    return [
        {k: float(f"{v:.5g}") for k, v in zip(("value", "low", "high"), numbers, strict=True)}
        for numbers in zip(*(np.atleast_1d(v) for v in (value, low, high)), strict=True)
    ]


def failures(rows: Sequence[Row]) -> str:
    """Says how many rows failed and why: "3 of 440 failed (3 OperatorError: ...)".

    Of rows that failed in part it says so behind that: "; 1 of 440 without shape (1 ...)".
    """
    errors = [row["error"] for row in rows if failed(row)]
    clauses = [f"{len(errors)} of {len(rows)} failed{_reasons(errors)}"]
    for part in dict.fromkeys(part for row in rows for part in row.get("failed_parts", {})):
        clauses += _part_failures(rows, part)
    return "; ".join(clauses)


def lacking(rows: Sequence[Row], part: str) -> list[str]:
    """Says for each method which records the figures of a part lack, and why: one sentence each.

    Arguments:
        rows: The rows of one task, of any methods.
        part: The name of the entry, such as "shape".
    """
    methods: dict[str, list[Row]] = {}
    for row in rows:
        methods.setdefault(row["method"], []).append(row)
    out = []
    for label, these in methods.items():
        errors = [row["error"] for row in these if failed(row)]
        bare = sum(
            not failed(row) and part not in row and part not in row.get("failed_parts", {})
            for row in these
        )
        clauses = [f"{len(errors)} of {len(these)} failed{_reasons(errors)}"] if errors else []
        clauses += _part_failures(these, part)
        clauses += [f"{bare} of {len(these)} made by a run without {part}"] if bare else []
        out += [f"`{label}`: {'; '.join(clauses)}."] if clauses else []
    return out


def _part_failures(rows: Sequence[Row], part: str) -> list[str]:
    """One clause, or none, on the rows of which a part failed."""
    errors = [row["failed_parts"][part] for row in rows if part in row.get("failed_parts", {})]
    return [f"{len(errors)} of {len(rows)} without {part}{_reasons(errors)}"] if errors else []


def _reasons(errors: Sequence[Mapping[str, str]]) -> str:
    """The most frequent reasons in parentheses, behind a space."""
    reasons = Counter(f"{e['type']}: {e['message']}" for e in errors).most_common()
    listed = "; ".join(f"{count} {reason}" for reason, count in reasons[:3])
    more = f"; {len(reasons) - 3} more" if len(reasons) > 3 else ""
    return f" ({listed}{more})" if errors else ""


def main_table(
    methods: Mapping[str, Figures], columns: Mapping[str, str] = COLUMNS, nominal: bool = True
) -> list[str]:
    """The lines of a table with one row per method.

    Arguments:
        methods: The figures of each, by its label.
        columns: The scores to show and their headings.
        nominal: Whether to put the nominal value beside a coverage.
    """
    head = ["method", *columns.values(), "calls (forward + vjp)", "s per record"]
    body = []
    for label, method in methods.items():
        calls = "{forward} + {vjp}".format(**method["calls"]) if "calls" in method else "-"
        cells = [cell(method, name, nominal) for name in columns]
        body.append([label, *cells, calls, f"{method['seconds']:.3g}"])
    return grid(head, body)


def cell(method: Figures, name: str, nominal: bool = True) -> str:
    """A score with its interval, as shown in tables; "-" where a method has none.

    Arguments:
        method: The figures of the method.
        name: The score.
        nominal: Whether to put the nominal value beside a coverage.
    """
    if name not in method["scores"]:
        return "-"
    e = method["scores"][name]
    if name in COVERAGES:
        share = "{:.1f} [{:.1f}, {:.1f}]".format(*(100 * e[k] for k in ("value", "low", "high")))
        if not nominal:
            return share
        return f"{share} (nominal {100 * method['nominal_coverage'][name]:.1f})"
    digits = 2 if name == "spread_skill" or name in (*AMPLITUDES, *SHARES) else 4
    return "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(e["value"], e["low"], e["high"], d=digits)


def amplitudes(methods: Mapping[str, Figures], leads: Sequence[str]) -> list[list[str]]:
    """The lines of amplitude variance ratios by lead, of draws and of their mean.

    Arguments:
        methods: The figures of each, by its label; those without scores are left out.
        leads: The scored leads.

    Returns:
        For each line the method and one cell per lead.
    """
    body = []
    for label, method in methods.items():
        for kind, title in AMPLITUDES.items():
            many = method["draws"] > 1
            if kind in method["scores"] and (many or kind == "amplitude_ratio"):
                entries = [method["per_lead"][lead][kind] for lead in leads]
                cells = ["{value:.2f} [{low:.2f}, {high:.2f}]".format(**e) for e in entries]
                body.append([label + (f", {title}" if many else ""), *cells])
    return body


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table."""
    rule = ["---"] * len(head)
    return ["| " + " | ".join(row) + " |" for row in (head, rule, *body)]
