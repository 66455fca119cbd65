import os
import shutil
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgdiff.ecg import Recording
from ecgdiff.ecg.io import read, read_wfdb, write
from ecgdiff.ecg.io import wfdb as module
from ecgdiff.errors import ReadError

GOLDEN = Path(__file__).parents[2] / "golden" / "wfdb"


@pytest.fixture
def plain(tmp_path):
    """A copy of the record `plain`: a function that rewrites its header, and its path."""
    for path in GOLDEN.glob("plain.*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "plain.hea"

    def rewrite(old, new):
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
        return path

    return rewrite


def made(signal, leads, rate=500.0, **others):
    return Recording(np.asarray(signal, np.float32), rate, leads, **others)


def noise(shape, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("scale", [1e-3, 0.3, 5.0, 30.0])
def test_round_trip_is_within_half_a_unit(tmp_path, scale):
    signal = noise((3, 400), scale)
    signal[0, 10:20] = signal[1] = np.nan
    recording = made(signal, ("I", "V1", "chest"), 512.844)
    write(recording, tmp_path / "record")
    back = read(tmp_path / "record.hea")
    gains = np.array(wfdb.rdheader(str(tmp_path / "record")).adc_gain)
    assert (gains >= 200).all()
    assert np.array_equal(np.isnan(back.signal), np.isnan(recording.signal))
    error = np.abs(back.signal.astype(np.float64) - recording.signal.astype(np.float64))
    assert (np.nanmax(error[[0, 2]], axis=1) <= 0.5 / gains[[0, 2]] + 1e-6 * scale).all()
    assert back.sampling_rate == 512.844
    assert back.leads == recording.leads


def test_whole_microvolts_are_exact(tmp_path):
    signal = np.random.default_rng(1).integers(-32000, 32000, (12, 500)) / 1000
    names = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
    recording = made(signal, names)
    write(recording, tmp_path / "record.hea")
    np.testing.assert_array_equal(read(tmp_path / "record").signal, recording.signal)


def test_large_offsets_fit_by_a_baseline(tmp_path):
    recording = made(300 + noise((1, 100)), ("I",))
    write(recording, tmp_path / "record")
    np.testing.assert_allclose(read(tmp_path / "record").signal, recording.signal, atol=1e-4)


@pytest.mark.parametrize(
    "start",
    [
        datetime(2024, 2, 29, 23, 59, 59, 120000),
        datetime(2026, 5, 30, 16, 32, 18, tzinfo=timezone(timedelta(hours=-7))),
        None,
    ],
)
def test_marks_start_and_comments_survive(tmp_path, start):
    words = ("measured", "derived", "synthetic", "synthetic")
    recording = made(noise((4, 50)), ("I", "aVR", "V1", "V2"), provenance=words, start=start)
    write(recording, tmp_path / "record", comments=["method: mgps", "seed: 0"])
    back = read(tmp_path / "record")
    assert back.provenance == words
    assert back.start == start
    assert (back.start and back.start.tzinfo) == (start and start.tzinfo)
    comments = wfdb.rdheader(str(tmp_path / "record")).comments
    assert "synthetic: V1 V2" in comments
    assert {"method: mgps", "seed: 0", "research use only"} <= set(comments)
    # The mark is by position, so renaming cannot wash it off, nor can a second round trip.
    renamed = read(tmp_path / "record", leads=("I", "II", "V5", "V6"))
    assert renamed.provenance == words
    write(renamed, tmp_path / "again")
    assert read(tmp_path / "again").provenance == words


def test_a_mark_for_an_absent_lead_is_refused(plain):
    with pytest.raises(ReadError, match="marks leads"):
        read(plain("# <age>: 61", "# synthetic: V5"))


@pytest.mark.parametrize("name", ["a.b.hea", "spaced name", "ü"])
def test_write_refuses_odd_names(tmp_path, name):
    with pytest.raises(ValueError, match=r"letters, digits|suffix"):
        write(made([[0.0, 1.0]], ("I",)), tmp_path / name)


@pytest.mark.parametrize("comment", ["# a", "synthetic: I", "derived: I", "two\nlines", "a\tb"])
def test_write_refuses_comments_that_would_lie(tmp_path, comment):
    with pytest.raises(ValueError, match="comment"):
        write(made([[0.0, 1.0]], ("I",)), tmp_path / "record", comments=[comment])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("values", [[0.0, np.inf], [-np.inf, 0.0], [-400.0, 400.0]])
def test_write_refuses_what_does_not_fit(tmp_path, values):
    with pytest.raises(ValueError, match=r"infinite|runs from"):
        write(made([values], ("I",)), tmp_path / "record")


def test_write_replaces_and_leaves_nothing_else(tmp_path):
    for seed in (0, 1):
        recording = made(noise((1, 60), seed=seed), ("I",))
        write(recording, tmp_path / "record")
    assert sorted(os.listdir(tmp_path)) == ["record.dat", "record.hea"]
    np.testing.assert_allclose(read(tmp_path / "record").signal, recording.signal, atol=1e-4)
    with pytest.raises(FileNotFoundError):
        write(recording, tmp_path / "absent" / "record")


@pytest.mark.parametrize("form", ["16", "24", "32", "80", "212", "508", "516", "524"])
def test_long_records_are_read_in_pieces(tmp_path, monkeypatch, form):
    digital = np.random.default_rng(2).integers(-100, 100, (1001, 3))
    names = ["I", "II", "V1"]
    settings = {
        "fmt": [form] * 3,
        "adc_gain": [100.0] * 3,
        "baseline": [5] * 3,
        "units": ["mV"] * 3,
    }
    wfdb.wrsamp("r", fs=250, sig_name=names, d_signal=digital, write_dir=str(tmp_path), **settings)
    whole = read_wfdb(tmp_path / "r.hea")
    np.testing.assert_array_equal(whole.signal, ((digital.T - 5) / 100).astype(np.float32))
    monkeypatch.setattr(module, "PIECE", 1000)
    np.testing.assert_array_equal(read_wfdb(tmp_path / "r.hea").signal, whole.signal)


def test_differences_are_read_as_a_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "PIECE", 7)
    steps = np.random.default_rng(3).integers(-100, 100, 50).astype(np.int8)
    (tmp_path / "r.dat").write_bytes(steps.tobytes())
    (tmp_path / "r.hea").write_text("r 1 250 50\nr.dat 8 100/mV 12 0 40 0 0 I\n")
    expected = (40 + np.cumsum(steps, dtype=np.int64)) / 100
    np.testing.assert_allclose(read(tmp_path / "r").signal[0], expected, atol=1e-6)


def test_several_samples_per_frame_raise_the_rate(tmp_path):
    digital = np.arange(40, dtype="<i2")
    (tmp_path / "r.dat").write_bytes(digital.tobytes())
    (tmp_path / "r.hea").write_text("r 1 250 10\nr.dat 16x4 100/mV 16 0 0 0 0 I\n")
    recording = read(tmp_path / "r")
    assert recording.sampling_rate == 1000
    np.testing.assert_allclose(recording.signal[0], digital / 100, atol=1e-6)


def test_a_header_without_length_takes_it_from_the_file(plain):
    recording = read(plain("plain 3 500 100 10:20:30 24/12/2025", "plain 3 500"))
    assert recording.n_samples == 100
    assert recording.start is None


def test_a_latin_1_micro_sign_is_no_volt(tmp_path):
    shutil.copy(GOLDEN / "offset.mat", tmp_path)
    text = (GOLDEN / "offset.hea").read_text(encoding="utf-8")
    (tmp_path / "offset.hea").write_bytes(text.encode("latin-1"))
    recording = read(tmp_path / "offset")
    np.testing.assert_array_equal(recording.signal, read(GOLDEN / "offset").signal)


def test_a_missing_rate_is_asked_for(plain):
    path = plain("plain 3 500 100 10:20:30 24/12/2025", "plain 3")
    with pytest.raises(ReadError, match="sampling_rate"):
        read(path)
    assert read(path, sampling_rate=360).sampling_rate == 360


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "plain.dat 16 1000(0)/mV 16 0 0 0 0 II",
            "../plain.dat 16 1000(0)/mV 16 0 0 0 0 II",
            "outside",
        ),
        ("plain.dat 16", "/etc/passwd 16", "outside"),
        ("plain.dat 16", "..\\plain.dat 16", "outside"),
        ("plain.dat 16", ".. 16", "outside"),
        ("plain.dat 16", "absent.dat 16", "does not exist"),
        ("1000(0)/mV", "0(0)/mV", "no gain"),
        (" 1000(0)/mV 16 0 0 0 0 II", "", "no gain"),
        ("1000(0)/mV", "1000(0)/mmHg", "none of mV"),
        ("1000(0)/mV", "1000(0)/MV", "none of mV"),
        ("1000(0)/mV", "1e3x(0)/mV", "form"),
        ("plain.dat 16 ", "plain.dat 17 ", "unknown format"),
        ("plain.dat 16 ", "plain.dat 16:2 ", "skewed"),
        (
            "plain.dat 16 1000(0)/mV 16 0 0 0 0 II",
            "plain.dat 16x2 1000(0)/mV 16 0 0 0 0 II",
            "different rates",
        ),
        (
            "plain.dat 16 1000(0)/mV 16 0 0 0 0 II",
            "plain.dat 24 1000(0)/mV 16 0 0 0 0 II",
            "different formats",
        ),
        ("500 100 ", "500 101 ", "announces 101 samples"),
        ("500 100 ", "500 99999999999999 ", "announces"),
        ("plain.dat 16 ", "plain.dat 16x99999999 ", "announces"),
        ("plain.dat 16 ", "plain.dat 16+99999999 ", "announces"),
        ("plain 3 500", "plain 2 500", "announces"),
        ("plain 3 500", "plain 999999 500", "announces"),
        ("plain 3 500", "plain 3 0", "positive"),
        ("0 V1", "0 II", "more than once"),
        ("0 V1", "0 ABP", "signal 3 of 3"),
        ("plain 3 500", "plain/3 3 500", "form"),
        ("plain 3", "p" * 2000 + " 3", "too long"),
    ],
)
def test_damaged_headers(plain, old, new, message):
    with pytest.raises(ReadError, match=message):
        read(plain(old, new))


def test_a_signal_file_that_is_no_file(tmp_path, plain):
    (tmp_path / "folder.dat").mkdir()
    with pytest.raises(ReadError, match="folder"):
        read(plain("plain.dat 16", "folder.dat 16"))


@pytest.mark.parametrize("old, new", [("~ 10", "~ 9999999999"), ("/3 2 250 110", "/3 2 250 120")])
def test_damaged_segments(tmp_path, old, new):
    for path in GOLDEN.glob("parts*"):
        shutil.copy(path, tmp_path)
    path = tmp_path / "parts.hea"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ReadError, match="announces"):
        read(path)


def test_variable_layout_joins_by_name(tmp_path):
    """The layout lists I, II and V6; each segment has two of them, in its own order."""
    (tmp_path / "r.hea").write_text("r/3 3 250 20\nr_layout 0\nr_1 10\nr_2 10\n")
    lines = [f"~ 0 100/mV 16 0 0 0 0 {lead}" for lead in ("I", "II", "V6")]
    (tmp_path / "r_layout.hea").write_text("\n".join(["r_layout 3 250 0", *lines]) + "\n")
    for part, leads in (("r_1", ("II", "I")), ("r_2", ("V6", "I"))):
        np.arange(20, dtype="<i2").tofile(tmp_path / f"{part}.dat")
        lines = [f"{part}.dat 16 100/mV 16 0 0 0 0 {lead}" for lead in leads]
        (tmp_path / f"{part}.hea").write_text("\n".join([f"{part} 2 250 10", *lines]) + "\n")
    recording = read(tmp_path / "r")
    even, odd, gap = np.arange(0, 20, 2) / 100, np.arange(1, 20, 2) / 100, np.full(10, np.nan)
    expected = [np.append(odd, odd), np.append(even, gap), np.append(gap, even)]
    assert recording.leads == ("I", "II", "V6")
    np.testing.assert_allclose(recording.signal, expected, atol=1e-6)


def test_ptbxl_integers_survive(ptbxl_root, tmp_path):
    path = sorted(ptbxl_root.glob("records100/*/*.hea"))[0]
    recording = read(path)
    digital = np.fromfile(path.with_suffix(".dat"), "<i2").reshape(-1, 12).T
    assert recording.leads[3:6] == ("aVR", "aVL", "aVF")
    np.testing.assert_array_equal(np.rint(recording.signal * 1000).astype(int), digital)
    write(recording, tmp_path / "copy")
    np.testing.assert_array_equal(read(tmp_path / "copy").signal, recording.signal)
