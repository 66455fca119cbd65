"""From the rows of a run to the tables of what a classifier reads from them, with controls."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.classifier import Classifier, load_classifier
from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.errors import DataError
from ecgdiff.evaluation.journal import Row, failed
from ecgdiff.evaluation.parquet import read_header, read_rows
from ecgdiff.evaluation.readings import ONE_LEAD, control_rows, figures, own_thresholds, tables
from ecgdiff.evaluation.records import RecordList, cases
from ecgdiff.evaluation.summary import lacking
from ecgdiff.evaluation.tables import Table
from ecgdiff.evaluation.tasks import TASKS

__all__ = ["report"]

Thresholds = dict[str, NDArray[np.float64]]


def report(
    rows: Path,
    root: str,
    *,
    classifier: str = "default",
    one_lead: str = "lead_I",
    own: Path | None = None,
    reference: str = "conditional",
    resamples: int = 1000,
) -> tuple[dict[str, Any], list[Table]]:
    """Judges what was read from every method of a run, on each task.

    A record that one method failed on, or whose draws the classifier failed to read, is left out
    for all, and the note says how many there were.

    Arguments:
        rows: The rows.parquet of a run with a classifier.
        root: Folder of PTB-XL, for the controls.
        classifier: That classifier, by name or folder.
        one_lead: The classifier of lead I.
        own: The rows.parquet of a run on fold 9, to choose thresholds for each method.
        reference: The method from which differences are taken.
        resamples: Bootstrap replicates.

    Returns:
        The figures by task, method and figure, and the tables.

    Raises:
        DataError: If no classifier read the draws of the run, or another one, or no record was
            read for every method, or a run on fold 9 is none.
    """
    header, reader = read_header(rows), load_classifier(classifier)
    _check_reader(header, reader, rows)
    work = _Work(header, reader, load_classifier(one_lead), root, reference, resamples)
    read, chosen_there = read_rows(rows), {} if own is None else _own(own, reader)
    found, made = {}, []
    for name in TASKS:
        if these := [row for row in read if row["task"] == name]:
            if reference not in {row["method"] for row in these}:
                there = ", ".join(dict.fromkeys(row["method"] for row in these))
                raise DataError(
                    f"{rows}: there is no method {reference!r} on task {name}; name another "
                    f"--reference, one of {there}."
                )
            found[name], more = work.judge(name, these, chosen_there.get(name, {}))
            made += more
    return found, made


class _Work:
    """Judges one task after another on the same records."""

    def __init__(
        self,
        header: dict[str, Any],
        reader: Classifier,
        single: Classifier,
        root: str,
        reference: str,
        resamples: int,
    ) -> None:
        self.header, self.chosen = header, _record_list(header)
        self.reader, self.single = reader, single
        self.signals = cases(PTBXL(root), self.chosen)
        self.reference, self.resamples = reference, resamples

    def judge(
        self, name: str, rows: list[Row], own: dict[str, Thresholds]
    ) -> tuple[dict[str, Any], list[Table]]:
        """The figures of one task, and its tables."""
        settings = self.header["settings"]
        lost = {row["ecg_id"] for row in rows if "probabilities" not in row}
        if lost.issuperset(row["ecg_id"] for row in rows):
            raise DataError(
                f"No record of task {name} was read for every method: "
                f"{' '.join(lacking(rows, 'probabilities'))}"
            )
        controls = control_rows(
            TASKS[name],
            [case for case in self.signals if case.ecg_id not in lost],
            self.chosen.weights,
            self.reader,
            self.single,
            seed=settings["seed"],
            noise=settings["noise"],
        )
        methods = _by_method([*controls, *rows], lost)
        found = figures(
            methods,
            {m: _of(self.single if m == ONE_LEAD else self.reader) for m in methods},
            {m: t for m, t in own.items() if m in methods},
            self.reference,
            resamples=self.resamples,
        )
        note = _note(self.header, self.chosen, methods[self.reference], rows)
        return found, tables(found, name, note, self.reference)


def _check_reader(header: dict[str, Any], reader: Classifier, path: Path) -> None:
    wanted = f"{reader.name} {reader.config['sha256']}"
    given = header["settings"].get("reader")
    if given is None:
        raise DataError(f"{path}: no classifier read these draws. Run again with --classifier.")
    if given != wanted:
        raise DataError(
            f"{path}: {given} read these draws, not {wanted}; name the one that did, or run again."
        )


def _record_list(header: dict[str, Any]) -> RecordList:
    fields = dict(header["records"])
    fields["ecg_ids"] = tuple(fields["ecg_ids"])
    fields["inclusion"] = tuple(fields.get("inclusion", ()))
    return RecordList(**fields)


def _by_method(rows: list[Row], lost: set[int]) -> dict[str, list[Row]]:
    """The rows of each method in the order of record numbers, without the records left out."""
    out: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: row["ecg_id"]):
        if row["ecg_id"] not in lost:
            out.setdefault(row["method"], []).append(row)
    # Controls first, then the methods as the run had them.
    return {m: out[m] for m in dict.fromkeys(row["method"] for row in rows) if m in out}


def _own(path: Path, reader: Classifier) -> dict[str, dict[str, Thresholds]]:
    """Thresholds chosen on each method's reconstructions of fold 9, by task and method."""
    header = read_header(path)
    _check_reader(header, reader, path)
    if (fold := header["records"]["fold"]) != 9:
        raise DataError(f"{path}: thresholds are chosen on fold 9; this is a run on fold {fold}.")
    good = [row for row in read_rows(path) if "probabilities" in row]
    out: dict[str, dict[str, Thresholds]] = {}
    for task in dict.fromkeys(row["task"] for row in good):
        for method, rows in _by_method([r for r in good if r["task"] == task], set()).items():
            out.setdefault(task, {})[method] = own_thresholds(rows)
    return out


def _of(classifier: Classifier) -> Thresholds:
    columns = [classifier.classes.index(code) for code in CONDITIONS]
    return {rule: at[columns] for rule, at in classifier.thresholds.items()}


def _note(header: dict[str, Any], chosen: RecordList, rows: list[Row], every: list[Row]) -> str:
    """What the figures were made of: one method's rows, and what is missing among all rows."""
    positives = ", ".join(
        f"{sum(code in row['statements'] for row in rows)} {code}" for code in CONDITIONS
    )
    parts = [
        f"{len(rows)} records of fold {chosen.fold} (`{chosen.name}`; {positives}), "
        f"{header['settings']['draws']} draws; the probability of a record is the average over "
        "draws. Brackets: 95 % bootstrap interval over patients."
    ]
    if chosen.inclusion:
        parts.append("Records are weighted by their inverse inclusion probability.")
    lost = {row["ecg_id"] for row in every if failed(row)}
    unread = {row["ecg_id"] for row in every if "probabilities" not in row} - lost
    if lost:
        parts.append(f"{len(lost)} records on which a method failed are left out for all.")
    if unread:
        parts.append(
            f"{len(unread)} records that could not be read for every method are left out for all."
        )
    if lost or unread:
        parts += lacking(every, "probabilities")
    return " ".join(parts)
