"""The real records of the quality page: fold 9 whole, the training folds one after the other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.data.training_set import load_usable

__all__ = ["TRAIN_FOLDS", "VALIDATION_FOLD", "FoldRecords", "Folds", "halves"]

TRAIN_FOLDS = tuple(range(1, 9))
VALIDATION_FOLD = 9


@dataclass(frozen=True)
class FoldRecords:
    """Some records of a fold, preprocessed as for training.

    Arguments:
        signal: In mV, with shape (records, leads, 1000), float32.
        numbers: Their numbers, with shape (records,).
        patients: Their patients' numbers, with shape (records,).
    """

    signal: NDArray[np.float32]
    numbers: NDArray[np.int64]
    patients: NDArray[np.int64]

    def pick(self, index: NDArray[np.intp]) -> "FoldRecords":
        """Returns the records of these places."""
        return FoldRecords(self.signal[index], self.numbers[index], self.patients[index])


class Folds:
    """Opens PTB-XL; unlike :func:`ecgdiff.data.training_set.load_fold_set` it keeps the numbers.

    Arguments:
        root: Folder of PTB-XL 1.0.3.
        leads: The leads to read.

    Raises:
        DataError: If the folder is not that of PTB-XL 1.0.3.
    """

    def __init__(self, root: str, leads: Sequence[str]) -> None:
        self._data, self._leads = PTBXL(root), tuple(leads)

    def read(self, fold: int) -> FoldRecords:
        """Reads one fold without the records that are unusable for training.

        Raises:
            DataError: If records are missing.
        """
        rows, filtered, _ = load_usable(self._data, [fold], self._leads)
        return FoldRecords(
            filtered.astype(np.float32) / np.float32(1000),
            np.array([row.ecg_id for row in rows], np.int64),
            np.array([row.patient_id for row in rows], np.int64),
        )

    def training(self) -> Iterator[FoldRecords]:
        """Reads the training folds one after the other."""
        return (self.read(fold) for fold in TRAIN_FOLDS)


def halves(
    patients: NDArray[np.int64], most: int, splits: int = 5, seed: int = 0
) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Splits records into two sets of equal size without a patient in common, several times.

    Arguments:
        patients: The patient of each record.
        most: The most records of a set.
        splits: How often.
        seed: Of the splits.

    Returns:
        Places of the records of either set; all sets have the same size.
    """
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits):
        people = rng.permutation(np.unique(patients))
        first = np.isin(patients, people[: len(people) // 2])
        found.append([rng.permutation(np.flatnonzero(side)) for side in (first, ~first)])
    size = min(most, *(len(side) for pair in found for side in pair))
    return [(a[:size], b[:size]) for a, b in found]
