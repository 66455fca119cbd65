r"""CSV: one column per lead below a header row of lead names, optionally with a time column.

    # sampling_rate: 500
    I (mV),II (mV)
    0.012,0.105
    0.013,0.104

Rate and units are never guessed. The rate is stated as above, or follows from a time column that
states its unit (`time_s`, `time (ms)`), or is passed; a time column without unit must fit the rate
in s, ms or us. Units stand in the header row (`I (mV)`, `I_uV`), in a line `# units: mV`, or are
passed. Commas, semicolons and tabs separate columns; with the latter two a decimal comma may be
used. An empty cell or `nan` is a missing sample. Lines `# synthetic: V1 V2` and `# derived: III`
mark leads. Messages count rows from the first below the header.
"""

import csv
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg._wording import capital
from ecgdiff.ecg.io import _border
from ecgdiff.ecg.io._csv_cells import is_date, is_number, is_short, number
from ecgdiff.ecg.io._csv_layout import Layout, check_columns, read_layout
from ecgdiff.ecg.io._times import rate_of
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import ReadError

__all__ = ["read_csv"]

MAX_BYTES = 1 << 30
_ROWS = 4096  # rows turned into float32 at a time
_PEEK = 64  # rows among which there must be one of numbers


def read_csv(
    path: _border.PathLike,
    *,
    sampling_rate: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
) -> Recording:
    """Reads a recording from a CSV file.

    Arguments:
        path: The file.
        sampling_rate: In Hz, if neither the header nor a time column states it.
        units: "mV", "uV" or "V", if the header does not state it.
        leads: Names of the lead columns in their order; needed if there is no header row.

    Returns:
        The recording in mV; NaN where a cell is empty.

    Raises:
        ReadError: If leads, rate or units are not stated, or a cell is no number.
    """
    path = Path(path)
    with _border.border(path, "CSV"):
        head = _border.first_bytes(path)
        if path.stat().st_size > MAX_BYTES:
            raise ReadError(
                f"{path} has {path.stat().st_size} bytes; CSV is read up to {MAX_BYTES}. Convert "
                "it to NPZ or WFDB."
            )
        if b"\0" in head and not head.startswith((b"\xff\xfe", b"\xfe\xff")):
            raise ReadError(f"{path} is not text. Pass a WFDB, NPZ or CSV file.")
        with path.open(encoding=_border.encoding(head), errors="replace", newline="") as file:
            lines = iter(file)
            layout, first = read_layout(path, lines, leads)
            first += islice(lines, _PEEK)
            _check_first_rows(path, first, layout)
            names, second = check_columns(path, layout, leads)
            called = [layout.called(k) for k in layout.leads]
            stated = [layout.units[k] for k in layout.leads]
            scale, known = _border.factors(path, stated, units, called)
            rows = csv.reader(chain(first, lines), delimiter=layout.delimiter, strict=True)
            signal, time = _table(path, rows, layout, scale)
        own = [layout.names[k] for k in layout.leads]
        return _border.assemble(
            path,
            signal,
            _rate(path, layout, time, second, sampling_rate),
            names,
            None,
            provenance=_border.provenance_from(path, layout.comments, own),
            meta={"format": "csv", "units": known},
        )


def _check_first_rows(path: Path, lines: Sequence[str], layout: Layout) -> None:
    """Refuses text that is no table of numbers, before anything is said of its columns."""
    reader = csv.reader(lines, delimiter=layout.delimiter)
    rows = [(k, row) for k, row in enumerate(reader, start=1) if "".join(row).strip()]
    if not rows:
        return
    if not any(_has_numbers(row, layout) for _, row in rows):
        raise ReadError(
            f"{path} has no rows of numbers separated by commas, semicolons or tabs. Read are "
            "WFDB, NPZ, Apple Watch CSV, and CSV with a header row such as 'I (mV),II (mV)'."
        )
    where, row = rows[0]
    text = "".join(row)
    if all(row) and not any(map(is_number, row)) and not any(map(str.isdigit, text)):
        raise ReadError(
            f"Row {where} below the header of {path} holds no number. Keep one header row, such "
            "as 'I (mV),II (mV)'."
        )
    _values(path, where, row, layout, set())


def _has_numbers(row: list[str], layout: Layout) -> bool:
    """Whether a row has a number, and as many cells as the header or mostly numbers."""
    filled = [is_number(cell) for cell in row if cell.strip()]
    return any(filled) and (len(row) == len(layout.names) or 2 * sum(filled) > len(filled))


def _table(
    path: Path, rows: Iterator[list[str]], layout: Layout, scale: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Reads the numbers into (leads, time) in mV, and the time column as it stands."""
    signals: list[NDArray[np.float32]] = []
    times: list[NDArray[np.float64]] = []
    for block in _blocks(path, rows, layout):
        if layout.time is not None:
            times.append(block[:, layout.time])
        signals.append((block[:, layout.leads] * scale).T.astype(np.float32))
    if not signals:
        raise ReadError(f"{path} has no rows of numbers below its header. It may be cut off.")
    return np.concatenate(signals, axis=1), np.concatenate(times) if times else None


def _blocks(
    path: Path, rows: Iterator[list[str]], layout: Layout
) -> Iterator[NDArray[np.float64]]:
    block: list[list[float]] = []
    seen: set[str] = set()
    blank: int | None = None
    for where, row in enumerate(rows, start=1):
        if not row or (len(layout.names) > 1 and not "".join(row).strip()):
            blank = blank or where
            continue
        if blank is not None:
            raise ReadError(
                f"Row {blank} of {path} is blank, but more rows follow. Remove it, or write nan "
                "in its cells."
            )
        block.append(_values(path, where, row, layout, seen))
        if len(block) == _ROWS:
            yield np.array(block)
            block = []
    if block:
        yield np.array(block)


def _values(path: Path, where: int, row: list[str], layout: Layout, seen: set[str]) -> list[float]:
    columns = len(layout.names)
    if len(row) != columns:
        raise ReadError(
            f"Row {where} of {path} has {len(row)} cells, the header {columns}. Correct the row, "
            "or write decimal points if commas separate the columns."
        )
    values = [value for cell in row if (value := number(cell, seen)) is not None]
    if len(values) < columns:
        raise ReadError(_no_number(path, where, row, layout))
    if len(seen) > 1:
        raise ReadError(
            f"{path} mixes '.' and ',' as decimal marks, at the latest in row {where}. Write one "
            "of them, and do not group digits."
        )
    return values


def _no_number(path: Path, where: int, row: list[str], layout: Layout) -> str:
    """Says of the first cell that is no number what it is, and what to do."""
    column, cell = next((k, cell) for k, cell in enumerate(row) if number(cell, set()) is None)
    called = layout.called(column)
    place = f"{capital(called)}, row {where} of {path}"
    if column == layout.time or is_date(cell):
        what = "a date or time of day" if is_date(cell) else "no number"
        return (
            f"{place} holds {what}. Times must be numbers in s, ms or us; write them so, or "
            f"remove the column and {_border.PASS_RATE}."
        )
    advice = "Leave missing samples empty and do not group digits."
    if _border.known_lead(layout.names[column]) is None:
        advice = f"Remove columns that are no leads. {advice}"
    what = f": {cell.strip()!r} is no number" if is_short(cell) else " holds no number"
    return f"{place}{what}. {advice}"


def _rate(
    path: Path,
    layout: Layout,
    time: NDArray[np.float64] | None,
    second: float | None,
    given: float | None,
) -> float:
    """Settles the rate between the file's line, its times and the caller."""
    stated = layout.rate
    if time is not None and layout.time is not None:
        known = stated
        if second is None and not (stated is None and given is None):
            known = _border.settled_rate(path, stated, given)
        stated = rate_of(path, layout.called(layout.time), time, second, known)
    return _border.settled_rate(path, stated, given)
