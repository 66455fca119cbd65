"""NPZ: a recording as named arrays, without pickle.

Arrays: `signal` (leads, time) in `units`, `sampling_rate` in Hz, `leads`, `provenance` (mandatory,
so that a synthetic lead can never pass as measured), and optionally `start` (ISO 8601) and
`comments`. Sizes are checked before anything is unpacked.
"""

import zipfile
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.io import _border
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import ReadError

__all__ = ["read_npz", "write_npz"]

MAX_BYTES = 2 << 30
MAX_RATIO = 1000
_MANDATORY = ("signal", "sampling_rate", "leads", "provenance")
_OPTIONAL = ("units", "start")


def read_npz(
    path: _border.PathLike,
    *,
    sampling_rate: float | None = None,
    units: str | None = None,
    leads: Sequence[str] | None = None,
) -> Recording:
    """Reads a recording from an NPZ file.

    Arguments:
        path: The file.
        sampling_rate: In Hz; must agree with the file's.
        units: "mV", "uV" or "V", if the file has no array `units`.
        leads: Names to use instead of the file's, in its order.

    Returns:
        The recording in mV, with its provenance.

    Raises:
        ReadError: If the file is no such archive, lacks an array (above all `provenance`), or
            unpacks to more than 2 GB or 1,000 times its size.
    """
    path = Path(path)
    with _border.border(path, "an NPZ recording"):
        _border.first_bytes(path)
        arrays = _arrays(path)
        stated = [str(arrays["units"])] if "units" in arrays else [None]
        signal = arrays["signal"]
        if signal.ndim != 2 or signal.dtype.kind not in "fiu" or 0 in signal.shape:
            raise ReadError(
                f"The signal in {path} has shape {signal.shape} and dtype {signal.dtype}; it must "
                "be real numbers of shape (leads, time)."
            )
        scale, names = _border.factors(path, stated, units, ["its signal"])
        if scale[0] != 1.0:
            signal = signal * scale[0]
        provenance = _words(arrays["provenance"])
        if len(provenance) != len(signal):
            raise ReadError(
                f"{path} has {len(signal)} signals but {len(provenance)} provenance words. Write "
                "one of measured, derived, synthetic for each."
            )
        start = datetime.fromisoformat(str(arrays["start"])) if "start" in arrays else None
        rate = float(arrays["sampling_rate"][()])
        return _border.assemble(
            path,
            signal,
            _border.settled_rate(path, rate, sampling_rate),
            _words(arrays["leads"]),
            leads,
            provenance=provenance,
            start=start,
            meta={"format": "npz", "units": names * len(signal)},
        )


def write_npz(
    recording: Recording, path: _border.PathLike, *, comments: Sequence[str] = ()
) -> None:
    """Writes a recording as an NPZ file, bit-exactly.

    Arguments:
        recording: What to write; its `meta` is not kept.
        path: The file, replaced if it exists.
        comments: Lines to keep beside the arrays.

    Raises:
        ValueError: If a sample is infinite.
    """
    path = Path(path)
    if np.isinf(recording.signal).any():
        raise ValueError("The recording holds infinite samples. Set what was not measured to NaN.")
    arrays: dict[str, Any] = {
        "signal": recording.signal,
        "sampling_rate": np.float64(recording.sampling_rate),
        "leads": np.array(recording.leads),
        "provenance": np.array(recording.provenance),
        "units": np.array("mV"),
    }
    if recording.start is not None:
        arrays["start"] = np.array(recording.start.isoformat())
    if comments:
        arrays["comments"] = np.array(list(comments))
    with _border.replacing(path) as folder, (folder / path.name).open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: info for info in archive.infolist()}
        missing = [name for name in _MANDATORY if f"{name}.npy" not in members]
        if missing:
            raise ReadError(
                f"{path} has no array {', '.join(missing)}. A recording needs "
                f"{', '.join(_MANDATORY)}; write it with ecgdiff.write. From a zip file with "
                "other content, unpack the ECG first."
            )
        wanted = [name for name in _MANDATORY + _OPTIONAL if f"{name}.npy" in members]
        _refuse_bombs(path, [members[f"{name}.npy"] for name in wanted])
        for name in wanted:
            with archive.open(f"{name}.npy") as file:
                _refuse_lies(path, name, file, members[f"{name}.npy"].file_size)
    with np.load(path, allow_pickle=False) as loaded:
        return {name: loaded[name] for name in wanted}


def _refuse_bombs(path: Path, members: Sequence[zipfile.ZipInfo]) -> None:
    unpacked = sum(info.file_size for info in members)
    # What an archive says of its packed sizes cannot exceed the file itself.
    packed = min(sum(info.compress_size for info in members), path.stat().st_size)
    if unpacked > MAX_BYTES or unpacked > MAX_RATIO * packed:
        raise ReadError(
            f"{path} would unpack to {unpacked} bytes from {packed}; the limits are {MAX_BYTES} "
            f"bytes and {MAX_RATIO} times. Split the recording, or store it uncompressed."
        )


def _refuse_lies(path: Path, name: str, file: IO[bytes], size: int) -> None:
    """Compares the size an array's header claims with the bytes that are there."""
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ReadError(
            f"The array {name} in {path} has an unknown header. Write it with numpy.savez."
        )
    shape, _, dtype = readers[version](file)
    if dtype.hasobject or dtype.kind not in "fiuU":
        raise ReadError(
            f"The array {name} in {path} has dtype {dtype}. Only numbers and text are read: "
            "pickled objects can run code."
        )
    claimed = dtype.itemsize * int(np.prod([int(n) for n in shape], dtype=object))
    if min(shape, default=1) < 0 or claimed != size - file.tell():
        raise ReadError(
            f"The array {name} in {path} claims {claimed} bytes but has {size - file.tell()}: the "
            "file is damaged. Get it again from its source."
        )


def _words(array: NDArray[Any]) -> tuple[str, ...]:
    return tuple(str(word) for word in np.atleast_1d(array))
