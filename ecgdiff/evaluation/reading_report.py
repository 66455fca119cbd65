"""From the rows of a run to the tables of what a classifier reads from them, with controls."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.classifier import Classifier, load_classifier
from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.errors import DataError
from ecgdiff.evaluation.comonotone import left_out, without
from ecgdiff.evaluation.journal import Row, failed
from ecgdiff.evaluation.judged import judged
from ecgdiff.evaluation.own_thresholds import chosen_on_fold_9
from ecgdiff.evaluation.parquet import read_header, read_rows
from ecgdiff.evaluation.readings import ONE_LEAD, control_rows, figures, tables
from ecgdiff.evaluation.records import RecordList, cases
from ecgdiff.evaluation.summary import lacking
from ecgdiff.evaluation.tables import Table, paragraph
from ecgdiff.evaluation.tasks import SAMPLING_RATE, TASKS, BlockTask
from ecgdiff.evaluation.words import shares
from ecgdiff.evaluation.words import table as words_table

__all__ = ["Report", "report"]

Thresholds = dict[str, NDArray[np.float64]]


@dataclass
class Report:
    """What was read.

    Arguments:
        figures: By task, method and figure.
        words: By task, method, word and truth the shares of records.
        about: By task what its figures were made of.
        own: By task and method, by rule the thresholds chosen on its reconstructions of fold 9.
        tables: For each task one for each condition, those of differences, and one of words.
        notes: What was left out, and why.
    """

    figures: dict[str, Any] = field(default_factory=dict)
    words: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    own: dict[str, dict[str, Thresholds]] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def page(self, *, latex: bool = False) -> str:
        """Renders what was left out, and the tables by task below what they were made of."""
        parts = []
        if self.notes:
            parts.append(paragraph("Left out", " ".join(self.notes), latex=latex))
        for name, text in self.about.items():
            parts.append(paragraph(f"Task {name}", text, latex=latex))
            these = [table for table in self.tables if table.task == name]
            parts += [table.latex() if latex else table.markdown() for table in these]
        return "\n".join(parts)


def report(
    rows: Path,
    root: str,
    *,
    classifier: str = "default",
    one_lead: str = "lead_I",
    own: Path | None = None,
    reference: str = "conditional",
    task: str | None = None,
    resamples: int = 1000,
) -> Report:
    """Judges what was read from every method of a run, on each task.

    A method that lacks records which others have is left out, and a task without the reference is
    skipped. A record that one of the other methods failed on, or whose draws the classifier failed
    to read, is left out for all, and `about` says how many there were.

    Arguments:
        rows: The rows.parquet of a run with a classifier.
        root: Folder of PTB-XL, for the controls.
        classifier: That classifier, by name or folder.
        one_lead: The classifier of lead I.
        own: The rows.parquet of a run on fold 9, to choose thresholds for each method.
        reference: The method from which differences are taken, beside the real ECG.
        task: Judge only this one; all if None.
        resamples: Bootstrap replicates.

    Raises:
        DataError: If no classifier read the draws of the run, or another one, or no task can be
            judged, or a run on fold 9 is none, or not of the same methods.
    """
    header, reader = read_header(rows), load_classifier(classifier)
    _check_reader(header, reader, rows)
    work = _Work(header, reader, load_classifier(one_lead), root, reference, resamples)
    out = Report()
    found = read_rows(rows)
    read = judged(without(found), reference, out.notes, task)
    if not read:
        raise DataError(f"{rows}: nothing to judge. {' '.join(out.notes)}")
    chosen_there: dict[str, dict[str, Thresholds]] = {}
    if own is not None:
        there = read_header(own)
        _check_reader(there, reader, own)
        used = [(name, row["method"]) for name, these in read.items() for row in these]
        chosen_there = chosen_on_fold_9(own, there, header, list(dict.fromkeys(used)))
    for name, these in read.items():
        curves = left_out((row["method"] for row in found if row["task"] == name), "not read")
        work.judge(out, name, these, chosen_there.get(name, {}), curves)
    return out


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
        self,
        out: Report,
        name: str,
        rows: list[Row],
        own: dict[str, Thresholds],
        remarks: list[str],
    ) -> None:
        """Adds the figures of one task, its words, and the tables of both."""
        settings, there = self.header["settings"], {row["ecg_id"] for row in rows}
        lost = {row["ecg_id"] for row in rows if "probabilities" not in row}
        if lost.issuperset(row["ecg_id"] for row in rows):
            raise DataError(
                f"No record of task {name} was read for every method: "
                f"{' '.join(lacking(rows, 'probabilities'))}"
            )
        controls = control_rows(
            TASKS[name],
            [case for case in self.signals if case.ecg_id in there - lost],
            self.chosen.weights,
            self.reader,
            self.single,
            seed=settings["seed"],
            noise=settings["noise"],
        )
        methods = _by_method([*controls, *rows], lost)
        out.own[name] = {m: t for m, t in own.items() if m in methods}
        found = figures(
            methods,
            {m: _of(self.single if m == ONE_LEAD else self.reader) for m in methods},
            out.own[name],
            self.reference,
            resamples=self.resamples,
        )
        note = _note(self.header, self.chosen, methods[self.reference], rows)
        said = shares(methods, _of(self.reader)["youden"], resamples=self.resamples)
        out.about[name] = " ".join([note, *_short(name), *remarks])
        out.figures[name], out.words[name] = found, said
        out.tables += tables(found, name, self.reference)
        out.tables += [words_table(said, name)] if said else []


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


def _of(classifier: Classifier) -> Thresholds:
    columns = [classifier.classes.index(code) for code in CONDITIONS]
    return {rule: at[columns] for rule, at in classifier.thresholds.items()}


def _short(name: str) -> list[str]:
    """That thresholds are those of longer recordings, where they are."""
    task = TASKS[name]
    if not isinstance(task, BlockTask):
        return []
    return [
        "Thresholds of the classifiers were chosen on recordings of 10 s; these stretches have "
        f"{task.crop / SAMPLING_RATE:.2f} s."
    ]


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
    if any(p < 1 for p in chosen.inclusion):  # none of a list of all records
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
