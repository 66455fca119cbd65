"""The result of a reconstruction: draws of the complete ECG, and what in them was measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8, LEADS_12, derive_12
from ecgdiff.ecg.recording import Recording

__all__ = ["Reconstruction"]

# Statistics over draws are computed for so many samples at a time, so that a memory map stays one.
_CHUNK = 65536


@dataclass(frozen=True, eq=False, repr=False)
class Reconstruction:
    """Creates a reconstruction.

    Arguments:
        draws: Draws of the twelve leads in mV, shape (draws, 12, time); a memory map if they are
            large.
        recording: The recording they were drawn for, as given to the sampler.
        measured: True where a sample was measured or follows from measured ones, shape (12, time).
        sampling_rate: Of the draws, in Hz.
        provenance: One word per lead: "measured", "derived", or "synthetic" if any sample of it
            is.
        baseline: What the preprocessing removed and the draws have back, in mV, shape (12, time).
        meta: How the draws were made.
    """

    draws: NDArray[np.float32]
    recording: Recording
    measured: NDArray[np.bool_]
    sampling_rate: float
    provenance: tuple[str, ...]
    baseline: NDArray[np.float32]
    meta: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "meta", MappingProxyType(dict(self.meta)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A read-only mapping cannot be pickled.
        state = (self.draws, self.recording, self.measured, self.sampling_rate, self.provenance)
        return (Reconstruction, (*state, self.baseline, dict(self.meta)))

    def __repr__(self) -> str:
        synthetic = [
            lead for lead, w in zip(LEADS_12, self.provenance, strict=True) if w == "synthetic"
        ]
        return (
            f"Reconstruction({len(self.draws)} draws x 12 leads x {self.duration:.6g} s at "
            f"{self.sampling_rate:g} Hz; synthetic: {' '.join(synthetic) or 'none'})"
        )

    @property
    def leads(self) -> tuple[str, ...]:
        """The twelve leads, in the order of the second axis of `draws`."""
        return LEADS_12

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return int(self.draws.shape[-1]) / self.sampling_rate

    def mean(self) -> NDArray[np.float32]:
        """Pointwise mean over draws in mV, shape (12, time); it is smoother than any ECG."""
        return self._over_draws(lambda x: x.mean(0, dtype=np.float64), ())

    def std(self) -> NDArray[np.float32]:
        """Pointwise standard deviation over draws in mV, shape (12, time); NaN for one draw."""
        if len(self.draws) == 1:
            return np.full(self.draws.shape[1:], np.nan, np.float32)
        return self._over_draws(lambda x: x.std(0, ddof=1, dtype=np.float64), ())

    def median(self) -> NDArray[np.float32]:
        """Pointwise median of I, II, V1-V6; the others follow from it; mV, shape (12, time)."""
        rows = [LEADS_12.index(lead) for lead in LEADS_8]
        return self._over_draws(lambda x: derive_12(np.median(x[:, rows], axis=0)), ())

    def quantile(self, q: float | Sequence[float]) -> NDArray[np.float32]:
        """Pointwise quantiles over draws in mV, shape (12, time), or (len(q), 12, time).

        Rank k of m draws estimates the quantile k / (m + 1), which is right for any distribution;
        beyond the extreme ranks the extreme draws are returned.
        """
        return self._over_draws(lambda x: np.quantile(x, q, axis=0, method="weibull"), np.shape(q))

    def to_recording(self, which: str | int = "median") -> Recording:
        """Returns the median, or the draw of a number, as a recording with its provenance.

        Raises:
            ValueError: If there is no such draw.
        """
        if which == "median":
            signal = self.median()
        elif isinstance(which, int | np.integer) and 0 <= which < len(self.draws):
            signal = np.asarray(self.draws[which])
        else:
            raise ValueError(
                f"There is no draw {which!r}; give 'median' or 0..{len(self.draws) - 1}."
            )
        return Recording(
            signal=signal,
            sampling_rate=self.sampling_rate,
            leads=LEADS_12,
            provenance=self.provenance,
            start=self.recording.start,
            meta={"reconstruction": {**self.meta, "which": which}},
        )

    def _over_draws(self, statistic: Any, head: tuple[int, ...]) -> NDArray[np.float32]:
        out = np.empty((*head, *self.draws.shape[1:]), np.float32)
        for start in range(0, self.draws.shape[-1], _CHUNK):
            part = slice(start, start + _CHUNK)
            out[..., part] = statistic(self.draws[..., part])
        return out
