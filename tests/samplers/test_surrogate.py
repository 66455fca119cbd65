"""The surrogate sampler against exact posteriors; its draws are affine in the noise, which makes
tests exact."""

from dataclasses import replace

import pytest
import torch
from ecg_like import (
    accuracy,
    channel_covariance,
    kronecker_mask,
    kronecker_prior,
    law,
    model,
    relative_error,
    time_covariance,
)
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Mask, Observation, RotatedMask, observe
from ecgdiff.samplers import NFE, Surrogate


@pytest.mark.parametrize("name", ["leads", "block"])
def test_exact_for_its_own_model_at_any_number_of_steps(
    name: str, stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observe(Mask(masks[name]), x, 0.05, torch.Generator().manual_seed(2))
    mean, covariance = stationary.posterior(observation)
    found_mean, found = law(Surrogate(steps=3, rtol=1e-9), stationary, observation, calls=9)
    # The start N(0, I) stands for a level with 0.6 % of the signal left: that is the only error.
    assert float((found_mean - mean[0].flatten()).abs().max()) < 1e-3
    assert relative_error(found, covariance[0]) < 1e-3


def test_draws_have_the_posterior_mean_and_covariance(
    stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    sigma = torch.tensor([[0.05], [0.1], [0.2], [0.3]])
    observation = observe(Mask(masks["block"]), x, sigma, torch.Generator().manual_seed(2))
    mean, covariance = stationary.posterior(observation)
    count = 2000
    draws = Surrogate(steps=4)(
        stationary, observation, (count, 4, 32), generator=torch.Generator().manual_seed(5)
    ).flatten(1)
    z = (draws.mean(0) - mean.flatten()) / (covariance[0].diagonal() / count).sqrt()
    assert float(z.square().mean().sqrt()) < 1.3  # 128 correlated standard normal numbers
    ratio = draws.var(0).sum() / covariance[0].diagonal().sum()
    assert abs(float(ratio) - 1) < 0.05


def test_without_spread_draws_vary_too_little(
    stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observe(Mask(masks["leads"]), x, 0.05, torch.Generator().manual_seed(2))
    mean, covariance = stationary.posterior(observation)
    ratios = []
    for spread in (0.0, 0.5, 1.0):
        sampler, calls = Surrogate(steps=4, spread=spread), 12 if spread else 4
        found_mean, found = law(sampler, stationary, observation, calls)
        assert float((found_mean - mean[0].flatten()).abs().max()) < 1e-3
        ratios.append(float((found.trace() / covariance[0].trace()).sqrt()))
    assert ratios[0] < ratios[1] < 0.8 < ratios[2]


@pytest.mark.parametrize(
    ("name", "error", "spread"), [("leads", 0.012, 0.843), ("block", 0.024, 0.869)]
)
def test_published_accuracy_on_the_kronecker_prior(name: str, error: float, spread: float) -> None:
    """9 x 32, not stationary, so the model is approximate: RMS of the mean over y, and spread."""
    sampler = Surrogate(steps=32, spread=0.0, sigma_min=0.002, sigma_max=80.0, rtol=1e-6)
    found = accuracy(sampler, kronecker_prior(32), kronecker_mask(name))
    assert found[:2] == pytest.approx((error, spread), abs=6e-4)  # the table has three digits


def test_rotated_masks_are_exact_too(stationary: GaussianPrior, masks: dict[str, Tensor]) -> None:
    rotation = torch.linalg.qr(channel_covariance(4)).Q
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observe(
        RotatedMask(masks["leads"], rotation), x, 0.05, torch.Generator().manual_seed(2)
    )
    mean, covariance = stationary.posterior(observation)
    found_mean, found = law(Surrogate(steps=2), stationary, observation, calls=6)
    assert float((found_mean - mean[0].flatten()).abs().max()) < 1e-3
    assert relative_error(found, covariance[0]) < 1e-3


def test_the_model_follows_the_window(stationary: GaussianPrior) -> None:
    observation = Observation(torch.zeros(1, 4, 48), Mask(torch.ones(4, 48)), 0.1)
    shorter = GaussianPrior(
        torch.zeros(4, 48), torch.eye(4 * 48, dtype=torch.float64), stationary.schedule
    )
    shorter.covariance = stationary.covariance
    assert Surrogate(steps=2)(shorter, observation, (1, 4, 48)).shape == (1, 4, 48)


def test_refusals(stationary: GaussianPrior, masks: dict[str, Tensor]) -> None:
    plain = GaussianPrior(
        torch.zeros(4, 32), torch.eye(128, dtype=torch.float64), stationary.schedule
    )
    observation = Observation(torch.zeros(1, 4, 32), Mask(masks["leads"]), 0.1)
    with pytest.raises(OperatorError, match=r"denoiser\.covariance"):
        Surrogate()(plain, observation, (1, 4, 32))
    plain.covariance = model(channel_covariance(3), time_covariance(32))
    with pytest.raises(OperatorError, match="3 channels"):
        Surrogate()(plain, observation, (1, 4, 32))
    with pytest.raises(ValueError, match="spread"):
        Surrogate(spread=1.5)
    with pytest.raises(ValueError, match="rtol"):
        replace(Surrogate(), rtol=0.0)


def test_cost() -> None:
    assert Surrogate(steps=32).nfe() == NFE(forward=32, vjp=0)
