r"""Noise of an electrode that moves: baseline wander and bursts of motion.

With white Gaussian noises :math:`z, z'` of the record's own stream, F the discrete Fourier
transform over the record and f the frequency in Hz,

.. math::
    w &= F^{-1}\Bigl[ \frac{1_{f > 0}}{\sqrt{1 + (f / 0.5)^4}} \, F z \Bigr], \\
    m(t) &= F^{-1}\bigl[ 1_{1 \le f \le 10} \, F z' \bigr](t)
        \; \sum_{b=1}^{B} \exp\Bigl( -\frac{(t - t_b)^2}{2 s_b^2} \Bigr), \\
    u &= \frac{w}{\mathrm{rms}(w)} + \frac{m}{\mathrm{rms}(m)}, \qquad
    n = \sqrt{P \, 10^{-\mathrm{SNR} / 10}} \; \frac{u}{\mathrm{rms}(u)} ,

where P is the mean square of the clean lead, so the signal-to-noise ratio of the record is exactly
SNR in dB. There are B = max(1, round(0.3 T)) bursts in T seconds, their centers t_b uniform over
the record and their widths s_b uniform in 0.3-1 s. Half of the power is wander (breathing and
drift, falling as 1/f² in amplitude above 0.5 Hz), half is motion.
"""

import numpy as np
from numpy.typing import NDArray

from ecgdiff.errors import EcgDiffError
from ecgdiff.random import Streams

__all__ = ["electrode_noise"]

CORNER_HZ, MOTION_HZ = 0.5, (1.0, 10.0)
BURSTS_PER_S, WIDTH_S = 0.3, (0.3, 1.0)

Array = NDArray[np.float64]


def electrode_noise(
    lead: NDArray[np.floating], sampling_rate: float, snr_db: float, stream: Streams
) -> Array:
    """Makes the noise of one lead, before any filter.

    Arguments:
        lead: The clean lead in mV, with shape (time,).
        sampling_rate: In Hz.
        snr_db: The power of the lead over that of the noise, in dB.
        stream: The random numbers, one stream.

    Returns:
        The noise in mV, with shape (time,) and zero mean over the record up to the bursts.

    Raises:
        EcgDiffError: If the lead is flat or shorter than 1 s.
    """
    x, n = np.asarray(lead, np.float64), len(lead)
    power = np.mean(np.square(x))
    if power == 0 or n < sampling_rate:
        raise EcgDiffError(
            f"A lead of {n / sampling_rate:g} s with mean square {power:g} mV² has no noise at "
            f"{snr_db:g} dB; it must be 1 s or longer and not flat."
        )
    white = stream.normal((1, 2, n))[0].double().numpy()
    f = np.fft.rfftfreq(n, 1 / sampling_rate)
    low, high = MOTION_HZ
    wander = _shaped(white[0], (f > 0) / np.sqrt(1 + (f / CORNER_HZ) ** 4))
    motion = _shaped(white[1], (low <= f) & (f <= high)) * _bursts(n, sampling_rate, stream)
    both = wander / _rms(wander) + motion / _rms(motion)
    return np.sqrt(power * 10 ** (-snr_db / 10)) * both / _rms(both)


def _shaped(white: Array, response: NDArray[np.floating] | NDArray[np.bool_]) -> Array:
    return np.fft.irfft(np.fft.rfft(white) * response, len(white))


def _bursts(n: int, rate: float, stream: Streams) -> Array:
    """The envelope of the motion, with shape (time,)."""
    t, envelope = np.arange(n), np.zeros(n)
    low, high = (round(width * rate) for width in WIDTH_S)
    for _ in range(max(1, round(BURSTS_PER_S * n / rate))):
        center, width = int(stream.integers(0, n)[0]), int(stream.integers(low, high + 1)[0])
        envelope += np.exp(-np.square((t - center) / width) / 2)
    return envelope


def _rms(x: Array) -> float:
    return float(np.sqrt(np.mean(np.square(x))))
