"""A one-dimensional U-Net that fills in what of an ECG was not observed.

Four levels of two convolutions each, 32 to 256 channels wide, half the rate from one level to the
next; on the way up every level also sees what it saw on the way down. The network is shown the
observed samples and which they are, zeros where nothing was observed: zeros beyond the ends of a
record then look like any other unobserved stretch, so any length can be read.

Batch normalization, not group or layer normalization: those divide each record by its own
standard deviation, and the absolute amplitude of an ECG is what tells much of the other leads.

References:
    | U-Net: Convolutional Networks for Biomedical Image Segmentation (Ronneberger et al., 2015),
      arXiv:1505.04597
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["WIDTHS", "UNet1d"]

WIDTHS = (32, 64, 128, 256)


class UNet1d(nn.Module):
    """Creates the network: 1,952,264 parameters with 8 leads and one curve.

    Arguments:
        channels: The number of leads.
        curves: How many curves per lead it gives: one for a regression, one per level for
            quantiles.
        widths: The channels of each level.
        kernel: The length of the convolutions in samples, odd.
    """

    def __init__(
        self, channels: int = 8, curves: int = 1, widths: Sequence[int] = WIDTHS, kernel: int = 9
    ) -> None:
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"The kernel must have an odd number of samples, got {kernel}.")
        self.channels, self.curves = channels, curves
        self.down = nn.ModuleList(
            _level(n_in, n_out, kernel) for n_in, n_out in pairwise([2 * channels, *widths])
        )
        upward = list(pairwise(reversed(widths)))
        self.up = nn.ModuleList(_level(below + here, here, kernel) for below, here in upward)
        self.head = nn.Conv1d(widths[0], curves * channels, 1)

    @property
    def multiple(self) -> int:
        """Lengths are padded to a multiple of this number of samples."""
        return 2 ** len(self.up)

    def forward(self, y: Tensor, mask: Tensor) -> Tensor:
        """Gives the curves of whole records.

        In evaluation mode the curves of every sample are sorted. Sorted estimates of ascending
        quantiles are never worse in pinball loss than crossing ones (Chernozhukov et al., 2010,
        doi:10.3982/ECTA7880).

        Arguments:
            y: What was observed, in model units, with shape (batch, channels, time); whatever it
                holds where `mask` is False is not looked at.
            mask: True where observed, same shape.

        Returns:
            A tensor with shape (batch, curves, channels, time).
        """
        time = y.shape[-1]
        seen = mask.to(y.dtype)
        x = F.pad(torch.cat([y * seen, seen], dim=1), (0, -time % self.multiple))
        passed = []
        for level in self.down[:-1]:
            x = level(x)
            passed.append(x)
            x = F.max_pool1d(x, 2)
        x = self.down[-1](x)
        for level in self.up:
            x = level(torch.cat([F.interpolate(x, scale_factor=2.0), passed.pop()], dim=1))
        out = self.head(x)[..., :time].unflatten(1, (self.curves, self.channels))
        return out if self.training else out.sort(dim=1).values


def _level(n_in: int, n_out: int, kernel: int) -> nn.Sequential:
    """Two convolutions that keep the length, each normalized and rectified."""
    layers: list[nn.Module] = []
    for n in (n_in, n_out):
        layers.append(nn.Conv1d(n, n_out, kernel, padding=kernel // 2, bias=False))
        layers += [nn.BatchNorm1d(n_out), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)
