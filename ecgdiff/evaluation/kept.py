"""Rows to keep: one small file for each task and method, from which later runs go on.

A folder of such files makes hours of computing part of a repository. `run --known FOLDER` takes
its rows as its own, so that a method of one's own meets those of others on the same records
without computing theirs again. Numbers keep four digits, as many as tables show; spectra, two
thirds of a row, are left out, and the table of spectra says so.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ecgdiff.errors import DataError
from ecgdiff.evaluation.journal import Row, latest
from ecgdiff.evaluation.parquet import read_header, read_rows, write_rows

__all__ = ["Kept", "keep", "known"]

Kept = tuple[Path, dict[str, Any], list[Row]]
"""A file, what its run was, and its rows."""

_BITS = 13  # of the mantissa: a relative error of 6e-5 at most
_OF_LIST = ("weight", "statements")  # of the list of records: a journal has no use for them


def keep(rows: Sequence[Row], header: Mapping[str, Any], out: str | Path) -> list[Path]:
    """Writes the rows of each task and method to a file of its own.

    Arguments:
        rows: The rows of a run.
        header: What the run was, from the file of its rows.
        out: The folder; files there of the same task and method are replaced.

    Returns:
        The files, `TASK/METHOD.parquet`.

    Raises:
        DataError: If the rows of a method were made with several settings.
        ImportError: If pyarrow is not installed.
    """
    files, rows = [], latest(rows)
    kinds = dict.fromkeys((row["task"], row["method"]) for row in rows)
    for task, label in kinds:
        these = [r for r in rows if (r["task"], r["method"]) == (task, label)]
        if len({row["fingerprint"] for row in these}) > 1:
            raise DataError(f"Rows of task {task}, method {label} were made with two settings.")
        path = Path(out) / task / f"{re.sub(r'[^A-Za-z0-9.=-]+', '_', label)}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        methods = {task: {label: header["methods"][task][label]}}
        slim = [{k: v for k, v in row.items() if k != "spectra"} for row in these]
        about = {**header, "methods": methods}
        write_rows(path, [_rounded(row) for row in slim], about, small=True)
        files.append(path)
    return files


def known(folder: str | Path) -> list[Kept]:
    """Reads what :func:`keep` wrote.

    Arguments:
        folder: The folder.

    Returns:
        Each file with what its run was and its rows.

    Raises:
        DataError: If the folder holds no such file, or a damaged one.
        ImportError: If pyarrow is not installed.
    """
    files = sorted(Path(folder).glob("*/*.parquet"))
    if not files:
        raise DataError(
            f"{folder} holds no kept rows (TASK/METHOD.parquet). Give the folder that "
            "`python -m ecgdiff.evaluation keep` wrote."
        )
    return [(path, read_header(path), [_short(row) for row in read_rows(path)]) for path in files]


def _rounded(value: Any) -> Any:
    """The value with floats of few bits, which compress well."""
    if isinstance(value, dict):
        return {key: _rounded(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_rounded(entry) for entry in value]
    if isinstance(value, float):
        mantissa, exponent = np.frexp(value)
        return float(np.ldexp(np.round(mantissa * 2**_BITS) / 2**_BITS, exponent))
    return value


def _short(row: Row) -> Row:
    """The row with decimals as short as what they mean, so that a journal stays readable."""
    text = json.dumps({key: value for key, value in row.items() if key not in _OF_LIST})
    return dict(json.loads(text, parse_float=lambda digits: float(f"{float(digits):.5g}")))
