r"""Which records: fixed lists of the test fold, and the preprocessed signals of PTB-XL.

A list is a committed file, drawn with a committed seed; the draw ranks records by a hash, so it
does not depend on the version of a random number generator. :func:`draw_list` takes at most one
record per patient. :func:`draw_conditions` takes all records with one of the four conditions and
draws n of the N others, so conditions are more frequent in the list than in the fold. It keeps the
probability :math:`\pi_i` with which each record was taken (1, and n/N): averages weighted by
:math:`1 / \pi_i` have the fold's prevalence again.

References:
    | A generalization of sampling without replacement from a finite universe (Horvitz and
      Thompson, 1952), doi:10.1080/01621459.1952.10483446
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.ecg.preprocess import baseline, clip
from ecgdiff.errors import DataError
from ecgdiff.evaluation.tasks import SAMPLING_RATE, Case, Task

__all__ = [
    "SAMPLING_RATE",
    "DataSet",
    "Entry",
    "RecordList",
    "batches",
    "cases",
    "disturbed",
    "draw_conditions",
    "draw_list",
    "preprocess",
    "read_list",
]


class Entry(Protocol):
    """One row of the data set's table."""

    @property
    def ecg_id(self) -> int:
        """The number of the record."""

    @property
    def patient_id(self) -> int:
        """The number of the patient."""

    @property
    def statements(self) -> frozenset[str]:
        """The SCP codes that are present, at any likelihood."""


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
        inclusion: The probability with which each was taken, in the same order; empty if all had
            the same.
    """

    name: str
    fold: int
    seed: int
    rule: str
    ecg_ids: tuple[int, ...]
    inclusion: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.inclusion and len(self.inclusion) != len(self.ecg_ids):
            raise ValueError(
                f"The list has {len(self.ecg_ids)} records and {len(self.inclusion)} inclusion "
                "probabilities; give one for each record, or none."
            )
        if not all(0 < p <= 1 for p in self.inclusion):
            raise ValueError("Inclusion probabilities must be in (0, 1].")

    @property
    def weights(self) -> dict[int, float]:
        """The inverse inclusion probability of each record; 1 where all had the same."""
        inclusion = self.inclusion or (1.0,) * len(self.ecg_ids)
        return {i: 1 / p for i, p in zip(self.ecg_ids, inclusion, strict=True)}

    def write(self, path: str | Path) -> None:
        """Writes the list as JSON."""
        fields = {k: v for k, v in asdict(self).items() if k != "inclusion" or v}
        Path(path).write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


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
    chosen: dict[int, int] = {}
    for row in _ranked(_without_patients(rows, other_than), seed):
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


def draw_conditions(
    rows: Iterable[Entry],
    fold: int = 10,
    count: int = 440,
    seed: int = 0,
    other_than: RecordList | None = None,
) -> RecordList:
    """Takes all records of one fold with a condition of `CONDITIONS`, and draws others.

    Arguments:
        rows: The rows of that fold.
        fold: Its number.
        count: How many records in all.
        seed: The seed of the draw.
        other_than: A list whose patients are left out.

    Raises:
        DataError: If there are more records with a condition, or fewer in all, than `count`.
    """
    ranked = _ranked(_without_patients(rows, other_than), seed)
    certain = [row.ecg_id for row in ranked if row.statements & set(CONDITIONS)]
    others = [row.ecg_id for row in ranked if not row.statements & set(CONDITIONS)]
    drawn = count - len(certain)
    if not 0 <= drawn <= len(others):
        raise DataError(
            f"Fold {fold} has {len(certain)} records with {', '.join(CONDITIONS)} and "
            f"{len(others)} others; ask for {len(certain)} to {len(ranked)} records, not {count}."
        )
    inclusion = dict.fromkeys(certain, 1.0)
    inclusion |= {i: drawn / len(others) for i in others[:drawn]}
    ids = tuple(sorted(inclusion))
    rule = (
        f"all {len(certain)} records with {', '.join(CONDITIONS)}; of the {len(others)} others, "
        f"ranked by SHA-256 of 'seed/ecg_id', the first {drawn}"
    )
    if other_than:
        rule = f"leave out the patients of {other_than.name}; {rule}"
    name = f"fold{fold}_{count}_conditions"
    return RecordList(name, fold, seed, rule, ids, tuple(inclusion[i] for i in ids))


def _without_patients(rows: Iterable[Entry], other_than: RecordList | None) -> list[Entry]:
    rows = list(rows)
    left_out = set(other_than.ecg_ids if other_than else ())
    known = {row.patient_id for row in rows if row.ecg_id in left_out}
    return [row for row in rows if row.patient_id not in known]


def _ranked(rows: Iterable[Entry], seed: int) -> list[Entry]:
    """The rows in an order drawn with the seed, whatever order they come in."""
    return sorted(rows, key=lambda row: hashlib.sha256(f"{seed}/{row.ecg_id}".encode()).digest())


def read_list(name: str | Path) -> RecordList:
    """Reads a list by the name of a committed one ("fold10_100") or by the path of a JSON file."""
    path = Path(name)
    if path.suffix != ".json":
        path = Path(__file__).with_name(f"{name}.json")
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
        lists = {
            "ecg_ids": tuple(fields["ecg_ids"]),
            "inclusion": tuple(fields.get("inclusion", ())),
        }
        return RecordList(**{**fields, **lists})
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: no readable record list ({error}). Pass the name of a committed list or a "
            "JSON file written with `python -m ecgdiff.evaluation list`."
        ) from error


def preprocess(microvolts: NDArray[np.int16]) -> NDArray[np.float32]:
    """Turns stored µV at 100 Hz into preprocessed mV: baseline removed, then clipped."""
    signal = microvolts.astype(np.float32) / np.float32(1000)
    return clip(signal - baseline(signal, SAMPLING_RATE))[0].astype(np.float32)


def cases(data: DataSet, records: RecordList) -> list[Case]:
    """Loads the records of a list, preprocessed, in the order of the list."""
    table = {row.ecg_id: row for row in data.rows((records.fold,))}
    ids, signals = data.signals((records.fold,), leads=LEADS_8)
    index = {int(ecg_id): k for k, ecg_id in enumerate(ids)}
    missing = [i for i in records.ecg_ids if i not in index or i not in table]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(records.ecg_ids)} records of {records.name} are not in fold "
            f"{records.fold} (first: {missing[0]}). Is this the complete PTB-XL 1.0.3?"
        )
    truth = preprocess(signals[[index[i] for i in records.ecg_ids]])
    return [
        Case(i, table[i].patient_id, x, table[i].statements)
        for i, x in zip(records.ecg_ids, truth, strict=True)
    ]


def batches(data: DataSet, folds: Sequence[int], size: int = 128) -> Iterator[NDArray[np.float32]]:
    """Yields the preprocessed signals of some folds in mV, with shape (<= size, 8, time)."""
    for fold in folds:
        _, signals = data.signals((fold,), leads=LEADS_8)
        for start in range(0, len(signals), size):
            yield preprocess(signals[start : start + size])


def disturbed(
    source: Callable[[], Iterable[NDArray[np.float32]]], task: Task, seed: int
) -> Iterator[NDArray[np.float32]]:
    """Adds to records what a task disturbs them with, for what is to be trained on such records.

    Arguments:
        source: Gives batches (records, leads, time) in mV.
        task: The task.
        seed: The seed of the noise; no evaluated record has the same noise.
    """
    count = 0
    for batch in source():
        out = batch.copy()
        for record in out:
            count += 1
            if record[0].any():
                # Numbers of records are positive, so this one's noise is its own.
                record += task.disturbance(Case(-count, 0, record), seed)
        yield out
