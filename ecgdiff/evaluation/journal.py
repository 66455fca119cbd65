"""The file of finished rows: one line of JSON for each task, method and record.

Lines are only ever appended, each flushed at once, so a kill costs at most the row that was being
computed. A row that failed has an `error` in place of its scores, a row of which a part failed
(what a classifier reads, the shape, the spectra) has its scores and names that part with the
reason in `failed_parts`; when it is computed again, the new line stands below the old one and
counts.
"""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ecgdiff.errors import DataError

if TYPE_CHECKING:
    from ecgdiff.evaluation.benchmark import Method, Settings
    from ecgdiff.evaluation.tasks import Task

__all__ = ["Row", "Rows", "failed", "incomplete", "latest"]

Row = dict[str, Any]


class Rows:
    """Opens the file of finished rows, creating it if it does not exist.

    A last line cut short by a kill is dropped; its record is computed again.

    Arguments:
        path: The JSONL file.

    Raises:
        DataError: If another line cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[Row] = []
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self.rows.append(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{self.path}, line {number}: not JSON ({error}). Delete the line to compute "
                    "it again."
                ) from error
        if len(whole) < len(raw):
            os.truncate(self.path, len(whole))

    def append(self, row: Row) -> None:
        """Adds one row and hands it to the operating system, so that a kill cannot lose it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
        self.rows.append(row)

    def adopt(self, rows: Sequence[Row]) -> None:
        """Adds those rows whose task, method and record are not there yet."""
        there = set(map(_key, self.rows))
        for row in rows:
            if _key(row) not in there:
                self.append(row)

    def of(self, task: "Task", method: "Method", settings: "Settings") -> dict[int, Row]:
        """Finds the rows of a task and method by record number.

        Arguments:
            task: The task.
            method: The method.
            settings: What they must have been made with.

        Raises:
            DataError: If some were made with other settings.
        """
        now = settings.fingerprint(task, method)
        found = [r for r in self.rows if (r["task"], r["method"]) == (task.name, method.label)]
        other = next((r["fingerprint"] for r in found if r["fingerprint"] != now), None)
        if other is not None:
            raise DataError(
                f"{self.path} holds rows of task {task.name}, method {method.label} made with "
                f"other settings (fingerprint {other}, now {now}): another model, seed, number of "
                "draws, noise, classifier, morphology, spectra, sampler argument or package "
                "version. Choose another --out, or delete the file."
            )
        return {r["ecg_id"]: r for r in found}


def failed(row: Row) -> bool:
    """Whether the record could not be computed."""
    return "error" in row


def incomplete(row: Row) -> bool:
    """Whether the record, or a part of what was to be measured on it, could not be computed."""
    return failed(row) or bool(row.get("failed_parts"))


def latest(rows: Sequence[Row]) -> list[Row]:
    """The last row of each task, method and record: what was computed again counts."""
    return list({_key(row): row for row in rows}.values())


def _key(row: Row) -> tuple[str, str, int]:
    return row["task"], row["method"], row["ecg_id"]
