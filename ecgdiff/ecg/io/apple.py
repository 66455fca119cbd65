"""Apple Watch ECG: the CSV files of a Health export.

The file is a header of "key,value" lines, then one voltage per line. The export translates its
keys, swaps the decimal mark and leaves commas unquoted, depending on the phone's region, so the
header is read by the *form* of its values and never by its words:

- the header ends at the first line that is a number;
- the rate is the value in hertz, the unit the last value, the lead the last word of the line above
  the unit;
- the start is a date with a time and an offset; the line below it is Apple's verdict, kept as it
  is written;
- the decimal mark is the one the samples use. Two different marks, or grouped digits ("1.234,5"),
  are refused.

Name, date of birth and symptoms are not kept.
"""

import re
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.io import _border
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import ReadError

__all__ = ["looks_like_apple", "read_apple", "write_apple"]

MAX_BYTES = 64 << 20  # a 30 s recording takes 0.12 MB
# Lines before the samples; a real header has 12 or so.
MAX_HEADER = 64
_NUMBER = re.compile(r"-?[0-9]+([.,][0-9]+)?")
_RATE = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*(?:hz|hertz)", re.IGNORECASE)
_UNIT = re.compile(r"([u\u00b5\u03bc]|m|micro|milli)v(olts?)?", re.IGNORECASE)
_DATE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", re.ASCII)
_DEVICE = re.compile(r"Watch\d+,\d+", re.ASCII)
# Before the first watch with an ECG: a date of birth, not of a recording.
_FIRST_YEAR = 2018


def looks_like_apple(lines: Sequence[str]) -> bool:
    """Tells from the first lines of a text whether it is laid out as an Apple Watch ECG."""
    header, samples = _split(lines)
    if any(line.startswith("#") for line in header) or len(header) < 4:
        return False
    # Another CSV file may have a row of units, but its rows of numbers begin with a number.
    if not samples and any(_NUMBER.fullmatch(line.partition(",")[0].strip()) for line in header):
        return False
    return any(_RATE.fullmatch(_value(line)) or _UNIT.fullmatch(_value(line)) for line in header)


def read_apple(
    path: _border.PathLike,
    *,
    sampling_rate: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
) -> Recording:
    """Reads a single-lead recording from an Apple Watch CSV file in any language.

    Arguments:
        path: The file, `electrocardiograms/ecg_*.csv` in the unpacked export.
        sampling_rate: In Hz, if the file does not state it.
        units: "mV" or "uV", if the file does not state it.
        leads: Such as ("II",) if the watch was not worn as for lead I, which the file cannot know.

    Returns:
        The recording in mV; `meta` may hold `classification` (as written) and `device`.

    Raises:
        ReadError: If rate, unit, lead or a sample cannot be read without guessing.
    """
    path = Path(path)
    with _border.border(path, "an Apple Watch ECG"):
        _border.first_bytes(path)
        if path.stat().st_size > MAX_BYTES:
            raise ReadError(
                f"{path} has {path.stat().st_size} bytes; an Apple Watch ECG has about 120,000. "
                "Pass one of the files in the export's folder of electrocardiograms."
            )
        header, samples = _split(_border.decode(path.read_bytes()))
        numbers = _numbers(path, samples, len(header))
        values = [_value(line) for line in header]
        unit_row = max((row for row, v in enumerate(values) if _UNIT.fullmatch(v)), default=None)
        _refuse_swallowed(path, header, unit_row)
        stated = None if unit_row is None else values[unit_row]
        scale, names = _border.factors(path, [stated], units, ["its signal"])
        rate = _border.settled_rate(path, _rate(path, values), sampling_rate)
        lead = (_value(header[unit_row - 1]).split() or [""])[-1] if unit_row else ""
        return _border.assemble(
            path,
            (numbers * scale).astype(np.float32)[None],
            rate,
            [lead],
            leads,
            start=_start(values),
            meta={"format": "apple", "units": names, **_extras(values)},
        )


def write_apple(recording: Recording, path: _border.PathLike) -> None:
    """Writes a measured single-lead recording in Apple's layout (English, no name).

    Arguments:
        recording: One lead, every sample measured.
        path: The file, replaced if it exists.

    Raises:
        ValueError: If there is more than one lead, a sample is missing, or the lead is derived or
            synthetic: this layout cannot say so.
    """
    if recording.n_leads != 1 or recording.provenance != ("measured",):
        raise ValueError(
            f"Apple's layout holds one measured lead, got {' '.join(recording.leads)} "
            f"({' '.join(recording.provenance)}). Select one, or use ecgdiff.write."
        )
    if not recording.measured.all():
        raise ValueError(
            "Apple's layout has no sign for missing samples. Crop them, or use ecgdiff.write."
        )
    path = Path(path)
    date = f"{recording.start:%Y-%m-%d %H:%M:%S %z}".strip() if recording.start else ""
    verdict = " ".join(str(recording.meta.get("classification", "")).split())
    header = [
        "Name,",
        "Date of Birth,",
        f"Recorded Date,{date}",
        f"Classification,{verdict}",
        "Symptoms,",
        "Software Version,",
        "Device,",
        f"Sample Rate,{recording.sampling_rate:.12g} hertz",
        "",
        f"Lead,Lead {recording.leads[0]}",
        "Unit,µV",
        "",
    ]
    samples = [f"{1e3 * value:.3f}" for value in recording.signal[0].astype(np.float64)]
    with _border.replacing(path) as folder:
        text = "\n".join(header + samples) + "\n"
        (folder / path.name).write_text(text, encoding="utf-8", newline="\n")


def _split(lines: Sequence[str]) -> tuple[list[str], Sequence[str]]:
    """Parts the header, without blank lines, from the rest, which begins with the first number."""
    for row, line in enumerate(lines[:MAX_HEADER]):
        if _NUMBER.fullmatch(line.strip()):
            return [text for text in lines[:row] if text.strip()], lines[row:]
    return [text for text in lines[:MAX_HEADER] if text.strip()], []


def _value(line: str) -> str:
    """What follows the first comma, unquoted; other commas belong to the value."""
    value = line.partition(",")[2].strip()
    return value[1:-1].strip() if len(value) > 1 and value[0] == value[-1] == '"' else value


def _refuse_swallowed(path: Path, header: Sequence[str], unit_row: int | None) -> None:
    """Refuses a damaged first sample, which would otherwise count as a line of the header."""
    if unit_row is None:
        swallowed = [line for line in header if not any(letter.isalpha() for letter in line)]
    else:
        swallowed = list(header[unit_row + 1 :])
    if swallowed:
        raise ReadError(
            f"{path} has {len(swallowed)} lines before its first sample that are no plain "
            "numbers, such as grouped digits. Export the file again or write plain decimals."
        )


def _rate(path: Path, values: Sequence[str]) -> float | None:
    rates = {float(m[1].replace(",", ".")) for v in values if (m := _RATE.fullmatch(v))}
    if len(rates) > 1:
        raise ReadError(f"{path} states {len(rates)} different rates. Correct the header.")
    return rates.pop() if rates else None


def _start(values: Sequence[str]) -> datetime | None:
    row = _date_row(values)
    return None if row is None else datetime.strptime(values[row], "%Y-%m-%d %H:%M:%S %z")


def _date_row(values: Sequence[str]) -> int | None:
    rows = [
        row for row, v in enumerate(values) if _DATE.fullmatch(v) and int(v[:4]) >= _FIRST_YEAR
    ]
    return rows[-1] if rows else None


def _extras(values: Sequence[str]) -> dict[str, str]:
    """The verdict and the watch model.

    The first two lines are a name and a date of birth. Where the layout differs from theirs and
    the date's, nothing is taken for a verdict, so that neither can slip in.
    """
    devices = [value for value in values if _DEVICE.fullmatch(value)]
    extras = {"device": devices[-1]} if devices else {}
    row = _date_row(values)
    if row == 2 and row < len(values) - 1:
        verdict = values[row + 1]
        if verdict and verdict not in values[:2]:
            extras["classification"] = verdict
    return extras


def _numbers(path: Path, lines: Sequence[str], header: int) -> NDArray[np.float64]:
    texts = [line.strip() for line in lines]
    while texts and not texts[-1]:
        texts.pop()
    if not texts:
        raise ReadError(
            f"{path} has no samples within its first {MAX_HEADER} lines; they are expected one "
            "number per line below the header. The export may be cut off: export it again."
        )
    for number, text in enumerate(texts, start=1):
        if not _NUMBER.fullmatch(text):
            raise ReadError(
                f"Sample {number} of {path} is no plain number such as -12.345 or -12,345 (header "
                f"lines: {header}). Digits must not be grouped; export the file again or write "
                "plain decimals."
            )
    if any("," in text for text in texts) and any("." in text for text in texts):
        raise ReadError(
            f"{path} uses both '.' and ',' as decimal mark, so its numbers have two meanings. "
            "Write one."
        )
    return np.array([float(text.replace(",", ".")) for text in texts])
