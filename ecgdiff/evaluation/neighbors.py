r"""Nearest neighbors by lead I: what the other leads looked like in others with such a lead I.

From every record of the training folds the library keeps the median beat of each lead, aligned at
the R peaks of lead I, and the median RR interval. A record is answered by the m records whose
median beat of lead I is closest, each of which gives one draw: its own median beats of the other
leads, pasted at the record's R peaks. Nothing is learned and nothing is scaled in
amplitude.

**Pasting.** Between two R peaks of the record, RR apart, the sample at phase
:math:`p = (t - R_i) / RR` takes the neighbor's beat counted from its R peak forward while p < 0.5,
and backward from the next one while p > 0.7; in between, after the T and before the P wave, one
fades into the other. The 60 ms on either side of a peak keep their duration, since a QRS does not
shorten with the rate; the rest is stretched so that phase 1 is the neighbor's own RR interval.
Draws thus have the record's rhythm and a repeating beat: no ectopic beats, no fibrillation waves,
no drift from beat to beat. Of neighbors with rates below 40 a minute the kept beat is too short,
and its ends are held.

**R peaks** are maxima of the energy of lead I between 8 and 25 Hz in a moving window of 120 ms,
at least 300 ms apart and two fifths of the way up from its median to the height of a typical QRS
(the median over the record's seconds of the highest in each), each moved to the largest deflection
within 60 ms. There is no absolute threshold: a small lead I is searched, too.

It needs the whole of lead I. The neighbors' distances do not weigh the draws.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, find_peaks, sosfiltfilt

from ecgdiff.errors import SignalQualityError
from ecgdiff.evaluation.records import SAMPLING_RATE
from ecgdiff.evaluation.tasks import Problem

__all__ = ["Beats", "Library", "Neighbors", "beats", "paste", "r_peaks"]

Array = NDArray[np.floating]
Batches = Callable[[], Iterable[NDArray[np.float32]]]

# Samples at 100 Hz.
BEFORE, AFTER = 75, 105
COMPARED = slice(BEFORE - 25, BEFORE + 46)
QRS = 6
FADE = (0.5, 0.7)


@dataclass(frozen=True)
class Beats:
    """What is kept of a record.

    Arguments:
        median: The median beat in mV, with shape (leads, 181): 0.75 s before lead I's R peak to
            1.05 s after it.
        rr: The median RR interval in samples.
    """

    median: NDArray[np.float32]
    rr: float


def r_peaks(lead: Array) -> NDArray[np.intp]:
    """Finds the R peaks of a lead at 100 Hz.

    Arguments:
        lead: The signal in mV, with shape (time,).

    Returns:
        Their places in ascending order; empty if the lead is constant.
    """
    narrow = sosfiltfilt(_band(), lead)
    energy = uniform_filter1d(np.square(narrow), 12)
    seconds = energy[: len(energy) // 100 * 100].reshape(-1, 100) if len(energy) >= 100 else energy
    typical = float(np.median(np.max(np.atleast_2d(seconds), axis=1)))
    if typical <= 1e-12:
        return np.zeros(0, np.intp)
    floor = float(np.median(energy))
    rough, _ = find_peaks(energy, height=floor + 0.4 * (typical - floor), distance=30)
    height = np.abs(narrow)
    low = np.maximum(rough - QRS, 0)
    moved = [a + int(np.argmax(height[a : r + QRS + 1])) for a, r in zip(low, rough, strict=True)]
    return np.unique(np.asarray(moved, np.intp))


@lru_cache(maxsize=1)
def _band() -> Array:
    return butter(2, (8.0, 25.0), "bandpass", fs=SAMPLING_RATE, output="sos")


def beats(record: Array) -> Beats | None:
    """Takes the median beat of every lead at the R peaks of the first.

    Arguments:
        record: The leads in mV, with shape (leads, time).

    Returns:
        The beats, or None if fewer than two R peaks are found.
    """
    peaks = r_peaks(record[0])
    if len(peaks) < 2:
        return None
    padded = np.pad(record, ((0, 0), (BEFORE, AFTER)), constant_values=np.nan)
    index = peaks[:, None] + np.arange(BEFORE + AFTER + 1)
    # Sorted, the samples beyond the ends (NaN) come last.
    sorted_beats = np.sort(padded[:, index], axis=1)
    count = np.isfinite(sorted_beats[0]).sum(axis=0)
    place = np.arange(index.shape[1])
    low, high = np.maximum(count - 1, 0) // 2, count // 2
    median = (sorted_beats[:, low, place] + sorted_beats[:, high, place]) / 2
    return Beats(np.nan_to_num(median).astype(np.float32), float(np.median(np.diff(peaks))))


def paste(neighbor: Beats, peaks: NDArray[np.intp], time: int) -> NDArray[np.float32]:
    """Pastes median beats at R peaks.

    Arguments:
        neighbor: The median beats.
        peaks: At least two R peaks, ascending.
        time: The number of samples to fill; before the first and after the last peak the median RR
            interval of `peaks` goes on.

    Returns:
        An array with shape (leads, time), mV.
    """
    own = float(np.median(np.diff(peaks)))
    ahead = peaks[0] - own * np.arange(np.ceil(peaks[0] / own), 0, -1)
    behind = peaks[-1] + own * np.arange(1, np.ceil((time - peaks[-1]) / own) + 1)
    ends = np.concatenate([ahead, peaks, behind])
    t = np.arange(time)
    k = np.clip(np.searchsorted(ends, t, side="right") - 1, 0, len(ends) - 2)
    since, rr = t - ends[k], ends[k + 1] - ends[k]
    share = np.clip((since / rr - FADE[0]) / (FADE[1] - FADE[0]), 0, 1)
    forward = _at(neighbor, _stretched(since, rr, neighbor.rr))
    backward = _at(neighbor, -_stretched(rr - since, rr, neighbor.rr))
    return ((1 - share) * forward + share * backward).astype(np.float32)


def _stretched(offset: Array, rr: Array, target: float) -> Array:
    """Offsets from an R peak in a record, in the time of a neighbor whose RR is `target`."""
    outside = (target - QRS) / np.maximum(rr - QRS, 1)
    return np.where(offset <= QRS, offset, QRS + (offset - QRS) * outside)


def _at(neighbor: Beats, offset: Array) -> Array:
    """The median beats at offsets from the R peak in samples, between samples linear."""
    place = np.arange(-BEFORE, AFTER + 1)
    return np.stack([np.interp(offset, place, lead) for lead in neighbor.median])


class Library:
    """Computes the beats of the training records once, when first asked.

    Arguments:
        train: Gives the training batches (records, leads, time), preprocessed, mV.
    """

    def __init__(self, train: Batches) -> None:
        self._train = train

    @cached_property
    def members(self) -> list[Beats]:
        """The beats of all records with at least two R peaks."""
        found = [beats(record) for batch in self._train() for record in batch]
        if not any(found):
            raise ValueError("The library needs training records with R peaks, got none.")
        return [b for b in found if b is not None]

    @cached_property
    def _compared(self) -> NDArray[np.float32]:
        return np.stack([b.median[0, COMPARED] for b in self.members])

    def nearest(self, beat: Beats, count: int) -> list[Beats]:
        """Finds the members whose median beat of lead I is closest, the closest first.

        Compared are 0.25 s before to 0.45 s after the R peak, by Euclidean distance in mV.

        Raises:
            ValueError: If there are fewer members.
        """
        if count > len(self.members):
            raise ValueError(f"The library has {len(self.members)} records, {count} were asked.")
        distance = np.square(self._compared - beat.median[0, COMPARED]).sum(axis=1)
        return [self.members[k] for k in np.argsort(distance, kind="stable")[:count]]


@dataclass(frozen=True)
class Neighbors:
    """Nearest neighbors as a method of the benchmark, for problems that show all of lead I.

    Arguments:
        library: The records to choose from.
        draws: How many neighbors.
    """

    library: Library
    draws: int
    label: str = "neighbors"
    arguments: Mapping[str, object] = field(
        default_factory=lambda: {
            "train": "folds 1-8",
            "distance": "median beat of lead I, -0.25 to 0.45 s",
        }
    )
    calls: tuple[int, int] = (0, 0)

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        """Gives one array (draws, leads, time) in mV per problem, the nearest neighbor first.

        Raises:
            ValueError: If lead I is not observed all the time.
            SignalQualityError: If it shows fewer than two R peaks.
        """
        return [self._answer(p) for p in problems]

    def _answer(self, p: Problem) -> NDArray[np.floating]:
        if not p.mask[0].all():
            raise ValueError(
                f"{p.name}: neighbors are found by the whole of lead I; parts of it "
                "are not observed."
            )
        beat = beats(p.y[:1])
        if beat is None:
            raise SignalQualityError(
                f"{p.name}: lead I shows fewer than two R peaks, so no "
                "neighbor can be found or pasted."
            )
        peaks, time = r_peaks(p.y[0]), p.y.shape[-1]
        found = [paste(b, peaks, time) for b in self.library.nearest(beat, self.draws)]
        return np.where(p.mask, p.y, np.stack(found))
