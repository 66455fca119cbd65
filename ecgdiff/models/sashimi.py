r"""The SaShiMi diffusion backbone, with S4D layers: a U-Net over time, global at every tier.

Blocks of one tier share a width and a rate; between tiers, pools fold neighboring samples into
channels. A block is

    x = x + GLU(W_o GELU(S4D(N1(x) + W_t e))),        x = x + W_2 GELU(W_1 N2(x)),

with e the embedding of the noise level and N a norm over channels at each time step with one gain
and one shift. One matrix product makes W_t e of all blocks. Skips add the input of every layer of
the way down to the output of its partner on the way up. The head starts at zero, so that an
untrained network predicts zero.

Two sizes are named. `paper` is the network of the midpoint-guidance paper (about 15.4 million
parameters with S4D in place of S4-NPLR). `small` deviates to fit two CPU cores: a *strided stem*
folds four samples into channels before the first tier, so the widest tensors run at a quarter of
the rate, and the embedding is narrower.

References:
    | It's Raw! Audio Generation with State-Space Models (Goel et al., 2022), arXiv:2202.09729
    | Diffusion-based Time Series Imputation and Forecasting with Structured State Space Models
      (Alcaraz & Strodthoff, 2022), arXiv:2208.09399
"""

import math
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ecgdiff.models.frozen import channel_norm, frozen_norm
from ecgdiff.models.s4 import S4D

__all__ = ["PRESETS", "SaShiMi"]

PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"d_model": 64, "n_layers": 4, "pool": (1, 2, 2)},
    "base": {"d_model": 64, "n_layers": 4, "pool": (2, 2, 2)},
    "small": {"d_model": 128, "n_layers": 2, "pool": (2,), "stem": 4, "t_width": 128},
}


# Added to the variance over channels.
EPSILON = 1e-5


class SaShiMi(nn.Module):
    """Creates the network; it maps (batch, channels, time) and a level per item to the same shape.

    Arguments:
        channels: The number of leads in and out.
        d_model: The width of the first tier; each pool doubles it.
        n_layers: Blocks per tier, each way and in the center.
        pool: The pooling factor between tiers; 1 widens without pooling.
        stem: Samples folded into channels before the first tier; 1 for none.
        state: The state size of each S4D channel.
        t_features: Size of the sinusoidal embedding of the noise level.
        t_width: Width of its two-layer network.
        t_scale: Factor from the level given to the embedding's scale of 0..1000.
        context: Channels of a second input, for networks that are told what was observed.
    """

    def __init__(
        self,
        channels: int = 8,
        d_model: int = 64,
        n_layers: int = 4,
        pool: Sequence[int] = (1, 2, 2),
        stem: int = 1,
        state: int = 64,
        t_features: int = 128,
        t_width: int = 512,
        t_scale: float = 1.0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.stem, self.multiple, self.context = stem, stem * math.prod(pool), context
        self.embed = LevelEmbedding(t_features, t_width, t_scale)
        self.input = Mix((channels + context) * stem, d_model)
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        width = d_model
        for factor in pool:
            self.down.extend(Block(width, state, t_width) for _ in range(n_layers))
            self.down.append(DownPool(width, factor))
            tier: list[nn.Module] = [UpPool(width, factor)]
            tier += [Block(width, state, t_width) for _ in range(n_layers)]
            self.up = nn.ModuleList(tier).extend(self.up)
            width *= 2
        self.center = nn.ModuleList(Block(width, state, t_width) for _ in range(n_layers))
        self.norm = ChannelNorm()
        self.head = Mix(d_model, d_model)
        self.output = Mix(d_model, channels * stem)
        nn.init.zeros_(self.output.weight)

    def forward(self, x: Tensor, level: Tensor, context: Tensor | None = None) -> Tensor:
        """Maps x (batch, channels, time) at levels (batch,); `multiple` must divide time.

        Arguments:
            x: The signals.
            level: The noise levels.
            context: The second input, with shape (batch, context, time), if there is one.
        """
        if x.shape[-1] % self.multiple:
            raise ValueError(
                f"The network needs a length that is a multiple of {self.multiple}, got "
                f"{x.shape[-1]} samples."
            )
        e = self.embed(level)
        whole = x if context is None else torch.cat([x, context], dim=1)
        h = F.relu(self.input(fold(whole.transpose(0, 1), self.stem)))
        skips = [h]
        shifts = self._shifts(e)
        for layer in self.down:
            h = layer(h, next(shifts)) if isinstance(layer, Block) else layer(h)
            skips.append(h)
        for layer in self.center:
            h = layer(h, next(shifts))
        h = h + skips.pop()
        for layer in self.up:
            h = layer(h, next(shifts)) if isinstance(layer, Block) else layer(h)
            h = h + skips.pop()
        h = self.output(F.relu(self.head(self.norm(h))))
        return unfold(h, self.stem).transpose(0, 1).to(x.dtype)

    def _shifts(self, e: Tensor) -> Iterator[Tensor]:
        """What the level adds in each block, (width, batch): one matrix product for all blocks."""
        layers = chain(self.down, self.center, self.up)
        levels = [layer.level for layer in layers if isinstance(layer, Block)]
        weight = torch.cat([level.weight for level in levels])
        bias = torch.cat([level.bias for level in levels])
        shifts = torch.addmm(bias[:, None], weight, e)
        return iter(shifts.split([len(level.bias) for level in levels]))


class LevelEmbedding(nn.Module):
    """Creates the embedding: sines and cosines of the level, then two layers with SiLU."""

    def __init__(self, features: int, width: int, scale: float) -> None:
        super().__init__()
        half = features // 2
        rates = torch.exp(-math.log(1e4) * torch.arange(half) / (half - 1))
        self.rates: Tensor
        self.register_buffer("rates", scale * rates, persistent=False)
        self.first = nn.Linear(features, width)
        self.second = nn.Linear(width, width)

    def forward(self, level: Tensor) -> Tensor:
        """Embeds levels (batch,), with shape (t_width, batch)."""
        angle = level[:, None].to(self.rates.dtype) * self.rates
        features = torch.cat([angle.sin(), angle.cos()], dim=-1).to(self.first.weight.dtype)
        return F.silu(self.second(F.silu(self.first(features)))).t()


class Mix(nn.Module):
    """Creates a 1x1 convolution on (channels, batch, time): one matrix product for all samples."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_out, n_in))
        self.bias = nn.Parameter(torch.zeros(n_out))
        nn.init.kaiming_normal_(self.weight, nonlinearity="linear")

    def forward(self, x: Tensor) -> Tensor:
        """Maps (n_in, batch, time) to (n_out, batch, time)."""
        flat = torch.addmm(self.bias[:, None], self.weight, x.flatten(1))
        return flat.unflatten(1, x.shape[1:])


class ChannelNorm(nn.Module):
    """Creates a norm over channels at each time step, with one gain and one shift."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.shift = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """Normalizes (channels, batch, time) over its first axis; in float32 or better."""
        if x.requires_grad and not (self.gain.requires_grad or self.shift.requires_grad):
            return frozen_norm(x, self.gain, self.shift, EPSILON)
        return channel_norm(x, self.gain, self.shift, EPSILON)[0]


class Block(nn.Module):
    """Creates one residual block: S4D with gate, then feed-forward."""

    def __init__(self, width: int, state: int, t_width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(), ChannelNorm()
        self.level = Mix(t_width, width)
        self.ssm = S4D(width, state)
        self.gate = Mix(width, 2 * width)
        self.wide = Mix(width, 2 * width)
        self.narrow = Mix(2 * width, width)

    def forward(self, x: Tensor, shift: Tensor) -> Tensor:
        """Maps x (width, batch, time) given what the level adds, (width, batch)."""
        y = self.norm1(x) + shift[..., None]
        x = x + F.glu(self.gate(F.gelu(self.ssm(y))), dim=0)
        return x + self.narrow(F.gelu(self.wide(self.norm2(x))))


class DownPool(nn.Module):
    """Creates a pool that folds `factor` samples into channels and doubles the width."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor, self.mix = factor, Mix(width * factor, 2 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (width, batch, time) to (2 width, batch, time / factor)."""
        return self.mix(fold(x, self.factor))


class UpPool(nn.Module):
    """Creates the reverse of :class:`DownPool`."""

    def __init__(self, width: int, factor: int) -> None:
        super().__init__()
        self.factor, self.mix = factor, Mix(2 * width, width * factor)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (2 width, batch, time) to (width, batch, time * factor)."""
        return unfold(self.mix(x), self.factor)


def fold(x: Tensor, factor: int) -> Tensor:
    """(channels, batch, time) to (channels * factor, batch, time / factor)."""
    if factor == 1:
        return x
    channels, batch, time = x.shape
    pieces = x.reshape(channels, batch, time // factor, factor)
    return pieces.permute(0, 3, 1, 2).reshape(channels * factor, batch, time // factor)


def unfold(x: Tensor, factor: int) -> Tensor:
    """The reverse of :func:`fold`."""
    if factor == 1:
        return x
    channels, batch, time = x.shape
    pieces = x.reshape(channels // factor, factor, batch, time)
    return pieces.permute(0, 2, 3, 1).reshape(channels // factor, batch, time * factor)
