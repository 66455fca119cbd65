from datetime import datetime, timedelta, timezone

import numpy as np
import pytest

from ecgdiff.ecg import Recording
from ecgdiff.ecg.io import read, read_apple, write_apple
from ecgdiff.errors import ReadError

NBSP, MICRO, MU = "\N{NO-BREAK SPACE}", "\N{MICRO SIGN}", "\N{GREEK SMALL LETTER MU}"
ENGLISH = f"""Name,
Date of Birth,"Jan 8, 2002"
Recorded Date,2026-05-30 16:32:18 -0700
Classification,Sinus Rhythm
Symptoms,
Software Version,1.90
Device,"Watch7,12"
Sample Rate,512 hertz

Lead,Lead I
Unit,{MICRO}V

150.141
-3.5
12
"""
SAMPLES = [0.150141, -0.0035, 0.012]
GERMAN = f"""Name,
Geburtstag,08.01.2002
Aufzeichnungsdatum,2026-05-30 16:32:18 +0200
Klassifizierung,Uneindeutig
Symptome,
Softwareversion,1.90
Gerät,"Watch7,12"
Messrate,512{NBSP}Hertz

Ableitung,Ableitung I
Einheit,{MICRO}V

150,141
-3,5
12
"""


def changed(*pairs, text=ENGLISH):
    for old, new in pairs:
        assert old in text
        text = text.replace(old, new)
    return text


# name: (text or bytes, rate)
VARIANTS = {
    "english": (ENGLISH, 512),
    "german": (GERMAN, 512),
    "comma rate, unquoted, no-break space": (
        changed((f"512{NBSP}Hertz", f"511,562{NBSP}Hertz"), text=GERMAN),
        511.562,
    ),
    "comma rate, quoted": (changed(("512 hertz", '"511,422 hertz"')), 511.422),
    "narrow no-break space": (changed(("512 hertz", "512.844\u202fHz")), 512.844),
    "bare name": (changed(("Name,\n", "Name\n")), 512),
    "quoted name with commas": (changed(("Name,\n", 'Name,"Mustermann, Erika, Dr."\n')), 512),
    "unquoted symptoms": (
        changed(("Symptoms,", "Symptoms,Rapid, pounding, or fluttering heartbeat,Fatigue")),
        512,
    ),
    "heart rate row": (changed(("Symptoms,", "Average Heart Rate,64 bpm\nSymptoms,")), 512),
    "byte-order mark": (ENGLISH.encode("utf-8-sig"), 512),
    "utf-16": (ENGLISH.encode("utf-16"), 512),
    "latin-1": (ENGLISH.encode("latin-1"), 512),
    "crlf": (ENGLISH.replace("\n", "\r\n"), 512),
    "old mac line ends": (ENGLISH.replace("\n", "\r"), 512),
    "two blank lines": (changed(("hertz\n\n", "hertz\n\n\n")), 512),
    "no blank lines": (changed(("hertz\n\n", "hertz\n"), ("V\n\n", "V\n")), 512),
    "blank lines at the end": (ENGLISH + "\n\n \n", 512),
    "no last line end": (ENGLISH.rstrip(), 512),
    "greek mu": (changed((MICRO, MU)), 512),
    "letter u": (changed((MICRO, "u")), 512),
    "written out": (changed((f"{MICRO}V", "microvolts")), 512),
    "millivolt": (
        changed(
            (f"{MICRO}V", "mV"),
            ("150.141", "0.150141"),
            ("-3.5", "-0.0035"),
            ("\n12\n", "\n0.012\n"),
        ),
        512,
    ),
    "quoted values": (changed((f"{MICRO}V", f'"{MICRO}V"'), ("Lead I", '"Lead I"')), 512),
    "spaces around": (changed(("-3.5", "  -3.5 "), ("512 hertz", " 512  hertz ")), 512),
    "invented language": (
        "Nimi\nSyntymä,x\nPäivä,2026-05-30 16:32:18 +0300\nTulos,?\nTaajuus,512 Hz\n"
        f"Kytkentä,Kytkentä{NBSP}I\nYksikkö,{MU}V\n150,141\n-3,5\n12\n",
        512,
    ),
}


@pytest.fixture
def file(tmp_path):
    def write(content):
        path = tmp_path / "ecg_2026-05-30.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(file, name):
    content, rate = VARIANTS[name]
    recording = read(file(content))
    assert recording.meta["format"] == "apple"
    assert recording.sampling_rate == rate
    assert recording.leads == ("I",)
    assert recording.provenance == ("measured",)
    np.testing.assert_allclose(recording.signal, [SAMPLES], atol=1e-9)


REFUSED = {
    "grouped digits": (changed(("150.141", "1.150,141")), "grouped"),
    "grouped digits, again": (changed(("150.141", "1,150.141")), "grouped"),
    "damaged first sample": (changed(("150.141", "nan")), "plain numbers"),
    "mixed marks": (changed(("-3.5", "-3,5")), "both"),
    "rate in bpm": (changed(("512 hertz", "512 bpm")), "sampling_rate"),
    "rate of zero": (changed(("512 hertz", "0 hertz")), "positive"),
    "two rates": (changed(("512 hertz", "512 hertz\nRate,500 Hz")), "2 different rates"),
    "unknown unit": (changed((f"{MICRO}V", "mmHg")), "units"),
    "megavolt": (changed((f"{MICRO}V", "MV")), "none of mV"),
    "lead in another script": (changed(("Lead,Lead I", "誘導,第Ⅰ誘導")), r'leads=\("I",\)'),
    "no lead": (changed(("Lead,Lead I\n", "")), r'leads=\("I",\)'),
    "word among the samples": (changed(("-3.5", "artifact")), "Sample 2"),
    "not a number among the samples": (changed(("-3.5", "nan")), "Sample 2"),
    "exponent": (changed(("-3.5", "-3.5e0")), "Sample 2"),
    "blank line among the samples": (changed(("-3.5", "")), "Sample 2"),
    "two columns": (changed(("-3.5", "-3.5,1,2")), "Sample 2"),
    "arabic digits": (changed(("-3.5", "٣")), "Sample 2"),
    "cut before the samples": (ENGLISH[: ENGLISH.index("150")], "no samples"),
    "long header": (changed(("Symptoms,", "Symptoms,\n" * 70)), "no samples"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(file, name):
    content, message = REFUSED[name]
    with pytest.raises(ReadError, match=message):
        read_apple(file(content))
    with pytest.raises(ReadError):
        read(file(content))


def test_arguments_fill_in_what_is_missing(file):
    text = changed(("512 hertz", "unknown"), ("Lead,Lead I", "誘導,第Ⅰ誘導"))
    assert read(file(text), sampling_rate=512.1, leads=("II",)).sampling_rate == 512.1
    assert read(file(text), sampling_rate=512.1, leads="II").leads == ("II",)
    text = changed((f"{MICRO}V", "?"))
    with pytest.raises(ReadError, match="units"):
        read(file(text))
    assert read(file(text), units="uV", leads=("I",)).signal[0, 1] == np.float32(-0.0035)


def test_what_the_header_says_besides(file):
    recording = read(file(ENGLISH))
    assert recording.start == datetime(
        2026, 5, 30, 16, 32, 18, tzinfo=timezone(timedelta(hours=-7))
    )
    meta = {"format": "apple", "units": (f"{MICRO}V",), "device": "Watch7,12"}
    assert dict(recording.meta) == {**meta, "classification": "Sinus Rhythm"}
    assert read(file(GERMAN)).meta["classification"] == "Uneindeutig"
    odd = "Atrial Fibrillation — High Heart Rate, perhaps"
    text = changed(("Sinus Rhythm", odd))
    assert read(file(text)).meta["classification"] == odd


def test_a_date_of_birth_is_no_start(file):
    text = changed(
        ('"Jan 8, 2002"', "2002-01-08 00:00:00 +0000"), ("2026-05-30 16:32:18 -0700", "30 May")
    )
    recording = read(file(text))
    assert recording.start is None
    assert "classification" not in recording.meta


@pytest.mark.parametrize("rate", [512.0, 511.422, 512.844])
def test_write_apple_round_trip(tmp_path, rate):
    signal = np.random.default_rng(0).standard_normal((1, 2000)).astype(np.float32)
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
    meta = {"classification": "Sinus\nRhythm"}
    recording = Recording(signal, rate, ("II",), start=start, meta=meta)
    write_apple(recording, tmp_path / "watch.csv")
    back = read(tmp_path / "watch.csv")
    np.testing.assert_allclose(back.signal, signal, rtol=0, atol=6e-7)
    assert (back.leads, back.sampling_rate, back.start) == (("II",), rate, start)
    assert back.meta["classification"] == "Sinus Rhythm"
    text = (tmp_path / "watch.csv").read_text(encoding="utf-8")
    assert text.startswith("Name,\nDate of Birth,\nRecorded Date,2026-01-02 03:04:05 +0000\n")


def test_write_apple_refuses_what_it_cannot_say(tmp_path):
    signal = np.zeros((2, 10))
    path = tmp_path / "watch.csv"
    for recording in (
        Recording(signal, 512, ("I", "II")),
        Recording(signal[:1], 512, ("I",), provenance=("synthetic",)),
        Recording(signal[:1] + np.nan, 512, ("I",)),
    ):
        with pytest.raises(ValueError, match="Apple's layout"):
            write_apple(recording, path)
    assert not path.exists()


def test_a_whole_export_is_no_recording(file):
    with pytest.raises(ReadError, match="about 120,000"):
        path = file(ENGLISH)
        with path.open("r+b") as sparse:
            sparse.truncate(65 << 20)
        read_apple(path)
