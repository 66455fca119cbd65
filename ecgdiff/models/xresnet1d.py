"""XResNet1d: a residual network that reads ECGs.

A stem of three short convolutions, four stages of bottleneck blocks that all have 256 channels,
and a head on the maximum and the mean over time, so that any length can be read. Batch
normalization follows every convolution.

References:
    | Deep Learning for ECG Analysis: Benchmarks and Insights from PTB-XL (Strodthoff et al.,
      2020), arXiv:2004.13701
    | Bag of Tricks for Image Classification with Convolutional Neural Networks (He et al., 2018),
      arXiv:1812.01187
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["XResNet1d"]

STEM = (32, 32, 64)
WIDTH = 64
EXPANSION = 4
KERNEL = 5
HIDDEN = 128


class XResNet1d(nn.Module):
    """Creates the network; it maps (batch, channels, time) to logits (batch, classes).

    Arguments:
        channels: The number of leads.
        classes: The number of statements.
        layers: Blocks per stage; (3, 4, 6, 3) makes XResNet1d50.
    """

    def __init__(self, channels: int, classes: int, layers: Sequence[int] = (3, 4, 6, 3)) -> None:
        super().__init__()
        widths = [channels, *STEM]
        self.stem = nn.Sequential(
            *(
                layer
                for k, (n_in, n_out) in enumerate(pairwise(widths))
                for layer in (_conv(n_in, n_out, KERNEL, 2 if k == 0 else 1), nn.ReLU())
            ),
            nn.MaxPool1d(3, stride=2, padding=1),
        )
        wide = WIDTH * EXPANSION
        blocks: list[nn.Module] = []
        for stage, count in enumerate(layers):
            for k in range(count):
                stride = 2 if stage and k == 0 else 1
                blocks.append(Bottleneck(wide if blocks else STEM[-1], wide, stride))
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Sequential(
            nn.BatchNorm1d(2 * wide),
            nn.Dropout(0.25),
            nn.Linear(2 * wide, HIDDEN),
            nn.ReLU(),
            nn.BatchNorm1d(HIDDEN),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, classes),
        )
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def features(self, x: Tensor) -> Tensor:
        """The maximum and the mean over time of the last stage, shape (batch, 512)."""
        h = self.blocks(self.stem(x))
        return torch.cat([h.amax(-1), h.mean(-1)], dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """Gives the logits (batch, classes) of signals (batch, channels, time)."""
        return self.head(self.features(x))


class Bottleneck(nn.Module):
    """Creates a block: narrow, convolve, widen; the stride sits in the middle convolution.

    Arguments:
        n_in: Channels in.
        n_out: Channels out.
        stride: The shortcut averages as many samples.
    """

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        narrow = n_out // EXPANSION
        self.path = nn.Sequential(
            _conv(n_in, narrow, 1),
            nn.ReLU(),
            _conv(narrow, narrow, KERNEL, stride),
            nn.ReLU(),
            _conv(narrow, n_out, 1),
        )
        shortcut: list[nn.Module] = []
        if stride > 1:
            shortcut.append(nn.AvgPool1d(stride, ceil_mode=True))
        if n_in != n_out:
            shortcut.append(_conv(n_in, n_out, 1))
        self.shortcut = nn.Sequential(*shortcut)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (batch, n_in, time) to (batch, n_out, ceil(time / stride))."""
        return F.relu(self.path(x) + self.shortcut(x))


def _conv(n_in: int, n_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """A convolution that keeps the length, up to its stride, and its normalization."""
    convolution = nn.Conv1d(n_in, n_out, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm1d(n_out))
