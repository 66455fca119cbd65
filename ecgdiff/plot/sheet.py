"""The samples of one page, taken the same way from a reconstruction or from a recording."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.preprocess import baseline
from ecgdiff.plot.paper import PAGE_SECONDS, Segment, sample_range

__all__ = ["ReconstructionLike", "RecordingLike", "Sheet", "cut", "runs", "widen"]


Samples = TypeVar("Samples", float, NDArray[Any])


@runtime_checkable
class RecordingLike(Protocol):
    """What a plot needs of a recording.

    `signal` is in mV, with shape (leads, time), and NaN where nothing was measured.
    """

    @property
    def signal(self) -> NDArray[np.float32]:
        """Voltages in mV, (leads, time)."""

    @property
    def sampling_rate(self) -> float:
        """In Hz."""

    @property
    def leads(self) -> tuple[str, ...]:
        """Names of the leads."""

    @property
    def provenance(self) -> tuple[str, ...]:
        """One word per lead."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """How it was made."""


@runtime_checkable
class ReconstructionLike(Protocol):
    """What a plot needs of a reconstruction.

    `draws` is in mV, with shape (draws, leads, time). `measured`, with shape (leads, time), is
    true where a sample was measured or follows from measured ones. `baseline`, with the same
    shape, is not drawn.
    """

    @property
    def draws(self) -> NDArray[np.float32]:
        """Draws in mV, (draws, leads, time)."""

    @property
    def measured(self) -> NDArray[np.bool_]:
        """True where measured, (leads, time)."""

    @property
    def baseline(self) -> NDArray[np.float32]:
        """What the filter removes, in mV, (leads, time)."""

    @property
    def sampling_rate(self) -> float:
        """In Hz."""

    @property
    def leads(self) -> tuple[str, ...]:
        """Names of the leads."""

    @property
    def provenance(self) -> tuple[str, ...]:
        """One word per lead."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """How it was made."""


@dataclass(frozen=True)
class Sheet:
    """The part of an ECG that one page shows.

    Arguments:
        draws: Voltages in mV, with shape (draws, leads, time), NaN in gaps; one draw if recorded.
        synthetic: True where a sample was neither measured nor derived, with shape (leads, time).
        leads: The names of the leads.
        provenance: One word per lead: "measured", "derived" or "synthetic".
        sampling_rate: In Hz.
        first: The number in the whole recording of the first sample here.
        reconstructed: Whether this comes from a reconstruction or holds synthetic leads.
        meta: What the source says of itself.
        total: How long the whole recording is, in s.
    """

    draws: NDArray[np.float32]
    synthetic: NDArray[np.bool_]
    leads: tuple[str, ...]
    provenance: tuple[str, ...]
    sampling_rate: float
    first: int
    reconstructed: bool
    meta: Mapping[str, Any]
    total: float

    @property
    def present(self) -> tuple[str, ...]:
        """The leads with at least one sample here that is not a gap."""
        finite = np.isfinite(self.draws)
        return tuple(lead for k, lead in enumerate(self.leads) if finite[:, k].any())

    def span(self, segment: Segment) -> slice:
        """Returns which samples of this sheet fall on a segment."""
        first, last = sample_range(segment.start, segment.stop, self.sampling_rate)
        count = self.draws.shape[-1]
        return slice(*(min(max(k - self.first, 0), count) for k in (first, last)))

    def time(self, sample: Samples) -> Samples:
        """Returns the times of samples of this sheet, in s from the start of the recording."""
        return (self.first + sample) / self.sampling_rate

    def word(self, segment: Segment) -> str:
        """Returns the mark of a segment.

        Returns:
            "SYNTHETIC", "PARTLY SYNTHETIC", "derived", "no data" or, for measured leads, nothing.
        """
        if segment.lead not in self.leads:
            return "no data"
        lead, span = self.leads.index(segment.lead), self.span(segment)
        there = np.isfinite(self.draws[:, lead, span]).any(axis=0)
        if not there.any():
            return "no data"
        synthetic = self.synthetic[lead, span][there]
        if synthetic.any():
            return "SYNTHETIC" if synthetic.all() else "PARTLY SYNTHETIC"
        return "derived" if self.provenance[lead] == "derived" else ""


def cut(
    source: ReconstructionLike | RecordingLike, start: float, *, leveled: bool = False
) -> Sheet:
    """Cuts one page of 10 s out of a reconstruction or recording.

    Only these samples are read, so the draws may be a memory map of a day.

    Arguments:
        source: The reconstruction or recording.
        start: The time at the left end of the page, in s.
        leveled: Whether to take the baseline from a recording, too; it then is read whole.

    Returns:
        The sheet.

    Raises:
        TypeError: If the source is neither.
        ValueError: If nothing of the source lies at or after `start`.
    """
    if isinstance(source, ReconstructionLike):
        draws, measured = source.draws, source.measured
    elif isinstance(source, RecordingLike):
        draws = source.signal[None]
        known = np.array([word != "synthetic" for word in source.provenance])
        measured = np.broadcast_to(known[:, None], source.signal.shape)
    else:
        found = type(source).__name__
        raise TypeError(f"A plot needs a Reconstruction or a Recording, but got {found}.")
    rate = float(source.sampling_rate)
    first, last = sample_range(start, start + PAGE_SECONDS, rate)
    if not 0 <= first < draws.shape[-1]:
        seconds = draws.shape[-1] / rate
        raise ValueError(f"start={start:g} lies outside the recording, which lasts {seconds:g} s.")
    page = np.array(draws[:, :, first:last], dtype=np.float32)
    # Paper shows what an ECG machine shows: filtered leads, whatever wander the files keep.
    if isinstance(source, ReconstructionLike):
        page -= source.baseline[:, first:last]
    elif leveled:
        page -= baseline(source.signal, rate)[:, first:last].astype(np.float32)
    synthetic = np.isfinite(page).any(axis=0) & ~np.asarray(measured[:, first:last], dtype=bool)
    return Sheet(
        draws=page,
        synthetic=synthetic,
        leads=tuple(source.leads),
        provenance=tuple(source.provenance),
        sampling_rate=rate,
        first=first,
        reconstructed=isinstance(source, ReconstructionLike) or "synthetic" in source.provenance,
        meta=source.meta,
        total=draws.shape[-1] / rate,
    )


def runs(mask: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Returns the half-open ranges in which a one-dimensional mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], mask, [False])).astype(np.int8)))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def widen(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns a one-dimensional mask grown by one sample on either side.

    A synthetic line drawn over the wider mask meets the measured line beside it.
    """
    wide = mask.copy()
    wide[1:] |= mask[:-1]
    wide[:-1] |= mask[1:]
    return wide
