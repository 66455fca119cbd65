"""Which records: the fixed list of the test fold, and the preprocessed signals of PTB-XL.

The list is a committed file, drawn by :func:`draw_list` with a committed seed; the draw ranks
records by a hash, so it does not depend on the version of a random number generator.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.ecg.preprocess import baseline, clip
from ecgdiff.errors import DataError
from ecgdiff.evaluation.tasks import Case

__all__ = [
    "SAMPLING_RATE",
    "DataSet",
    "Entry",
    "RecordList",
    "batches",
    "cases",
    "draw_list",
    "preprocess",
    "read_list",
]

SAMPLING_RATE = 100.0


class Entry(Protocol):
    """One row of the data set's table."""

    @property
    def ecg_id(self) -> int:
        """The number of the record."""

    @property
    def patient_id(self) -> int:
        """The number of the patient."""


class DataSet(Protocol):
    """What the evaluation needs of a data set: :class:`ecgdiff.data.ptbxl.PTBXL` has it."""

    def rows(self, folds: Sequence[int]) -> Sequence[Entry]:
        """The table's rows of some folds."""

    def signals(
        self, folds: Sequence[int], leads: tuple[str, ...] = LEADS_8
    ) -> tuple[NDArray[np.integer], NDArray[np.int16]]:
        """Record numbers (records,) and signals in µV (records, leads, time) of some folds."""


@dataclass(frozen=True)
class RecordList:
    """A list of records fixed once.

    Arguments:
        name: What it is called.
        fold: The fold of the data set it was drawn from.
        seed: The seed of the draw.
        rule: How it was drawn.
        ecg_ids: The record numbers, ascending.
    """

    name: str
    fold: int
    seed: int
    rule: str
    ecg_ids: tuple[int, ...]

    def write(self, path: str | Path) -> None:
        """Writes the list as JSON."""
        Path(path).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def draw_list(
    rows: Iterable[Entry],
    fold: int = 10,
    count: int = 100,
    seed: int = 0,
    other_than: RecordList | None = None,
) -> RecordList:
    """Draws records of one fold, at most one per patient.

    Arguments:
        rows: The rows of that fold.
        fold: Its number.
        count: How many records.
        seed: The seed of the draw.
        other_than: A list whose patients are left out.
    """
    rows = list(rows)
    left_out = other_than.ecg_ids if other_than else ()
    known = {row.patient_id for row in rows if row.ecg_id in left_out}
    rows = [row for row in rows if row.patient_id not in known]
    ranked = sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row.ecg_id}".encode()).digest())
    chosen: dict[int, int] = {}
    for row in ranked:
        if len(chosen) < count:
            chosen.setdefault(row.patient_id, row.ecg_id)
    if len(chosen) < count:
        raise DataError(
            f"Fold {fold} has {len(chosen)} patients, fewer than {count} records to draw."
        )
    rule = (
        "rank the fold's records by SHA-256 of 'seed/ecg_id', keep the first of each patient, "
        f"take the first {count}"
    )
    if other_than:
        rule = f"leave out the patients of {other_than.name}, {rule}"
    return RecordList(f"fold{fold}_{count}", fold, seed, rule, tuple(sorted(chosen.values())))


def read_list(name: str | Path) -> RecordList:
    """Reads a list by the name of a committed one ("fold10_100") or by the path of a JSON file."""
    path = Path(name)
    if path.suffix != ".json":
        path = Path(__file__).with_name(f"{name}.json")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        return RecordList(**{**fields, "ecg_ids": tuple(fields["ecg_ids"])})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no readable record list ({error}). Pass the name of a committed list or a "
            "JSON file written with --write-list."
        ) from error


def preprocess(microvolts: NDArray[np.int16]) -> NDArray[np.float32]:
    """Turns stored µV at 100 Hz into preprocessed mV: baseline removed, then clipped."""
    signal = microvolts.astype(np.float32) / np.float32(1000)
    return clip(signal - baseline(signal, SAMPLING_RATE))[0].astype(np.float32)


def cases(data: DataSet, records: RecordList) -> list[Case]:
    """Loads the records of a list, preprocessed, in the order of the list."""
    patients = {row.ecg_id: row.patient_id for row in data.rows((records.fold,))}
    ids, signals = data.signals((records.fold,), leads=LEADS_8)
    index = {int(ecg_id): k for k, ecg_id in enumerate(ids)}
    missing = [i for i in records.ecg_ids if i not in index or i not in patients]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(records.ecg_ids)} records of {records.name} are not in fold "
            f"{records.fold} (first: {missing[0]}). Is this the complete PTB-XL 1.0.3?"
        )
    truth = preprocess(signals[[index[i] for i in records.ecg_ids]])
    return [Case(i, patients[i], x) for i, x in zip(records.ecg_ids, truth, strict=True)]


def batches(data: DataSet, folds: Sequence[int], size: int = 128) -> Iterator[NDArray[np.float32]]:
    """Yields the preprocessed signals of some folds in mV, with shape (<= size, 8, time)."""
    for fold in folds:
        _, signals = data.signals((fold,), leads=LEADS_8)
        for start in range(0, len(signals), size):
            yield preprocess(signals[start : start + size])
