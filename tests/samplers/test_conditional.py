"""The sampler of a conditional denoiser, against posteriors in closed form."""

from dataclasses import replace

import pytest
import torch
from affine import matrix_of
from ecg_like import law
from torch import Tensor, nn

from ecgdiff.diffusion import GaussianMixturePrior, GaussianPrior, NetworkDenoiser, Schedule
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Dense, Mask, Observation, RotatedMask, observe
from ecgdiff.samplers import NFE, Conditional

SCHEDULE = Schedule.linear()


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["leads", "block"])
def test_mean_and_covariance_of_a_gaussian_posterior(
    name: str, eta: float, stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observe(Mask(masks[name]), x, 0.05, torch.Generator().manual_seed(2))
    mean, covariance = stationary.posterior(observation)
    off = []
    for steps in (12, 24):
        sampler = Conditional(steps=steps, eta=eta, inflation=1.0)
        center, found = law(sampler, stationary, observation, calls=steps if eta else 1)
        bias = (center - mean.flatten()) / stationary.dense_covariance.diagonal().sqrt()
        # The flow carries along what its start does not know of the mean, the others forget it.
        assert float(bias.abs().max()) < (0.001 if eta == 1 else 0.02)
        off.append(float((found - covariance[0]).norm() / covariance[0].norm()))
    assert off[0] < 0.11
    assert off[1] < 0.04  # second order: half the step, a quarter of the error, in the limit


def test_inflated_noise_scales_the_spread_and_leaves_the_mean(
    stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observe(Mask(masks["leads"]), x, 0.05, torch.Generator().manual_seed(2))
    plain, whole, high = (
        law(Conditional(steps=12, inflation=k, above=above), stationary, observation, calls=12)
        for k, above in ((1.0, 0.0), (1.2, 0.0), (1.2, 3.0))
    )
    for mean, _ in (whole, high):
        torch.testing.assert_close(mean, plain[0])
    # The chain is linear, and by its end it has forgotten the start, the one noise not inflated.
    torch.testing.assert_close(whole[1], 1.44 * plain[1], rtol=0, atol=1e-3)
    # Noise of high levels shapes what varies most.
    (values, vectors), lost = torch.linalg.eigh(plain[1]), ~masks["leads"].flatten()
    share = (vectors.mT @ high[1] @ vectors).diagonal() / values.clamp(min=1e-9)
    assert share[-1] > 1.1 > share[len(values) - int(lost.sum()) // 2] > 0.99


def test_draws_of_a_mixture_choose_modes_with_the_posterior_weights() -> None:
    means = torch.tensor([[-4.0, -4.0], [4.0, 4.0], [4.0, -4.0]])
    prior = GaussianMixturePrior(
        torch.tensor([0.5, 0.3, 0.2]), means, torch.eye(2).repeat(3, 1, 1), SCHEDULE, (1, 2)
    )
    observation = Observation(
        torch.tensor([[0.9]]), Dense(torch.tensor([[0.5, -0.4]]), (1, 2)), 1.0
    )
    exact = prior.posterior(observation)
    count = 4000
    draws = Conditional(steps=32, inflation=1.0)(
        prior, observation.expand(1), (count, 1, 2), generator=torch.Generator().manual_seed(0)
    ).flatten(1)
    nearest = torch.cdist(draws, exact.means.float()).argmin(1)
    truth = exact.sample(100_000, torch.Generator().manual_seed(1)).flatten(1)
    wanted = torch.cdist(truth, exact.means).argmin(1)
    share = torch.stack(
        [nearest.bincount(minlength=3) / count, wanted.bincount(minlength=3) / 1e5]
    )
    deviation = (share[1] * (1 - share[1]) / count).sqrt() + 1e-3
    assert bool(((share[0] - share[1]).abs() < 3 * deviation).all())
    assert float((draws.mean(0) - truth.mean(0)).abs().max()) < 0.2


def test_an_item_of_its_own_observation_each(
    stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    mask = torch.cat([masks["leads"].view(1, 4, 32), masks["block"].view(1, 4, 32)])
    x = stationary.sample(2, torch.Generator().manual_seed(1))
    both = observe(Mask(mask), x, 0.1, torch.Generator().manual_seed(2))
    x_t = torch.randn(2, 4, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    for i in range(2):
        alone = Observation(both.y[i : i + 1], Mask(mask[i]), 0.1)
        a = matrix_of(alone.operator, (4, 32))
        c, s2 = stationary.dense_covariance, float(SCHEDULE.sigma(300)) ** 2
        # Given y and x_t / alpha, both linear in x_0: one solve of the joint normal equations.
        alpha = float(SCHEDULE.alpha(300))
        precision = c.inverse() + a.mT @ a / 0.1**2 + torch.eye(len(c)) / s2
        right = c.inverse() @ stationary.mean.flatten() + a.mT @ alone.y.flatten() / 0.1**2
        right = right + x_t[i].flatten() / alpha / s2
        expected = torch.linalg.solve(precision, right)
        found = stationary.condition(both)(x_t, 300)[i].flatten()
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)


class Zero(nn.Module):
    """Predicts nothing."""

    def forward(self, u: Tensor, level: Tensor, trusted: Tensor | None = None) -> Tensor:
        return torch.zeros_like(u)


def test_measured_samples_are_returned_as_measured() -> None:
    prior = InpaintingDenoiser(Zero(), SCHEDULE)
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0] = True
    y = torch.randn(1, 2, 6, generator=torch.Generator().manual_seed(0)) * mask
    draws = Conditional(steps=4)(prior, Observation(y, Mask(mask), 0.1), (3, 2, 6))
    torch.testing.assert_close(draws[:, 0], y[:, 0].expand(3, 6))
    assert float(draws[:, 1].abs().min()) > 0


def test_what_cannot_be_shown_is_refused() -> None:
    y, mask = torch.zeros(1, 2, 6), torch.ones(2, 6)
    plain = NetworkDenoiser(Zero(), SCHEDULE)
    with pytest.raises(OperatorError, match=r"NetworkDenoiser cannot be shown.*MMPS"):
        Conditional(steps=2)(plain, Observation(y, Mask(mask), 0.1), (1, 2, 6))
    rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    with pytest.raises(OperatorError, match=r"RotatedMask.*MMPS"):
        Conditional(steps=2)(
            InpaintingDenoiser(Zero(), SCHEDULE),
            Observation(y, RotatedMask(mask, rotation), 0.1),
            (1, 2, 6),
        )


def test_noise_beyond_the_training_s_is_refused() -> None:
    y, mask = torch.zeros(1, 2, 6), torch.ones(2, 6)
    with pytest.raises(OperatorError, match=r"1\.5 standard deviations.*MMPS"):
        Conditional()(
            InpaintingDenoiser(Zero(), SCHEDULE), Observation(y, Mask(mask), 1.5), (1, 2, 6)
        )


def test_calls() -> None:
    assert Conditional(steps=12).nfe() == NFE(forward=12, vjp=0)
    with pytest.raises(ValueError, match="at least 2"):
        replace(Conditional(), steps=1)
    with pytest.raises(ValueError, match="eta"):
        replace(Conditional(), eta=1.5)
    with pytest.raises(ValueError, match="inflation"):
        replace(Conditional(), inflation=0.0)
