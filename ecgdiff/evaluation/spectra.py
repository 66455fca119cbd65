r"""Does a reconstruction have the frequencies of an ECG?

Power spectral densities by Welch's method (Hann windows of 2.56 s at 100 Hz, half overlapping,
mean removed), averaged over records and draws before they are compared, because the spectrum of
one record says little. The log-spectral distance of two averaged densities P and Q is

.. math:: \Bigl( \frac1{|F|} \sum_{f \in F} \bigl( 10 \log_{10} \tfrac{P(f)}{Q(f)} \bigr)^2
          \Bigr)^{1/2} \text{ dB}

over the frequencies F from 0.5 to 40 Hz. It weighs the smallest component like the largest, so a
smooth regression is far from an ECG although it misses little power. Densities below the
quantization noise of the recordings (1 µV steps at 100 Hz) count as that noise.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BANDS",
    "FLOOR",
    "RANGE",
    "SEGMENT",
    "SpectraComparison",
    "band_power",
    "compare_spectra",
    "log_spectral_distance",
    "power_spectrum",
]

BANDS: dict[str, tuple[float, float]] = {
    "0.5-5 Hz": (0.5, 5.0),
    "5-15 Hz": (5.0, 15.0),
    "15-40 Hz": (15.0, 40.0),
}

RANGE = (0.5, 40.0)
"""The frequencies that are compared, in Hz: the lower end included, the upper excluded."""

SEGMENT = 2.56
"""The length of a window in seconds."""

FLOOR = 1e-6 / 12 / 50
"""Quantization noise in mV²/Hz: rounding to 1 µV makes white noise of 1/12 µV² up to 50 Hz."""


def power_spectrum(
    signal: NDArray[np.floating], sampling_rate: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Estimates the power spectral density.

    Arguments:
        signal: In mV, with shape (..., time).
        sampling_rate: In Hz.

    Returns:
        The frequencies in Hz, shape (frequencies,), and the one-sided density in mV²/Hz, shape
        (..., frequencies).

    Raises:
        ValueError: If the signal is shorter than one segment of 2.56 s.
    """
    from scipy.signal import welch  # slow to import, needed only here

    length = round(SEGMENT * sampling_rate)
    if signal.shape[-1] < length:
        raise ValueError(
            f"A spectrum needs at least {length} samples ({SEGMENT} s at {sampling_rate:g} Hz), "
            f"got {signal.shape[-1]}."
        )
    x = np.asarray(signal, np.float64)
    frequencies, density = welch(x, fs=sampling_rate, nperseg=length, axis=-1)
    return frequencies, density


def band_power(
    frequencies: NDArray[np.float64], density: NDArray[np.float64], band: tuple[float, float]
) -> NDArray[np.float64]:
    """Integrates a density over a band.

    Arguments:
        frequencies: Evenly spaced, in Hz, with shape (frequencies,).
        density: In mV²/Hz, with shape (..., frequencies).
        band: Its lower end, included, and its upper end, excluded, in Hz.

    Returns:
        The power in mV², with shape (...).
    """
    inside = (frequencies >= band[0]) & (frequencies < band[1])
    return density[..., inside].sum(axis=-1) * (frequencies[1] - frequencies[0])


def log_spectral_distance(
    frequencies: NDArray[np.float64], drawn: NDArray[np.float64], true: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Computes the root mean square difference of two densities in dB, from 0.5 to 40 Hz.

    Arguments:
        frequencies: In Hz, with shape (frequencies,).
        drawn: A density in mV²/Hz, with shape (..., frequencies).
        true: The one it is compared with, same shape.

    Returns:
        The distance in dB, with shape (...).
    """
    inside = (frequencies >= RANGE[0]) & (frequencies < RANGE[1])
    p, q = (10 * np.log10(np.maximum(x[..., inside], FLOOR)) for x in (drawn, true))
    return np.sqrt(np.square(p - q).mean(axis=-1))


@dataclass(frozen=True)
class SpectraComparison:
    """Averaged spectra of draws and truth, lead by lead.

    Arguments:
        frequencies: In Hz, with shape (frequencies,).
        drawn: The density averaged over records and draws, mV²/Hz, with shape (leads,
            frequencies).
        true: That of the truth averaged over records, same shape.
        distance_db: The log-spectral distance, with shape (leads,).
        power_ratio: Drawn over true power in each of the `BANDS`, each with shape (leads,); NaN
            where the truth has no power.
        records: How many records were averaged.
    """

    frequencies: NDArray[np.float64]
    drawn: NDArray[np.float64]
    true: NDArray[np.float64]
    distance_db: NDArray[np.float64]
    power_ratio: Mapping[str, NDArray[np.float64]]
    records: int


def compare_spectra(
    frequencies: NDArray[np.float64],
    drawn: NDArray[np.float64],
    true: NDArray[np.float64],
    weights: NDArray[np.floating] | None = None,
) -> SpectraComparison:
    """Averages the spectra of many records and compares them.

    Arguments:
        frequencies: In Hz, with shape (frequencies,).
        drawn: The densities of the draws, mV²/Hz, with shape (records, draws, leads,
            frequencies).
        true: Those of the truth, with shape (records, leads, frequencies).
        weights: What each record counts in the averages, such as the inverse of its inclusion
            probability, with shape (records,); all alike if None. A record of weight two is two
            equal records, one of weight zero is none.

    Raises:
        ValueError: If the weights do not fit the records, or are negative, or all zero.
    """
    w = np.ones(len(true)) if weights is None else np.asarray(weights, np.float64)
    if w.shape != (len(true),) or not (w >= 0).all() or not w.any():
        raise ValueError(
            f"Spectra of {len(true)} records need as many weights, none negative and one above "
            f"zero, got shape {w.shape}."
        )
    w = w / w.sum()
    p, q = np.tensordot(w, drawn, axes=1).mean(axis=0), np.tensordot(w, true, axes=1)
    ratio = {}
    for name, band in BANDS.items():
        below = band_power(frequencies, q, band)
        ratio[name] = band_power(frequencies, p, band) / np.where(below > 0, below, np.nan)
    distance = log_spectral_distance(frequencies, p, q)
    return SpectraComparison(frequencies, p, q, distance, ratio, len(true))
