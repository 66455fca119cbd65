"""What all readers and writers share.

One border for errors, text decoding, units, and files that appear whole. Messages name the file
and what to do, but do not repeat text from the file: a header may hold a person's name. Only words
that cannot be one are repeated, see `_csv_cells`.
"""

import codecs
import math
import os
import re
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg._units import known_unit
from ecgdiff.ecg._wording import argument, capital
from ecgdiff.ecg.leads import LEADS_12, canonical
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import ReadError

__all__ = [
    "PASS_RATE",
    "PathLike",
    "assemble",
    "border",
    "decode",
    "encoding",
    "factors",
    "first_bytes",
    "known_lead",
    "lead_names",
    "marks",
    "no_infinity",
    "provenance_from",
    "replacing",
    "settled_rate",
]

PathLike = str | os.PathLike[str]

PASS_RATE = f"pass {argument('sampling_rate', 250.0)}, or what it is in Hz"

_MARK = re.compile(r"(synthetic|derived)\s*:\s*(.*)")


@contextmanager
def border(path: Path, kind: str) -> Iterator[None]:
    """Lets only `ReadError` out, whatever a library below raises or warns about damaged bytes."""
    try:
        with warnings.catch_warnings():
            # Damaged numbers overflow and the like; the values are checked afterwards.
            warnings.simplefilter("ignore")
            yield
    except ReadError:
        raise
    except Exception as error:
        raise ReadError(
            f"{path} could not be read as {kind}: {type(error).__name__} while decoding it. The "
            "file is damaged or "
            "of another format; get it again from its source."
        ) from error


def first_bytes(path: Path, size: int = 1 << 16) -> bytes:
    """Returns the first bytes of a file that exists, is a file and is not empty."""
    if path.is_dir():
        raise ReadError(f"{path} is a folder. Pass one file of it, such as a .hea, .npz or .csv.")
    if not path.exists():
        raise ReadError(
            f"{path} does not exist. Check the path; a WFDB record needs its .hea file."
        )
    if not path.is_file():
        raise ReadError(f"{path} is not a regular file. Copy its content into one.")
    with path.open("rb") as file:
        head = file.read(size)
    if not head:
        raise ReadError(f"{path} is empty (0 bytes). Copy or export it again.")
    return head


def encoding(head: bytes) -> str:
    """Names the text encoding from the first bytes: UTF-8 or UTF-16 (if marked), else Latin-1."""
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # the last character may be cut
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def decode(data: bytes) -> list[str]:
    """Returns the lines of a text file, without their ends; senseless bytes become U+FFFD."""
    text = data.decode(encoding(data), errors="replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def factors(
    path: Path, stated: Sequence[str | None], given: str | None, called: Sequence[str] = ()
) -> tuple[NDArray[np.float64], tuple[str, ...]]:
    """Settles each lead's unit between file and caller: factors to mV, and the units' names.

    `called` is what messages call the leads, "signal 1" and so on if nothing is given.
    """
    if given is not None and known_unit(given) is None:
        raise ReadError(
            f"{argument('units', given)} is none of mV, uV, V. Pass the one that {path} is in."
        )
    names = []
    for number, unit in enumerate(stated):
        what = called[number] if called else f"signal {number + 1}"
        if unit is None and given is None:
            raise ReadError(
                f"{path} does not state the unit of {what}. Pass {argument('units', 'mV')}, or "
                "whichever of mV, uV and V it is."
            )
        if unit is not None and known_unit(unit) is None:
            raise ReadError(
                f"The unit of {what} in {path} is none of mV, uV, V, so it is no ECG. Remove it "
                "or convert it."
            )
        if unit is not None and given is not None and known_unit(unit) != known_unit(given):
            raise ReadError(
                f"{path} states {unit} for {what}, but {argument('units', given)} was passed. "
                "Leave it out, or correct the file."
            )
        names.append(unit or given or "")
    return np.array([known_unit(name) or math.nan for name in names]), tuple(names)


def settled_rate(path: Path, stated: float | None, given: float | None) -> float:
    """Settles the sampling rate in Hz between file and caller."""
    for rate, source in (
        (stated, "stated in the file"),
        (given, "passed as sampling_rate (--sampling-rate)"),
    ):
        if rate is not None and not (math.isfinite(rate) and rate > 0):
            raise ReadError(f"The rate {source} for {path} is {rate!r} Hz; it must be positive.")
    if stated is not None and given is not None and not math.isclose(stated, given, rel_tol=1e-6):
        raise ReadError(
            f"{path} states {stated:.9g} Hz, but {argument('sampling_rate', given)} was passed. "
            "Leave it out, or correct the file."
        )
    rate = given if stated is None else stated
    if rate is None:
        raise ReadError(f"{path} does not state its sampling rate. {capital(PASS_RATE)}.")
    return float(rate)


def known_lead(name: str) -> str | None:
    """Returns the standard spelling of a lead, or None if it is no lead name."""
    try:
        return canonical(name)
    except ValueError:
        return None


def provenance_from(path: Path, comments: Iterable[str], names: Sequence[str]) -> tuple[str, ...]:
    """Reads the marks `synthetic: V1 V2` and `derived: III` from header comments."""
    rows = [known_lead(name) or name for name in names]
    words = ["measured"] * len(rows)
    for comment in comments:
        match = _MARK.fullmatch(comment.strip())
        for name in match[2].replace(",", " ").split() if match else ():
            lead = known_lead(name) or name
            if match is None or lead not in rows:
                raise ReadError(
                    f"A comment of {path} marks leads as synthetic or derived that it does not "
                    "have. "
                    "Correct the comment; without it the recording would pass as measured."
                )
            words[rows.index(lead)] = match[1]
    return tuple(words)


def marks(recording: Recording) -> list[str]:
    """Writes the header comments that `provenance_from` reads."""
    comments = []
    for word in ("synthetic", "derived"):
        pairs = zip(recording.leads, recording.provenance, strict=True)
        if names := [lead for lead, provenance in pairs if provenance == word]:
            comments.append(f"{word}: {' '.join(names)}")
    return comments


def lead_names(
    path: Path, stated: Sequence[str], given: Sequence[str] | None, called: Sequence[str]
) -> tuple[str, ...]:
    """Settles the leads' names between file and caller; `called` is as for `factors`."""
    names = list(stated) if given is None else [given] if isinstance(given, str) else list(given)
    example = argument("leads", ("I", "II")[: len(called)])
    if len(names) != len(called):
        raise ReadError(
            f"{path} has {len(called)} signals, but leads (--leads) names {len(names)}. Name "
            f"each in the order of the file, as in {example}."
        )
    leads: list[str] = []
    for name, what in zip(names, called, strict=True):
        lead = known_lead(name)
        if lead is None:
            whose = f"of {what} in {path}" if given is None else f"passed for {what} of {path}"
            raise ReadError(
                f"The name {whose} is none of {', '.join(LEADS_12)}, chest. Remove it if it "
                f"is no lead; if it is, pass {example} or whichever they are, in the order of "
                "the file."
            )
        if lead in leads:
            raise ReadError(
                f"{path} has lead {lead} more than once. Remove one, or name each, as in "
                f"{example}."
            )
        leads.append(lead)
    return tuple(leads)


def assemble(
    path: Path,
    signal: NDArray[Any],
    rate: float,
    stated: Sequence[str],
    given: Sequence[str] | None,
    *,
    provenance: Sequence[str] = (),
    start: datetime | None = None,
    meta: Mapping[str, Any],
) -> Recording:
    """Checks what a file or the caller says about the leads and makes the recording."""
    called = [f"signal {k + 1} of {len(signal)}" for k in range(len(signal))]
    leads = lead_names(path, stated, given, called)
    no_infinity(signal, f"{path} holds infinite values. Missing samples must be NaN.")
    return Recording(
        signal=signal,
        sampling_rate=rate,
        leads=leads,
        provenance=tuple(provenance),
        start=start,
        meta=meta,
    )


def no_infinity(signal: NDArray[Any], message: str) -> None:
    """Raises `ReadError(message)` if a value is infinite, which no recorder measures."""
    if any(np.isinf(row).any() for row in signal):  # by row: no mask of the whole
        raise ReadError(message)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a folder to write into; its files then move beside `path`, each in one step."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".ecgdiff-") as name:
        folder = Path(name)
        yield folder
        for part in sorted(folder.iterdir()):
            os.replace(part, path.parent / part.name)
