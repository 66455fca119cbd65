import numpy as np
import pytest

from ecgdiff.ecg.io import read, read_csv
from ecgdiff.errors import ReadError


@pytest.fixture
def file(tmp_path):
    def write(*lines):
        path = tmp_path / "ecg.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


ROWS = ("0.1,-1", "0.2,-2", "0.3,-3")
MV = np.array([[0.1, 0.2, 0.3], [-1, -2, -3]], np.float32)


@pytest.mark.parametrize(
    "header",
    [
        ("# sampling_rate: 500", "I (mV),II (mV)"),
        ("#sampling_rate=500 Hz", "# units: mV", "I,II"),
        ("# Sampling_Rate: 500,0", "Lead I [mV],lead_ii [mV]"),
        (
            "# exported yesterday",
            "",
            "# sampling_rate: 500",
            "",
            "i_mV,MDC_ECG_LEAD_II (millivolt)",
        ),
        ("# sampling_rate: 500", "# units: V", "I_mV,II (mV)"),
        ("# sampling_rate: 500", '"I (mV)","II (mV)"'),
    ],
)
def test_headers(file, header):
    recording = read(file(*header, *ROWS))
    assert recording.leads == ("I", "II")
    assert recording.sampling_rate == 500
    np.testing.assert_array_equal(recording.signal, MV)


@pytest.mark.parametrize(
    ("name", "times", "rate"),
    [
        ("time_s", ("0", "0.002", "0.004"), 500),
        ("time (s)", ("10.5", "10.502", "10.504"), 500),
        ("Time [ms]", ("1000", "1002", "1004"), 500),
        ("t_us", ("0", "2000", "4000"), 500),
        ("time_s", ("0", "0.00195533", "0.00391066"), 511.422625),
    ],
)
def test_a_time_column_gives_the_rate(file, name, times, rate):
    rows = [
        f"{row.split(',')[0]},{t},{row.split(',')[1]}" for t, row in zip(times, ROWS, strict=True)
    ]
    recording = read(file(f"I (mV),{name},II (mV)", *rows))
    np.testing.assert_allclose(recording.sampling_rate, rate, rtol=1e-6)
    np.testing.assert_array_equal(recording.signal, MV)


def test_a_time_column_without_unit_needs_a_rate(file):
    lines = ("time,I (mV)", "0,1", "1,2", "2,3")
    with pytest.raises(ReadError, match="sampling_rate"):
        read(file(*lines))
    assert read(file(*lines), sampling_rate=250).sampling_rate == 250
    with pytest.raises(ReadError, match="not evenly spaced: row 2"):
        read(file(*lines[:2], "7,1", *lines[2:]), sampling_rate=250)


def test_missing_samples_and_number_forms(file):
    rows = ("+1.5,nan", ".5,", "2.,NaN", " -3e-1 , 1E0")
    recording = read(file("# sampling_rate: 250", "V1 (mV),chest (mV)", *rows))
    expected = [[1.5, 0.5, 2.0, -0.3], [np.nan, np.nan, np.nan, 1.0]]
    np.testing.assert_array_equal(recording.signal, np.array(expected, np.float32))
    assert recording.leads == ("V1", "chest")


def test_units_and_arguments(file):
    path = file("I,II", *ROWS)
    recording = read(path, sampling_rate=300.5, units="uV", leads=("V5", "V6"))
    np.testing.assert_allclose(recording.signal, MV / 1000, rtol=1e-6)
    assert recording.leads == ("V5", "V6")
    assert recording.meta["units"] == ("uV", "uV")
    recording = read(file(*ROWS), sampling_rate=300, units="V", leads=("I", "II"))
    np.testing.assert_allclose(recording.signal, MV * 1000, rtol=1e-6)


def test_marks_in_comments(file):
    comments = ("# sampling_rate: 500", "# derived: II", "# units: mV")
    assert read(file(*comments, "I,II", *ROWS)).provenance == ("measured", "derived")
    with pytest.raises(ReadError, match="marks leads"):
        read(file("# synthetic: V6", *comments, "I,II", *ROWS))


def test_many_rows(file):
    values = np.random.default_rng(0).integers(-999, 999, (10_000, 2))
    path = file("# sampling_rate: 500", "I_uV,II_uV", *(f"{a},{b}" for a, b in values))
    np.testing.assert_array_equal(np.rint(read(path).signal * 1000).T, values)


HEAD = ("# sampling_rate: 500", "I (mV),II (mV)")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("I (mV),II (mV)", *ROWS), "sampling_rate"),
        (("# sampling_rate: 500", "I,II", *ROWS), "units='mV'"),
        (("# sampling_rate: 500", "I (mV),II", *ROWS), "unit of signal 2"),
        (("# sampling_rate: 500", "I (mV),II (bpm)", *ROWS), "none of mV"),
        (("# sampling_rate: fast", "I (mV),II (mV)", *ROWS), "no number of Hz"),
        (("# sampling_rate: 0", "I (mV),II (mV)", *ROWS), "positive"),
        (("# sampling_rate: 500", "I (mV),Erika (mV)", *ROWS), "signal 2 of 2"),
        (("# sampling_rate: 500", "I (mV),DI (mV)", *ROWS), "more than once"),
        (ROWS, "leads="),
        (HEAD, "no rows of numbers"),
        (("# only", "# comments"), "no rows"),
        ((*HEAD, *ROWS, "0.1"), "Row 4"),
        ((*HEAD, *ROWS, "0.1,0.2,0.3"), "Row 4"),
        ((*HEAD, *ROWS, "", "0.1,0.2"), "Row 4"),
        ((*HEAD, *ROWS, "0.1,Erika"), "Row 4"),
        ((*HEAD, *ROWS, "0.1,inf"), "Row 4"),
        ((*HEAD, *ROWS, "0.1,1_000"), "Row 4"),
        ((*HEAD, *ROWS, "0.1,0x10"), "Row 4"),
        ((*HEAD, *ROWS, "0.1,1e999"), "infinite"),
        ((*HEAD, *ROWS, '0.1,"1.234,5"'), "Row 4"),
        ((*HEAD, *ROWS, '0.1,"0,2"'), "mixes"),
        ((*HEAD, *ROWS, '0.1,"0.2'), "damaged"),
        (("time_s,t_ms,I (mV)", "0,0,1", "1,1,1"), "2 time columns"),
        (("time_s", "0", "1"), "no column besides time"),
        (("time_h,I (mV)", "0,1", "1,1"), "unit of signal 1"),
        (("time (h),I (mV)", "0,1", "1,1"), "none of s, ms, us"),
        (("time_s,I (mV)", "0,1"), "does not increase"),
        (("time_s,I (mV)", "0,1", ",1", "1,1"), "not evenly spaced"),
        (("time_s,I (mV)", "1,1", "0,1"), "does not increase"),
        (("# sampling_rate: 500", "time_s,I (mV)", "0,1", "1,1"), "states 500 Hz"),
        (("# sampling_rate: 500", "I (mV);II (mV)", "1,5;2.5"), "mixes"),
    ],
)
def test_refuses(file, lines, message):
    with pytest.raises(ReadError, match=message) as caught:
        read_csv(file(*lines))
    assert "Erika" not in str(caught.value)


def test_a_huge_file_is_refused_before_it_is_read(file):
    path = file(*HEAD, *ROWS)
    with path.open("r+b") as sparse:
        sparse.truncate((1 << 30) + 1)
    with pytest.raises(ReadError, match="read up to"):
        read_csv(path)
