r"""CSV: one column per lead below a header row of lead names, optionally with a time column.

    # sampling_rate: 500
    I (mV),II (mV)
    0.012,0.105
    0.013,0.104

Rate and units are never guessed. The rate is stated as above, or follows from a time column that
states its unit (`time_s`, `time (ms)`), or is passed. Units stand in the header row (`I (mV)`,
`I_uV`), in a line `# units: mV`, or are passed. Commas, semicolons and tabs separate columns; with
the latter two a decimal comma may be used. An empty cell or `nan` is a missing sample. Lines `#
synthetic: V1 V2` and `# derived: III` mark leads.
"""

import csv
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.io import _border
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import ReadError

__all__ = ["read_csv"]

MAX_BYTES = 1 << 30
_ROWS = 4096  # rows turned into float32 at a time
_NUMBER = re.compile(r"[+-]?([0-9]+([.,][0-9]*)?|[.,][0-9]+)(e[+-]?[0-9]{1,3})?", re.IGNORECASE)
_COMMENT = re.compile(r"#\s*([A-Za-z_ ]+?)\s*[:=]\s*(.*)")
_RATE = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*(?:hz|hertz)?", re.IGNORECASE)
_NAMED = re.compile(r"(?P<name>[^()\[\]]*?)\s*[(\[]\s*(?P<unit>[^()\[\]]*?)\s*[)\]]")
_SUFFIXED = re.compile(r"(?P<name>.+)_(?P<unit>([mu\u00b5\u03bc]?v)|([mu\u00b5\u03bc]?s))", re.I)
_TIME = {"t", "time", "timestamp"}
_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}


@dataclass(frozen=True)
class _Layout:
    """What the lines above the numbers say."""

    delimiter: str
    names: tuple[str, ...]  # of the lead columns
    units: tuple[str | None, ...]  # of the lead columns
    columns: int
    time: int | None  # the time column
    second: float | None  # its unit in seconds
    rate: float | None
    comments: tuple[str, ...]


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
            layout, first = _layout(path, lines, leads)
            scale, names = _border.factors(path, layout.units, units)
            rows = csv.reader(chain(first, lines), delimiter=layout.delimiter, strict=True)
            signal, time = _table(path, rows, layout, scale)
        stated = layout.rate if time is None else _rate_from(path, time, layout)
        return _border.assemble(
            path,
            signal,
            _border.settled_rate(path, stated, sampling_rate),
            layout.names,
            leads,
            provenance=_border.provenance_from(path, layout.comments, layout.names),
            meta={"format": "csv", "units": names},
        )


def _layout(
    path: Path, lines: Iterator[str], leads: Sequence[str] | None
) -> tuple[_Layout, list[str]]:
    """Reads the comments and the header row; hands back the row if it already holds numbers."""
    comments: list[str] = []
    for line in lines:
        if line.startswith("#"):
            comments.append(line.strip())
        elif line.strip():
            break
    else:
        raise ReadError(
            f"{path} has no rows. It needs a header row of lead names and rows of numbers."
        )
    delimiter = next((mark for mark in ";\t" if mark in line), ",")
    cells = [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter))]
    said = {m[1].strip().lower(): m[2].strip() for text in comments if (m := _COMMENT.match(text))}
    numbers = all(_NUMBER.fullmatch(cell) or cell.lower() in ("", "nan") for cell in cells)
    if numbers:
        if leads is None:
            raise ReadError(
                f"{path} has no header row of lead names. Pass leads=..., sampling_rate=... and "
                "units=...."
            )
        names = [leads] if isinstance(leads, str) else leads
        cells = list(names) if len(names) == len(cells) else cells
    return _columns(path, cells, said, delimiter, comments), [line] if numbers else []


def _columns(
    path: Path, cells: list[str], said: dict[str, str], delimiter: str, comments: list[str]
) -> _Layout:
    parts = [_cell(cell) for cell in cells]
    times = [k for k, (name, _) in enumerate(parts) if name.lower() in _TIME]
    if len(times) > 1:
        raise ReadError(f"{path} has {len(times)} time columns. Keep one.")
    time = times[0] if times else None
    signals = [part for k, part in enumerate(parts) if k != time]
    if not signals:
        raise ReadError(f"{path} has no column besides time. Add one per lead.")
    rate = _RATE.fullmatch(said["sampling_rate"]) if "sampling_rate" in said else None
    if "sampling_rate" in said and rate is None:
        raise ReadError(f"The line '# sampling_rate: ...' of {path} holds no number of Hz.")
    return _Layout(
        delimiter=delimiter,
        names=tuple(name for name, _ in signals),
        units=tuple(unit or said.get("units") for _, unit in signals),
        columns=len(cells),
        time=time,
        second=None if time is None else _second(path, parts[time][1]),
        rate=None if rate is None else float(rate[1].replace(",", ".")),
        comments=tuple(text.lstrip("# ") for text in comments),
    )


def _cell(cell: str) -> tuple[str, str | None]:
    """Parts `I (mV)`, `I [mV]` or `I_mV` into name and unit."""
    match = _NAMED.fullmatch(cell) or _SUFFIXED.fullmatch(cell)
    return (match["name"].strip(), match["unit"].strip()) if match else (cell, None)


def _second(path: Path, unit: str | None) -> float | None:
    if unit is None:
        return None
    if unit.lower() not in _SECONDS:
        raise ReadError(f"The unit of the time column in {path} is none of s, ms, us. Correct it.")
    return _SECONDS[unit.lower()]


def _table(
    path: Path, rows: Iterator[list[str]], layout: _Layout, scale: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.float64] | None]:
    """Reads the numbers into (leads, time) in mV, and the time column as it stands."""
    signals: list[NDArray[np.float32]] = []
    times: list[NDArray[np.float64]] = []
    for block in _blocks(path, rows, layout.columns):
        if layout.time is not None:
            times.append(block[:, layout.time])
            block = np.delete(block, layout.time, axis=1)
        signals.append((block * scale).T.astype(np.float32))
    if not signals:
        raise ReadError(f"{path} has no rows of numbers below its header. It may be cut off.")
    return np.concatenate(signals, axis=1), np.concatenate(times) if times else None


def _blocks(path: Path, rows: Iterator[list[str]], columns: int) -> Iterator[NDArray[np.float64]]:
    block: list[list[float]] = []
    seen: set[str] = set()
    blank: int | None = None
    for number, row in enumerate(rows, start=1):
        if not row or (columns > 1 and not "".join(row).strip()):
            blank = blank or number
            continue
        if blank is not None or len(row) != columns:
            raise ReadError(
                f"Row {blank or number} of numbers in {path} does not have {columns} cells, as "
                "the header has. Correct the row, or write decimal points if commas separate the "
                "columns."
            )
        block.append([_number(path, number, cell, seen) for cell in row])
        if len(block) == _ROWS:
            yield np.array(block)
            block = []
    if block:
        yield np.array(block)


def _number(path: Path, row: int, cell: str, seen: set[str]) -> float:
    text = cell.strip()
    if text.lower() in ("", "nan"):
        return math.nan
    seen.update(mark for mark in ".," if mark in text)
    if not _NUMBER.fullmatch(text) or len(seen) > 1:
        raise ReadError(
            f"Row {row} of numbers in {path} holds something that is no plain number, or mixes "
            "'.' and ',' as decimal marks. Leave missing samples empty and do not group digits."
        )
    return float(text.replace(",", "."))


def _rate_from(path: Path, time: NDArray[Any], layout: _Layout) -> float | None:
    """The rate in Hz of evenly spaced times, after checking that they are."""
    steps = len(time) - 1
    span = float(time[-1] - time[0])
    if steps < 1 or not span > 0:  # also catches NaN
        raise ReadError(f"The time column of {path} does not increase. Correct or remove it.")
    late = np.abs((time - time[0]) * (steps / span) - np.arange(len(time)))
    if not late.max() < 0.5:
        raise ReadError(
            f"The times in {path} are not evenly spaced: row {int(np.nanargmax(late)) + 1} is "
            f"{float(np.nanmax(late)):.3g} samples off. Fill gaps with empty cells."
        )
    if layout.second is None:
        return layout.rate
    # Decimal times in binary leave noise in the last digits.
    rate = float(f"{steps / (span * layout.second):.9g}")
    if layout.rate is not None and not math.isclose(rate, layout.rate, rel_tol=1e-3):
        raise ReadError(
            f"{path} states {layout.rate:g} Hz, but its times are {rate:g} Hz apart. Correct one."
        )
    return rate if layout.rate is None else layout.rate
