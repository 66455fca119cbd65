"""PGDM against dense solves and the prior for which it is exact, and its bias elsewhere."""

from typing import Literal

import pytest
import torch
from bias import affine_bias
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Dense, Mask, Observation, Operator
from ecgdiff.random import Streams
from ecgdiff.samplers import NFE, PGDM

SHAPE = (3, 2, 4)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def correlated() -> GaussianPrior:
    b = normal(8, 8)
    return GaussianPrior(torch.full((2, 4), 0.5), b @ b.mT / 8, Schedule.linear())


def dense(sigma: float | Tensor) -> tuple[Tensor, Observation]:
    matrix = normal(3, 8)
    return matrix, Observation(normal(1, 3), Dense(matrix, (2, 4)), sigma)


@pytest.mark.parametrize("t", [10, 300, 1000])
@pytest.mark.parametrize("variance", [1.0, 0.3])
def test_exact_for_independent_samples(t: int, variance: float) -> None:
    eye = torch.eye(8, dtype=torch.float64)
    prior = GaussianPrior(torch.full((2, 4), 0.5), variance * eye, Schedule.linear())
    _, observation = dense(torch.tensor([0.1, 0.5, 2.0]))
    guided = PGDM(variance=variance).guide(prior, observation)
    x = normal(*SHAPE)
    torch.testing.assert_close(guided(x, t), prior.condition(observation)(x, t))


def test_the_guided_denoiser_is_the_dense_formula() -> None:
    prior, t, variance = correlated(), 200, 0.6
    sigma = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    matrix, observation = dense(sigma)
    x = normal(*SHAPE)
    noise = float(prior.schedule.sigma(t)) ** 2
    spread = noise * variance / (variance + noise)
    gram = spread * matrix @ matrix.mT + torch.diag(sigma**2)
    # s^2 / alpha J^T is the covariance of x_0 given x_t.
    gain = prior.tweedie_covariance(t) @ matrix.mT @ torch.linalg.inv(gram)
    x0 = prior(x, t).flatten(1)
    wanted = x0 + (observation.y - x0 @ matrix.mT) @ gain.mT
    found = PGDM(variance=variance).guide(prior, observation)(x, t)
    torch.testing.assert_close(found.flatten(1), wanted)


def test_the_released_step_climbs_its_potential() -> None:
    """The potential in the coordinates of the singular vectors, as published."""
    prior, sampler = correlated(), PGDM(steps=2, weight="released")
    matrix, observation = dense(0.3)
    draws = sampler(prior, observation, SHAPE, generator=Streams([1, 2, 3]))
    noise = Streams([1, 2, 3])
    t, s = time_grid(prior.schedule, 2)
    a_t, a_s = (float(prior.schedule.alpha_bar[level]) for level in (t, s))
    x = noise.normal(SHAPE, torch.float64).requires_grad_()
    x0 = prior(x, t)
    u, values, vt = torch.linalg.svd(matrix, full_matrices=False)
    off = observation.y @ u - values * (x0.flatten(1) @ vt.mT)
    potential = -(off**2 / (values**2 + 0.3**2 / (1 - a_t))).sum() / 2
    (pull,) = torch.autograd.grad(potential, x)
    c_lo, c_hi, std = prior.schedule.bridge(s, 0, t)
    x = c_lo * x0 + c_hi * x + std * noise.normal(SHAPE, torch.float64) + (a_t * a_s) ** 0.5 * pull
    torch.testing.assert_close(draws, prior(x, s).detach())


@pytest.mark.parametrize(
    ("weight", "name", "error", "spread"),
    [
        ("bayes", "leads", 0.105, 0.97),
        ("bayes", "block", 0.300, 1.08),
        ("released", "leads", 0.061, 0.96),
        ("released", "block", 0.169, 0.88),
    ],
)
def test_stated_bias(
    weight: Literal["bayes", "released"],
    name: str,
    error: float,
    spread: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """It takes the samples of x_0 given x_t to be independent, with one variance."""
    found_error, found_spread = affine_bias(
        PGDM(weight=weight), stationary, masks[name][0], count=100
    )
    assert abs(found_error - error) < 0.005
    assert abs(found_spread - spread) < 0.07  # three standard errors of 100 draws


def test_cost_and_preset() -> None:
    assert PGDM(steps=9).nfe() == NFE(forward=9, vjp=9)
    assert PGDM(steps=9, weight="released").nfe() == NFE(forward=9, vjp=8)
    assert PGDM.ecg() == PGDM(steps=200, weight="released")


def test_refusals() -> None:
    class Cubes(Operator):
        def __call__(self, x: Tensor) -> Tensor:
            return x**3

    prior, cubed = correlated(), Observation(torch.zeros(1, 2, 4), Cubes(), 0.1)
    for weight in ("bayes", "released"):
        with pytest.raises(OperatorError, match=r"Cubes.*MGPS"):
            PGDM(steps=2, weight=weight)(prior, cubed, SHAPE)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="weight='bayes'"):
        PGDM(weight="released").guide(prior, Observation(cubed.y, Mask(torch.ones(2, 4)), 0.1))
    with pytest.raises(ValueError, match="weight"):
        PGDM(weight="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="variance"):
        PGDM(variance=0.0)
