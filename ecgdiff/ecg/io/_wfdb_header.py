"""WFDB headers: their text, checked line by line before the `wfdb` package sees it.

`wfdb` reads much damage as numbers: a rate that is missing becomes 250 Hz, a gain that is missing
200, and a unit loses its micro sign. It also allocates what a header announces. So every line must
have its exact form here, every signal file must lie beside the header and hold as many samples as
announced, and `wfdb` must have understood the same.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecgdiff.ecg.io import _border
from ecgdiff.errors import ReadError

__all__ = [
    "MAX_GROWTH",
    "Header",
    "agrees",
    "check_signal_line",
    "checked_length",
    "header_path",
    "looks_like_header",
    "names_file",
    "read_header",
]

MAX_HEADER_BYTES = 1 << 20
MAX_SIGNALS = 32
# A file whose size says nothing about its content (compressed, or segments without data) may grow
# by this factor.
MAX_GROWTH = 1000
# No field of a header is long, and `wfdb` takes quadratic time on long words.
_MAX_LINE = 1000
_BYTES = {"8": 1.0, "16": 2.0, "24": 3.0, "32": 4.0, "61": 2.0, "80": 1.0, "160": 2.0}
_BYTES |= {"212": 1.5, "310": 4 / 3, "311": 4 / 3}
_COMPRESSED = ("508", "516", "524")

_RECORD = re.compile(
    r"(?P<name>[\w-]+)(/(?P<segments>\d+))?\s+(?P<signals>\d+)"
    r"(\s+(?P<rate>\d+\.?\d*)(/\S*)?(\s+(?P<length>\d+)(\s.*)?)?)?",
    re.ASCII,
)
_SIGNAL = re.compile(
    r"(?P<file>\S+)\s+(?P<format>\d+)(x(?P<frame>\d+))?(:(?P<skew>\d+))?(\+(?P<offset>\d+))?"
    r"(\s+(?P<gain>[+-]?\d+\.?\d*(e[+-]?\d+)?)(\((?P<baseline>-?\d+)\))?(/(?P<units>\S+))?(\s.*)?)?",
    re.ASCII,
)
_SEGMENT = re.compile(r"(?P<name>[\w-]+|~)\s+(?P<length>\d+)", re.ASCII)


@dataclass(frozen=True)
class Header:
    """A header's text, checked: every line has the form it must have."""

    path: Path
    record: re.Match[str]
    lines: tuple[re.Match[str], ...]
    comments: tuple[str, ...]

    @property
    def stem(self) -> str:
        """The path without suffix, as `wfdb` wants it."""
        return str(self.path.with_suffix(""))

    @property
    def segmented(self) -> bool:
        """Whether the lines name segments rather than signals."""
        return self.record["segments"] is not None

    @property
    def length(self) -> int | None:
        """Announced frames, or None."""
        return int(self.record["length"] or 0) or None

    @property
    def rate(self) -> float | None:
        """Announced frames per second, or None."""
        return float(self.record["rate"]) if self.record["rate"] else None


def looks_like_header(lines: Sequence[str]) -> bool:
    """Tells from the first lines of a text whether it is a WFDB header."""
    texts = [text.strip() for text in lines if text.strip() and not text.startswith("#")]
    if not texts or (record := _RECORD.fullmatch(texts[0])) is None:
        return False
    below = _SIGNAL if record["segments"] is None else _SEGMENT
    return len(texts) > 1 and below.fullmatch(texts[1]) is not None


def names_file(header: Path, name: str) -> bool:
    """Tells whether a header lists this signal file."""
    with header.open("rb") as file:
        lines = _border.decode(file.read(MAX_HEADER_BYTES))
    return any(line.split()[:1] == [name] for line in lines)


def header_path(path: Path) -> Path:
    """Finds the header of a record given by its header, a signal file, or its bare name."""
    beside = path.with_name(path.name + ".hea")
    if path.suffix != ".hea" and path.name:
        path = beside if beside.is_file() else path.with_suffix(".hea")
    _border.first_bytes(path, 1)
    return path


def read_header(path: Path) -> Header:
    """Reads a header's text and checks the form of each line; its signal files are not touched."""
    if path.stat().st_size > MAX_HEADER_BYTES:
        raise ReadError(
            f"{path} has {path.stat().st_size} bytes, which no WFDB header has. Pass the .hea "
            "file."
        )
    texts = [text.strip() for text in _border.decode(path.read_bytes())]
    lines = [text for text in texts if text and not text.startswith("#")]
    record = _RECORD.fullmatch(lines[0]) if lines else None
    if record is None or any(len(text) > _MAX_LINE for text in texts):
        raise _malformed(path, 1)
    below = _SIGNAL if record["segments"] is None else _SEGMENT
    matches = [below.fullmatch(text) for text in lines[1:]]
    for number, match in enumerate(matches, start=2):
        if match is None:
            raise _malformed(path, number)
    claimed = int(record["segments"] or record["signals"])
    if claimed != len(matches) or not 0 < int(record["signals"]) <= MAX_SIGNALS:
        raise ReadError(
            f"{path} announces {claimed} lines below its first and has {len(matches)} "
            f"({record['signals']} signals; at most {MAX_SIGNALS} are read). The header is "
            "damaged."
        )
    found = tuple(match for match in matches if match is not None)
    return Header(path, record, found, tuple(t.strip("# \t") for t in texts if t.startswith("#")))


def _malformed(path: Path, line: int) -> ReadError:
    return ReadError(
        f"Line {line} of {path}, not counting comments, is not of the form that a WFDB header has "
        "there, or too long. The header is damaged; get it again from its source."
    )


def check_signal_line(path: Path, number: int, line: re.Match[str]) -> None:
    """Refuses a signal whose file, gain, skew or format cannot be read without guessing."""
    name = line["file"]
    if not re.fullmatch(r"[\w-]+(\.\w+)?", name, re.ASCII):
        raise ReadError(
            f"Signal {number} of {path} is said to lie in a file outside its folder, or with an "
            "odd name. Only plain file names beside the header are opened."
        )
    _border.first_bytes(path.with_name(name), 1)
    if line["gain"] is None or float(line["gain"]) == 0 or not math.isfinite(float(line["gain"])):
        raise ReadError(
            f"Signal {number} of {path} has no gain, so its unit is unknown. Add the gain to the "
            "header."
        )
    if int(line["skew"] or 0):
        raise ReadError(
            f"Signal {number} of {path} is skewed against the others, which is not supported. "
            "Convert the record."
        )
    if line["format"] not in _BYTES and line["format"] not in _COMPRESSED:
        raise ReadError(f"Signal {number} of {path} has the unknown format {line['format'][:9]}.")


def checked_length(header: Header) -> int:
    """Returns the frames in the record, once it is sure that the files hold as many."""
    frames = {int(line["frame"] or 1) for line in header.lines}
    if len(frames) > 1 or 0 in frames:
        raise ReadError(
            f"The signals of {header.path} have different rates ({sorted(frames)} samples per "
            "frame). Resample them to one rate and write them again."
        )
    lengths = []
    for name in dict.fromkeys(line["file"] for line in header.lines):
        lines = [line for line in header.lines if line["file"] == name]
        if len({(line["format"], line["offset"]) for line in lines}) > 1:
            raise ReadError(f"{header.path} states different formats for one signal file.")
        size = header.path.with_name(name).stat().st_size
        samples = len(lines) * max(frames)
        if (width := _BYTES.get(lines[0]["format"])) is None:
            lengths.append(MAX_GROWTH * size // samples)
        else:
            lengths.append(int((size - int(lines[0]["offset"] or 0)) / (width * samples) + 1e-6))
    held = min(lengths)
    if header.length is None and any(line["format"] in _COMPRESSED for line in header.lines):
        raise ReadError(f"{header.path} states no length, which compressed signals need. Add it.")
    length = header.length or held
    if not 0 < length <= held:
        raise ReadError(
            f"{header.path} announces {length} samples per signal, but its signal files hold "
            f"{max(held, 0)}. The copy is incomplete or the header damaged; get both files again."
        )
    return length


def agrees(header: Header, record: Any) -> bool:
    """Tells whether `wfdb` read from the header what stands there."""
    fields: list[tuple[Any, Any]]
    fields = [(record.n_sig, len(header.lines)), (len(record.file_name), len(header.lines))]
    fields += [(record.sig_len or None, header.length)]
    for k, line in enumerate(header.lines):
        fields += [(record.file_name[k], line["file"]), (record.fmt[k], line["format"])]
        fields += [(record.samps_per_frame[k], int(line["frame"] or 1))]
        fields += [(record.byte_offset[k] or 0, int(line["offset"] or 0))]
        fields += [(record.adc_gain[k], float(line["gain"]))]
        if line["baseline"] is not None:
            fields += [(record.baseline[k], int(line["baseline"]))]
    return all(found == stated for found, stated in fields)
