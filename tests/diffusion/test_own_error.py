"""A denoiser's own estimate of its error, on priors whose posterior is known."""

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule
from ecgdiff.diffusion.own_error import own_error
from ecgdiff.operators import Mask, Observation

SHAPE = (2, 6)


def prior(scale: float = 1.0) -> GaussianPrior:
    g = torch.Generator().manual_seed(0)
    root = torch.randn(12, 12, generator=g, dtype=torch.float64) / 12**0.5
    covariance = scale * (root @ root.mT + 0.1 * torch.eye(12).double())
    return GaussianPrior(torch.zeros(SHAPE).double(), covariance, Schedule.linear())


@pytest.mark.parametrize("level", [50, 400, 900])
def test_a_perfect_denoiser_knows_its_error(level: int) -> None:
    known = prior()
    x0 = known.sample(4000, torch.Generator().manual_seed(1))
    where = torch.zeros(SHAPE, dtype=torch.bool)
    where[1] = True
    missed, implied = own_error(known, x0, level, where, torch.Generator().manual_seed(2))
    off = missed - implied
    assert abs(float(off.mean())) < 4 * float(off.std()) / 4000**0.5
    # What both are on average, by the formula for Gaussians.
    c, sigma = known.dense_covariance, float(known.schedule.sigma(level))
    left = c - c @ torch.linalg.solve(c + sigma**2 * torch.eye(12), c)
    assert float(implied.mean()) == pytest.approx(float(left.diagonal()[6:].sum()), rel=0.03)


def test_one_that_is_too_sure_is_found_out() -> None:
    true, taken = prior(), prior(0.25)
    x0 = true.sample(4000, torch.Generator().manual_seed(1))
    level = 700
    missed, implied = own_error(
        taken, x0, level, torch.ones(SHAPE), torch.Generator().manual_seed(2)
    )
    sigma2, eye = float(taken.schedule.sigma(level)) ** 2, torch.eye(12).double()
    c, d = true.dense_covariance, taken.dense_covariance
    gain = torch.linalg.solve(d + sigma2 * eye, d).mT
    wanted = (gain - eye) @ c @ (gain - eye).mT + sigma2 * gain @ gain.mT
    ratio = float(missed.mean() / implied.mean())
    assert ratio == pytest.approx(float(wanted.trace() / (sigma2 * gain.trace())), rel=0.05)
    assert ratio > 2


def test_with_an_observation() -> None:
    known = prior()
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0] = True
    x0 = known.sample(1, torch.Generator().manual_seed(1))
    observation = Observation(x0 * mask, Mask(mask), 0.1)
    # Signals that agree with the observation are those of its posterior.
    mean, covariance = known.posterior(observation)
    g = torch.Generator().manual_seed(2)
    z = torch.randn(4000, 12, generator=g, dtype=torch.float64)
    signals: Tensor = mean + (z @ torch.linalg.cholesky(covariance[0]).mT).view(-1, *SHAPE)
    missed, implied = own_error(known.condition(observation), signals, 500, ~mask, g)
    off = missed - implied
    assert abs(float(off.mean())) < 4 * float(off.std()) / 4000**0.5
    assert float(missed.mean()) > 0.01
