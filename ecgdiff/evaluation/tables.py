r"""Tables of an evaluation from its rows: errors, calibration, by lead; Markdown and LaTeX.

Where records were included with different probabilities, each is weighted by the inverse of its
own, so that the figures are those of the fold and not of the list. A method that failed on some
records is averaged over the others, and the table says so; it names, too, the parts (shape,
spectra, reading) that some of the others lack, which have scores all the same.

What all tables of a task have in common, which records and how weighted, stands above the first of
them (:func:`page`), and in no other.
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
    "listed",
    "page",
    "paragraph",
    "remarks",
    "source",
    "tables",
    "unfinished",
]

ERRORS = {
    "mae_draw": "MAE draw",
    "rmse_draw": "RMSE draw",
    "mae_mean": "MAE mean",
    "mae_median": "MAE median",
    "rmse_mean": "RMSE mean",
    "crps": "CRPS",
}
AGREEMENT = {"pearson_mean": "Pearson r, mean", "explained": "variance explained"}
CALIBRATION = {
    "coverage_50": "50 % band",
    "coverage_80": "80 % band",
    "coverage_90": "90 % band",
    "spread_skill": "spread/skill",
    "amplitude_ratio": "amplitude var. ratio",
    "amplitude_ratio_mean": "amplitude var. ratio, mean of draws",
}
BY_LEAD = {"crps": "CRPS, mV", "mae_mean": "MAE mean, mV", "coverage_90": "90 % band"}
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
        note: What it was made of, one paragraph; may be empty.
        head: The headings of its columns.
        body: Its rows.
        remarks: Sentences below it.
        task: The task whose figures it shows, by which :func:`page` groups tables.
    """

    title: str
    note: str
    head: Sequence[str]
    body: Sequence[Sequence[str]]
    remarks: Sequence[str] = ()
    task: str = ""

    def markdown(self) -> str:
        """Renders it as Markdown."""
        above = ["", self.note] if self.note else []
        lines = [f"## {self.title}", *above, "", *grid(self.head, self.body)]
        lines += [f"\n{remark}" for remark in self.remarks]
        return "\n".join(lines) + "\n"

    def latex(self) -> str:
        """Renders it as wide as the text, its note below; needs booktabs and graphicx."""
        rows = [" & ".join(map(_escaped, row)) + r" \\" for row in (self.head, *self.body)]
        columns = f"l{'r' * (len(self.head) - 1)}"
        below = " ".join(filter(None, [self.note, *self.remarks]))
        lines = [
            "% Needs the packages booktabs and graphicx.",
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escaped(self.title)}.}}",
            rf"\resizebox{{\textwidth}}{{!}}{{\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            rows[0],
            r"\midrule",
            *rows[1:],
            r"\bottomrule",
            r"\end{tabular}}",
            *([rf"\par\smallskip\raggedright\footnotesize {_escaped(below)}"] if below else []),
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
    """Makes the tables of errors and calibration, over all leads and by lead, for each task.

    Arguments:
        found: The figures, from :func:`collect`.
        header: What the run was, from the file of its rows.
    """
    return [
        make(name, methods, header)
        for name, methods in found.items()
        for make in (_error_table, _calibration_table, _lead_table, _amplitude_table)
    ]


def _error_table(name: str, methods: Mapping[str, Figures], header: Mapping[str, Any]) -> Table:
    head = [
        "method",
        "records",
        *ERRORS.values(),
        *AGREEMENT.values(),
        "calls (forward + vjp)",
        "s per record",
    ]
    body = []
    for label, figures in methods.items():
        calls = " + ".join(map(str, figures.get("calls", "-")))
        seconds = f"{figures['seconds']:.3g}" if "seconds" in figures else "-"
        cells = [cell(figures, score) for score in (*ERRORS, *AGREEMENT)]
        body.append([label, str(figures["records"]), *cells, calls, seconds])
    title = f"Reconstruction errors in mV, task {name}"
    return Table(title, "", head, body, remarks(methods, listed(header)), name)


def _calibration_table(
    name: str, methods: Mapping[str, Figures], header: Mapping[str, Any]
) -> Table:
    head = ["method", "records", *CALIBRATION.values()]
    body = [
        [label, str(figures["records"]), *(cell(figures, score) for score in CALIBRATION)]
        for label, figures in methods.items()
    ]
    title = f"Calibration, task {name}"
    lost = [*remarks(methods, listed(header)), *amplitude_remarks(methods)]
    return Table(title, "", head, body, lost, name)


def _lead_table(name: str, methods: Mapping[str, Figures], header: Mapping[str, Any]) -> Table:
    leads = TASKS[name].scored_leads
    body = []
    for label, figures in methods.items():
        for score, title in BY_LEAD.items():
            if score not in figures["scores"]:
                continue
            if score in figures.get("nominal_coverage", {}):
                title += f" (nominal {100 * figures['nominal_coverage'][score]:.1f})"
            alone = [{**figures, "scores": figures["per_lead"][lead]} for lead in leads]
            body.append([label, title, *(cell(entry, score, nominal=False) for entry in alone)])
    lost = remarks(methods, listed(header))
    head = ["method", "figure", *leads]
    return Table(f"Errors and coverage by lead, task {name}", "", head, body, lost, name)


def _amplitude_table(
    name: str, methods: Mapping[str, Figures], header: Mapping[str, Any]
) -> Table:
    leads = TASKS[name].scored_leads
    body = amplitudes(methods, leads)
    title = f"Amplitude variance ratios by lead, task {name}"
    lost = [*remarks(methods, listed(header)), *amplitude_remarks(methods)]
    return Table(title, _AMPLITUDE_RATIO, ["method", *leads], body, lost, name)


def page(made: Sequence[Table], header: Mapping[str, Any], *, latex: bool = False) -> str:
    """Renders tables task by task, with what they are computed from above those of a task.

    Arguments:
        made: The tables, each with its task.
        header: What the run was, from the file of its rows.
        latex: Whether to render LaTeX instead of Markdown.
    """
    parts = []
    for name in [name for name in TASKS if any(table.task == name for table in made)]:
        parts.append(paragraph(f"Task {name}", source(name, header), latex=latex))
        these = [table for table in made if table.task == name]
        parts += [table.latex() if latex else table.markdown() for table in these]
    return "\n".join(parts)


def paragraph(title: str, text: str, *, latex: bool = False) -> str:
    """Renders a text with its heading, to stand above tables.

    Arguments:
        title: The heading.
        text: The text.
        latex: Whether to render LaTeX instead of Markdown.
    """
    if latex:
        return rf"\paragraph{{{_escaped(title)}.}} {_escaped(text)}" + "\n"
    return f"# {title}\n\n{text}\n"


def source(name: str, header: Mapping[str, Any]) -> str:
    """Says what the figures of a task are computed from.

    Arguments:
        name: The task.
        header: What the run was, from the file of its rows.
    """
    task, records, settings = TASKS[name].describe(), header["records"], header["settings"]
    count = len(records["ecg_ids"])
    weighted = ""
    if any(p < 1 for p in records.get("inclusion", ())):
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


def listed(header: Mapping[str, Any]) -> int:
    """Counts the records of the list, computed or not.

    Arguments:
        header: What the run was, from the file of its rows.
    """
    return len(header["records"]["ecg_ids"])


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
        out += unfinished({label: figures["rows"]}, count)
    return out


def unfinished(rows: Mapping[str, int], count: int) -> list[str]:
    """Says of each method that is not through how many records it lacks: one sentence each.

    Arguments:
        rows: How many records of the list each has rows of.
        count: How many records the list has.
    """
    return [
        f"`{label}`: {count - done} of {count} not computed yet."
        for label, done in rows.items()
        if done < count
    ]


def amplitude_remarks(methods: Iterable[str]) -> list[str]:
    """Says which of some methods have no amplitude ratio, and why."""
    return comonotone.left_out(methods, "no amplitude ratio of draws")
