"""Cuts a long recording into windows that continue one another, and fades from one to the next.

A window is drawn given what was measured in it and the end of the window before. Near its own end
it cannot see what follows; so the last quarter of a second is not handed on, and a gap that comes
near the end and is closed within reach is not either: the next window starts early enough to draw
the gap with evidence on both sides. A gap too long for one window is drawn from the left.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Window", "fade_in", "plan"]


class Window(NamedTuple):
    """A window of samples start <= k < stop, of which those before `keep` are handed on."""

    start: int
    stop: int
    keep: int


def plan(
    mask: NDArray[np.bool_], window: int, *, carry: int, edge: int, sight: int
) -> list[Window]:
    """Plans windows that cover a recording from left to right.

    Arguments:
        mask: True where a row was measured, with shape (rows, time).
        window: Length of a window in samples.
        carry: Samples handed on from one window to the next, at least.
        edge: Samples at the end of a window that are never handed on.
        sight: A gap with less than so many samples before the end of a window is left to the next.

    Returns:
        The windows; all have the full length unless the recording is shorter than one.

    Raises:
        ValueError: If the windows cannot advance.
    """
    if not 0 < carry + edge <= window // 2:
        raise ValueError(f"carry + edge must be in 1..{window // 2}, got {carry + edge}.")
    total = mask.shape[1]
    windows, start = [], 0
    while start + window < total:
        stop = start + window
        keep = _before_gaps(mask, stop - edge, start + window // 2, stop - sight, window - carry)
        windows.append(Window(start, stop, keep))
        start = keep - carry
    return [*windows, Window(max(0, total - window), total, total)]


def _before_gaps(mask: NDArray[np.bool_], keep: int, earliest: int, seen: int, reach: int) -> int:
    """Moves `keep` back to the start of gaps that end after `seen` but within the next window."""
    moved = True
    while moved:
        moved = False
        for row in mask:
            gap = _gap(row, keep, earliest, seen, reach)
            if gap is not None and gap < keep:
                keep, moved = gap, True
    return keep


def _gap(row: NDArray[np.bool_], keep: int, earliest: int, seen: int, reach: int) -> int | None:
    """The start of a gap from `earliest` on that reaches seen..keep and ends within reach."""
    lost = np.flatnonzero(~row[seen - 1 : keep]) if seen - 1 < keep else np.empty(0, np.int64)
    if lost.size == 0:
        return None
    inside = max(seen - 1, 0) + int(lost[0])
    # Only as far back as it matters: a lead lost for hours is not searched anew for each window.
    before = np.flatnonzero(row[earliest - 1 : inside])
    if before.size == 0:
        return None
    begin = earliest + int(before[-1])
    after = np.flatnonzero(row[inside : begin + reach])
    return begin if after.size else None


def fade_in(length: int) -> NDArray[np.float64]:
    """Computes a raised-cosine ramp from 0 to 1, both ends left out, with shape (length,).

    Reversed in time it is the fade-out: the two sum to one.
    """
    return np.sin(0.5 * np.pi * (np.arange(length) + 0.5) / max(length, 1)) ** 2
