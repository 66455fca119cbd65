"""RED-diff against its loss and PyTorch's own optimizer, and its bias against exact posteriors."""

import pytest
import torch
from bias import paired_bias
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.operators import Mask, Observation, Operator
from ecgdiff.random import Streams
from ecgdiff.samplers import NFE, REDdiff

SHAPE = (3, 2, 4)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    b = normal(0, 8, 8)
    return GaussianPrior(torch.full((2, 4), 0.5), b @ b.mT / 8, Schedule.linear())


class Cubes(Operator):
    """Not linear, and of another shape than the signal."""

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, 0] ** 3 + x[:, 1]


def optimize(
    prior: GaussianPrior, y: Tensor, seen: Tensor | None, steps: int, seed: int
) -> Tensor:
    """One item by the published loss: means over its samples, and over its observed values."""
    noise, shape = Streams([seed]), (1, 2, 4)
    start = noise.normal(shape, torch.float64) if seen is None else y
    mu = start.clone().requires_grad_()
    adam = torch.optim.Adam([mu], lr=0.2, betas=(0.9, 0.99))
    for t in time_grid(prior.schedule, steps):
        a = float(prior.schedule.alpha_bar[t])
        eps = noise.normal(shape, torch.float64)
        x = (a**0.5 * mu + (1 - a) ** 0.5 * eps).detach()
        found = (x - a**0.5 * prior(x, t)) / (1 - a) ** 0.5
        residual = y - Cubes()(mu) if seen is None else (y - mu)[seen]
        loss = 0.3 * ((1 - a) / a) ** 0.5 * ((found - eps) * mu).mean()
        loss = loss + 2.0 * (residual**2).mean() / 2
        adam.zero_grad()
        loss.backward()
        adam.step()
    return mu.detach()


@pytest.mark.parametrize("linear", [True, False])
def test_draws_are_those_of_the_published_loss(prior: GaussianPrior, linear: bool) -> None:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0, 0], mask[1, :, :3], mask[2, 1, 2] = True, True, True
    y = normal(1, *SHAPE) * mask if linear else normal(1, 3, 4)
    observation = Observation(y, Mask(mask) if linear else Cubes(), 0.1)
    sampler = REDdiff(steps=12, lr=0.2, weight=0.3, obs_weight=2.0)
    draws = sampler(prior, observation, SHAPE, generator=Streams([1, 2, 3]))
    for i in range(3):
        seen = mask[i : i + 1] if linear else None
        wanted = optimize(prior, y[i : i + 1], seen, 12, seed=i + 1)
        torch.testing.assert_close(draws[i : i + 1], wanted)


def test_a_hopelessly_noisy_channel_is_a_lost_one(prior: GaussianPrior) -> None:
    y = normal(1, 1, 2, 4)
    mask = torch.tensor([[True], [False]]).expand(2, 4)
    y = y * mask  # the starts are A^+ y
    noisy = Observation(y, Mask(torch.ones(2, 4)), torch.tensor([[0.1], [1e9]]))
    lost = Observation(y, Mask(mask), 0.1)
    one, other = (
        REDdiff(steps=9)(prior, o, SHAPE, generator=Streams([1, 2, 3])) for o in (noisy, lost)
    )
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("name", "error", "spread"), [("leads", 0.05, 0.40), ("block", 0.24, 0.48)]
)
def test_stated_bias_and_a_spread_that_is_none(
    name: str,
    error: float,
    spread: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """It seeks a mode and stops short of it; draws differ by the noise of the optimization."""
    found_error, found_spread = paired_bias(REDdiff(), stationary, masks[name][0], count=60)
    # 60 pairs tell the mean of squares to 0.01, and the spread to 0.03.
    assert abs(found_error**2 - error**2) < 0.03
    assert abs(found_spread - spread) < 0.06


def test_settings() -> None:
    assert REDdiff(steps=9).nfe() == NFE(forward=9, vjp=0)
    assert REDdiff.ecg(0.25) == REDdiff(steps=400, lr=1.2, weight=0.05, obs_weight=1.0)
    for name in ("lr", "weight", "obs_weight"):
        with pytest.raises(ValueError, match=name):
            REDdiff(**{name: 0.0})
