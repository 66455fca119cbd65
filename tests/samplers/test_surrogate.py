"""The surrogate sampler against exact posteriors; its draws are affine in the noise, which makes
tests exact."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from ecg_like import channel_covariance, model, time_covariance
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Mask, Observation, RotatedMask, observe
from ecgdiff.random import Streams, normal
from ecgdiff.samplers import NFE, Surrogate


class Basis(Streams):
    """Affine propagation: item i draws the i-th unit vector of all noise, the last item zeros."""

    def __init__(self, calls: int, n: int) -> None:
        self.calls, self.n, self.done = calls, n, 0

    def __len__(self) -> int:
        return self.calls * self.n + 1

    def normal(
        self,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        z = torch.zeros(len(self), self.n, dtype=dtype)
        z[self.done * self.n : (self.done + 1) * self.n] = torch.eye(self.n, dtype=dtype)
        self.done += 1
        return z.view(tuple(shape)).to(device)


def law(
    sampler: Surrogate, prior: GaussianPrior, observation: Observation
) -> tuple[Tensor, Tensor]:
    """The exact mean (n,) and covariance (n, n) of a sampler's draws."""
    n = prior.mean.numel()
    per_step = 3 if sampler.spread > 0 else 1
    noise = Basis(per_step * sampler.steps, n)
    draws = sampler(prior, observation, (len(noise), *prior.shape), generator=noise).flatten(1)
    assert noise.done == noise.calls
    columns = draws[:-1] - draws[-1]
    return draws[-1], columns.mT @ columns


def off_diagonal_error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.mark.parametrize("name", ["leads", "block"])
def test_exact_for_its_own_model_at_any_number_of_steps(
    name: str, stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observe(Mask(masks[name]), x, 0.05, torch.Generator().manual_seed(2))
    mean, covariance = stationary.posterior(observation)
    found_mean, found = law(Surrogate(steps=3, rtol=1e-9), stationary, observation)
    # The start N(0, I) stands for a level with 0.6 % of the signal left: that is the only error.
    assert float((found_mean - mean[0].flatten()).abs().max()) < 1e-3
    assert off_diagonal_error(found, covariance[0]) < 1e-3


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
        found_mean, found = law(Surrogate(steps=4, spread=spread), stationary, observation)
        assert float((found_mean - mean[0].flatten()).abs().max()) < 1e-3
        ratios.append(float((found.trace() / covariance[0].trace()).sqrt()))
    assert ratios[0] < ratios[1] < 0.8 < ratios[2]


def karras_schedule(steps: int) -> Schedule:
    """The levels sigma 0.002..80, rho 7, themselves as a schedule."""
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    sigma = torch.linspace(low, high, steps, dtype=torch.float64) ** 7
    return Schedule(torch.cat([torch.ones(1, dtype=torch.float64), 1 / (1 + sigma**2)]))


@pytest.mark.parametrize(
    ("name", "error", "spread"), [("leads", 0.012, 0.843), ("block", 0.024, 0.869)]
)
def test_published_accuracy_on_the_kronecker_prior(name: str, error: float, spread: float) -> None:
    """9 x 32, not stationary, so the model is approximate: RMS of the mean over y, and spread."""
    channels, time = kronecker_channels(), time_covariance(32)
    prior = GaussianPrior(torch.zeros(9, 32), torch.kron(channels, time), karras_schedule(32))
    prior.covariance = model(channels, time)
    mask = torch.zeros(9, 32, dtype=torch.bool)
    if name == "leads":
        mask[:3] = True
    else:
        mask[:, :12] = mask[:, 20:] = True
    seen = mask.flatten()
    covariance = prior.dense_covariance
    g = covariance[seen][:, seen] + 0.05**2 * torch.eye(int(seen.sum()), dtype=torch.float64)
    gain = torch.linalg.solve(g, covariance[seen]).mT
    exact = (covariance - gain @ covariance[seen]).diagonal()[~seen]

    sampler = Surrogate(steps=32, spread=0.0, sigma_min=0.002, sigma_max=80.0, rtol=1e-6)
    found_gain, draws = propagate(sampler, prior, mask, 400)
    wrong = (found_gain - gain)[~seen]
    err = (wrong @ g @ wrong.mT).diagonal().mean().sqrt()
    std = (draws.var(0)[~seen].mean() / exact.mean()).sqrt()
    assert abs(float(err) - error) < 1e-3  # the means are exact, the table has three digits
    # 400 draws of about 12 independent numbers: a standard error of 1 %.
    assert abs(float(std) - spread) < 0.03


def kronecker_channels() -> Tensor:
    """The channel covariance of the published table: numpy's generator, seed 0."""
    numpy = pytest.importorskip("numpy")
    b = torch.from_numpy(numpy.random.default_rng(0).standard_normal((9, 3)))
    c = b @ b.mT
    d = c.diagonal().sqrt()
    return 0.95 * c / d / d[:, None] + 0.05 * torch.eye(9, dtype=torch.float64)


def propagate(
    sampler: Surrogate, prior: GaussianPrior, mask: Tensor, count: int
) -> tuple[Tensor, Tensor]:
    """The matrix that maps y to the mean of the draws, and draws for y = 0."""
    seen, n = mask.flatten(), mask.numel()
    basis = torch.eye(n, dtype=torch.float64)[seen].view(-1, *mask.shape)
    y = torch.cat([basis, torch.zeros(count, *mask.shape, dtype=torch.float64)])

    class Half(Streams):
        """Zeros for the items that propagate, noise for the draws."""

        def __init__(self) -> None:
            self.generator = torch.Generator().manual_seed(0)

        def normal(
            self,
            shape: Sequence[int],
            dtype: torch.dtype = torch.float32,
            device: torch.device | str = "cpu",
        ) -> Tensor:
            z = normal(shape, self.generator, dtype, device)
            z[: len(basis)] = 0
            return z

    shape = (len(y), *prior.shape)
    draws = sampler(prior, Observation(y, Mask(mask), 0.05), shape, generator=Half()).flatten(1)
    return draws[: len(basis)].mT, draws[len(basis) :]


def test_rotated_masks_are_exact_too(stationary: GaussianPrior, masks: dict[str, Tensor]) -> None:
    rotation = torch.linalg.qr(channel_covariance(4)).Q
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observe(
        RotatedMask(masks["leads"], rotation), x, 0.05, torch.Generator().manual_seed(2)
    )
    mean, covariance = stationary.posterior(observation)
    found_mean, found = law(Surrogate(steps=2), stationary, observation)
    assert float((found_mean - mean[0].flatten()).abs().max()) < 1e-3
    assert off_diagonal_error(found, covariance[0]) < 1e-3


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
