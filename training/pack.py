"""Packs preprocessed folds of PTB-XL into small files, for a machine that gets little at a time.

    python training/pack.py --root PTBXL_FOLDER --folds 1 2 3 4 5 6 7 8 9 --out FOLDER

The training set is int16 microvolts, 280 MB. Here it is rounded to steps of 4 uV (an error of at
most 2 uV; recordings are noisier) and differenced along time. From the difference of each lead
goes what those of the leads before it predict; the rest is zigzag-coded, split into low and high
bytes and compressed block by block with LZMA. There is next to nothing to match; what compresses
is the coder of literals, which knows the byte before. Reading needs NumPy and the standard library
only.

A part is one line of JSON (its blocks as fold, records, bytes; step, leads, clipped samples by
fold, its place among the parts, a checksum of all of it) followed by the blocks.
"""

import argparse
import hashlib
import json
import lzma
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.errors import DataError

__all__ = ["Packed", "pack_block", "quantize", "read_parts", "unpack_block", "write_parts"]

STEP_UV = 4
RECORDS = 512
FORMAT = 1
# Raw LZMA2: four bits of the byte before as context, no alignment, and a dictionary as short as it
# may be: matches found by accident cost more than they save.
FILTERS = [
    {
        "id": lzma.FILTER_LZMA2,
        "dict_size": 4096,
        "lc": 4,
        "lp": 0,
        "pb": 0,
        "mode": lzma.MODE_NORMAL,
        "mf": lzma.MF_HC3,
        "nice_len": 8,
        "depth": 1,
    }
]
# Row l: what the leads before l (I, II, V1-V6) say about lead l, in 64ths, by regression.
SHARES = (
    (),
    (33,),
    (-18, -6),
    (32, 5, 71),
    (2, 29, -14, 49),
    (5, 14, -18, -9, 54),
    (6, 8, -9, -3, -5, 45),
    (3, 8, -8, -1, -1, -3, 39),
)
Block = tuple[int, int, bytes]


@dataclass(frozen=True, eq=False)
class Packed:
    """A set as it was packed.

    Arguments:
        samples: In steps, int16, shape (records, leads, time).
        folds: The fold of each record.
        leads: Names and order of the leads.
        step_uv: Microvolts per step.
        clipped: Samples that the preprocessing clipped, by fold.
    """

    samples: NDArray[np.int16]
    folds: NDArray[np.int64]
    leads: tuple[str, ...]
    step_uv: int
    clipped: dict[int, int]


def quantize(microvolts: NDArray[np.int16], step_uv: int = STEP_UV) -> NDArray[np.int16]:
    """Rounds to whole steps."""
    return np.rint(microvolts / np.float32(step_uv)).astype(np.int16)


def pack_block(samples: NDArray[np.int16]) -> bytes:
    """Compresses steps of shape (records, 8, time).

    Raises:
        ValueError: If neighboring samples differ by more than fits.
    """
    wide = samples.astype(np.int32)
    d = wide.copy()
    d[..., 1:] -= wide[..., :-1]
    rest = np.stack([d[:, lead] - _predicted(d, lead) for lead in range(len(SHARES))], axis=1)
    zigzag = (rest << 1) ^ (rest >> 31)
    if zigzag.size and zigzag.max() > 0xFFFF:
        raise ValueError("Samples jump by more than 16 bits hold; clip them first.")
    low, high = (zigzag & 0xFF).astype(np.uint8), (zigzag >> 8).astype(np.uint8)
    return lzma.compress(low.tobytes() + high.tobytes(), lzma.FORMAT_RAW, filters=FILTERS)


def unpack_block(data: bytes, records: int, length: int) -> NDArray[np.int16]:
    """Reverses :func:`pack_block`, for so many records of so many samples."""
    plain = np.frombuffer(lzma.decompress(data, lzma.FORMAT_RAW, filters=FILTERS), np.uint8)
    low, high = plain.reshape(2, records, len(SHARES), length).astype(np.int32)
    zigzag = low | high << 8
    d = (zigzag >> 1) ^ -(zigzag & 1)
    for lead in range(len(SHARES)):
        d[:, lead] += _predicted(d, lead)
    return d.cumsum(-1, dtype=np.int32).astype(np.int16)


def _predicted(d: NDArray[np.int32], lead: int) -> NDArray[np.int32]:
    """The difference of a lead from those of the leads before it, in whole numbers: exact."""
    total = np.full_like(d[:, lead], 32)
    for share, before in zip(SHARES[lead], range(lead), strict=True):
        total += np.int32(share) * d[:, before]
    return total >> 6


def write_parts(
    blocks: Sequence[Block], out: Path, header: dict[str, Any], part_bytes: int
) -> list[Path]:
    """Writes blocks, in order, into files of at most `part_bytes` (plus a line).

    Arguments:
        blocks: Fold, number of records and compressed bytes of each.
        out: Folder to write, made if absent.
        header: What all parts say: leads, length, step_uv, clipped.
        part_bytes: The limit.

    Raises:
        ValueError: If one block is larger than the limit.
    """
    groups: list[list[Block]] = [[]]
    for block in blocks:
        if len(block[2]) > part_bytes:
            raise ValueError(f"A block takes {len(block[2])} bytes; allow larger parts.")
        if sum(len(b[2]) for b in groups[-1]) + len(block[2]) > part_bytes:
            groups.append([])
        groups[-1].append(block)
    out.mkdir(parents=True, exist_ok=True)
    for old in out.glob("data-*.part"):
        old.unlink()  # parts of other sizes would be taken for missing ones
    paths = []
    for number, group in enumerate(groups):
        payload = b"".join(b[2] for b in group)
        own = {
            **header,
            "format": FORMAT,
            "part": number,
            "parts": len(groups),
            "blocks": [[fold, records, len(data)] for fold, records, data in group],
        }
        own["sha256"] = _checksum(own, payload)
        paths.append(out / f"data-{number:02d}.part")
        paths[-1].write_bytes(json.dumps(own, sort_keys=True).encode() + b"\n" + payload)
    return paths


def read_parts(folder: Path) -> Packed:
    """Reads all parts in a folder, several blocks at a time.

    Raises:
        DataError: If a part is damaged or missing, or there are parts of different sets.
    """
    found = [_read_part(path) for path in sorted(folder.glob("*.part"))]
    if not found:
        raise DataError(f"{folder} holds no .part files; training/pack.py writes them.")
    first = found[0][0]
    if [h["part"] for h, _ in found] != list(range(first["parts"])):
        raise DataError(
            f"{folder} holds the parts {[h['part'] for h, _ in found]} of {first['parts']}; "
            "copy the missing ones there."
        )
    shared = ("leads", "length", "step_uv", "clipped", "parts")
    if any(h[key] != first[key] for h, _ in found for key in shared):
        raise DataError(f"{folder} holds parts of different sets; pack them together.")
    pieces: list[tuple[bytes, int, int]] = []
    folds: list[int] = []
    for header, payload in found:
        at = 0
        for fold, records, size in header["blocks"]:
            pieces.append((payload[at : at + size], records, first["length"]))
            folds += [fold] * records
            at += size
    with ThreadPoolExecutor() as pool:
        unpacked = pool.map(lambda piece: unpack_block(*piece), pieces)
        samples = np.concatenate(list(unpacked))
    clipped = {int(fold): count for fold, count in first["clipped"].items()}
    return Packed(samples, np.array(folds), tuple(first["leads"]), first["step_uv"], clipped)


def _read_part(path: Path) -> tuple[dict[str, Any], bytes]:
    head, _, payload = path.read_bytes().partition(b"\n")
    try:
        header = json.loads(head)
        intact = header.pop("sha256") == _checksum(header, payload)
    except (ValueError, KeyError, AttributeError) as error:
        raise DataError(f"{path} is no part of a packed set: {error!r}; copy it again.") from error
    if not intact or header["format"] != FORMAT:
        raise DataError(f"{path} is damaged or of another version; copy it again.")
    return header, payload


def _checksum(header: dict[str, Any], payload: bytes) -> str:
    digest = hashlib.sha256(json.dumps(header, sort_keys=True).encode())
    digest.update(payload)
    return digest.hexdigest()


def main() -> None:
    """Packs from the command line and says what it cost."""
    from ecgdiff.data.training_set import load_fold_set
    from ecgdiff.ecg.leads import LEADS_8

    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--root", required=True)
    # Fold 10 is for the last test alone, so it never goes to where something is trained.
    parser.add_argument("--folds", type=int, nargs="+", required=True, choices=range(1, 10))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--part-mb", type=float, default=40.0)
    parser.add_argument("--step-uv", type=int, default=STEP_UV)
    a = parser.parse_args()
    blocks: list[Block] = []
    clipped: dict[int, int] = {}
    length = 0
    for fold in sorted(set(a.folds)):
        whole, clipped[fold] = load_fold_set(a.root, [fold], LEADS_8)
        microvolts, length = whole.numpy(), whole.shape[-1]
        steps = quantize(microvolts, a.step_uv)
        error = np.sqrt(np.mean((steps * np.float32(a.step_uv) - microvolts) ** 2))
        parts = np.split(steps, range(RECORDS, len(steps), RECORDS))
        blocks += [(fold, len(part), pack_block(part)) for part in parts]
        size = sum(len(b[2]) for b in blocks if b[0] == fold)
        bits = 8 * size / steps.size
        print(
            f"fold {fold}: {len(steps)} records, {size / 1e6:.2f} MB, {bits:.2f} bits per sample, "
            f"rms error {error:.2f} uV",
            flush=True,
        )
    header = {"leads": LEADS_8, "length": length, "step_uv": a.step_uv, "clipped": clipped}
    for path in write_parts(blocks, a.out, json.loads(json.dumps(header)), int(a.part_mb * 1e6)):
        print(path, path.stat().st_size)


if __name__ == "__main__":
    main()
