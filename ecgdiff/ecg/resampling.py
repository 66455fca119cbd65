r"""Band-limited resampling that keeps time exact and NaN where it was.

Sample k of the result lies at k / rate_out seconds, whatever the rates: watches state 511.6 or
512.844 Hz, and to take 512 for 512.844 is 49 ms of drift in 30 s. The result is

.. math:: y(t) = \sum_i x_i \, h(f t - i), \qquad h(u) = c \, \mathrm{sinc}(c u) \, w(u),

with :math:`f` the old rate, :math:`w` a Kaiser window over 32 zero crossings to each side and
:math:`c` below both Nyquist frequencies. If the rates have a simple ratio p / q, only p different
sets of weights occur and a polyphase filter applies them; else they are computed time by time.

With :math:`f_N` the lower of the two Nyquist frequencies, the filter passes up to :math:`0.84 f_N`
within 1e-4 and stops from :math:`f_N` on by 80 dB: mains hum at 50 Hz does not survive a change to
100 Hz.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import TypeVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

__all__ = ["resample"]

_Float = TypeVar("_Float", np.float32, np.float64)

HALF_LENGTH = 32  # samples at the lower rate on each side
CUTOFF = 0.92  # of the lower Nyquist frequency: middle of the transition band
KAISER_BETA = 7.86  # 80 dB
MAX_PHASES = 2000
RATIO_ERROR = 1e-9  # less than 4 microseconds in an hour

_CHUNK = 1024
_TABLE = 512  # steps per sample at the lower rate; linear interpolation is off by 1e-6


def resample(signal: NDArray[_Float], rate_in: float, rate_out: float) -> NDArray[_Float]:
    """Resamples along the last axis.

    At the ends the signal is continued by its point reflection, so an end that is not zero does
    not ring. A result is NaN where one of the samples it stands for is NaN: those within half a
    new sampling interval, and at least the two neighbors. Elsewhere NaN has no effect but that of
    the straight line that replaces it in the filter.

    Arguments:
        signal: Any unit, with shape (..., time), float32 or float64; NaN marks samples that were
            not measured.
        rate_in: Its rate in Hz.
        rate_out: The wanted rate in Hz.

    Returns:
        The signal at the wanted rate, with shape (..., round(time * rate_out / rate_in)) and the
        dtype of `signal`.

    Raises:
        ValueError: If a rate is not positive, a value is infinite or no sample would be left.
    """
    n_out = _length(signal, rate_in, rate_out)
    if rate_in == rate_out:
        return signal.copy()
    rows = signal.reshape(-1, signal.shape[-1])
    gaps = np.isnan(rows)
    filled = _bridged(rows, gaps) if gaps.any() else rows
    ratio = Fraction(rate_out / rate_in).limit_denominator(MAX_PHASES)
    simple = abs(float(ratio) * rate_in / rate_out - 1) <= RATIO_ERROR
    if simple and ratio.numerator <= MAX_PHASES:
        out = _polyphase(filled, *ratio.as_integer_ratio(), n_out)
    else:
        out = _direct(filled, rate_in / rate_out, n_out)
    for row, gap in zip(out, gaps, strict=True):
        if gap.any():
            row[_touched(gap, rate_in / rate_out, n_out)] = np.nan
    return out.reshape(*signal.shape[:-1], n_out)


def _length(signal: NDArray[_Float], rate_in: float, rate_out: float) -> int:
    for rate in (rate_in, rate_out):
        if not (math.isfinite(rate) and rate > 0):
            raise ValueError(f"A sampling rate must be a positive number of Hz, got {rate!r}.")
    if np.isinf(signal).any():
        raise ValueError("The signal has infinite values; only NaN can mark missing samples.")
    n_in = signal.shape[-1]
    n_out: int = round(n_in * rate_out / rate_in)
    if n_out < 1:
        raise ValueError(
            f"{n_in} samples at {rate_in:g} Hz are less than one sample at {rate_out:g} Hz."
        )
    return n_out


def _bridged(rows: NDArray[_Float], gaps: NDArray[np.bool_]) -> NDArray[_Float]:
    """Rows with gaps bridged by straight lines, for the filter only."""
    filled = rows.copy()
    times = np.arange(rows.shape[1])
    for row, gap in zip(filled, gaps, strict=True):
        row[gap] = 0 if gap.all() else np.interp(times[gap], times[~gap], row[~gap])
    return filled


def _continued(rows: NDArray[_Float], pad: int) -> NDArray[_Float]:
    """Rows continued at both ends by point reflection."""
    if rows.shape[1] == 1:
        return rows.repeat(2 * pad + 1, axis=1)
    return np.pad(rows, [(0, 0), (pad, pad)], mode="reflect", reflect_type="odd")


def _kernel(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """The windowed sinc, times in samples at the lower rate."""
    inside = np.clip(1 - (times / HALF_LENGTH) ** 2, 0, None)
    window: NDArray[np.float64] = np.i0(KAISER_BETA * np.sqrt(inside)) / np.i0(KAISER_BETA)
    return CUTOFF * np.sinc(CUTOFF * times) * window * (np.abs(times) <= HALF_LENGTH)


@lru_cache(maxsize=8)
def _taps(up: int, down: int) -> NDArray[np.float64]:
    longest = max(up, down)
    half = HALF_LENGTH * longest
    taps = _kernel(np.arange(-half, half + 1) / longest)
    for phase in range(up):  # a constant stays exactly what it is
        taps[phase::up] /= taps[phase::up].sum()
    taps.flags.writeable = False
    return taps


def _polyphase(rows: NDArray[_Float], up: int, down: int, n_out: int) -> NDArray[_Float]:
    """Interpolates at the times 0, down / up, 2 down / up, ... of the samples."""
    from scipy.signal import upfirdn  # slow to import, needed only here

    taps = _taps(up, down)
    half = taps.size // 2
    pad = half // up + 1
    # The wanted samples are those of the full convolution at half + pad * up + k * down; zeros in
    # front of the taps make the first a multiple of down.
    shift = -(half + pad * up) % down
    first = (half + pad * up + shift) // down
    taps = np.concatenate([np.zeros(shift), taps])
    out = np.empty((len(rows), n_out), dtype=rows.dtype)
    # One row at a time: an hour of twelve leads is never held in double precision.
    for row, target in zip(rows, out, strict=True):
        padded = _continued(row[None].astype(np.float64), pad)[0]
        target[:] = upfirdn(taps, padded, up, down)[first : first + n_out]
    return out


def _direct(rows: NDArray[_Float], step: float, n_out: int) -> NDArray[_Float]:
    """Interpolates at the times 0, step, 2 step, ... of the samples, whatever the step."""
    stretch = max(1.0, step)
    half = math.ceil(HALF_LENGTH * stretch)
    grid = np.arange(HALF_LENGTH * _TABLE + 1) / _TABLE
    table = _kernel(grid)
    offsets = np.arange(1 - half, half + 1)
    windows = sliding_window_view(_continued(rows, half), offsets.size, axis=1)
    out = np.empty((len(rows), n_out), dtype=rows.dtype)
    for a in range(0, n_out, _CHUNK):
        times = np.arange(a, min(a + _CHUNK, n_out)) * step
        whole = np.floor(times).astype(np.int64)
        distance = np.abs(offsets - (times - whole)[:, None]) / stretch
        weights = np.interp(distance, grid, table, right=0.0)
        weights /= weights.sum(axis=1, keepdims=True)
        for row, target in zip(windows, out, strict=True):
            target[a : a + _CHUNK] = np.einsum("ki,ki->k", row[whole + 1], weights)
    return out


def _touched(gap: NDArray[np.bool_], step: float, n_out: int) -> NDArray[np.bool_]:
    """True for new samples that stand for at least one missing old one."""
    times = np.arange(n_out) * step
    reach = max(0.0, (step - 1) / 2)
    first = np.floor(times - reach + 1e-6).astype(np.int64).clip(0, gap.size - 1)
    last = np.ceil(times + reach - 1e-6).astype(np.int64).clip(0, gap.size - 1)
    count = np.concatenate([[0], np.cumsum(gap)])
    touched: NDArray[np.bool_] = count[last + 1] > count[first]
    return touched
