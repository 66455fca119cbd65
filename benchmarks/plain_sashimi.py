r"""The published SaShiMi diffusion backbone with S4-NPLR layers, in a plain eager style.

What our network is timed against. Written from the formulas, with the choices of the public code
that cost time: layout (batch, channels, time), weight-normalized 1x1 convolutions, one projection
of the noise level per block, and convolution kernels that every call generates anew.

**Kernel.** A channel's state matrix is normal plus rank one, :math:`A = \Lambda - p p^*`, complex
entries in conjugate pairs. Discretized by the bilinear rule with step dt, the kernel
:math:`K_l = C \bar A^l \bar B` has, at :math:`w_k = e^{-2 \pi i k / L}`, the spectrum

.. math:: \frac{2}{1 + w} \Big[ r_{CB} - \frac{r_{Cp} r_{p^*B}}{1 + r_{p^*p}} \Big], \qquad
          r_{XY} = dt \sum_n \frac{X_n Y_n}{z - dt \lambda_n}, \quad z = 2 \frac{1 - w}{1 + w},

if C stands for :math:`\tilde C = C (I - \bar A^L)`, which is what the layer keeps; hence a layer
is made for one length. With h = 1 + w the sums are computed as :math:`q = r / h`, which stays
finite where w = -1. Every term of every sum is materialized.

References:
    | Efficiently Modeling Long Sequences with Structured State Spaces (Gu et al., 2021),
      arXiv:2111.00396
    | It's Raw! Audio Generation with State-Space Models (Goel et al., 2022), arXiv:2202.09729
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["NPLR", "PlainSaShiMi", "cauchy", "convolve", "legs"]


def legs(state: int) -> tuple[Tensor, Tensor, Tensor]:
    """The HiPPO-LegS system in the basis that makes the normal part of its matrix diagonal.

    Arguments:
        state: The even state size N.

    Returns:
        Eigenvalues, rank-one vector p and input B, complex128, shape (N/2,): one of each pair.
    """
    n = torch.arange(state, dtype=torch.float64)
    b, p = (2 * n + 1).sqrt(), (n + 0.5).sqrt()
    a = -torch.outer(b, b).tril(-1) - torch.diag(n + 1)
    skew = a + torch.outer(p, p) + 0.5 * torch.eye(state, dtype=torch.float64)
    frequencies, vectors = torch.linalg.eigh(-1j * skew)
    basis = vectors[:, state // 2 :].mH
    eigenvalues = torch.complex(torch.full_like(frequencies, -0.5), frequencies)
    return eigenvalues[state // 2 :], basis @ p.to(basis), basis @ b.to(basis)


def cauchy(v: Tensor, poles: Tensor, w: Tensor) -> Tensor:
    """Sums v / (2 (1 - w) - (1 + w) poles) over modes and their conjugates.

    Arguments:
        v: Numerators, shape (..., channels, modes).
        poles: dt times the eigenvalues, shape (channels, modes).
        w: Points on the unit circle, shape (frequencies,).

    Returns:
        The sums, shape (..., channels, frequencies).
    """
    denominator = 2 * (1 - w) - (1 + w) * _with_conjugates(poles)[..., None]
    # One reciprocal for all numerators: complex division is several times slower than a product.
    sums: Tensor = (_with_conjugates(v)[..., None] * denominator.reciprocal()).sum(-2)
    return sums


def _with_conjugates(x: Tensor) -> Tensor:
    return torch.cat([x, x.conj()], dim=-1)


def convolve(u: Tensor, kernels: Tensor) -> Tensor:
    """Convolves u (batch, channels, L) with a forward and a backward kernel, (2, channels, L).

    The backward kernel's entry j acts on lag -1 - j.
    """
    length = u.shape[-1]
    forward, backward = kernels
    circular = F.pad(forward, (0, length)) + F.pad(backward.flip(-1), (length, 0))
    spectrum = torch.fft.rfft(u, n=2 * length) * torch.fft.rfft(circular)
    y: Tensor = torch.fft.irfft(spectrum, n=2 * length)
    return y[..., :length]


class NPLR(nn.Module):
    """Creates the generator of the kernels of one layer.

    Arguments:
        channels: The number H of channels.
        state: The state size N.
        length: The length L of its kernels.
        dt_min: The smallest initial step.
        dt_max: The largest initial step.
    """

    def __init__(
        self,
        channels: int,
        state: int,
        length: int,
        dt_min: float = 1e-3,
        dt_max: float = 1e-1,
    ) -> None:
        super().__init__()
        eigenvalues, p, b = (x.repeat(channels, 1) for x in legs(state))
        low, high = math.log(dt_min), math.log(dt_max)
        self.length = length
        self.log_dt = nn.Parameter(torch.rand(channels) * (high - low) + low)
        self.log_decay = nn.Parameter(_real(-eigenvalues.real).log())
        self.frequency = nn.Parameter(_real(eigenvalues.imag))
        self.p = nn.Parameter(_real(torch.view_as_real(p)))
        self.b = nn.Parameter(_real(torch.view_as_real(b)))
        c = torch.view_as_complex(torch.randn(2, channels, state // 2, 2) * math.sqrt(0.5))
        self.c = nn.Parameter(_real(torch.view_as_real(self._truncated(c))))
        w = torch.exp(-2j * math.pi * torch.arange(length // 2 + 1, dtype=torch.float64) / length)
        self.w: Tensor
        self.register_buffer("w", w.to(c.dtype), persistent=False)

    def forward(self) -> Tensor:
        """Generates the forward and backward kernels, shape (2, channels, L)."""
        dt, eigenvalues, p, b = self._system()
        c = torch.view_as_complex(self.c)
        left = torch.cat([c, p.conj()[None]])
        right = torch.stack([b, p])
        q = dt * cauchy(left[:, None] * right, dt * eigenvalues, self.w)
        h = 1 + self.w
        spectrum = 2 * (q[:2, 0] - q[:2, 1] * q[2, 0] * h / (1 + h * q[2, 1]))
        kernels: Tensor = torch.fft.irfft(spectrum, n=self.length)
        return kernels

    def _system(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        eigenvalues = torch.complex(-self.log_decay.exp(), self.frequency)
        p, b = torch.view_as_complex(self.p), torch.view_as_complex(self.b)
        return self.log_dt.exp()[:, None], eigenvalues, p, b

    @torch.no_grad()
    def _truncated(self, c: Tensor) -> Tensor:
        """C (I - Abar^L), by dense matrices."""
        dt, eigenvalues, p, _ = self._system()
        p = _with_conjugates(p)
        a = torch.diag_embed(_with_conjugates(eigenvalues)) - p[..., None] * p.conj()[:, None]
        half = 0.5 * dt[..., None] * a
        one = torch.eye(p.shape[-1], dtype=p.dtype)
        power = torch.linalg.matrix_power(torch.linalg.solve(one - half, one + half), self.length)
        rows = _with_conjugates(c).transpose(0, 1)
        truncated: Tensor = (rows - rows @ power).transpose(0, 1)
        return truncated[..., : c.shape[-1]]


def _real(x: Tensor) -> Tensor:
    return x.to(torch.get_default_dtype())


class S4(nn.Module):
    """Creates the layer: bidirectional convolution and direct path, GELU, 1x1 mix with gate."""

    def __init__(self, channels: int, state: int, length: int) -> None:
        super().__init__()
        self.kernels: nn.Module = NPLR(channels, state, length)
        self.d = nn.Parameter(torch.randn(channels))
        self.mix = nn.Conv1d(channels, 2 * channels, 1)

    def forward(self, u: Tensor) -> Tensor:
        """Maps (batch, channels, time) to the same shape."""
        with torch.autocast(u.device.type, enabled=False):
            wide = u.to(self.d.dtype)
            y = convolve(wide, self.kernels()) + self.d[:, None] * wide
        return F.glu(self.mix(F.gelu(y)), dim=1)


class Norm(nn.Module):
    """Creates a norm over channels at each time step, with one gain and one shift."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes (batch, channels, time) over its second axis."""
        variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
        return self.gain * (x - mean) / (variance + 1e-5).sqrt() + self.shift


def conv(n_in: int, n_out: int) -> nn.Module:
    """Makes a 1x1 convolution with weight normalization."""
    layer = nn.Conv1d(n_in, n_out, 1)
    nn.init.kaiming_normal_(layer.weight, nonlinearity="linear")
    weight_norm(layer)
    return layer


class Block(nn.Module):
    """Creates one residual block: S4 with the noise level added, then feed-forward."""

    def __init__(self, width: int, state: int, t_width: int, length: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = Norm(), Norm()
        self.level = nn.Linear(t_width, width)
        self.s4 = S4(width, state, length)
        self.wide, self.narrow = conv(width, 2 * width), conv(2 * width, width)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Maps x (batch, width, time) given the embedding e (batch, t_width)."""
        x = x + self.s4(self.norm1(x) + self.level(e)[..., None])
        x = x + self.narrow(F.gelu(self.wide(self.norm2(x))))
        return x


class DownPool(nn.Module):
    """Creates a pool that folds `factor` samples into channels and doubles the width."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor, self.mix = factor, conv(width * factor, 2 * width)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Maps (batch, width, time) to (batch, 2 width, time / factor)."""
        mixed: Tensor = self.mix(fold(x, self.factor))
        return mixed


class UpPool(nn.Module):
    """Creates the reverse of :class:`DownPool`."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor, self.mix = factor, conv(2 * width, width * factor)

    def forward(self, x: Tensor, e: Tensor) -> Tensor:
        """Maps (batch, 2 width, time) to (batch, width, time * factor)."""
        return unfold(self.mix(x), self.factor)


def fold(x: Tensor, factor: int) -> Tensor:
    """(batch, channels, time) to (batch, channels * factor, time / factor)."""
    pieces: Tensor = x.unflatten(-1, (-1, factor))
    return pieces.transpose(-1, -2).flatten(1, 2)


def unfold(x: Tensor, factor: int) -> Tensor:
    """The reverse of :func:`fold`."""
    pieces: Tensor = x.unflatten(1, (-1, factor))
    return pieces.transpose(-1, -2).flatten(2)


class PlainSaShiMi(nn.Module):
    """Creates the network; it maps (batch, channels, length) and a level per item to that shape.

    Arguments:
        length: The length of its signals.
        channels: The number of leads in and out.
        d_model: The width of the first tier; each pool doubles it.
        n_layers: Blocks per tier, each way and in the center.
        pool: The pooling factor between tiers; 1 widens without pooling.
        stem: Samples folded into channels before the first tier; the published network has 1.
        state: The state size of each channel.
        t_features: Size of the sinusoidal embedding of the noise level.
        t_width: Width of its two-layer network.
    """

    def __init__(
        self,
        length: int,
        channels: int,
        d_model: int,
        n_layers: int,
        pool: Sequence[int],
        stem: int = 1,
        state: int = 64,
        t_features: int = 128,
        t_width: int = 512,
    ) -> None:
        super().__init__()
        self.stem, half = stem, t_features // 2
        self.rates: Tensor
        rates = torch.exp(-math.log(1e4) * torch.arange(half) / (half - 1))
        self.register_buffer("rates", rates, persistent=False)
        self.first, self.second = nn.Linear(t_features, t_width), nn.Linear(t_width, t_width)
        self.input = conv(channels * stem, d_model)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width, time = d_model, length // stem
        for factor in pool:
            self.down.extend(Block(width, state, t_width, time) for _ in range(n_layers))
            self.down.append(DownPool(width, factor))
            tier: list[nn.Module] = [UpPool(width, factor)]
            tier += [Block(width, state, t_width, time) for _ in range(n_layers)]
            self.up = nn.ModuleList(tier).extend(self.up)
            width, time = 2 * width, time // factor
        blocks = (Block(width, state, t_width, time) for _ in range(n_layers))
        self.center = nn.ModuleList(blocks)
        self.norm, self.head = Norm(), conv(d_model, d_model)
        self.output = nn.Conv1d(d_model, channels * stem, 1)
        for parameter in self.output.parameters():
            nn.init.zeros_(parameter)

    def forward(self, x: Tensor, level: Tensor) -> Tensor:
        """Maps x (batch, channels, length) at levels (batch,) to the shape of x."""
        angle = level[:, None] * self.rates
        e = torch.cat([angle.sin(), angle.cos()], dim=-1)
        e = F.silu(self.second(F.silu(self.first(e))))
        h = F.relu(self.input(fold(x, self.stem)))
        skips = [h]
        for layer in self.down:
            h = layer(h, e)
            skips.append(h)
        for layer in self.center:
            h = layer(h, e)
        h = h + skips.pop()
        for layer in self.up:
            h = layer(h, e)
            h = h + skips.pop()
        h = self.output(F.relu(self.head(self.norm(h))))
        return unfold(h, self.stem).to(x.dtype)
