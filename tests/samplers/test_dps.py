"""DPS against its update written out, and its bias against exact posteriors."""

import math

import pytest
import torch
from bias import paired_bias
from torch import Tensor

from ecgdiff.diffusion import Denoiser, GaussianPrior, Schedule, ddpm, time_grid
from ecgdiff.operators import Mask, Observation, Operator
from ecgdiff.random import Streams
from ecgdiff.samplers import DPS, NFE
from ecgdiff.samplers.dps import relative_precision

SHAPE = (3, 2, 4)


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    b = torch.randn(8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return GaussianPrior(torch.full((2, 4), 0.5), b @ b.mT / 8, Schedule.linear())


class Cubes(Operator):
    """Not linear, and of another shape than the signal."""

    def __call__(self, x: Tensor) -> Tensor:
        return x[:, 0] ** 3 + x[:, 1]


def test_a_step_is_the_published_one(prior: GaussianPrior) -> None:
    y = torch.tensor([[1.0, -2.0, 0.5, 0.0]], dtype=torch.float64)
    draws = DPS(steps=2, zeta=0.7)(
        prior, Observation(y, Cubes(), 0.1), SHAPE, generator=Streams([1, 2, 3])
    )
    noise = Streams([1, 2, 3])
    t, s = time_grid(prior.schedule, 2)
    x = noise.normal(SHAPE, torch.float64).requires_grad_()
    x0 = prior(x, t)
    norms = (y - Cubes()(x0)).norm(dim=1)
    (slope,) = torch.autograd.grad(norms.sum(), x)
    c_lo, c_hi, std = prior.schedule.bridge(s, 0, t)
    x = c_lo * x0 + c_hi * x + std * noise.normal(SHAPE, torch.float64) - 0.7 * slope
    torch.testing.assert_close(draws, prior(x, s).detach())


def test_nothing_observed_is_the_prior(prior: GaussianPrior) -> None:
    """The residual is zero, and its norm has no gradient."""
    nothing = Observation(torch.zeros(1, 2, 4, dtype=torch.float64), Mask(torch.zeros(2, 4)), 0.1)
    draws = DPS(steps=5)(prior, nothing, SHAPE, generator=Streams([1, 2, 3]))
    plain = ddpm(
        prior,
        SHAPE,
        grid=time_grid(prior.schedule, 5),
        generator=Streams([1, 2, 3]),
        dtype=torch.float64,
    )
    torch.testing.assert_close(draws, plain)


def test_a_hopelessly_noisy_channel_is_a_lost_one(prior: GaussianPrior) -> None:
    y = torch.randn(1, 2, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    mask = torch.tensor([[True], [False]]).expand(2, 4)
    noisy = Observation(y, Mask(torch.ones(2, 4)), torch.tensor([[0.1], [1e9]]))
    lost = Observation(y * mask, Mask(mask), 0.1)
    one, other = (
        DPS(steps=5)(prior, o, SHAPE, generator=Streams([1, 2, 3])) for o in (noisy, lost)
    )
    torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_relative_precision() -> None:
    mask = torch.tensor([[1, 1], [1, 0]])
    sigma = torch.tensor([[[0.2, 0.4], [0.8, 0.01]]])
    found = relative_precision(Observation(torch.zeros(1, 2, 2), Mask(mask), sigma))
    torch.testing.assert_close(found, torch.tensor([[[1.0, 0.25], [0.0625, 0.0]]]))
    per_item = Observation(
        torch.zeros(2, 2, 2), Mask(mask), torch.tensor([0.1, 3.0])[:, None, None]
    )
    assert torch.equal(relative_precision(per_item), mask.float().expand(2, 2, 2))


@pytest.mark.parametrize(
    ("name", "error", "spread"), [("leads", 0.14, 0.98), ("block", 0.34, 0.79)]
)
def test_stated_bias(
    name: str,
    error: float,
    spread: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """Its likelihood takes x_0 to be known given x_t, and its step has no scale."""
    found_error, found_spread = paired_bias(DPS(), stationary, masks[name][0], count=60)
    # 60 pairs tell the mean of squares to 0.02, and the spread to 0.05.
    assert abs(found_error**2 - error**2) < 0.04
    assert abs(found_spread - spread) < 0.1


def test_settings() -> None:
    assert DPS(steps=7).nfe() == NFE(forward=7, vjp=6)
    assert DPS.ecg(1.0) == DPS(steps=400, zeta=1.0)
    assert DPS.ecg(0.25).zeta == pytest.approx(4.0)
    with pytest.raises(ValueError, match="zeta"):
        DPS(zeta=-1.0)
    with pytest.raises(ValueError, match="zeta"):
        DPS(zeta=math.inf)


def test_a_residual_of_zero_is_no_division_by_zero() -> None:
    class Constant(Denoiser):
        schedule = Schedule.linear()

        def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
            return 0 * x_t

    zero = Observation(torch.zeros(1, 2, 4), Mask(torch.ones(2, 4)), 0.1)
    draws = DPS(steps=3)(Constant(), zero, SHAPE, generator=Streams([1, 2, 3]))
    assert torch.equal(draws, torch.zeros(SHAPE))
