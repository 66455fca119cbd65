"""Reading and writing ECG files.

A file is recognized by its content, and what it does not state is never guessed.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

from ecgdiff.ecg.io import _border
from ecgdiff.ecg.io._wfdb_header import looks_like_header, names_file
from ecgdiff.ecg.io.apple import looks_like_apple, read_apple, write_apple
from ecgdiff.ecg.io.csv import read_csv
from ecgdiff.ecg.io.npz import read_npz, write_npz
from ecgdiff.ecg.io.wfdb import read_wfdb, write_wfdb
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import ReadError

__all__ = [
    "read",
    "read_apple",
    "read_csv",
    "read_npz",
    "read_wfdb",
    "write",
    "write_apple",
    "write_npz",
    "write_wfdb",
]

# What people pass instead of an ECG file: (offset, first bytes, what it is and what to do).
_REFUSED = (
    (
        0,
        b"%PDF",
        "a PDF, a picture of an ECG. Export the samples: on an iPhone, Health > Export All Health "
        "Data",
    ),
    (0, b"\x89PNG", "a PNG picture. Export the samples, not an image"),
    (0, b"\xff\xd8\xff", "a JPEG picture. Export the samples, not an image"),
    (0, b"GIF8", "a GIF picture. Export the samples, not an image"),
    (
        0,
        b"\x93NUMPY",
        "a bare NumPy array without rate, units and leads. Make a Recording of it and "
        "ecgdiff.write that",
    ),
    (0, b"\x89HDF", "an HDF5 or MATLAB 7.3 file. Make a Recording of its arrays"),
    (
        0,
        b"MATLAB 5.0",
        "a MATLAB file. Make a Recording of its arrays, or pass the .hea file if there is one",
    ),
    (0, b"\x1f\x8b", "a gzip archive. Unpack it and pass the ECG file"),
    (
        0,
        b"<",
        "XML or HTML. An Apple export.xml has no waveforms: pass electrocardiograms/ecg_*.csv",
    ),
    (
        0,
        b"\xef\xbb\xbf<",
        "XML. An Apple export.xml has no waveforms: pass electrocardiograms/ecg_*.csv",
    ),
    (0, b"{", "JSON, which is not read yet. Make a Recording of its numbers"),
    (0, b"0       ", "EDF, which is not read yet. Convert it to WFDB or CSV"),
    (0, b"\xffBIOSEMI", "BDF, which is not read yet. Convert it to WFDB or CSV"),
    (128, b"DICM", "DICOM, which is not read yet. Convert it to WFDB or CSV"),
)
_PICKLE = "a pickle, which can run code and is never loaded. Write the arrays with ecgdiff.write"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def read(
    path: _border.PathLike,
    *,
    sampling_rate: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
) -> Recording:
    """Reads an ECG file: WFDB, NPZ, Apple Watch CSV or CSV.

    The format is recognized by content. The other arguments fill in what the file does not state;
    where it does, they must agree with it, except `leads`, which renames.

    Arguments:
        path: The file; for WFDB the `.hea` file, its signal file, or their common path without
            suffix.
        sampling_rate: In Hz.
        units: "mV", "uV" or "V".
        leads: Names of the file's signals, in its order.

    Returns:
        The recording in mV; `meta` holds `format` and the file's own `units`, one per lead.

    Raises:
        ReadError: If the file is missing, damaged, of another format, or leaves something unsaid;
            the message says what to do. No other exception comes from a damaged file.
    """
    path = Path(path)
    with _border.border(path, "an ECG file"):
        reader = _recognize(path)
    return reader(path, sampling_rate=sampling_rate, units=units, leads=leads)


def write(recording: Recording, path: _border.PathLike, *, comments: Sequence[str] = ()) -> None:
    """Writes a recording; reading it back restores leads, rate, NaN, start and provenance.

    Arguments:
        recording: What to write.
        path: `*.npz` (bit-exact), or `*.hea` or no suffix for WFDB (16 bits, at most 5 µV per
            unit).
        comments: Lines to store with it, such as "method: mgps".

    Raises:
        ValueError: If the suffix is another, or the recording does not fit the format.
    """
    path = Path(path)
    if path.suffix == ".npz":
        write_npz(recording, path, comments=comments)
    elif path.suffix in (".hea", ""):
        write_wfdb(recording, path, comments=comments)
    else:
        raise ValueError(
            f"Cannot write {path.name!r}: use the suffix .npz, or .hea (or none) for WFDB."
        )


def _recognize(path: Path) -> Callable[..., Recording]:
    if _is_record(path):
        return read_wfdb
    head = _border.first_bytes(path)
    if head.startswith(_ZIP):
        return read_npz
    _refuse(path, head)
    lines = _border.decode(head)
    if looks_like_header(lines):
        if path.suffix != ".hea":
            raise ReadError(
                f"{path} holds a WFDB header. Give it the suffix .hea, beside its .dat."
            )
        return read_wfdb
    if looks_like_apple(lines):
        return read_apple
    # A header too damaged to be known as one: its own reader says best what is wrong.
    first = next((line for line in lines if line.strip() and not line.startswith("#")), "")
    is_header = path.suffix == ".hea" and not any(mark in first for mark in ",;\t")
    return read_wfdb if is_header else read_csv


def _is_record(path: Path) -> bool:
    """Whether this is a WFDB record's bare name, or a signal file named in a header beside it."""
    if not path.is_file():
        return not path.is_dir() and path.with_name(path.name + ".hea").is_file()
    header = path.with_suffix(".hea")
    return header != path and header.is_file() and names_file(header, path.name)


def _refuse(path: Path, head: bytes) -> None:
    for offset, magic, advice in _REFUSED:
        if head[offset:].startswith(magic):
            raise ReadError(f"{path} is {advice}.")
    if head[0] == 0x80 and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise ReadError(f"{path} is {_PICKLE}.")
    if path.suffix == ".dat":
        raise ReadError(
            f"{path} may be a WFDB signal file, but no header beside it names it. Put the .hea "
            "file there, or pass it."
        )
