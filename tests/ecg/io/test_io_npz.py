import io
import os
import pickle
import zipfile
from datetime import datetime, timezone

import numpy as np
import pytest

from ecgdiff.ecg import Recording
from ecgdiff.ecg.io import read, write
from ecgdiff.errors import ReadError


def arrays(**changes):
    parts = {
        "signal": np.array([[0.1, np.nan, 0.3], [1, 2, 3]], np.float32),
        "sampling_rate": np.float64(511.422),
        "leads": np.array(["I", "V1"]),
        "provenance": np.array(["measured", "synthetic"]),
        "units": np.array("mV"),
    }
    parts |= changes
    return {name: value for name, value in parts.items() if value is not None}


@pytest.fixture
def file(tmp_path):
    def write_arrays(**changes):
        path = tmp_path / "ecg.npz"
        np.savez(path, **arrays(**changes))
        return path

    return write_arrays


@pytest.fixture
def archive(tmp_path):
    """A file whose members are given as bytes, beside the usual ones."""

    def write_members(compress=zipfile.ZIP_STORED, **members):
        path = tmp_path / "ecg.npz"
        with zipfile.ZipFile(path, "w", compress) as out:
            for name, value in (arrays() | members).items():
                if not isinstance(value, bytes):
                    stream = io.BytesIO()
                    np.save(stream, value)
                    value = stream.getvalue()
                out.writestr(f"{name}.npy", value)
        return path

    return write_members


def test_round_trip_is_bit_exact(tmp_path):
    signal = np.random.default_rng(0).standard_normal((3, 500)).astype(np.float32)
    signal[0, 3:9] = signal[2] = np.nan
    words = ("measured", "derived", "synthetic")
    start = datetime(2026, 5, 30, 16, 32, 18, 5, tzinfo=timezone.utc)
    recording = Recording(signal, 512.844, ("I", "aVR", "chest"), words, start)
    write(recording, tmp_path / "ecg.npz", comments=["method: mgps"])
    back = read(tmp_path / "ecg.npz")
    np.testing.assert_array_equal(back.signal, signal)
    assert (back.sampling_rate, back.leads, back.provenance) == (512.844, recording.leads, words)
    assert back.start == start
    assert os.listdir(tmp_path) == ["ecg.npz"]
    with np.load(tmp_path / "ecg.npz", allow_pickle=False) as stored:
        assert stored["comments"].tolist() == ["method: mgps"]


def test_write_refuses(tmp_path):
    recording = Recording(np.array([[0.0, np.inf]]), 512, ("I",))
    with pytest.raises(ValueError, match="infinite"):
        write(recording, tmp_path / "ecg.npz")
    with pytest.raises(ValueError, match="suffix"):
        write(recording, tmp_path / "ecg.xyz")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int16, np.uint8])
def test_other_dtypes_and_units(file, dtype):
    path = file(signal=np.array([[1, 2], [3, 4]], dtype), units=np.array("\N{MICRO SIGN}V"))
    recording = read(path)
    np.testing.assert_allclose(recording.signal, [[0.001, 0.002], [0.003, 0.004]], rtol=1e-6)
    assert recording.meta["units"] == ("\N{MICRO SIGN}V",) * 2


def test_units_may_be_passed(file):
    with pytest.raises(ReadError, match=r'units="mV" \(--units mV\)'):
        read(file(units=None))
    assert read(file(units=None), units="V").signal[1, 0] == 1000


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"signal": None}, "no array signal"),
        ({"sampling_rate": None}, "no array sampling_rate"),
        ({"leads": None}, "no array leads"),
        ({"provenance": None}, "no array provenance"),
        ({"provenance": np.array([], "U1")}, "0 provenance words"),
        ({"provenance": np.array(["measured"])}, "1 provenance words"),
        ({"provenance": np.array(["measured", "real"])}, "damaged"),
        ({"leads": np.array(["I", "I"])}, "more than once"),
        ({"leads": np.array(["I", "Q"])}, "signal 2 of 2"),
        ({"leads": np.array(["I"])}, r"leads \(--leads\) names 1"),
        ({"leads": np.array(["I", "V1"], object)}, "pickled"),
        ({"signal": np.array([[object()]])}, "pickled"),
        ({"signal": np.zeros(3)}, "shape"),
        ({"signal": np.zeros((2, 0))}, "shape"),
        ({"signal": np.zeros((2, 3), complex)}, "complex128"),
        ({"signal": np.array([["1", "2"], ["3", "4"]])}, "real numbers"),
        ({"signal": np.full((2, 3), np.inf)}, "infinite"),
        ({"sampling_rate": np.float64(-1)}, "positive"),
        ({"sampling_rate": np.array([1.0, 2.0])}, "damaged"),
        ({"units": np.array("mmHg")}, "none of mV"),
        ({"start": np.array("yesterday")}, "damaged"),
    ],
)
def test_refuses(file, changes, message):
    with pytest.raises(ReadError, match=message):
        read(file(**changes))


def header(shape, dtype="<f4"):
    text = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "shape", ["(2, 10**12)", "(2, 1000000000000)", "(2, -3)", "(-2, -3)", "(2, 4)"]
)
def test_claims_about_the_size_are_checked(archive, shape):
    with pytest.raises(ReadError, match=r"claims|damaged"):
        read(archive(signal=header(shape) + bytes(24)))


def test_bombs_are_refused(archive, monkeypatch):
    bomb = header("(2, 4000000)") + bytes(32_000_000)
    with pytest.raises(ReadError, match="1000 times"):
        read(archive(zipfile.ZIP_DEFLATED, signal=bomb))
    monkeypatch.setattr("ecgdiff.ecg.io.npz.MAX_BYTES", 1 << 20)
    with pytest.raises(ReadError, match="limits are 1048576 bytes"):
        read(archive(signal=bomb))


def test_pickles_are_never_run(archive):
    class Trap:
        def __reduce__(self):
            return (pytest.fail, ("a pickle was run",))

    trap = header("()", "|O") + pickle.dumps(Trap())
    for name in ("signal", "leads", "provenance", "units", "sampling_rate"):
        with pytest.raises(ReadError):
            read(archive(**{name: trap}))
    with pytest.raises(ReadError):
        read(archive(signal=pickle.dumps(Trap())))


def test_members_that_are_not_ours_are_not_opened(archive):
    assert read(archive(extra=b"no array", **{"../evil": b"x"})).n_samples == 3
