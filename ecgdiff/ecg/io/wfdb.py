"""WFDB: PhysioNet's header (`.hea`) with signal files (`.dat`, `.mat`).

The `wfdb` package decodes the signals, piece by piece into float32, after `_wfdb_header` has
checked what the header says. Age, sex and names in header comments are not kept. The comments
`synthetic: V1 V2` and `derived: III` carry the provenance of the leads through a file.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.io import _border
from ecgdiff.ecg.io._wfdb_header import (
    MAX_GROWTH,
    Header,
    agrees,
    check_signal_line,
    checked_length,
    header_path,
    read_header,
)
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import ReadError

__all__ = ["read_wfdb", "write_wfdb"]

# Samples decoded at a time (float64, before they become float32).
PIECE = 1 << 22
# Written gains in units per mV. Multiples of 1,000 keep whole microvolts exact; 200 is 5
# microvolts per unit.
_GAINS = (32000, 16000, 8000, 4000, 2000, 1000, 500, 200)
_LARGEST = 32767  # of the 16-bit format; -32768 means missing
_MISSING = -32768
_OWN_COMMENT = re.compile(r"\s*#|\s*(synthetic|derived|start)\s*:|.*[\t\n\r\f\v]")


@dataclass(frozen=True)
class _Signals:
    """Decoded signals in mV, with shape (leads, time), and what their header says of them."""

    values: NDArray[np.float32]
    rate: float | None
    names: tuple[str, ...]
    units: tuple[str, ...]
    start: datetime | None


def read_wfdb(
    path: _border.PathLike,
    *,
    sampling_rate: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
) -> Recording:
    """Reads a WFDB record, of one or several segments.

    Arguments:
        path: The `.hea` file, a signal file of the same name, or the path without suffix.
        sampling_rate: In Hz, if the header states none.
        units: "mV", "uV" or "V"; must agree with the header's (which, by the format, means mV if
            it states none).
        leads: Names for the signals, in the order of the header, if its own are no lead names.

    Returns:
        The recording in mV; NaN where the file marks a sample as missing.

    Raises:
        ReadError: If the header is damaged, a signal file is missing, outside the folder or too
            short, or a signal is no voltage.
    """
    path = Path(path)
    with _border.border(path, "a WFDB record"):
        header = read_header(header_path(path))
        signals = _segments(header, units) if header.segmented else _single(header, units)
        return _border.assemble(
            header.path,
            signals.values,
            _border.settled_rate(header.path, signals.rate, sampling_rate),
            signals.names,
            leads,
            provenance=_border.provenance_from(header.path, header.comments, signals.names),
            start=_start(header.comments, signals.start),
            meta={"format": "wfdb", "units": signals.units},
        )


def write_wfdb(
    recording: Recording, path: _border.PathLike, *, comments: Sequence[str] = ()
) -> None:
    """Writes a recording as a WFDB record, format 16, with at most 5 µV per unit.

    Arguments:
        recording: What to write. Rate, NaN, provenance and start survive; `meta` is not kept.
        path: The `.hea` file or the path without suffix; a `.dat` file is written beside it. Both
            are replaced.
        comments: More header comments, such as "method: mgps".

    Raises:
        ValueError: If the name or a comment does not fit the format, a sample is infinite, or a
            lead's range exceeds 327 mV.
    """
    import wfdb

    path = Path(path)
    name = path.name.removesuffix(".hea")
    if not re.fullmatch(r"[\w-]+", name, re.ASCII):
        raise ValueError(
            f"A WFDB record name has letters, digits, '-' and '_' only, got {name!r}. Choose "
            "another file name."
        )
    digital, gains, baselines = _digital(recording)
    with _border.replacing(path) as folder:
        wfdb.wrsamp(
            name,
            fs=recording.sampling_rate,
            units=["mV"] * recording.n_leads,
            sig_name=list(recording.leads),
            d_signal=digital,
            fmt=["16"] * recording.n_leads,
            adc_gain=gains,
            baseline=baselines,
            comments=_comments(recording, comments),
            base_datetime=recording.start and recording.start.replace(tzinfo=None),
            write_dir=str(folder),
        )


def _single(header: Header, units: str | None) -> _Signals:
    """Decodes a record of one segment."""
    import wfdb

    for number, line in enumerate(header.lines, start=1):
        check_signal_line(header.path, number, line)
    if "::" in str(header.path.absolute()):
        raise ReadError(
            f"The path of {header.path} contains '::', which wfdb cannot open. Rename the folder."
        )
    frame = int(header.lines[0]["frame"] or 1)
    length = checked_length(header)
    record = wfdb.rdheader(header.stem)
    if not agrees(header, record):
        raise ReadError(
            f"The fields of {header.path} can be read in two ways. The header is damaged."
        )
    stated = [line["units"] or "mV" for line in header.lines]
    scale, names = _border.factors(header.path, stated, units)
    values = np.empty((len(scale), length * frame), dtype=np.float32)
    for first, last in _pieces(header, length, len(scale) * frame):
        end = None if header.length is None else last
        piece = wfdb.rdrecord(header.stem, sampfrom=first, sampto=end, smooth_frames=False)
        for row, decoded, factor in zip(values, piece.e_p_signal, scale, strict=True):
            row[first * frame : last * frame] = decoded[: (last - first) * frame] * factor
    rate = None if header.rate is None else header.rate * frame
    leads = tuple(name or "" for name in record.sig_name)
    return _Signals(values, rate, leads, names, record.base_datetime)


def _pieces(header: Header, length: int, width: int) -> list[tuple[int, int]]:
    """Frames to decode together. Some records can only be decoded as a whole."""
    # Format 8 stores differences, and wfdb cannot start within a record of unknown length.
    whole = header.length is None or any(line["format"] == "8" for line in header.lines)
    step = length if whole else max(1, PIECE // width)
    return [(first, min(first + step, length)) for first in range(0, length, step)]


def _segments(header: Header, units: str | None) -> _Signals:
    """Joins a record's segments by lead name; NaN where one is a gap or lacks a lead."""
    parts: list[tuple[int, _Signals | None]] = []
    names: tuple[str, ...] = ()
    sizes: dict[str, int] = {}
    for number, line in enumerate(header.lines):
        length, segment = int(line["length"]), None
        if line["name"] != "~":
            part = read_header(header.path.with_name(f"{line['name']}.hea"))
            if part.segmented:
                raise ReadError(f"A segment of {header.path} has segments itself. It is damaged.")
            if number == 0 and length == 0:
                names = _layout_names(part)
                continue
            segment = _single(part, units)
            _check_segment(header, length, segment)
            sizes |= {
                s["file"]: header.path.with_name(s["file"]).stat().st_size for s in part.lines
            }
        parts.append((length, segment))
    # Gaps cost the file nothing, so a damaged length could fill the memory.
    total = sum(length for length, _ in parts)
    if total * int(header.record["signals"]) > MAX_GROWTH * sum(sizes.values()):
        raise ReadError(
            f"{header.path} announces {total} samples, far more than its files hold. The header "
            "is damaged."
        )
    return _joined(header, parts, names)


def _layout_names(layout: Header) -> tuple[str, ...]:
    import wfdb

    return tuple(name or "" for name in wfdb.rdheader(layout.stem).sig_name)


def _check_segment(header: Header, length: int, segment: _Signals) -> None:
    found = segment.values.shape[1]
    if found != length or segment.rate != header.rate:
        raise ReadError(
            f"A segment of {header.path} has {found} samples at {segment.rate} Hz; announced are "
            f"{length} at {header.rate} Hz. The record is damaged."
        )


def _joined(
    header: Header, parts: Sequence[tuple[int, _Signals | None]], names: tuple[str, ...]
) -> _Signals:
    import wfdb

    found = [segment for _, segment in parts if segment is not None]
    names = names or found[0].names
    units = dict.fromkeys(names, "mV")
    total = sum(length for length, _ in parts)
    if len(names) != int(header.record["signals"]) or (header.length or total) != total:
        raise ReadError(f"The segments of {header.path} do not add up to what it announces.")
    values = np.full((len(names), total), np.nan, dtype=np.float32)
    first = 0
    for length, segment in parts:
        for k, name in enumerate(segment.names if segment else ()):
            if segment is None or name not in names or segment.names.index(name) != k:
                raise ReadError(
                    f"A segment of {header.path} has a signal twice, or one that the record lacks."
                )
            values[names.index(name), first : first + length] = segment.values[k]
            units[name] = segment.units[k]
        first += length
    start = wfdb.rdheader(header.stem).base_datetime
    return _Signals(values, header.rate, names, tuple(units.values()), start)


def _start(comments: Sequence[str], start: datetime | None) -> datetime | None:
    """The header's date and time, with the offset from UTC if a comment of ours has it."""
    for comment in comments:
        if start is not None and comment.startswith("start: "):
            aware = datetime.fromisoformat(comment.removeprefix("start: "))
            start = aware if aware.replace(tzinfo=None) == start else start
    return start


def _comments(recording: Recording, comments: Sequence[str]) -> list[str]:
    if any(_OWN_COMMENT.match(comment) for comment in comments):
        raise ValueError(
            "A comment is one line without tabs; it must not begin with '#', 'synthetic:', "
            "'derived:' or 'start:', which the recording itself decides."
        )
    own = _border.marks(recording)
    if "synthetic" in recording.provenance:
        own.append("research use only")
    if recording.start is not None and recording.start.tzinfo is not None:
        own.append(f"start: {recording.start.isoformat()}")
    return [*own, *comments]


def _digital(recording: Recording) -> tuple[NDArray[np.int64], list[float], list[int]]:
    """Rounds to the finest gain each lead allows; returns (time, leads), gains, baselines."""
    digital = np.full(recording.signal.shape[::-1], _MISSING, dtype=np.int64)
    gains: list[float] = []
    baselines: list[int] = []
    for row, (lead, values) in enumerate(zip(recording.leads, recording.signal, strict=True)):
        finite = values[~np.isnan(values)].astype(np.float64)
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        gain, baseline = _gain(lead, low, high)
        digital[~np.isnan(values), row] = np.rint(finite * gain + baseline)
        gains.append(float(gain))
        baselines.append(baseline)
    return digital, gains, baselines


def _gain(lead: str, low: float, high: float) -> tuple[int, int]:
    if not math.isfinite(high - low):
        raise ValueError(f"Lead {lead} holds infinite samples. Set what was not measured to NaN.")
    for gain in _GAINS:
        if max(-low, high) * gain <= _LARGEST:
            return gain, 0
    for gain in _GAINS:
        baseline = -round((low + high) / 2 * gain)
        if (
            max(-(low * gain + baseline), high * gain + baseline) <= _LARGEST
            and abs(baseline) < 2**31
        ):
            return gain, baseline
    raise ValueError(
        f"Lead {lead} runs from {low:g} to {high:g} mV, more than 16 bits hold at 5 uV. Check its "
        "unit."
    )
