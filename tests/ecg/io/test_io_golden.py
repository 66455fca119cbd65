"""The golden files (see tests/golden/README.md) read to exactly what they were made of."""

import importlib.util
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from ecgdiff.ecg.io import read

GOLDEN = Path(__file__).parents[2] / "golden"
MEASURED = "measured"


def whole(rows, columns=range(100)):
    """The whole numbers that the README of the golden files states."""
    return np.array([[(101 * r + 37 * k) % 2001 - 1000 for k in columns] for r in range(rows)])


def without(numbers, row, column):
    numbers = numbers.astype(np.float64)
    numbers[row, column] = np.nan
    return numbers


PARTS = np.concatenate(
    [whole(2, range(60)), np.full((2, 10), np.nan), whole(2, range(60, 100))], 1
)
HALVES = whole(1) + np.where(whole(1) < 0, -0.5, 0.5)

# file: (units per mV, numbers, rate, leads, provenance, units)
FILES = {
    "wfdb/plain.hea": (1000, without(whole(3), 1, 7), 500, "I II V1", "", "mV mV mV"),
    "wfdb/packed.hea": (200, whole(2), 511.422, "aVR aVL", "", "mV mV"),
    "wfdb/offset.hea": (1000, whole(2), 1000, "V2 V3", "", "µV µV"),
    "wfdb/parts.hea": (1000, PARTS, 250, "I V6", "", "mV mV"),
    "npz/marked.npz": (1000, whole(3), 500, "I III V1", "measured derived synthetic", "mV mV mV"),
    "npz/missing.npz": (
        1000,
        without(without(whole(3), 0, 7), 2, slice(None)),
        500,
        "I III V1",
        "",
        "mV mV mV",
    ),
    "npz/whole.npz": (1000, whole(1), 511.422, "I", "", "uV"),
    "csv/comma.csv": (1000, without(whole(2), 1, 7), 500, "I II", "", "mV mV"),
    "csv/semicolon.csv": (1000, whole(2), 250, "V1 chest", "", "uV \u03bcV"),
    "csv/tab.csv": (1000, without(whole(2), 1, 7), 511.422, "I aVF", "measured synthetic", "V V"),
    "apple/english.csv": (1000, whole(1), 512, "I", "", "µV"),
    "apple/german.csv": (1000, HALVES, 511.562, "I", "", "\u03bcV"),
    "apple/french.csv": (1000, whole(1), 513, "II", "", "mV"),
}


@pytest.mark.parametrize("name", FILES)
def test_golden(name):
    per_mv, numbers, rate, leads, provenance, units = FILES[name]
    recording = read(GOLDEN / name)
    assert recording.signal.dtype == np.float32
    assert recording.leads == tuple(leads.split())
    assert recording.sampling_rate == rate
    assert recording.provenance == tuple(provenance.split() or [MEASURED] * len(recording.leads))
    assert recording.meta["format"] == name.split("/")[0]
    assert recording.meta["units"] == tuple(units.split())
    assert np.array_equal(np.isnan(recording.signal), np.isnan(numbers))
    np.testing.assert_allclose(recording.signal, numbers / per_mv, rtol=0, atol=1e-6)
    # Times 2: the German file holds halves.
    doubled = np.rint(2 * per_mv * recording.signal.astype(np.float64))
    np.testing.assert_array_equal(doubled, 2 * numbers)


def test_some_values_by_hand():
    """So that a mistake in the formula cannot hide on both sides."""
    plain = read(GOLDEN / "wfdb" / "plain.hea")
    assert plain.signal[0, :3].tolist() == np.array([-1, -0.963, -0.926], "f4").tolist()
    assert plain.signal[2, :2].tolist() == np.array([-0.798, -0.761], "f4").tolist()


@pytest.mark.parametrize(
    ("name", "start"),
    [
        ("wfdb/plain.hea", datetime(2025, 12, 24, 10, 20, 30)),
        (
            "npz/missing.npz",
            datetime(2026, 5, 30, 16, 32, 18, tzinfo=timezone(-timedelta(hours=7))),
        ),
        (
            "apple/english.csv",
            datetime(2026, 5, 30, 16, 32, 18, tzinfo=timezone(-timedelta(hours=7))),
        ),
        ("apple/german.csv", datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone(timedelta(hours=1)))),
        ("csv/comma.csv", None),
    ],
)
def test_start(name, start):
    assert read(GOLDEN / name).start == start


def test_the_making_command_makes_the_stored_files(tmp_path):
    spec = importlib.util.spec_from_file_location("make_golden", GOLDEN / "make.py")
    make = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make)
    make.main(tmp_path)
    made = {p.relative_to(tmp_path): p for p in tmp_path.rglob("*") if p.is_file()}
    assert len(made) > len(FILES)
    for name, path in made.items():
        # The zip container's own bytes may change with the compressor's version.
        if path.suffix != ".npz":
            assert path.read_bytes() == (GOLDEN / name).read_bytes(), name
