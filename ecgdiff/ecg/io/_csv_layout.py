"""What the lines of a CSV file above its numbers say: columns, units, rate."""

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ecgdiff.ecg._wording import argument, capital
from ecgdiff.ecg.io import _border
from ecgdiff.ecg.io._csv_cells import is_number, is_usual
from ecgdiff.ecg.io._times import known_time
from ecgdiff.errors import ReadError

__all__ = ["Layout", "check_columns", "read_layout"]

_COMMENT = re.compile(r"#\s*([A-Za-z_ ]+?)\s*[:=]\s*(.*)")
_RATE = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*(?:hz|hertz)?", re.IGNORECASE)
_NAMED = re.compile(r"(?P<name>[^()\[\]]*?)\s*[(\[]\s*(?P<unit>[^()\[\]]*?)\s*[)\]]")
_SUFFIXED = re.compile(
    r"(?P<name>.+)_(?P<unit>([mu\u00b5\u03bc]?v)|([mu\u00b5\u03bc]?s))"
    r"|(?P<time>t|time|timestamp)_(?P<other>ns|sec|min|h)",
    re.IGNORECASE,
)
_TIME = {"t", "time", "timestamp"}


@dataclass(frozen=True)
class Layout:
    """What the lines above the numbers say."""

    delimiter: str
    names: tuple[str, ...]  # of all columns
    units: tuple[str | None, ...]  # of all columns
    time: int | None  # the time column
    rate: float | None
    comments: tuple[str, ...]

    @property
    def leads(self) -> list[int]:
        """The columns that hold leads."""
        return [k for k in range(len(self.names)) if k != self.time]

    def called(self, column: int) -> str:
        """What messages call a column: "column 2 ('resp')"."""
        name = self.names[column]
        return f"column {column + 1}" + (f" ({name!r})" if is_usual(name) else "")


def read_layout(
    path: Path, lines: Iterator[str], leads: Sequence[str] | None
) -> tuple[Layout, list[str]]:
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
    numbers = all(is_number(cell) or not cell for cell in cells)
    if numbers:
        if leads is None:
            raise ReadError(
                f"{path} has no header row of lead names. Add one such as 'I (mV),II (mV)', or "
                f"pass {argument('leads', ('I', 'II'))}, {argument('units', 'mV')} and "
                f"{argument('sampling_rate', 250.0)}, or whatever they are."
            )
        names = [leads] if isinstance(leads, str) else leads
        cells = list(names) if len(names) == len(cells) else cells
    return _columns(path, cells, delimiter, comments), [line] if numbers else []


def _columns(path: Path, cells: list[str], delimiter: str, comments: list[str]) -> Layout:
    said = {m[1].strip().lower(): m[2].strip() for text in comments if (m := _COMMENT.match(text))}
    parts = [_cell(cell) for cell in cells]
    times = [k for k, (name, _) in enumerate(parts) if name.lower() in _TIME]
    if len(times) > 1:
        raise ReadError(f"{path} has {len(times)} time columns. Keep one.")
    if len(times) == len(parts):
        raise ReadError(f"{path} has no column besides time. Add one per lead.")
    rate = _RATE.fullmatch(said["sampling_rate"]) if "sampling_rate" in said else None
    if "sampling_rate" in said and rate is None:
        raise ReadError(f"The line '# sampling_rate: ...' of {path} holds no number of Hz.")
    time = times[0] if times else None
    return Layout(
        delimiter=delimiter,
        names=tuple(name for name, _ in parts),
        units=tuple(
            unit if unit or k == time else said.get("units") for k, (_, unit) in enumerate(parts)
        ),
        time=time,
        rate=None if rate is None else float(rate[1].replace(",", ".")),
        comments=tuple(text.lstrip("# ") for text in comments),
    )


def _cell(cell: str) -> tuple[str, str | None]:
    """Parts `I (mV)`, `I [mV]` or `I_mV` into name and unit."""
    if match := _NAMED.fullmatch(cell):
        return match["name"].strip(), match["unit"].strip()
    if match := _SUFFIXED.fullmatch(cell):
        return match["name"] or match["time"], match["unit"] or match["other"]
    return cell, None


def check_columns(
    path: Path, layout: Layout, leads: Sequence[str] | None
) -> tuple[tuple[str, ...], float | None]:
    """Settles the leads' names and the unit of the time column in seconds."""
    unnamed = [k for k, name in enumerate(layout.names) if not name]
    if unnamed and leads is None:
        raise ReadError(_unnamed(path, unnamed[0]))
    for k in layout.leads:
        unit = layout.units[k]
        if unit is not None and known_time(unit) and _border.known_lead(layout.names[k]) is None:
            raise ReadError(_unknown_times(path, layout, k, unit))
    second = None
    if layout.time is not None and (unit := layout.units[layout.time]) is not None:
        second = known_time(unit)
        if second is None:
            raise ReadError(
                f"The unit of the time column in {path} is none of s, ms, us. Correct it."
            )
    stated = [layout.names[k] for k in layout.leads]
    called = [layout.called(k) for k in layout.leads]
    return _border.lead_names(path, stated, leads, called), second


def _unnamed(path: Path, column: int) -> str:
    if column == 0:
        return (
            f"Column 1 of {path} has no name; it is probably an index. Write the file without it "
            "(pandas: index=False), or name the column, 'time (s)' if it holds times."
        )
    return f"Column {column + 1} of {path} has no name. Name it, or remove it."


def _unknown_times(path: Path, layout: Layout, column: int, unit: str) -> str:
    what = f"{capital(layout.called(column))} of {path} has a unit of time"
    if layout.time is not None:
        return f"{what}, and there is a time column already. Remove it."
    return f"{what}. Rename it to 'time ({unit})' if it holds times; if not, remove it."
