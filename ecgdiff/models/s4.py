r"""The diagonal state-space layer (S4D), bidirectional.

Each of H channels carries two linear systems x' = A x + B u, y = 2 Re(C x), one read forward and
one backward in time, with N/2 complex modes of the N-dimensional state. Discretized (zero-order
hold, step dt, B = 1 folded into C) the layer is a convolution with the kernels

.. math:: K_l = 2 \, \mathrm{Re} \sum_n C_n \frac{e^{\Delta A_n} - 1}{A_n} e^{l \Delta A_n},
          \qquad A_n = -e^{a_n} + i b_n .

**Two-level generation.** With l = i R + j the exponential factors into tables over i and over j,
so a kernel of length L costs about 2 sqrt(L) exponentials per mode and one small real matrix
product.

**Convolution.** The forward kernel acts on lags 0..L-1 and the backward one on lags -1..-(L-1);
together they are one kernel (:mod:`ecgdiff.models.convolution`). Inference keeps its spectra,
which depend on neither the signal nor the noise level. Training on short sequences multiplies by
Toeplitz matrices instead.

Layout inside the network is (channels, batch, time): every 1x1 convolution is then one matrix
product.

References:
    | On the Parameterization and Initialization of Diagonal State Space Models (Gu et al., 2022),
      arXiv:2206.11893
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ecgdiff.models.convolution import (
    bidirectional,
    kernel_spectrum,
    long_convolve,
    toeplitz_convolve,
)
from ecgdiff.models.frozen import frozen_convolve

__all__ = ["S4D"]

# Toeplitz matrices are quadratic in length: beyond this the FFT is cheaper.
TOEPLITZ_LENGTH = 256


class S4D(nn.Module):
    """Creates the bidirectional convolution of H channels, linear and without mixing them.

    Arguments:
        channels: The number H of channels.
        state: The real state size N; N/2 conjugate pairs are kept.
        dt_min: The smallest initial step, in samples of this layer's rate.
        dt_max: The largest initial step.
    """

    def __init__(
        self, channels: int, state: int = 64, dt_min: float = 1e-3, dt_max: float = 1e-1
    ) -> None:
        super().__init__()
        modes = state // 2
        low, high = math.log(dt_min), math.log(dt_max)
        self.log_dt = nn.Parameter(torch.rand(channels) * (high - low) + low)
        self.a = nn.Parameter(torch.full((channels, modes), math.log(0.5)))
        self.b = nn.Parameter(math.pi * torch.arange(modes).float().repeat(channels, 1))
        self.c = nn.Parameter(torch.randn(2, channels, modes, 2) * math.sqrt(0.5))
        self.d = nn.Parameter(torch.randn(channels))
        self._spectra: dict[int, Tensor] = {}
        for parameter in (self.log_dt, self.a, self.b):
            # The optimizer gives these a learning rate of their own and no weight decay.
            parameter.state_space = True  # type: ignore[attr-defined]

    def kernels(self, length: int) -> Tensor:
        """Generates the forward and backward kernels, shape (2, channels, length), in float32."""
        with torch.autocast(self.a.device.type, enabled=False):
            dt = self.log_dt.exp()[:, None]
            a_re, a_im = -self.a.exp(), self.b
            # The input factor (exp(dt A) - 1) / A, times C.
            size = (dt * a_re).exp()
            e_re, e_im = size * (dt * a_im).cos() - 1, size * (dt * a_im).sin()
            norm = a_re.square() + a_im.square()
            f_re = (e_re * a_re + e_im * a_im) / norm
            f_im = (e_im * a_re - e_re * a_im) / norm
            c_re = 2 * (self.c[..., 0] * f_re - self.c[..., 1] * f_im)
            c_im = 2 * (self.c[..., 0] * f_im + self.c[..., 1] * f_re)
            fine = max(1, math.isqrt(length))
            coarse = -(-length // fine)
            p_re, p_im = _powers(dt * a_re, dt * a_im, fine, coarse)
            q_re, q_im = _powers(dt * a_re, dt * a_im, 1, fine)
            left = torch.cat(
                [
                    c_re[..., None] * p_re - c_im[..., None] * p_im,
                    -(c_re[..., None] * p_im + c_im[..., None] * p_re),
                ],
                dim=-2,
            )
            right = torch.cat([q_re, q_im], dim=-2)
            return (left.transpose(-1, -2) @ right).flatten(-2)[..., :length]

    def forward(self, u: Tensor) -> Tensor:
        """Convolves `u` of shape (channels, batch, time) and adds the direct path D u."""
        length = u.shape[-1]
        learning = (self.a, self.b, self.c, self.log_dt)
        if torch.is_grad_enabled() and any(p.requires_grad for p in learning):
            kernel = bidirectional(self.kernels(length))
            if length <= TOEPLITZ_LENGTH:
                y = toeplitz_convolve(u, kernel)
            else:
                y = long_convolve(u, kernel)
        else:
            y = frozen_convolve(u, self._spectrum(length))
        return torch.addcmul(y, self.d.to(u.dtype)[:, None, None], u)

    def _spectrum(self, length: int) -> Tensor:
        if length not in self._spectra:
            with torch.no_grad():
                self._spectra[length] = kernel_spectrum(bidirectional(self.kernels(length)))
        return self._spectra[length]

    def clear_cache(self) -> None:
        """Forgets the spectra; call it after the weights changed in evaluation mode."""
        self._spectra.clear()

    def train(self, mode: bool = True) -> "S4D":
        """Switches mode; either way the cached spectra may be of older weights, so they go."""
        self.clear_cache()
        return super().train(mode)

    def _apply(self, *args: Any, **kwargs: Any) -> "S4D":
        self.clear_cache()
        return super()._apply(*args, **kwargs)


def _powers(re: Tensor, im: Tensor, stride: int, count: int) -> tuple[Tensor, Tensor]:
    """exp(k stride (re + i im)) for k = 0..count-1, on a new last axis."""
    k = stride * torch.arange(count, device=re.device, dtype=re.dtype)
    size, angle = (re[..., None] * k).exp(), im[..., None] * k
    return size * angle.cos(), size * angle.sin()
