"""What holds for every reader: one test per promise, run over one golden file of each format."""

import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from ecgdiff.ecg import Recording, io
from ecgdiff.errors import ReadError

GOLDEN = Path(__file__).parents[2] / "golden"
FORMATS = {
    "wfdb": (io.read_wfdb, GOLDEN / "wfdb" / "plain.hea"),
    "npz": (io.read_npz, GOLDEN / "npz" / "missing.npz"),
    "csv": (io.read_csv, GOLDEN / "csv" / "comma.csv"),
    "apple": (io.read_apple, GOLDEN / "apple" / "english.csv"),
}
READERS = [FORMATS[name][0] for name in FORMATS] + [io.read]
UNREADABLE = {
    "picture.png": (b"\x89PNG\r\n\x1a\n" + bytes(100), "picture"),
    "picture.jpg": (b"\xff\xd8\xff\xe0" + bytes(100), "picture"),
    "share.pdf": (b"%PDF-1.7\n" + bytes(100), "Export All Health Data"),
    "data.pkl": (pickle.dumps({"signal": [1.0]}), "pickle"),
    "array.npy": (b"\x93NUMPY\x01\x00" + bytes(100), "bare NumPy array"),
    "export.xml": (b"<?xml version='1.0'?><HealthData/>", "electrocardiograms"),
    "data.json": (b'{"ecg": []}', "JSON"),
    "data.edf": (b"0       " + b" " * 248, "EDF"),
    "data.dcm": (bytes(128) + b"DICM" + bytes(100), "DICOM"),
    "data.h5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "data.gz": (b"\x1f\x8b\x08" + bytes(100), "gzip"),
    "lonely.dat": (bytes(range(1, 200)), "no header beside it"),
    "noise.bin": (bytes(range(256)) * 4, "not text"),
    "prose.txt": (b"Dear Dr. Mustermann,\nplease find the ECG attached.\n", "no rows of numbers"),
    "empty.csv": (b"", "0 bytes"),
    "export.zip": (b"PK\x05\x06" + bytes(18), "unpack the ECG first"),
    "cut.zip": (b"PK\x03\x04" + bytes(10), "damaged"),
    "plain.txt": ((GOLDEN / "wfdb" / "plain.hea").read_bytes(), "suffix .hea"),
}


@pytest.fixture(params=FORMATS)
def case(request, tmp_path):
    """A reader and a copy of a file that it reads."""
    reader, source = FORMATS[request.param]
    for path in source.parent.glob(source.stem + ".*"):
        shutil.copy(path, tmp_path)
    return reader, tmp_path / source.name


def test_returns_the_same_recording_as_read(case):
    reader, path = case
    direct, found, text = reader(path), io.read(path), io.read(str(path))
    for recording in (direct, found, text):
        assert isinstance(recording, Recording)
        assert recording.signal.dtype == np.float32
        assert not recording.signal.flags.writeable
        assert set(recording.meta) >= {"format", "units"}
        assert len(recording.meta["units"]) == recording.n_leads
        np.testing.assert_array_equal(recording.signal, direct.signal)
        assert recording.leads == direct.leads
        assert recording.meta == direct.meta


def test_recognizes_content_rather_than_suffix(case, tmp_path):
    reader, path = case
    if reader is io.read_wfdb:
        expected = io.read(path)
        for name in (path.with_suffix(""), path.with_suffix(".dat")):
            np.testing.assert_array_equal(io.read(name).signal, expected.signal)
        return
    for suffix in ("", ".txt", ".npz", ".csv", ".hea", ".dat"):
        other = tmp_path / f"other{suffix}"
        shutil.copy(path, other)
        if suffix != ".dat":
            assert io.read(other).leads == reader(path).leads


def test_names_leads_on_request(case):
    reader, path = case
    names = ("aVR", "V6", "aVL")[: reader(path).n_leads]
    assert io.read(path, leads=names).leads == names
    np.testing.assert_array_equal(io.read(path, leads=names).signal, reader(path).signal)


@pytest.mark.parametrize("leads", [("I",) * 3, ("nonsense",), ("I", "II", "V1", "V2"), ()])
def test_refuses_wrong_names(case, leads):
    reader, path = case
    if reader is io.read_apple and len(leads) == 1:
        leads = ("Q",)
    with pytest.raises(ReadError, match=r"lead|signal"):
        reader(path, leads=leads)


def test_accepts_arguments_that_agree_and_refuses_others(case):
    reader, path = case
    recording = reader(path)
    unit = recording.meta["units"][0]
    again = reader(path, sampling_rate=recording.sampling_rate, units=unit)
    np.testing.assert_array_equal(again.signal, recording.signal)
    for arguments in ({"sampling_rate": 123.0}, {"units": "V"}, {"units": "mmHg"}):
        with pytest.raises(ReadError, match=r"states|none of"):
            reader(path, **arguments)
    for rate in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ReadError, match="positive"):
            reader(path, sampling_rate=rate)


@pytest.mark.parametrize("reader", READERS)
def test_refuses_what_is_no_file(reader, tmp_path):
    for path in (
        tmp_path,
        tmp_path / "absent.hea",
        tmp_path / "absent.csv",
        tmp_path / "no\0name",
    ):
        with pytest.raises(ReadError) as caught:
            reader(path)
        assert len(str(caught.value)) > len(str(path)) + 20


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("name", UNREADABLE)
def test_refuses_other_formats(reader, name, tmp_path):
    path = tmp_path / name
    path.write_bytes(UNREADABLE[name][0])
    with pytest.raises(ReadError) as caught:
        reader(path)
    if reader is io.read:
        assert UNREADABLE[name][1] in str(caught.value)
    assert "Mustermann" not in str(caught.value)


def test_refuses_every_truncation(case):
    """A cut file is refused, or it was text cut between or within lines: then it is shorter."""
    reader, path = case
    if reader is io.read_wfdb:
        path = path.with_suffix(".dat")
    data, n_samples = path.read_bytes(), io.read(path).n_samples
    for size in range(0, len(data), max(1, len(data) // 60)):
        path.write_bytes(data[:size])
        try:
            assert io.read(path).n_samples <= n_samples
        except ReadError:
            continue
        assert reader in (io.read_csv, io.read_apple), size
