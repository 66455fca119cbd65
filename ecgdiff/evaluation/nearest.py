r"""Does a prior copy its training records? The distance of every draw to the nearest of them.

Of each draw one excerpt of 2.56 s in all leads is compared, from its first R peak in the first
lead. It is looked for in every training record at every R peak, one sample around it included:
a copy may be shifted in time, and then its first beat is another's second. Comparing all shifts
would take some 27 times as long, and waves that do not meet are no copies. Median beats would
be cheaper still, but rhythm and noise, by which a copy is known, are lost in them.

With the excerpt q and a stretch w of a training record

.. math:: d = \min_{w,\ 0.8 \le g \le 1.25}
          \Bigl( \tfrac1n |q - g w|^2 \Bigr)^{1/2}, \qquad r = d \Big/ \Bigl( \tfrac1n |q|^2
          \Bigr)^{1/2},

because training may scale records by such gains, and because small ECGs are close to each other.
Records of patients that the prior has not seen show what distances are to be expected; copies
would be much closer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.neighbors import r_peaks

__all__ = ["GAINS", "LENGTH", "Found", "Search"]

LENGTH = 256
GAINS = (0.8, 1.25)
_AROUND = np.arange(-1, 2)
_ROWS = 2048  # stretches compared at once: 17 MB in 8 leads

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Found:
    """The nearest training record of each signal; NaN and -1 where a signal has no R peak.

    Arguments:
        distance: d in mV, with shape (signals,).
        relative: r, with shape (signals,).
        record: The number of the training record, with shape (signals,).
        start: Where the excerpt begins in the signal, in samples, with shape (signals,).
        match: Where its counterpart begins in the training record, with shape (signals,).
        excerpt: The excerpts in mV, with shape (signals, leads, 256).
        counterpart: The nearest stretches, scaled by g, same shape.
    """

    distance: NDArray[np.float64]
    relative: NDArray[np.float64]
    record: NDArray[np.int64]
    start: NDArray[np.int64]
    match: NDArray[np.int64]
    excerpt: Floats
    counterpart: Floats


class Search:
    """Creates a search; training records are added in parts, so that they need not be in memory.

    Arguments:
        signals: What to look for, in mV at 100 Hz, with shape (signals, leads, time).
    """

    def __init__(self, signals: NDArray[np.floating]) -> None:
        count, self._leads = signals.shape[:2]
        self._starts = np.array([_first_peak(x) for x in signals], np.int64)
        self._known = np.flatnonzero(self._starts >= 0)
        self._queries = np.zeros((len(self._known), self._leads * LENGTH), np.float32)
        for row, k in zip(self._queries, self._known, strict=True):
            at = self._starts[k]
            row[:] = signals[k, :, at : at + LENGTH].ravel()
        self._energy = np.square(self._queries).sum(axis=1)
        self._nearest = np.full_like(self._queries, np.nan)
        self._best = np.full(len(self._known), np.inf, np.float32)
        self._record = np.full(count, -1, np.int64)
        self._match = np.full(count, -1, np.int64)

    def add(
        self,
        records: NDArray[np.floating],
        numbers: Sequence[int] | NDArray[np.int64],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Compares with some training records.

        Arguments:
            records: In mV, with shape (records, leads, time) and the leads of the signals.
            numbers: Their numbers, for :attr:`Found.record`.
            progress: Called with the records done and in all.
        """
        rows: list[Floats] = []
        places: list[tuple[int, int]] = []
        for done, (record, number) in enumerate(zip(records, numbers, strict=True), start=1):
            at = _beginnings(record)
            rows.append(_stretches(record, at))
            places += [(int(number), int(k)) for k in at]
            if len(places) >= _ROWS or done == len(records):
                self._compare(np.concatenate(rows), np.array(places, np.int64).reshape(-1, 2))
                rows, places = [], []
                if progress is not None:
                    progress(done, len(records))

    def _compare(self, stretches: Floats, places: NDArray[np.int64]) -> None:
        if not len(places) or not len(self._known):
            return
        inner = self._queries @ stretches.T
        energy = np.square(stretches).sum(axis=1) + np.float32(1e-12)
        gain = np.clip(inner / energy, *GAINS)
        squared = self._energy[:, None] - 2 * gain * inner + gain**2 * energy
        nearest = squared.argmin(axis=1)
        found = squared[np.arange(len(nearest)), nearest]
        closer = np.flatnonzero(found < self._best)
        at = nearest[closer]
        self._best[closer] = found[closer]
        self._nearest[closer] = gain[closer, at, None] * stretches[at]
        self._record[self._known[closer]], self._match[self._known[closer]] = places[at].T

    def found(self) -> Found:
        """Gives the nearest of all records added so far."""
        distance, relative = np.full((2, len(self._starts)), np.nan)
        squared = np.maximum(self._best, 0.0).astype(np.float64)
        distance[self._known] = np.sqrt(squared / self._queries.shape[1])
        relative[self._known] = np.sqrt(squared / self._energy)
        both = np.full((2, len(self._starts), self._leads, LENGTH), np.nan, np.float32)
        both[0, self._known] = self._queries.reshape(-1, self._leads, LENGTH)
        both[1, self._known] = self._nearest.reshape(-1, self._leads, LENGTH)
        return Found(distance, relative, self._record, self._starts, self._match, *both)


def _first_peak(record: NDArray[np.floating]) -> int:
    """The first R peak with a whole excerpt after it, -1 if there is none."""
    peaks = r_peaks(record[0])
    inside = peaks[peaks <= record.shape[-1] - LENGTH]
    return int(inside[0]) if len(inside) else -1


def _beginnings(record: NDArray[np.floating]) -> NDArray[np.int64]:
    """All R peaks and the samples around them that have a whole excerpt after them."""
    at = np.unique(r_peaks(record[0])[:, None] + _AROUND)
    return at[(at >= 0) & (at <= record.shape[-1] - LENGTH)]


def _stretches(record: NDArray[np.floating], at: NDArray[np.int64]) -> Floats:
    windows = np.lib.stride_tricks.sliding_window_view(record, LENGTH, axis=-1)[:, at]
    return windows.swapaxes(0, 1).reshape(len(at), -1).astype(np.float32)
