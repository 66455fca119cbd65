"""The figures that a run leaves beside its rows: every method of the folder, on the run's tasks.

They are those of `table`, with the arguments of each method. A method whose rows are not all there
is shown as far as it got, and the page says so.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.summary import Figures, amplitudes, grid, main_table
from ecgdiff.evaluation.tables import amplitude_remarks, collect, remarks
from ecgdiff.evaluation.tasks import Task

__all__ = ["markdown", "report"]

_WEIGHTED = " Records are weighted by their inverse inclusion probability."


def report(
    tasks: Sequence[Task],
    rows: Sequence[Row],
    count: int,
    arguments: Mapping[str, Mapping[str, Any]],
    *,
    resamples: int = 1000,
) -> Figures:
    """Summarizes every method on every task.

    Arguments:
        tasks: The tasks.
        rows: The rows, each with its `weight`; those of other tasks are left out.
        count: How many records the list has.
        arguments: What decides the output of each method, by task and label, where it is known;
            methods are shown in this order, others behind them.
        resamples: The number of bootstrap replicates.

    Returns:
        For each task what it is, the figures of its `methods`, and `remarks`: which records they
        lack and why. A method with fewer than two records that did not fail has no figures.
    """
    names = [task.name for task in tasks]
    found = collect([row for row in rows if row["task"] in names], resamples=resamples)
    out: Figures = {}
    for task in tasks:
        known, there = arguments.get(task.name, {}), found.get(task.name, {})
        ordered = dict.fromkeys(label for label in [*known, *there] if label in there)
        lost = remarks({label: there[label] for label in ordered}, count)
        out[task.name] = {
            **task.describe(),
            "methods": {
                label: _entry(there[label], known.get(label))
                for label in ordered
                if there[label]["scores"]
            },
            "remarks": [*lost, *amplitude_remarks(ordered)],
        }
    return out


def _entry(figures: Figures, arguments: Mapping[str, Any] | None) -> Figures:
    """The figures with arguments before them, and calls by name."""
    out: Figures = {} if arguments is None else {"arguments": dict(arguments)}
    if "calls" in figures:
        out["calls"] = dict(zip(("forward", "vjp"), figures["calls"], strict=True))
    kept = {k: v for k, v in figures.items() if k not in ("calls", "failed", "rows")}
    return {**out, **kept}


def markdown(document: Mapping[str, Any]) -> str:
    """Renders the document written by `python -m ecgdiff.evaluation run` as Markdown.

    Arguments:
        document: It, as read from the JSON file.
    """
    records, settings = document["records"], document["settings"]
    lines = ["# First figures"]
    for command in document["commands"]:
        lines += ["", f"`{command}`"]
    lines += [
        "",
        f"{len(records['ecg_ids'])} records ({records['name']}), {settings['draws']} draws, "
        f"seed {settings['seed']}, noise {settings['noise']} mV, ecgdiff {settings['version']}, "
        f"priors (SHA-256): {_priors(document)}. "
        "Errors in mV; brackets: 95 % bootstrap interval over patients."
        + (_WEIGHTED if any(p < 1 for p in records.get("inclusion", ())) else ""),
    ]
    for name, task in document["tasks"].items():
        lines += ["", f"## {name}", "", f"Observed: {task['observed']}. Scored: {task['scored']}."]
        lines += ["", *main_table(task["methods"]), ""]
        head = ["amplitude variance ratio", *task["scored_leads"]]
        lines += grid(head, amplitudes(task["methods"], task["scored_leads"]))
        lines += [f"\n{remark}" for remark in task["remarks"]]
    lines += ["", "## Definitions", ""]
    lines += [f"- `{key}`: {text}" for key, text in document["definitions"].items()]
    return "\n".join(lines) + "\n"


def _priors(document: Mapping[str, Any]) -> str:
    found = [f"{name} ({digest})" for name, digest in document["priors"].items()]
    return ", ".join(found) or "none"
