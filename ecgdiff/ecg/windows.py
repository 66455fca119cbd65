"""Cuts a long recording into windows that overlap, and fades from one to the next."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["fade_in", "plan", "weights"]


def plan(n_samples: int, window: int, overlap: int) -> list[tuple[int, int]]:
    """Plans the fewest windows of one length that cover a recording.

    The windows are spread evenly, the first from sample 0, the last up to the end.

    Arguments:
        n_samples: Length of the recording in samples.
        window: Length of a window in samples.
        overlap: Samples that consecutive windows share at least.

    Returns:
        Pairs (start, stop); the single (0, n_samples) if the recording fits into one window.

    Raises:
        ValueError: If a length is not positive or the overlap is not in [0, window).
    """
    if n_samples < 1 or window < 1:
        raise ValueError(f"Lengths must be positive, got n_samples={n_samples}, window={window}.")
    if not 0 <= overlap < window:
        raise ValueError(f"The overlap must be in [0, {window}), the window, got {overlap}.")
    if n_samples <= window:
        return [(0, n_samples)]
    last = n_samples - window
    steps = math.ceil(last / (window - overlap))
    starts = [k * last // steps for k in range(steps + 1)]
    return [(start, start + window) for start in starts]


def fade_in(length: int) -> NDArray[np.float64]:
    """Computes a raised-cosine ramp from 0 to 1, both ends left out, with shape (length,).

    Reversed in time it is the fade-out: the two sum to one.
    """
    return np.sin(0.5 * np.pi * (np.arange(length) + 0.5) / max(length, 1)) ** 2


def weights(windows: Sequence[tuple[int, int]]) -> list[NDArray[np.float64]]:
    """Computes one weight per sample of each window, summing to one at every sample.

    Each window is faded in and out over what it shares with its neighbors.

    Arguments:
        windows: Pairs (start, stop) in samples, as `plan` returns them.

    Returns:
        One array per window, with shape (stop - start,), values in [0, 1].
    """
    total = np.zeros(windows[-1][1])
    shaped = []
    for k, (start, stop) in enumerate(windows):
        weight = np.ones(stop - start)
        if k > 0 and (shared := windows[k - 1][1] - start) > 0:
            weight[:shared] *= fade_in(shared)
        if k + 1 < len(windows) and (shared := stop - windows[k + 1][0]) > 0:
            weight[-shared:] *= fade_in(shared)[::-1]
        total[start:stop] += weight
        shaped.append(weight)
    return [w / total[start:stop] for w, (start, stop) in zip(shaped, windows, strict=True)]
