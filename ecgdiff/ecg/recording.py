"""The one type in which units, lead names and rates live.

A `Recording` is in millivolt, its rate in hertz, its leads known by name, and NaN means "not
measured" and nothing else. No function fills NaN silently. Operations return new recordings.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_12, LIMB, LIMB_FROM_I_II, canonical
from ecgdiff.ecg.resampling import resample

__all__ = ["PROVENANCES", "Recording"]

PROVENANCES = ("measured", "derived", "synthetic")

Block = tuple[float, float]


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """Creates an ECG recording.

    Arguments:
        signal: Voltages in mV, with shape (leads, time), real numbers; NaN where nothing was
            measured. A read-only float32 copy is kept.
        sampling_rate: In Hz; sample k lies at k / sampling_rate seconds.
        leads: One known and unique name per row; aliases such as "AVR" get their standard
            spelling.
        provenance: One word per lead: "measured", "derived" (from measured leads, exactly) or
            "synthetic". A lead with any derived or synthetic sample carries that word. Nothing
            given means all measured.
        start: When the first sample was taken.
        meta: Anything else a file says, such as its own unit; kept as a read-only mapping.

    Raises:
        ValueError: If shape, names, rate or provenance do not fit together; the message says
            which.
    """

    signal: NDArray[np.float32]
    sampling_rate: float
    leads: tuple[str, ...]
    provenance: tuple[str, ...] = ()
    start: datetime | None = None
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        signal = _checked_signal(self.signal)
        names = _checked_leads(self.leads, signal.shape[0])
        provenance = _checked_provenance(self.provenance, names)
        object.__setattr__(self, "signal", signal)
        object.__setattr__(self, "sampling_rate", _checked_rate(self.sampling_rate))
        object.__setattr__(self, "leads", names)
        object.__setattr__(self, "provenance", provenance)
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled, and workers need to be sent recordings.
        state = (self.signal, self.sampling_rate, self.leads, self.provenance, self.start)
        return (Recording, (*state, dict(self.meta)))

    def __repr__(self) -> str:
        noun = "lead" if self.n_leads == 1 else "leads"
        share = 100 * self.without_synthetic().measured.mean()
        made = " ".join(self.synthetic)
        return (
            f"Recording({self.n_leads} {noun}: {' '.join(self.leads)}; {self.duration:.6g} s at "
            f"{self.sampling_rate:g} Hz; {share:.4g} % measured"
            + (f"; synthetic: {made})" if made else ")")
        )

    @property
    def n_leads(self) -> int:
        """Number of leads."""
        return int(self.signal.shape[0])

    @property
    def n_samples(self) -> int:
        """Number of samples per lead."""
        return int(self.signal.shape[1])

    @property
    def duration(self) -> float:
        """Length in seconds, `n_samples / sampling_rate`."""
        return self.n_samples / self.sampling_rate

    @property
    def measured(self) -> NDArray[np.bool_]:
        """True where there is a finite value, with shape (leads, time)."""
        return np.isfinite(self.signal)

    @property
    def synthetic(self) -> tuple[str, ...]:
        """The leads that are marked as synthetic."""
        pairs = zip(self.leads, self.provenance, strict=True)
        return tuple(lead for lead, word in pairs if word == "synthetic")

    def lead(self, name: str) -> NDArray[np.float32]:
        """Returns one lead in mV as a read-only view, with shape (time,).

        Raises:
            ValueError: If the recording does not have this lead.
        """
        row: NDArray[np.float32] = self.signal[self._row(name)]
        return row

    def select(self, leads: Iterable[str]) -> "Recording":
        """Returns the named leads, in that order.

        Raises:
            ValueError: If the recording does not have one of them, or one is named twice.
        """
        rows = [self._row(name) for name in _names(leads)]
        return replace(
            self,
            signal=self.signal[rows],
            leads=tuple(self.leads[r] for r in rows),
            provenance=tuple(self.provenance[r] for r in rows),
        )

    def crop(self, start_s: float = 0.0, stop_s: float | None = None) -> "Recording":
        """Returns the samples with start_s <= time < stop_s; `start` moves along.

        Arguments:
            start_s: Seconds from the first sample.
            stop_s: Seconds from the first sample, or None for the end.

        Raises:
            ValueError: If the stretch is empty or not within the recording.
        """
        a, b = self._stretch((start_s, self.duration if stop_s is None else stop_s))
        start = self.start and self.start + timedelta(seconds=a / self.sampling_rate)
        return replace(self, signal=self.signal[:, a:b], start=start)

    def resample(self, rate: float) -> "Recording":
        """Returns the recording at another rate in Hz; see `ecgdiff.ecg.resampling`."""
        rate = _checked_rate(rate)
        if rate == self.sampling_rate:
            return self
        signal = resample(self.signal, self.sampling_rate, rate)
        return replace(self, signal=signal, sampling_rate=rate)

    def with_lost(
        self,
        leads: Iterable[str] = (),
        blocks: Iterable[Block] = (),
        lead_blocks: Mapping[str, Iterable[Block]] | None = None,
    ) -> "Recording":
        """Returns a recording in which some samples are lost, that is NaN.

        Arguments:
            leads: Leads lost for the whole time.
            blocks: Stretches (start, stop) in seconds lost on every lead.
            lead_blocks: Stretches in seconds lost on one lead, by its name.

        Raises:
            ValueError: If a lead is not there, or a stretch is empty or not within the recording.
        """
        signal = self.signal.copy()
        for name in _names(leads):
            signal[self._row(name)] = np.nan
        for block in blocks:
            signal[:, slice(*self._stretch(block))] = np.nan
        for name, stretches in (lead_blocks or {}).items():
            for block in stretches:
                signal[self._row(name), slice(*self._stretch(block))] = np.nan
        return replace(self, signal=signal)

    def without_synthetic(self) -> "Recording":
        """Returns the recording with its synthetic leads lost: what was drawn is no evidence."""
        return self.with_lost(leads=self.synthetic) if self.synthetic else self

    def with_leads_as(self, lead: str = "I") -> "Recording":
        """Returns a single-lead recording under another name; `meta["renamed_from"]` has the old.

        Raises:
            ValueError: If there is more than one lead, or the name is unknown.
        """
        if self.n_leads != 1:
            raise ValueError(
                "Only a single-lead recording can be taken for another lead (--assume-lead), this "
                f"one has {self.n_leads} leads: {', '.join(self.leads)}. Leave it out, or select "
                "one first."
            )
        name = canonical(lead)
        if name == self.leads[0]:
            return self
        meta = {**self.meta, "renamed_from": self.leads[0]}
        return replace(self, leads=(name,), meta=meta)

    def complete_limb_leads(self) -> "Recording":
        """Returns the recording with every limb lead sample that follows from two or more others.

        Where at least two limb leads that are not synthetic have a value, the missing ones are
        computed, by least squares if there are more than two. Existing values stay as they are.
        Leads with a computed sample become "derived". Elsewhere missing samples stay NaN. Leads
        come out in the order of `LEADS_12`, "chest" last.

        Returns:
            The completed recording, or this one if nothing follows.
        """
        limb = np.full((len(LIMB), self.n_samples), np.nan, dtype=np.float32)
        usable = np.zeros(limb.shape, dtype=bool)
        for k, name in enumerate(LIMB):
            if name in self.leads:
                row = self._row(name)
                limb[k] = self.signal[row]
                usable[k] = np.isfinite(limb[k]) & (self.provenance[row] != "synthetic")
        filled = _fill_limb(limb, usable)
        if not filled.any():
            return self
        rows = dict(zip(self.leads, zip(self.signal, self.provenance, strict=True), strict=True))
        for k, name in enumerate(LIMB):
            if filled[k].any():
                rows[name] = (limb[k], "derived")
        order = [name for name in (*LEADS_12, *self.leads) if name in rows]
        order = list(dict.fromkeys(order))
        return replace(
            self,
            signal=np.stack([rows[name][0] for name in order]),
            leads=tuple(order),
            provenance=tuple(rows[name][1] for name in order),
        )

    def _row(self, name: str) -> int:
        wanted = canonical(name)
        if wanted not in self.leads:
            raise ValueError(
                f"There is no lead {wanted}; this recording has {', '.join(self.leads)}."
            )
        return self.leads.index(wanted)

    def _stretch(self, block: Block) -> tuple[int, int]:
        """Sample range of the times start <= t < stop."""
        start, stop = (float(edge) for edge in block)
        within = -1e-9 <= start < stop <= self.duration + 1 / self.sampling_rate
        if not within:  # also catches NaN
            raise ValueError(
                f"The stretch from {start:g} s to {stop:g} s is empty or not within the "
                f"recording, which runs from 0 to {self.duration:g} s."
            )
        # A time that should fall on a sample may miss it by rounding.
        a, b = (math.ceil(edge * self.sampling_rate - 1e-6) for edge in (start, stop))
        a, b = max(a, 0), min(b, self.n_samples)
        if a >= b:
            raise ValueError(f"There is no sample between {start:g} s and {stop:g} s.")
        return a, b


def _fill_limb(limb: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fills NaN of (6, time) limb leads in place where two are usable; returns where it did."""
    filled = np.zeros(limb.shape, dtype=bool)
    patterns = np.packbits(usable, axis=0, bitorder="little")[0]
    for pattern in np.unique(patterns):
        known = np.array([bool(pattern >> k & 1) for k in range(len(LIMB))])
        if known.sum() < 2 or known.all():
            continue
        times = np.flatnonzero(patterns == pattern)
        i_and_ii = np.linalg.pinv(LIMB_FROM_I_II[known]) @ limb[np.ix_(known, times)]
        for k in np.flatnonzero(~known):
            empty = np.isnan(limb[k, times])
            limb[k, times[empty]] = LIMB_FROM_I_II[k] @ i_and_ii[:, empty]
            filled[k, times[empty]] = True
    return filled


def _names(leads: Iterable[str]) -> list[str]:
    # A bare string would be taken letter by letter.
    return [leads] if isinstance(leads, str) else list(leads)


def _checked_signal(signal: object) -> NDArray[np.float32]:
    array = np.asarray(signal)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"A signal holds real numbers in mV, got dtype {array.dtype}.")
    if array.ndim != 2 or 0 in array.shape:
        hint = " Write signal[None] for a single lead." if array.ndim == 1 and array.size else ""
        raise ValueError(f"A signal has shape (leads, time), got {array.shape}.{hint}")
    with np.errstate(
        over="ignore"
    ):  # what float32 cannot hold becomes inf, which the quality gate refuses
        copy = np.array(array, dtype=np.float32, order="C")
    copy.flags.writeable = False
    return copy


def _checked_leads(leads: Iterable[str], rows: int) -> tuple[str, ...]:
    names = tuple(canonical(name) for name in _names(leads))
    if len(names) != rows:
        raise ValueError(
            f"There are {len(names)} lead names ({', '.join(names)}) for {rows} rows of the "
            "signal, which has shape (leads, time)."
        )
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"Each lead may occur once, but {', '.join(twice)} occurs more often.")
    return names


def _checked_provenance(provenance: Sequence[str], names: tuple[str, ...]) -> tuple[str, ...]:
    words = tuple(_names(provenance)) or ("measured",) * len(names)
    if len(words) != len(names):
        raise ValueError(f"There are {len(words)} provenance words for {len(names)} leads.")
    for name, word in zip(names, words, strict=True):
        if word not in PROVENANCES:
            raise ValueError(
                f"The provenance of lead {name} is {word!r}; it must be {', '.join(PROVENANCES)}."
            )
    return words


def _checked_rate(rate: object) -> float:
    try:
        value = float(rate)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"The sampling rate must be a positive number of Hz, got {rate!r}.")
    return value
