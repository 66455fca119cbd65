"""Random patterns of what was observed, for the training of networks that see observations.

They are drawn on the host, item by item, so every pattern writes into its item's part of one NumPy
array: an operation of torch takes longer than the few numbers that a pattern needs.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["check_patterns", "draw_masks", "validation_masks"]

Mask: TypeAlias = NDArray[np.bool_]

HALF = 128
"""Samples of the benchmark's half block."""

SHARES = {"first": 0.4, "leads": 0.15, "block": 0.15, "window": 0.15, "mixed": 0.1, "none": 0.05}
"""How often each pattern is drawn."""


def draw_masks(
    shape: tuple[int, int, int],
    generator: torch.Generator,
    patterns: Sequence[str] = (),
    shown: float | None = None,
) -> Tensor:
    """Draws one pattern per item: True where observed.

    The patterns: `first`, the first lead alone; `leads`, a random set of leads; `block`, all but a
    block of time; `window`, a window of time alone; `mixed`, leads lost at random and of each
    other one a block of its own; `none`, nothing. Besides, on demand, of a random crop of 2.56 s
    alone: `half`, one half of it, as in the benchmark's block task; `blocks`, all but a block of
    each lead at a place of its own.

    Arguments:
        shape: (batch, leads, time).
        generator: The source of randomness.
        patterns: Names of patterns, equally often. If there are none, the shares are those of
            `SHARES`, and a quarter of all recordings is shorter than the window, too.
        shown: The share of items that are not of the pattern `none`, the others' proportions
            being those of `SHARES`; as `SHARES` says if None. A few of them show nothing all the
            same, where the recording ends before its window begins.

    Raises:
        ValueError: If a pattern is unknown, or `shown` is no share or given with patterns.
    """
    check_patterns(patterns, shown)
    if patterns:
        return _filled(patterns, torch.ones(len(patterns)), shape, generator)
    mask = _filled(list(SHARES), _shares(shown), shape, generator)
    array = mask.numpy()
    for item in range(shape[0]):
        if _uniform(generator) < 0.25:
            array[item, :, _between(shape[2] // 4, shape[2], generator) :] = False
    return mask


def check_patterns(names: Sequence[str], shown: float | None = None) -> None:
    """Checks names of patterns and the share of what is shown.

    Raises:
        ValueError: If a name is unknown, or `shown` is no share or given with names.
    """
    if unknown := [name for name in names if name not in _PATTERNS]:
        raise ValueError(f"There is no pattern {unknown[0]!r}; there are {', '.join(_PATTERNS)}.")
    if shown is None:
        return
    if not 0 < shown <= 1:
        raise ValueError(f"shown is a share above 0 and up to 1, got {shown}.")
    if names:
        raise ValueError("shown is for the usual mixture: give patterns or shown, not both.")


def _shares(shown: float | None) -> Tensor:
    shares = torch.tensor(list(SHARES.values()))
    if shown is None:
        return shares
    none = torch.tensor([name == "none" for name in SHARES])
    return torch.where(none, 1 - shown, shown * shares / shares[~none].sum())


def _filled(
    names: Sequence[str],
    shares: Tensor,
    shape: tuple[int, int, int],
    generator: torch.Generator,
) -> Tensor:
    kinds = torch.multinomial(shares, shape[0], replacement=True, generator=generator)
    mask = torch.zeros(shape, dtype=torch.bool)
    for item, kind in zip(mask.numpy(), kinds.tolist(), strict=True):
        _PATTERNS[names[kind]](item, generator)
    return mask


def validation_masks(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """The first lead alone for every other item, for the others one half of 2.56 s.

    Arguments:
        shape: (batch, leads, time).
        generator: The source of randomness.
    """
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[::2, 0] = True
    for item in mask.numpy()[1::2]:
        _half(item, generator)
    return mask


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _between(low: int, high: int, generator: torch.Generator) -> int:
    """An integer in [low, high]."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _block(time: int, generator: torch.Generator) -> slice:
    """One stretch of a twentieth to two thirds of the time."""
    length = _between(max(time // 20, 1), max(2 * time // 3, 1), generator)
    start = _between(0, time - length, generator)
    return slice(start, start + length)


# The patterns: each marks in an array (leads, time) of zeros what was observed.


def _first(item: Mask, generator: torch.Generator) -> None:
    item[0] = True


def _leads(item: Mask, generator: torch.Generator) -> None:
    item[_kept(len(item), generator)] = True


def _kept(leads: int, generator: torch.Generator) -> Mask:
    order = torch.randperm(leads, generator=generator)
    kept: Mask = (order < _between(1, leads - 1, generator)).numpy()
    return kept


def _all_but_block(item: Mask, generator: torch.Generator) -> None:
    item[:] = True
    item[:, _block(item.shape[1], generator)] = False


def _window(item: Mask, generator: torch.Generator) -> None:
    item[:, _block(item.shape[1], generator)] = True


def _half(item: Mask, generator: torch.Generator) -> None:
    # 1.28 s at 100 Hz; of a window of 2.56 s, its first or its second half.
    time = item.shape[1]
    length = min(HALF, time // 2)
    start = _between(0, time - length, generator)
    if time <= 2 * HALF:
        start = 0 if 2 * start < time - length else time - length
    item[:, start : start + length] = True


def _blocks(item: Mask, generator: torch.Generator) -> None:
    crop = min(2 * HALF, item.shape[1])
    start = _between(0, item.shape[1] - crop, generator)
    _all_but_blocks(item[:, start : start + crop], generator)


def _all_but_blocks(item: Mask, generator: torch.Generator) -> None:
    item[:] = True
    for lead in item:
        lead[_block(len(lead), generator)] = False


def _mixed(item: Mask, generator: torch.Generator) -> None:
    _all_but_blocks(item, generator)
    item[~_kept(len(item), generator)] = False


def _none(item: Mask, generator: torch.Generator) -> None:
    pass


_PATTERNS = {
    "first": _first,
    "leads": _leads,
    "block": _all_but_block,
    "window": _window,
    "mixed": _mixed,
    "none": _none,
    "half": _half,
    "blocks": _blocks,
}
