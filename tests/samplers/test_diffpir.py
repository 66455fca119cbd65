"""DiffPIR against dense solves and DDIM, and its bias against exact posteriors."""

import pytest
import torch
from bias import affine_bias
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, ddim, time_grid
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Dense, Mask, Observation, Operator
from ecgdiff.random import Streams
from ecgdiff.samplers import NFE, DiffPIR

SHAPE = (3, 2, 4)


def normal(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    b = normal(8, 8)
    return GaussianPrior(torch.full((2, 4), 0.5), b @ b.mT / 8, Schedule.linear())


@pytest.fixture(scope="module")
def observation() -> Observation:
    sigma = torch.tensor([0.1, 0.5, 2.0], dtype=torch.float64)
    return Observation(normal(1, 3), Dense(normal(3, 8), (2, 4)), sigma)


@pytest.mark.parametrize("t", [5, 400, 1000])
def test_the_proximal_step_is_two_dense_solves(
    prior: GaussianPrior, observation: Observation, t: int
) -> None:
    """The minimizer itself, and the mean given y of a Gaussian of covariance sigma^2 / lambda."""
    lam, matrix, x = 6.0, normal(3, 8), normal(*SHAPE)
    found = DiffPIR(lam=lam).guide(prior, observation)(x, t).flatten(1)
    x0, y, noise = prior(x, t).flatten(1), observation.y, torch.diag(observation.variance)
    spread = float(prior.schedule.sigma(t)) ** 2 / lam
    eye = torch.eye(8, dtype=torch.float64)
    weight = matrix.mT @ torch.linalg.inv(noise)
    minimizer = torch.linalg.solve(
        weight @ matrix + eye / spread, (y @ weight.mT + x0 / spread).mT
    )
    torch.testing.assert_close(found, minimizer.mT)
    gain = spread * matrix.mT @ torch.linalg.inv(noise + spread * matrix @ matrix.mT)
    torch.testing.assert_close(found, x0 + (y - x0 @ matrix.mT) @ gain.mT)


def test_without_fresh_noise_it_is_ddim(prior: GaussianPrior, observation: Observation) -> None:
    sampler = DiffPIR(steps=6, zeta=0.0)
    draws = sampler(prior, observation, SHAPE, generator=Streams([1, 2, 3]))
    wanted = ddim(
        sampler.guide(prior, observation),
        SHAPE,
        grid=time_grid(prior.schedule, 6),
        generator=Streams([1, 2, 3]),
        dtype=torch.float64,
    )
    torch.testing.assert_close(draws, wanted)


def test_a_step_renoises_what_it_found(prior: GaussianPrior, observation: Observation) -> None:
    sampler = DiffPIR(steps=2, zeta=0.36)
    draws = sampler(prior, observation, SHAPE, generator=Streams([1, 2, 3]))
    guided, noise = sampler.guide(prior, observation), Streams([1, 2, 3])
    t, s = time_grid(prior.schedule, 2)
    a_t, a_s = (float(prior.schedule.alpha_bar[level]) for level in (t, s))
    x, z = noise.normal(SHAPE, torch.float64), noise.normal(SHAPE, torch.float64)
    x0 = guided(x, t)
    implied = (x - a_t**0.5 * x0) / (1 - a_t) ** 0.5
    x = a_s**0.5 * x0 + (1 - a_s) ** 0.5 * (0.8 * implied + 0.6 * z)
    torch.testing.assert_close(draws, guided(x, s))


@pytest.mark.parametrize(
    ("zeta", "name", "error", "spread"),
    [
        (0.5, "leads", 0.062, 0.92),
        (0.5, "block", 0.297, 1.12),
        (1.0, "leads", 0.028, 0.68),
        (1.0, "block", 0.208, 0.83),
    ],
)
def test_stated_bias(
    zeta: float,
    name: str,
    error: float,
    spread: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """Its proximal step takes the samples of x_0 given x_t to be independent."""
    found_error, found_spread = affine_bias(
        DiffPIR(zeta=zeta), stationary, masks[name][0], count=100
    )
    assert abs(found_error - error) < 0.005
    assert abs(found_spread - spread) < 0.07  # three standard errors of 100 draws


@pytest.mark.parametrize(
    ("lam", "sigma", "name", "error"),
    [
        (0.1, 0.05, "leads", 0.060),
        (0.1, 0.05, "block", 0.296),
        (0.1, 0.2, "leads", 0.058),
        (0.1, 0.2, "block", 0.247),
        (1.0, 0.2, "leads", 0.058),
        (1.0, 0.2, "block", 0.259),
        (6.0, 0.05, "leads", 0.069),
        (6.0, 0.05, "block", 0.302),
        (6.0, 0.2, "leads", 0.102),
        (6.0, 0.2, "block", 0.305),
    ],
)
def test_stated_effect_of_lambda(
    lam: float,
    sigma: float,
    name: str,
    error: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    found, _ = affine_bias(DiffPIR(lam=lam), stationary, masks[name][0], sigma, count=2)
    assert abs(found - error) < 0.003


def test_settings(prior: GaussianPrior) -> None:
    assert DiffPIR(steps=9).nfe() == NFE(forward=9, vjp=0)
    assert DiffPIR.ecg() == DiffPIR(steps=500, lam=6.0, zeta=0.5)
    with pytest.raises(ValueError, match="lam"):
        DiffPIR(lam=0.0)
    with pytest.raises(ValueError, match="zeta"):
        DiffPIR(zeta=1.5)


def test_refuses_what_it_cannot_solve(prior: GaussianPrior) -> None:
    class Cubes(Operator):
        def __call__(self, x: Tensor) -> Tensor:
            return x**3

    with pytest.raises(OperatorError, match=r"Cubes.*MGPS"):
        DiffPIR(steps=2)(prior, Observation(torch.zeros(1, 2, 4), Cubes(), 0.1), SHAPE)
    guided = DiffPIR().guide(prior, Observation(torch.zeros(1, 2, 4), Mask(torch.ones(2, 4)), 0.1))
    with pytest.raises(ValueError, match="integer"):
        guided(torch.zeros(SHAPE), torch.tensor([1, 2, 3]))
