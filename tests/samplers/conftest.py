"""A closed-form prior that looks like an ECG, and two patterns of loss."""

import pytest
import torch
from ecg_like import channel_covariance, model, time_covariance
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule


@pytest.fixture(scope="session")
def stationary() -> GaussianPrior:
    """4 channels x 32 samples, exactly lead-frequency; its mean is not zero."""
    covariance = model(channel_covariance(4), time_covariance(32))
    mean = 0.3 * torch.arange(4, dtype=torch.float64)[:, None]
    return GaussianPrior.from_covariance(covariance, Schedule.linear(), mean)


@pytest.fixture(scope="session")
def masks() -> dict[str, Tensor]:
    """For 4 x 32: channel 0 kept; samples 12..19 lost in all channels."""
    leads = torch.zeros(1, 4, 32, dtype=torch.bool)
    leads[:, 0] = True
    block = torch.ones(1, 4, 32, dtype=torch.bool)
    block[:, :, 12:20] = False
    return {"leads": leads, "block": block}
