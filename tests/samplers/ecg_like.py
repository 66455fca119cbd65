"""Gaussian priors that look like ECGs: correlated channels, smooth in time."""

import torch
from torch import Tensor

from ecgdiff.diffusion import LeadFrequencyCovariance
from ecgdiff.diffusion._dct import dct


def channel_covariance(channels: int) -> Tensor:
    """0.95 corr(B B^T) + 0.05 I for a random B with three columns."""
    b = torch.randn(channels, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    c = b @ b.mT
    d = c.diagonal().sqrt()
    return 0.95 * c / d / d[:, None] + 0.05 * torch.eye(channels, dtype=torch.float64)


def time_covariance(n: int) -> Tensor:
    """0.9 RBF(4) + 0.098 RBF(1) + 0.002 I, lengths in samples."""
    k = torch.arange(n, dtype=torch.float64)
    lag = (k[:, None] - k) ** 2
    smooth = 0.9 * torch.exp(-lag / 32) + 0.098 * torch.exp(-lag / 2)
    return smooth + 0.002 * torch.eye(n, dtype=torch.float64)


def model(channels: Tensor, time: Tensor) -> LeadFrequencyCovariance:
    """The lead-frequency model of a Kronecker covariance; it drops correlations of frequencies."""
    w = dct(torch.eye(len(time), dtype=torch.float64)).mT
    power = (w @ time @ w.mT).diagonal()
    return LeadFrequencyCovariance(power[:, None, None] * channels)
