"""PTB-XL at 100 Hz, read from the official folder layout.

The folder holds `ptbxl_database.csv` and `records100/NN000/NNNNN_lr.{hea,dat}`: 12 leads, 1000
samples, int16 with one microvolt per step. The samples are read straight from the `.dat` files
(their layout is fixed and checked by size), because twenty thousand headers take minutes to parse;
`ecgdiff.read` reads a single record the long way.

References:
    | PTB-XL, a large publicly available electrocardiography dataset 1.0.3 (Wagner et al., 2022),
      doi:10.13026/kfzx-aw45
"""

import ast
import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgdiff.data.manifests import load_manifest
from ecgdiff.ecg.leads import LEADS_8, LEADS_12
from ecgdiff.errors import DataError

__all__ = ["PTBXL", "Row"]

N_SAMPLES = 1000


@dataclass(frozen=True)
class Row:
    """One record of the database.

    Attributes:
        ecg_id: The record's number, 1..21837.
        patient_id: The patient's number; no patient is in two folds.
        fold: The official fold, 1..10.
        statements: The SCP codes present, at any likelihood (0 means unknown, not absent).
        path: The record's stem, relative to the root.
    """

    ecg_id: int
    patient_id: int
    fold: int
    statements: frozenset[str]
    path: str


class PTBXL:
    """Opens the official folder and checks its table.

    Arguments:
        root: The folder that holds `ptbxl_database.csv` and `records100`.

    Raises:
        DataError: If the table is missing or its counts differ from release 1.0.3.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        table = self.root / "ptbxl_database.csv"
        if not table.is_file():
            raise DataError(
                f"{table} was not found. Point to the folder of PTB-XL 1.0.3 that holds "
                "ptbxl_database.csv and records100/ (physionet.org/content/ptb-xl/1.0.3)."
            )
        self.table = tuple(_read_table(table))
        self._check()

    def _check(self) -> None:
        """Compares the sizes of folds and the counts of labels with the manifest."""
        manifest = load_manifest("ptbxl-1.0.3")
        found = {fold: sum(r.fold == fold for r in self.table) for fold in manifest.fold_records}
        if found != dict(manifest.fold_records):
            raise DataError(
                f"{self.root}: the folds hold {found} records, release 1.0.3 has "
                f"{dict(manifest.fold_records)}. Is this another release or a shortened table?"
            )
        for name, split in manifest.splits.items():
            rows = self.rows(split.folds)
            labels = {code: sum(code in r.statements for r in rows) for code in split.labels}
            manifest.check_counts(name, records=len(rows), labels=labels)

    def rows(self, folds: Iterable[int]) -> list[Row]:
        """Lists the records of some folds in the order of their numbers."""
        wanted = set(folds)
        return [row for row in self.table if row.fold in wanted]

    def signals(
        self, folds: Iterable[int], leads: Sequence[str] = LEADS_8
    ) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        """Reads all records of some folds into memory.

        Returns:
            The record numbers, shape (records,), and the samples in microvolts, shape (records,
            leads, 1000).

        Raises:
            DataError: If records are missing, with how many and the first of them.
        """
        rows = self.rows(folds)
        missing = [row for row in rows if not self._dat(row).is_file()]
        if missing:
            raise DataError(
                f"{self.root}: {len(missing)} of {len(rows)} records of folds "
                f"{sorted({row.fold for row in rows})} are missing, the first is "
                f"{missing[0].path}.dat. Unpack the 100 Hz records (records100/) completely."
            )
        order = [LEADS_12.index(lead) for lead in leads]
        out = np.empty((len(rows), len(order), N_SAMPLES), dtype=np.int16)
        for k, row in enumerate(rows):
            out[k] = self._read(row)[order]
        return np.array([row.ecg_id for row in rows]), out

    def _dat(self, row: Row) -> Path:
        return self.root / f"{row.path}.dat"

    def _read(self, row: Row) -> NDArray[np.int16]:
        path = self._dat(row)
        samples = np.fromfile(path, dtype="<i2")
        if samples.size != N_SAMPLES * len(LEADS_12):
            raise DataError(
                f"{path}: {samples.size} numbers, a 100 Hz record has {N_SAMPLES} x 12. "
                "The file is damaged or not of PTB-XL 1.0.3."
            )
        return samples.reshape(N_SAMPLES, len(LEADS_12)).T


def _read_table(path: Path) -> Iterator[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        needed = {"ecg_id", "patient_id", "scp_codes", "strat_fold", "filename_lr"}
        if absent := needed - set(reader.fieldnames or ()):
            raise DataError(f"{path}: columns {sorted(absent)} are missing.")
        for line in reader:
            yield Row(
                ecg_id=int(line["ecg_id"]),
                patient_id=int(float(line["patient_id"])),
                fold=int(line["strat_fold"]),
                statements=frozenset(ast.literal_eval(line["scp_codes"])),
                path=line["filename_lr"],
            )
