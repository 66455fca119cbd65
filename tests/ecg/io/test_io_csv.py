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
    with pytest.raises(
        ReadError, match=r"Column 1 \('time'\) .* needs a unit, such as 'time \(s\)'"
    ):
        read(file(*lines))
    for rate in (1, 1000, 1e6):
        assert read(file(*lines), sampling_rate=rate).sampling_rate == rate
    with pytest.raises(ReadError, match=r"Between rows 1 and 2 .* jumps by 7 instead of 1\."):
        read(file(*lines[:2], "7,1", *lines[2:]), sampling_rate=1000)


@pytest.mark.parametrize("stated", ["# sampling_rate: 250", "# "])
def test_a_time_column_without_unit_must_fit_the_rate(file, stated):
    lines = (stated, "time,I (mV)", "0.00,1", "0.01,2", "0.02,3")
    given = {} if "250" in stated else {"sampling_rate": 250}
    with pytest.raises(
        ReadError, match=r"0\.01 apart, which is 100 Hz in s and 100000 Hz in ms, but"
    ):
        read(file(*lines), **given)
    assert read(file("# sampling_rate: 100", *lines[1:])).sampling_rate == 100
    with pytest.raises(ReadError, match="positive"):
        read(file(*lines[1:]), sampling_rate=0)


def times(*values):
    return ("time (s),I (mV)", *(f"{value:.4f},1" for value in values))


GRID = np.arange(1000) * 0.01


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            GRID + 2 * (GRID >= 4),
            r"Between rows 400 and 401 of .* the time jumps by 2\.01 s instead of 0\.01 s\. "
            r"Insert the missing rows with their times and empty cells",
        ),
        (
            GRID + 2 * (GRID >= 4) + (GRID >= 5),
            r"400 and 401 .* the first of 2 such places, the time",
        ),
        (GRID - 2 * (GRID >= 4), "Between rows 400 and 401 of .* the time goes back by 1.99 s"),
        (GRID - 0.008 * (GRID >= 1), "goes on by only 0.002 s instead of 0.01 s"),
        (GRID + GRID**2 / 100, r"row 494 is 22\.7 samples off\. .* remove the column and pass"),
        (np.cumsum(1 + np.arange(1000) % 7), r"row \d+ is [\d.]+ samples off"),
    ],
)
def test_uneven_times_are_refused_with_their_place(file, values, message):
    with pytest.raises(ReadError, match=message):
        read(file(*times(*values)))


def test_the_advice_for_a_gap_leads_to_a_recording(file):
    full = list(times(*GRID))
    recording = read(
        file(*full[:401], *(f"{row.split(',')[0]}," for row in full[401:500]), *full[500:])
    )
    assert recording.sampling_rate == 100
    assert recording.measured.sum() == 1000 - 99


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
        (("I (mV),II (mV)", *ROWS), r"Pass sampling_rate=250\.0 \(--sampling-rate 250\)"),
        (
            ("# sampling_rate: 500", "I,II", *ROWS),
            r'column 1 \(\'I\'\)\. Pass units="mV" \(--units mV\)',
        ),
        (("# sampling_rate: 500", "I (mV),II", *ROWS), r"unit of column 2 \('II'\)"),
        (("# sampling_rate: 500", "I (mV),II (bpm)", *ROWS), r"column 2 \('II'\) .* none of mV"),
        (("# sampling_rate: fast", "I (mV),II (mV)", *ROWS), "no number of Hz"),
        (("# sampling_rate: 0", "I (mV),II (mV)", *ROWS), "positive"),
        (("# sampling_rate: 500", "I (mV),Erika (mV)", *ROWS), "name of column 2 in"),
        (("# sampling_rate: 500", "I (mV),DI (mV)", *ROWS), "more than once"),
        (
            ROWS,
            r'leads=\("I", "II"\) \(--leads I II\), units="mV" \(--units mV\) and sampling_rate=',
        ),
        (HEAD, "no rows of numbers"),
        (("# only", "# comments"), "no rows"),
        ((*HEAD, *ROWS, "0.1"), "Row 4"),
        ((*HEAD, *ROWS, "0.1,0.2,0.3"), "Row 4"),
        ((*HEAD, *ROWS, "", "0.1,0.2"), "Row 4 .* is blank"),
        ((*HEAD, *ROWS, "0.1,Erika"), r"Column 2 \('II'\), row 4 of .* holds no number"),
        ((*HEAD, *ROWS, "0.1,NA"), "row 4 of .*: 'NA' is no number. Leave missing"),
        ((*HEAD, *ROWS, "0.1,inf"), "row 4 of .*: 'inf' is no number"),
        ((*HEAD, *ROWS, "0.1,1_000"), "row 4 of .* holds no number"),
        ((*HEAD, *ROWS, "0.1,0x10"), "row 4 of .* holds no number"),
        ((*HEAD, *ROWS, "0.1,1e999"), "infinite"),
        ((*HEAD, *ROWS, '0.1,"1.234,5"'), "row 4 .* do not group digits"),
        ((*HEAD, *ROWS, '0.1,"0,2"'), "mixes"),
        ((*HEAD, *ROWS, '0.1,"0.2'), "damaged"),
        (("time_s,t_ms,I (mV)", "0,0,1", "1,1,1"), "2 time columns"),
        (("time_s", "0", "1"), "no column besides time"),
        (("time_h,I (mV)", "0,1", "1,1"), "none of s, ms, us"),
        (("time (h),I (mV)", "0,1", "1,1"), "none of s, ms, us"),
        (("time_s,I (mV)", "0,1"), "does not increase"),
        (("time_s,I (mV)", "0,1", ",1", "1,1"), "Row 2 .* has no time"),
        (("time_s,I (mV)", "1,1", "0,1"), "does not increase"),
        (("# sampling_rate: 500", "time_s,I (mV)", "0,1", "1,1"), "states 500 Hz"),
        (("# sampling_rate: 500", "I (mV);II (mV)", "1,5;2.5"), "mixes"),
    ],
)
def test_refuses(file, lines, message):
    with pytest.raises(ReadError, match=message) as caught:
        read_csv(file(*lines))
    assert "Erika" not in str(caught.value)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            (",I,II", "0,1,2", "1,2,3"),
            "Column 1 .* no name; it is probably an index. .* without it",
        ),
        (("I (mV),II (mV),", "1,2,", "2,3,"), "Column 3 of .* has no name. Name it, or remove it"),
        (
            ("Zeit (s);I (mV)", "0,00;1,5", "0,01;1,2"),
            r"Column 1 \('Zeit'\) of .* unit of time\. Rename it to 'time \(s\)' if",
        ),
        (("Uhr [ms],I (mV)", "0,1", "2,2"), r"Column 1 of .* Rename it to 'time \(ms\)'"),
        (("time (s),I (mV),RR (ms)", "0,1,2"), r"Column 3 \('RR'\) .* a time column already"),
        (("I (mV),resp", "1,2", "2,3"), r"column 2 \('resp'\) .* Remove it if it is no lead"),
        (("I (mV),resp (Ohm)", "1,2"), r"column 2 \('resp'\) .* Remove it if it is no lead"),
        (
            ("I,II,III,label", "1,2,3,N", "2,3,4,N"),
            r"Column 4 \('label'\), row 1 of .*: 'N' is no number\. Remove columns",
        ),
        (
            ("I,II", "mV,mV", "0.1,0.2", "0.2,0.3"),
            "Row 1 below the header .* no number. Keep one header row",
        ),
        (
            ("time,I (mV)", "2026-01-01T00:00:00.000,1", "2026-01-01T00:00:00.010,1"),
            r"Column 1 \('time'\), row 1 .* date or time of day\. Times must be numbers in s, ms",
        ),
        (("datetime,I (mV)", "01.02.2026,1"), "remove the column and pass sampling_rate=250.0"),
        (("time (s),I (mV)", "0:01,1"), "date or time of day"),
        (("time (s),I (mV)", "noon,1"), "row 1 of .* holds no number. Times must be numbers"),
        (("Dear Dr. Erika,", "please find the ECG attached, soon."), "has no rows of numbers sep"),
        (("I II", "0.1 0.2", "0.2 0.3"), "separated by commas, semicolons or tabs"),
        (("I (mV),II (mV)", "0,1,0,2", "0,1,0,2"), "has 4 cells, the header 2"),
    ],
)
def test_common_mistakes_are_named(file, lines, message):
    for given in ({}, {"units": "mV", "sampling_rate": 100}):
        if given and ("mV)" in lines[0] or "mV" in lines[1]):
            given = {"sampling_rate": 100}
        with pytest.raises(ReadError, match=message) as caught:
            read(file(*lines), **given)
        assert "Erika" not in str(caught.value)


def test_only_usual_words_are_repeated(file):
    lines = ("# sampling_rate: 500", "I (mV),{}", "1,{}")
    for name in ("Erika Mustermann", "mustermann", "12081964", "id 12081964", "II Erika"):
        with pytest.raises(ReadError) as caught:
            read(file(*(line.format(name) for line in lines)))
        assert name not in str(caught.value)
    for name in ("Unnamed: 0", "SpO2", "acc_x", "MLII"):
        with pytest.raises(ReadError, match=rf"column 2 \('{name}'\)"):
            read(file(*lines[:1], lines[1].format(name), "1,2"))


def test_lost_beginnings_are_no_prose(file):
    recording = read(file("# sampling_rate: 500", "I (mV)", *["nan"] * 99, "1"))
    assert recording.measured.sum() == 1
    recording = read(file("# sampling_rate: 500", "I (mV),II (mV)", "nan,nan", "1,2"))
    assert recording.measured.sum() == 2


def test_a_huge_file_is_refused_before_it_is_read(file):
    path = file(*HEAD, *ROWS)
    with path.open("r+b") as sparse:
        sparse.truncate((1 << 30) + 1)
    with pytest.raises(ReadError, match="read up to"):
        read_csv(path)
