"""The training tensors: preprocessed ECGs, all in memory, as int16 microvolts.

The 8-lead set of folds 1-8 takes 280 MB this way. Batches are picked by a permutation and
converted on the fly, so a training loop needs no worker processes and the same code feeds a GPU
that holds the whole set.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.data.ptbxl import PTBXL, Row
from ecgdiff.data.statements import STATEMENTS
from ecgdiff.ecg.preprocess import baseline, clip

__all__ = [
    "UNUSABLE",
    "load_fold_set",
    "load_labelled_set",
    "load_usable",
    "preprocess_microvolts",
]

# Record 12722 has a flat V5: it would teach the prior that a lead can be silent.
UNUSABLE = frozenset({12722})
_CHUNK = 512


def preprocess_microvolts(
    samples: NDArray[np.int16], sampling_rate: float = 100.0
) -> tuple[NDArray[np.int16], int]:
    """Applies the preprocessing of :mod:`ecgdiff.ecg.preprocess` to (records, leads, time).

    Returns:
        The preprocessed samples, rounded to one microvolt, and how many samples were clipped.
    """
    out, clipped = np.empty_like(samples), 0
    for at in range(0, len(samples), _CHUNK):
        part = samples[at : at + _CHUNK] / 1000.0
        filtered, over = clip(part - baseline(part, sampling_rate))
        out[at : at + _CHUNK] = np.rint(filtered * 1000.0)
        clipped += over
    return out, clipped


def load_fold_set(root: str, folds: Iterable[int], leads: Sequence[str]) -> tuple[Tensor, int]:
    """Loads and preprocesses some folds of PTB-XL.

    Returns:
        The samples in microvolts, int16, shape (records, leads, 1000), without the records that
        cannot be used, and the number of clipped samples.
    """
    samples, _, clipped = load_labelled_set(root, folds, leads)
    return samples, clipped


def load_labelled_set(
    root: str, folds: Iterable[int], leads: Sequence[str]
) -> tuple[Tensor, Tensor, int]:
    """Loads and preprocesses some folds of PTB-XL with their statements.

    A statement is present whatever its likelihood: 0 means unknown, and rhythm statements have no
    other.

    Returns:
        The samples as :func:`load_fold_set`, the statements as 0 or 1 in the order of
        :data:`ecgdiff.data.statements.STATEMENTS`, uint8, shape (records, 71), and the number of
        clipped samples.
    """
    rows, filtered, clipped = load_usable(PTBXL(root), folds, leads)
    present = [[code in row.statements for code in STATEMENTS] for row in rows]
    labels = np.array(present, dtype=np.uint8)
    return torch.from_numpy(filtered), torch.from_numpy(labels), clipped


def load_usable(
    data: PTBXL, folds: Iterable[int], leads: Sequence[str]
) -> tuple[list[Row], NDArray[np.int16], int]:
    """Loads and preprocesses the records of some folds that can be used.

    Returns:
        Their rows, the samples in microvolts, shape (records, leads, 1000), and the number of
        clipped samples.
    """
    rows = data.rows(folds)
    _, samples = data.signals({row.fold for row in rows}, leads)
    usable = np.array([row.ecg_id not in UNUSABLE for row in rows])
    filtered, clipped = preprocess_microvolts(samples[usable])
    return [row for row, use in zip(rows, usable, strict=True) if use], filtered, clipped
