"""Writes the golden files with the standard library and NumPy only, by none of the code they test.

    python tests/golden/make.py            # into tests/golden
    python tests/golden/make.py FOLDER

Every sample comes from `value`, so that the tests can state what they expect.
"""

import struct
import sys
from pathlib import Path

import numpy as np

N = 100
NAME, BIRTH = "Erika Mustermann", "12.08.1964"


def value(row: int, k: int) -> int:
    """Sample k of lead `row`, a whole number (microvolts, or units of the converter)."""
    return (101 * row + 37 * k) % 2001 - 1000


def little_endian(rows: int, first: int = 0, count: int = N) -> bytes:
    samples = [value(row, k) for k in range(first, first + count) for row in range(rows)]
    return struct.pack(f"<{len(samples)}h", *samples)


def packed_212(samples: list[int]) -> bytes:
    """Pairs of 12-bit samples in three bytes, low byte first."""
    out = bytearray()
    for a, b in zip(samples[::2], samples[1::2], strict=True):
        a, b = a & 0xFFF, b & 0xFFF
        out += bytes([a & 0xFF, (a >> 8) | (b >> 8) << 4, b & 0xFF])
    return bytes(out)


def wfdb_files(folder: Path) -> None:
    # Three leads, a missing sample (lead II, sample 7), a date, and comments about a person.
    data = bytearray(little_endian(3))
    struct.pack_into("<h", data, 2 * (3 * 7 + 1), -32768)
    (folder / "plain.dat").write_bytes(data)
    lines = [f"plain.dat 16 1000(0)/mV 16 0 0 0 0 {lead}" for lead in ("I", "II", "V1")]
    text = ["plain 3 500 100 10:20:30 24/12/2025", *lines]
    text += [f"# <name>: {NAME} <birth>: {BIRTH}", "# <age>: 61 <sex>: F"]
    (folder / "plain.hea").write_text("\n".join(text) + "\n")

    # Format 212, baseline only as ADC zero, no unit (mV by the format), rate with decimals.
    samples = [value(row, k) + 1024 for k in range(N) for row in range(2)]
    (folder / "packed.dat").write_bytes(packed_212(samples))
    lines = [f"packed.dat 212 200 12 1024 0 0 0 {lead}" for lead in ("AVR", "aVL")]
    (folder / "packed.hea").write_text("\n".join(["packed 2 511.422 100", *lines]) + "\n")

    # Microvolts with a micro sign, samples behind 24 other bytes, lead names with a prefix.
    (folder / "offset.mat").write_bytes(bytes(24) + little_endian(2))
    lines = [
        f"offset.mat 16+24 1(0)/\N{MICRO SIGN}V 16 0 0 0 0 MDC_ECG_LEAD_{lead}"
        for lead in ("V2", "V3")
    ]
    text = ["offset 2 1000 100", *lines]
    (folder / "offset.hea").write_text("\n".join(text) + "\n", encoding="utf-8")

    # Two segments of 60 and 40 samples around a gap of 10.
    for part, (first, count) in enumerate(((0, 60), (60, 40)), start=1):
        (folder / f"parts_{part}.dat").write_bytes(little_endian(2, first, count))
        lines = [f"parts_{part}.dat 16 1000/mV 16 0 0 0 0 {lead}" for lead in ("I", "V6")]
        text = [f"parts_{part} 2 250 {count}", *lines]
        (folder / f"parts_{part}.hea").write_text("\n".join(text) + "\n")
    (folder / "parts.hea").write_text("parts/3 2 250 110\nparts_1 60\n~ 10\nparts_2 40\n")


def npz_files(folder: Path) -> None:
    microvolts = np.array([[value(row, k) for k in range(N)] for row in range(3)])
    words = np.array(["measured", "derived", "synthetic"])
    common = {"sampling_rate": np.float64(500), "units": np.array("mV")}
    millivolts = (microvolts / 1000).astype(np.float32)
    leads = np.array(["I", "III", "V1"])
    np.savez(folder / "marked.npz", signal=millivolts, leads=leads, provenance=words, **common)
    missing = millivolts.copy()
    missing[0, 7] = missing[2, :] = np.nan
    start = np.array("2026-05-30T16:32:18-07:00")
    words = np.array(["measured"] * 3)
    arrays = {"signal": missing, "leads": leads, "provenance": words, "start": start, **common}
    np.savez_compressed(folder / "missing.npz", **arrays)
    common = {"sampling_rate": np.float64(511.422), "units": np.array("uV")}
    arrays = {"signal": microvolts[:1], "leads": leads[:1], "provenance": words[:1], **common}
    np.savez(folder / "whole.npz", **arrays)


def csv_files(folder: Path) -> None:
    rows = [[value(row, k) for row in range(2)] for k in range(N)]
    text = ["# sampling_rate: 500", "I (mV),II (mV)"]
    text += [
        f"{a / 1000:.3f},{'' if k == 7 else f'{b / 1000:.3f}'}" for k, (a, b) in enumerate(rows)
    ]
    (folder / "comma.csv").write_text("\n".join(text) + "\n")

    text = ["time_ms;V1_uV;chest [\N{GREEK SMALL LETTER MU}V]"]
    text += [f"{4 * k},0;{a},0;{b},0" for k, (a, b) in enumerate(rows)]
    path = folder / "semicolon.csv"
    path.write_text("\r\n".join(text) + "\r\n", encoding="utf-8-sig", newline="")

    text = ["# units: V", "# sampling_rate: 511.422 Hz", "# synthetic: aVF", "Lead I\taVF"]
    text += [f"{a}e-6\t{'nan' if k == 7 else f'{b}e-6'}" for k, (a, b) in enumerate(rows)]
    (folder / "tab.csv").write_text("\n".join(text) + "\n")


def apple_files(folder: Path) -> None:
    samples = [value(0, k) for k in range(N)]
    head = [
        f"Name,{NAME}",
        'Date of Birth,"Aug 12, 1964"',
        "Recorded Date,2026-05-30 16:32:18 -0700",
    ]
    head += [
        "Classification,Sinus Rhythm",
        "Symptoms,Rapid, pounding, or fluttering heartbeat,Fatigue",
    ]
    head += ["Software Version,1.90", 'Device,"Watch7,12"', "Sample Rate,512 hertz", ""]
    head += ["Lead,Lead I", "Unit,\N{MICRO SIGN}V", ""]
    text = "\n".join(head + [f"{v}.000" for v in samples]) + "\n"
    (folder / "english.csv").write_text(text, encoding="utf-8", newline="")

    head = [f"Name,{NAME}", f"Geburtstag,{BIRTH}", "Aufzeichnungsdatum,2026-01-02 03:04:05 +0100"]
    head += ["Klassifizierung,Sinusrhythmus", "Symptome,", "Softwareversion,2.0"]
    head += ['Gerät,"Watch6,1"', "Messrate,511,562\N{NO-BREAK SPACE}Hertz", "", ""]
    head += ["Ableitung,Ableitung I", "Einheit,\N{GREEK SMALL LETTER MU}V", ""]
    text = "\r\n".join(head + [f"{v},5" for v in samples]) + "\r\n"
    (folder / "german.csv").write_text(text, encoding="utf-8-sig", newline="")

    head = ["Nom", "Date de naissance,", "Date,2025-11-09 23:59:59 +0000", "Classement,Inconnu"]
    head += ["Fréquence cardiaque moyenne,64 bpm", "Appareil,Watch", "Fréquence,513 Hz"]
    head += ["Dérivation,Dérivation II", "Unité,mV"]
    text = "\n".join(head + [f"{v / 1000:.3f}".replace(".", ",") for v in samples]) + "\n"
    (folder / "french.csv").write_text(text, encoding="utf-8", newline="")


def main(root: Path) -> None:
    for make in (wfdb_files, npz_files, csv_files, apple_files):
        folder = root / make.__name__.removesuffix("_files")
        folder.mkdir(parents=True, exist_ok=True)
        make(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
