"""Thresholds chosen on each method's own reconstructions of fold 9, and that they are its own.

A reconstruction shifts the scores of a classifier, so a method may have thresholds of its own. A
label says little of a method: weights, draws and noise must be those of the run that is judged.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.errors import DataError
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.parquet import read_rows
from ecgdiff.evaluation.readings import own_thresholds
from ecgdiff.prior import needed_prior
from ecgdiff.samplers import named_sampler

__all__ = ["chosen_on_fold_9"]

Header = Mapping[str, Any]
Thresholds = dict[str, NDArray[np.float64]]


def chosen_on_fold_9(
    path: Path, there: Header, here: Header, used: Sequence[tuple[str, str]]
) -> dict[str, dict[str, Thresholds]]:
    """Chooses thresholds for each method that was run on fold 9, too.

    Arguments:
        path: The rows.parquet of the run on fold 9.
        there: Its header.
        here: The header of the run that is judged.
        used: The tasks and methods to be judged; others are left out.

    Returns:
        By task and method, by rule the thresholds, one per condition.

    Raises:
        DataError: If the run is not on fold 9, or a method is not the same in both.
    """
    if (fold := there["records"]["fold"]) != 9:
        raise DataError(f"{path}: thresholds are chosen on fold 9; this is a run on fold {fold}.")
    found: dict[tuple[str, str], list[Row]] = {}
    for row in read_rows(path):
        if "probabilities" in row and (row["task"], row["method"]) in used:
            found.setdefault((row["task"], row["method"]), []).append(row)
    out: dict[str, dict[str, Thresholds]] = {}
    for (task, label), rows in found.items():
        if changed := list(_differences(task, label, there, here)):
            raise DataError(
                f"{path}: `{label}` on task {task} is not the method of the run that is judged "
                f"({', '.join(changed)}). Run fold 9 again as that run, or leave out --own."
            )
        out.setdefault(task, {})[label] = own_thresholds(rows)
    return out


def _differences(task: str, label: str, there: Header, here: Header) -> Iterator[str]:
    """In what a method differs between two runs; what one of them does not say is not compared."""
    for key in ("draws", "noise"):
        yield from _unequal(key, there["settings"][key], here["settings"][key])
    if name := _prior(label):
        digests = (header.get("priors", {}).get(name) for header in (there, here))
        yield from _unequal(f"prior {name}", *digests)
    mine, theirs = (h.get("methods", {}).get(task, {}).get(label, {}) for h in (here, there))
    if mine and theirs:
        for key in dict.fromkeys([*theirs, *mine]):
            yield from _unequal(key, theirs.get(key, "not set"), mine.get(key, "not set"))


def _unequal(name: str, there: object, here: object) -> Iterator[str]:
    if there is not None and here is not None and there != here:
        yield f"{name}: {there} there, {here} here"


def _prior(label: str) -> str | None:
    """The prior of a sampler by the sampler's label; None for a control."""
    text, _, named = label.removesuffix(", bfloat16").partition(", prior ")
    try:
        return named or needed_prior(named_sampler(text))
    except ValueError:
        return None
