"""Damaged files: only `ReadError`, fast, in little memory, no word about the patient."""

import random
import shutil
import time
import traceback
import tracemalloc
from pathlib import Path

import pytest

from ecgdiff.ecg.io import read
from ecgdiff.errors import ReadError

GOLDEN = Path(__file__).parents[2] / "golden"
MUTATIONS = 500
SECONDS, BYTES = 2.0, 500_000_000
PERSONAL = ("Mustermann", "Erika", "12.08.1964", "Aug 12")
# format: files to damage (the first of each group is what is read)
FORMATS = {
    "wfdb": [
        ("wfdb/plain.hea", ("wfdb/plain.hea",), 4),
        ("wfdb/plain.hea", ("wfdb/plain.dat",), 1),
        ("wfdb/packed.hea", ("wfdb/packed.hea",), 2),
        ("wfdb/offset.hea", ("wfdb/offset.hea",), 2),
        ("wfdb/parts.hea", ("wfdb/parts.hea", "wfdb/parts_1.hea"), 1),
    ],
    "npz": [
        (f"npz/{name}.npz", (f"npz/{name}.npz",), 1) for name in ("marked", "missing", "whole")
    ],
    "csv": [
        (f"csv/{name}.csv", (f"csv/{name}.csv",), 1) for name in ("comma", "semicolon", "tab")
    ],
    "apple": [
        (f"apple/{name}.csv", (f"apple/{name}.csv",), 1)
        for name in ("english", "german", "french")
    ],
}
NUMBERS = (
    b"0",
    b"-1",
    b"99999999",
    b"99999999999999999999",
    b"1e308",
    b"nan",
    b"",
    b"../../etc/passwd",
)


def cut(data, rng):
    return data[: rng.randrange(len(data))]


def flip(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice((1, 2, 4, 16))):
        # The beginning matters most: headers are there.
        at = rng.randrange(rng.choice((len(data), min(len(data), 200))))
        data[at] ^= 1 << rng.randrange(8)
    return bytes(data)


def overwrite(data, rng):
    at = rng.randrange(len(data))
    return data[:at] + rng.randbytes(rng.randrange(1, 9)) + data[at + rng.randrange(9) :]


def repeat_line(data, rng):
    lines = data.split(b"\n")
    line = rng.choice(lines[:15])
    lines.insert(rng.randrange(min(len(lines), 20)), line)
    return b"\n".join(lines)


def insert_line(data, rng):
    lines = data.split(b"\n")
    line = rng.choice((b"", b"\0", b"#", b",", b'"', b"I", b"512 hertz", rng.randbytes(20)))
    lines.insert(rng.randrange(min(len(lines), 20)), line)
    return b"\n".join(lines)


def drop_line(data, rng):
    lines = data.split(b"\n")
    del lines[rng.randrange(min(len(lines), 20))]
    return b"\n".join(lines)


def swap_word(data, rng):
    lines = data.split(b"\n")
    at = rng.randrange(min(len(lines), 20))
    words = lines[at].split(b" ")
    words[rng.randrange(len(words))] = rng.choice(NUMBERS)
    lines[at] = b" ".join(words)
    return b"\n".join(lines)


MUTATORS = (cut, flip, flip, overwrite, repeat_line, insert_line, drop_line, swap_word)


def cases(name):
    """Yields (what is read, what is damaged) so that `MUTATIONS` come to be, in a fixed order."""
    groups = [group for group in FORMATS[name] for _ in range(group[2])]
    for number in range(MUTATIONS):
        main, damaged, _ = groups[number % len(groups)]
        yield main, damaged[number // len(groups) % len(damaged)]


@pytest.mark.parametrize("name", FORMATS)
def test_damage_gives_read_errors_only(name, tmp_path):
    rng = random.Random(f"damaged {name}")
    for path in (GOLDEN / name).iterdir():
        shutil.copy(path, tmp_path)
    read(tmp_path / Path(FORMATS[name][0][0]).name)  # imports the libraries
    tracemalloc.start()  # NumPy's arrays count too, even untouched pages
    refused, slowest = 0, 0.0
    for main, damaged in cases(name):
        target = tmp_path / Path(damaged).name
        original = target.read_bytes()
        mutated = original
        for _ in range(rng.choice((1, 1, 1, 2, 3))):
            mutated = rng.choice(MUTATORS)(mutated or original, rng)
        target.write_bytes(mutated)
        began = time.process_time()
        try:
            seen = read(tmp_path / Path(main).name)
            said = f"{seen!r} {dict(seen.meta)} {seen.leads}"
        except ReadError as error:
            refused += 1
            # What a log would show, causes included; source lines and paths are not the file's.
            said = " ".join(str(e) for e in chain(error))
        slowest = max(slowest, time.process_time() - began)
        assert not [word for word in PERSONAL if word in said], (mutated, said)
        target.write_bytes(original)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert slowest < SECONDS
    assert peak < BYTES
    assert refused > MUTATIONS // 4


def chain(error):
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


@pytest.mark.parametrize("name", ["wfdb/plain.hea", "apple/english.csv", "apple/german.csv"])
def test_the_person_in_a_file_is_not_kept(name):
    text = (GOLDEN / name).read_text(encoding="utf-8")
    assert "Mustermann" in text
    recording = read(GOLDEN / name)
    said = f"{recording!r} {recording!s} {dict(recording.meta)} {recording.start}"
    assert not [word for word in (*PERSONAL, "61", "F ") if word in said]


@pytest.mark.parametrize("name", ["wfdb/plain.hea", "apple/english.csv", "csv/comma.csv"])
@pytest.mark.parametrize("wrong", [{"leads": ("I",) * 5}, {"units": "V"}, {"sampling_rate": 1.0}])
def test_errors_do_not_name_the_person(name, wrong, tmp_path):
    shutil.copy(GOLDEN / "wfdb" / "plain.dat", tmp_path)
    path = tmp_path / Path(name).name
    path.write_bytes(
        b"# Erika Mustermann\n" * (path.suffix != ".csv") + (GOLDEN / name).read_bytes()
    )
    with pytest.raises(ReadError) as caught:
        read(path, **wrong)
    text = "".join(traceback.format_exception(caught.value))
    assert not [word for word in PERSONAL if word in text]
