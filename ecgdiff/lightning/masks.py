"""Random patterns of what was observed, for the training of networks that see observations."""

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["check_patterns", "draw_masks", "validation_masks"]

HALF = 128
"""Samples of the benchmark's half block."""

SHARES = {"first": 0.4, "leads": 0.15, "block": 0.15, "window": 0.15, "mixed": 0.1, "none": 0.05}
"""How often each pattern is drawn."""


def draw_masks(
    shape: tuple[int, int, int], generator: torch.Generator, patterns: Sequence[str] = ()
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

    Raises:
        ValueError: If a pattern is unknown.
    """
    if patterns:
        return _stacked(patterns, torch.ones(len(patterns)), shape, generator)
    mask = _stacked(list(SHARES), torch.tensor(list(SHARES.values())), shape, generator)
    for item in range(shape[0]):
        if _uniform(generator) < 0.25:
            mask[item, :, _between(shape[2] // 4, shape[2], generator) :] = False
    return mask


def check_patterns(names: Sequence[str]) -> None:
    """Checks names of patterns.

    Raises:
        ValueError: If one is unknown.
    """
    if unknown := [name for name in names if name not in _PATTERNS]:
        raise ValueError(f"There is no pattern {unknown[0]!r}; there are {', '.join(_PATTERNS)}.")


def _stacked(
    names: Sequence[str],
    shares: Tensor,
    shape: tuple[int, int, int],
    generator: torch.Generator,
) -> Tensor:
    check_patterns(names)
    kinds = torch.multinomial(shares, shape[0], replacement=True, generator=generator)
    return torch.stack([_PATTERNS[names[int(k)]](shape[1], shape[2], generator) for k in kinds])


def validation_masks(shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """The first lead alone for every other item, for the others one half of 2.56 s.

    Arguments:
        shape: (batch, leads, time).
        generator: The source of randomness.
    """
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[::2, 0] = True
    for item in range(1, shape[0], 2):
        mask[item] = _half(shape[1], shape[2], generator)
    return mask


def _uniform(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))


def _between(low: int, high: int, generator: torch.Generator) -> int:
    """An integer in [low, high]."""
    return int(torch.randint(low, high + 1, (), generator=generator))


def _block(time: int, generator: torch.Generator) -> Tensor:
    """One stretch of a twentieth to two thirds of the time."""
    length = _between(max(time // 20, 1), max(2 * time // 3, 1), generator)
    start = _between(0, time - length, generator)
    return (torch.arange(time) >= start) & (torch.arange(time) < start + length)


def _first(leads: int, time: int, generator: torch.Generator) -> Tensor:
    return (torch.arange(leads) == 0)[:, None].expand(leads, time).clone()


def _leads(leads: int, time: int, generator: torch.Generator) -> Tensor:
    kept = torch.randperm(leads, generator=generator) < _between(1, leads - 1, generator)
    return kept[:, None].expand(leads, time).clone()


def _all_but_block(leads: int, time: int, generator: torch.Generator) -> Tensor:
    return ~_block(time, generator).expand(leads, time)


def _window(leads: int, time: int, generator: torch.Generator) -> Tensor:
    return _block(time, generator).expand(leads, time).clone()


def _half(leads: int, time: int, generator: torch.Generator) -> Tensor:
    # 1.28 s at 100 Hz; of a window of 2.56 s, its first or its second half.
    length = min(HALF, time // 2)
    start = _between(0, time - length, generator)
    if time <= 2 * HALF:
        start = 0 if 2 * start < time - length else time - length
    inside = (torch.arange(time) >= start) & (torch.arange(time) < start + length)
    return inside.expand(leads, time)


def _blocks(leads: int, time: int, generator: torch.Generator) -> Tensor:
    crop = min(2 * HALF, time)
    start = _between(0, time - crop, generator)
    mask = _none(leads, time, generator)
    mask[:, start : start + crop] = _all_but_blocks(leads, crop, generator)
    return mask


def _all_but_blocks(leads: int, time: int, generator: torch.Generator) -> Tensor:
    return torch.stack([~_block(time, generator) for _ in range(leads)])


def _mixed(leads: int, time: int, generator: torch.Generator) -> Tensor:
    return _all_but_blocks(leads, time, generator) & _leads(leads, time, generator)


def _none(leads: int, time: int, generator: torch.Generator) -> Tensor:
    return torch.zeros(leads, time, dtype=torch.bool)


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
