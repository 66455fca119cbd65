r"""The orthonormal cosine transform over time (DCT-II) and its inverse, by one real FFT.

.. math:: X_k = c_k \sum_{j=0}^{n-1} x_j \cos\frac{\pi (2j + 1) k}{2n},
    \quad c_0 = \sqrt{1/n},\ c_k = \sqrt{2/n}

With v the even samples followed by the odd ones backwards and V its Fourier transform,
:math:`X_k = c_k \Re(e^{-i \pi k / 2n} V_k)` and :math:`X_{n-k} = -c_k \Im(e^{-i \pi k / 2n} V_k)`.

References:
    | A Fast Cosine Transform in One and Two Dimensions (Makhoul, 1980)
"""

from functools import lru_cache
from math import pi, sqrt

import torch
from torch import Tensor

__all__ = ["dct", "idct"]


@lru_cache(maxsize=16)
def _twiddle(
    n: int, power: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cosines and sines of pi k / 2n times c_k^power, k = 0..n//2."""
    with torch.inference_mode(False):
        angle = torch.arange(n // 2 + 1, dtype=torch.float64) * (pi / (2 * n))
        scale = torch.full_like(angle, sqrt(2 / n) ** power)
        scale[0] = sqrt(1 / n) ** power
        return (scale * angle.cos()).to(device, dtype), (scale * angle.sin()).to(device, dtype)


def dct(x: Tensor) -> Tensor:
    """The cosine coefficients over the last axis, with the shape of `x` (..., time)."""
    n = x.shape[-1]
    cosine, sine = _twiddle(n, 1, x.dtype, x.device)
    v = torch.fft.rfft(torch.cat([x[..., ::2], x[..., 1::2].flip(-1)], -1))
    low = v.real * cosine + v.imag * sine
    high = (v.real * sine - v.imag * cosine)[..., 1 : (n + 1) // 2]
    return torch.cat([low, high.flip(-1)], -1)


def idct(z: Tensor) -> Tensor:
    """The signal whose cosine coefficients over the last axis are `z` (..., time)."""
    n = z.shape[-1]
    cosine, sine = _twiddle(n, -1, z.dtype, z.device)
    low = z[..., : n // 2 + 1]
    high = torch.cat([torch.zeros_like(z[..., :1]), z[..., (n + 1) // 2 :].flip(-1)], -1)
    v = torch.complex(low * cosine + high * sine, low * sine - high * cosine)
    time = torch.fft.irfft(v, n)
    half = (n + 1) // 2
    x = torch.empty_like(time)
    x[..., ::2] = time[..., :half]
    x[..., 1::2] = time[..., half:].flip(-1)
    return x
