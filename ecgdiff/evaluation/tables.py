r"""Tables of an evaluation from its rows: errors, calibration, amplitudes; Markdown and LaTeX.

Where records were included with different probabilities, each is weighted by the inverse of its
own, so that the figures are those of the fold and not of the list. A method that failed on some
records is averaged over the others, and the table says so; it names, too, the parts (shape,
spectra, reading) that some of the others lack, which have scores all the same.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ecgdiff.errors import DataError
from ecgdiff.evaluation import comonotone
from ecgdiff.evaluation.journal import Row, failed, incomplete
from ecgdiff.evaluation.summary import Figures, amplitudes, cell, failures, grid, summarize
from ecgdiff.evaluation.tasks import TASKS

__all__ = [
    "CALIBRATION",
    "ERRORS",
    "Table",
    "amplitude_remarks",
    "collect",
    "remarks",
    "source",
    "tables",
]

ERRORS = {
    "mae_draw": "MAE draw",
    "rmse_draw": "RMSE draw",
    "mae_mean": "MAE mean",
    "rmse_mean": "RMSE mean",
    "crps": "CRPS",
}
CALIBRATION = {
    "coverage_50": "50 % band",
    "coverage_80": "80 % band",
    "coverage_90": "90 % band",
    "spread_skill": "spread/skill",
    "amplitude_ratio": "amplitude var. ratio",
    "amplitude_ratio_mean": "amplitude var. ratio, mean of draws",
}
_AMPLITUDE_RATIO = (
    "Variance over records of the peak-to-peak amplitude of a lead, reconstructed over true; of "
    "draws, computed for each draw number and then averaged. Target 1; the mean of the draws "
    "regresses to the mean and stays below."
)

_ESCAPES = str.maketrans(
    {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    | {c: f"\\{c}" for c in "&%$#_{}"}
)


@dataclass(frozen=True)
class Table:
    """A table of texts.

    Arguments:
        title: Its heading.
        note: What it was made of, one paragraph.
        head: The headings of its columns.
        body: Its rows.
        remarks: Sentences below it.
    """

    title: str
    note: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]
    remarks: Sequence[str] = ()

    def markdown(self) -> str:
        """Renders it as Markdown."""
        lines = [f"## {self.title}", "", self.note, "", *grid(self.head, self.body)]
        lines += [f"\n{remark}" for remark in self.remarks]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """Renders it as a LaTeX table; needs the package booktabs."""
        caption = " ".join([f"{self.title}.", self.note, *self.remarks])
        rows = [" & ".join(map(_escaped, row)) + r" \\" for row in (self.head, *self.body)]
        lines = [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(caption)}}}",
            rf"\begin{{tabular}}{{l{'r' * (len(self.head) - 1)}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
        ]
        return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("`", "").translate(_ESCAPES)


def collect(rows: Sequence[Row], *, resamples: int = 1000) -> dict[str, dict[str, Figures]]:
    """Summarizes every method on every task.

    Arguments:
        rows: The rows, each with its `weight`.
        resamples: The number of bootstrap replicates.

    Returns:
        By task and method the figures of :func:`ecgdiff.evaluation.summary.summarize`, with
        `rows`, how many there are, `calls` per draw where rows have them, and `failed`, a text, if
        some did, or a part of some. With fewer than two that did not, `scores` is empty. Draws
        that are no curves of an ECG have no amplitude ratio; their mean has.

    Raises:
        DataError: If a task is unknown.
    """
    if unknown := {row["task"] for row in rows} - set(TASKS):
        raise DataError(f"Unknown tasks {sorted(unknown)}; there are {', '.join(TASKS)}.")
    out: dict[str, dict[str, Figures]] = {}
    for name, task in TASKS.items():
        for label in dict.fromkeys(row["method"] for row in rows if row["task"] == name):
            these = [row for row in rows if (row["task"], row["method"]) == (name, label)]
            good = [row for row in these if not failed(row)]
            figures: Figures = {"scores": {}, "records": len(good), "draws": 0}
            if len(good) > 1:
                weights = [row["weight"] for row in good]
                figures = summarize(good, task.scored_leads, weights=weights, resamples=resamples)
            if label in comonotone.LABELS:
                for scores in (figures["scores"], *figures.get("per_lead", {}).values()):
                    scores.pop("amplitude_ratio", None)
            figures["rows"] = len(these)
            if "calls" in these[-1]:
                figures["calls"] = these[-1]["calls"]
            if any(map(incomplete, these)):
                figures["failed"] = failures(these)
            out.setdefault(name, {})[label] = figures
    return out


def tables(found: Mapping[str, Mapping[str, Figures]], header: Mapping[str, Any]) -> list[Table]:
    """Makes the tables of errors, of calibration and of amplitudes by lead, for each task.

    Arguments:
        found: The figures, from :func:`collect`.
        header: What the run was, from the file of its rows.
    """
    return [
        make(name, methods, header)
        for name, methods in found.items()
        for make in (_error_table, _calibration_table, _amplitude_table)
    ]


def _error_table(name: str, methods: Mapping[str, Figures], header: Mapping[str, Any]) -> Table:
    head = ["method", "records", *ERRORS.values(), "calls (forward + vjp)", "s per record"]
    body = []
    for label, figures in methods.items():
        calls = " + ".join(map(str, figures.get("calls", "-")))
        seconds = f"{figures['seconds']:.3g}" if "seconds" in figures else "-"
        cells = [cell(figures, score) for score in ERRORS]
        body.append([label, str(figures["records"]), *cells, calls, seconds])
    title = f"Reconstruction errors in mV, task {name}"
    return Table(title, source(name, header), head, body, _lost(methods, header))


def _calibration_table(
    name: str, methods: Mapping[str, Figures], header: Mapping[str, Any]
) -> Table:
    head = ["method", "records", *CALIBRATION.values()]
    body = [
        [label, str(figures["records"]), *(cell(figures, score) for score in CALIBRATION)]
        for label, figures in methods.items()
    ]
    title = f"Calibration, task {name}"
    lost = [*_lost(methods, header), *amplitude_remarks(methods)]
    return Table(title, source(name, header), head, body, lost)


def _amplitude_table(
    name: str, methods: Mapping[str, Figures], header: Mapping[str, Any]
) -> Table:
    leads = TASKS[name].scored_leads
    note = f"{source(name, header)} {_AMPLITUDE_RATIO}"
    body = amplitudes(methods, leads)
    title = f"Amplitude variance ratios by lead, task {name}"
    lost = [*_lost(methods, header), *amplitude_remarks(methods)]
    return Table(title, note, ["method", *leads], body, lost)


def source(name: str, header: Mapping[str, Any]) -> str:
    """Says what the figures of a task are computed from, for the note of a table.

    Arguments:
        name: The task.
        header: What the run was, from the file of its rows.
    """
    task, records, settings = TASKS[name].describe(), header["records"], header["settings"]
    count = len(records["ecg_ids"])
    weighted = ""
    if records.get("inclusion"):
        w = [1 / p for p in records["inclusion"]]
        certain = sum(p == 1 for p in records["inclusion"])
        alike = sum(w) ** 2 / sum(v**2 for v in w)  # Kish's effective sample size
        weighted = (
            f" ({certain} taken with certainty, {count - certain} drawn), weighted by inverse "
            f"inclusion probability to the prevalence of the fold (as good as {alike:.0f} records "
            "of equal weight)"
        )
    return (
        f"Observed: {task['observed']}. Scored: {task['scored']}. {count} records of fold "
        f"{records['fold']} (`{records['name']}`){weighted}; {settings['draws']} draws, seed "
        f"{settings['seed']}, noise {settings['noise']} mV, ecgdiff {settings['version']}. "
        "Brackets: 95 % bootstrap interval over patients."
    )


def _lost(methods: Mapping[str, Figures], header: Mapping[str, Any]) -> list[str]:
    return remarks(methods, len(header["records"]["ecg_ids"]))


def remarks(methods: Mapping[str, Figures], count: int) -> list[str]:
    """Says which records the figures lack, and why: some sentences for each method.

    Arguments:
        methods: The figures by method, from :func:`collect`.
        count: How many records the list has.
    """
    out = []
    for label, figures in methods.items():
        if "failed" in figures:
            out.append(f"`{label}`: {figures['failed']}.")
        if figures["rows"] < count:
            out.append(f"`{label}`: {count - figures['rows']} of {count} not computed yet.")
    return out


def amplitude_remarks(methods: Iterable[str]) -> list[str]:
    """Says which of some methods have no amplitude ratio, and why."""
    return comonotone.left_out(methods, "no amplitude ratio of draws")
