"""What ECGs of a set are like, in numbers that can be compared with those of another set.

Heart rates and the variation of RR intervals (lead II, R peaks as in
:mod:`ecgdiff.evaluation.delineation`), peak-to-peak amplitudes and power spectra, each as
quantiles over records.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.diffusion.sampling import Progress
from ecgdiff.evaluation.delineation import RATE, find_beats
from ecgdiff.evaluation.spectra import log_spectral_distance, power_spectrum

__all__ = [
    "PERCENT",
    "RATE_EDGES",
    "VARIATION_EDGES",
    "amplitudes",
    "histogram",
    "percentiles",
    "plain",
    "rhythms",
    "spectra",
    "summary",
]

PERCENT = (5, 10, 25, 50, 75, 90, 95)
RATE_EDGES = tuple(range(25, 186, 5))
VARIATION_EDGES = tuple(range(0, 51, 2))
_AT_ONCE = 128

Array = NDArray[np.float64]


def rhythms(
    lead: NDArray[np.floating], sampling_rate: float, progress: Progress | None = None
) -> tuple[Array, Array]:
    """Measures the rhythm of one lead of many records.

    Arguments:
        lead: In mV, with shape (records, time).
        sampling_rate: In Hz.
        progress: Called with the records done and in all.

    Returns:
        The heart rate per minute, from the median RR interval, and the standard deviation of the
        RR intervals in percent of their mean, each with shape (records,); NaN where no beats that
        are alike can be found.

    Raises:
        ImportError: If neurokit2 is not installed.
    """
    rate, variation = np.full((2, len(lead)), np.nan)
    for k, signal in enumerate(lead):
        beats = find_beats(signal, sampling_rate)
        if len(beats.peaks):
            intervals = np.diff(beats.peaks) / RATE
            rate[k] = 60 / beats.interval
            variation[k] = 100 * intervals.std() / intervals.mean()
        if progress is not None:
            progress(k + 1, len(lead))
    return rate, variation


def amplitudes(signal: NDArray[np.floating]) -> Array:
    """Highest minus lowest sample of (records, leads, time), shape (records, leads)."""
    return np.ptp(signal, axis=-1).astype(np.float64)


def percentiles(values: Array) -> list[Any]:
    """The `PERCENT` percentiles over the first axis, without NaN; four significant digits."""
    if not np.isfinite(values).any():
        return []
    return [plain(v) for v in np.nanpercentile(values, PERCENT, axis=0)]


def histogram(values: Array, edges: Sequence[float]) -> list[float]:
    """The share of all values in each bin; those beyond the edges count at the ends, NaN nowhere.

    Arguments:
        values: With shape (records,).
        edges: Of the bins, ascending.
    """
    known = values[np.isfinite(values)].clip(edges[0], edges[-1])
    counts, _ = np.histogram(known, edges)
    return [round(float(c), 5) for c in counts / max(len(values), 1)]


def summary(rate: Array, variation: Array) -> dict[str, Any]:
    """Sums rhythms up: percentiles, histograms and the share of records without beats.

    Arguments:
        rate: Heart rates per minute, with shape (records,), NaN where none was found.
        variation: The variation of RR intervals in percent, likewise.
    """
    known = rate[np.isfinite(rate)]
    return {
        "records": len(rate),
        "without_beats": float(np.isnan(rate).mean()),
        "below_60": float((known < 60).mean()) if len(known) else None,
        "above_100": float((known > 100).mean()) if len(known) else None,
        "rate_percentiles": percentiles(rate),
        "rate_shares": histogram(rate, RATE_EDGES),
        "variation_percentiles": percentiles(variation),
        "variation_shares": histogram(variation, VARIATION_EDGES),
    }


def spectra(
    drawn: NDArray[np.floating],
    real: NDArray[np.floating],
    sampling_rate: float,
    halves: Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]],
) -> dict[str, Any]:
    """Compares power spectra lead by lead.

    Arguments:
        drawn: Draws in mV, with shape (draws, leads, time).
        real: Real records, with shape (records, leads, time).
        sampling_rate: In Hz.
        halves: Pairs of records of the two halves of `real`, each of at most as many as there are
            draws: the distance in dB of averaged spectra is that of as many draws from the first
            half, and, as a reference, of the second.

    Returns:
        The frequencies in Hz, the 10, 50 and 90 % quantiles of either's density in mV²/Hz, shape
        (3, leads, frequencies), and the mean distances, shape (leads,).
    """
    frequencies, p = _spectra(drawn, sampling_rate)
    _, q = _spectra(real, sampling_rate)
    means = [(q[a].mean(axis=0), q[b].mean(axis=0), p[: len(a)].mean(axis=0)) for a, b in halves]
    off = [log_spectral_distance(frequencies, x, a) for a, _, x in means]
    floor = [log_spectral_distance(frequencies, b, a) for a, b, _ in means]
    shown = (frequencies > 0) & (frequencies <= 45)
    return {
        "frequencies": frequencies[shown].round(4).tolist(),
        "draws": plain(np.quantile(p, (0.1, 0.5, 0.9), axis=0)[..., shown]),
        "fold9": plain(np.quantile(q, (0.1, 0.5, 0.9), axis=0)[..., shown]),
        "distance_db": plain(np.mean(off, axis=0)),
        "half_distance_db": plain(np.mean(floor, axis=0)),
    }


def _spectra(signal: NDArray[np.floating], sampling_rate: float) -> tuple[Array, Array]:
    """The spectra of many records, in parts because Welch's method copies overlapping segments."""
    found = [
        power_spectrum(signal[at : at + _AT_ONCE], sampling_rate)
        for at in range(0, len(signal), _AT_ONCE)
    ]
    return found[0][0], np.concatenate([density for _, density in found])


def plain(values: Any) -> Any:
    """Nested lists of four significant digits."""
    values = np.asarray(values)
    return [plain(v) for v in values] if values.ndim else float(f"{float(values):.4g}")
