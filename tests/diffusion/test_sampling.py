import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import (
    GaussianPrior,
    Schedule,
    ddim,
    ddpm,
    ddpm_step,
    heun,
    multistep,
    time_grid,
)
from ecgdiff.diffusion.sampling import transitions
from ecgdiff.random import streams

SCHEDULE = Schedule.linear()
SHAPE = (2, 3)
N = 6


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    b = _normal(N, N)
    return GaussianPrior(_normal(*SHAPE, seed=1), b @ b.mT / N + 0.05 * torch.eye(N), SCHEDULE)


def _affine(prior: GaussianPrior, run: object, grid: list[int]) -> tuple[Tensor, Tensor]:
    """The mean and covariance of a deterministic sampler's draws, from its images of a basis."""
    start = torch.cat([torch.zeros(1, N), torch.eye(N)]).double().reshape(-1, *SHAPE)
    out = run(prior, start.shape, grid=grid, start=start).flatten(1)  # type: ignore[operator]
    jacobian = (out[1:] - out[0]).mT
    return out[0], jacobian @ jacobian.mT


def _ancestral_moments(prior: GaussianPrior, grid: list[int], eta: float) -> tuple[Tensor, Tensor]:
    """The exact recursion of the mean and covariance through x_s = c_lo D(x) + c_hi x + tau z."""
    eye = torch.eye(N, dtype=torch.float64)
    mean, covariance = torch.zeros(N, dtype=torch.float64), eye
    for t, s in transitions(grid):
        offset = prior(torch.zeros(1, *SHAPE, dtype=torch.float64), t).flatten()
        jacobian = (prior(eye.reshape(N, *SHAPE), t).flatten(1) - offset).mT
        c_lo, c_hi, tau = SCHEDULE.bridge(s, 0, t, eta)
        m = c_lo * jacobian + c_hi * eye
        mean = m @ mean + c_lo * offset
        covariance = m @ covariance @ m.mT + tau**2 * eye
    return mean, covariance


def test_ddim_is_its_affine_recursion_and_converges(prior: GaussianPrior) -> None:
    grid = time_grid(SCHEDULE, 10)
    for got, expected in zip(
        _affine(prior, ddim, grid), _ancestral_moments(prior, grid, 0.0), strict=True
    ):
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-10)
    errors = []
    for steps in (20, 80, 320):
        mean, covariance = _affine(prior, ddim, time_grid(SCHEDULE, steps))
        errors.append(float((covariance - prior.dense_covariance).abs().max()))
        assert (mean - prior.mean.flatten()).abs().max() < 0.05
    assert errors[0] > errors[1] > errors[2] and errors[2] < 0.02


@pytest.mark.parametrize("solver", [heun, multistep])
def test_two_solvers_are_of_second_order(prior: GaussianPrior, solver: object) -> None:
    errors = []
    for steps in (20, 40, 80):
        grid = time_grid(SCHEDULE, steps, "rho", sigma_min=0.01)
        _, covariance = _affine(prior, solver, grid)
        errors.append(float((covariance - prior.dense_covariance).abs().max()))
    assert 3.5 < errors[0] / errors[1] < 6 and 3.5 < errors[1] / errors[2] < 6
    grid = time_grid(SCHEDULE, 80, "rho", sigma_min=0.01)
    first = _affine(prior, ddim, grid)[1] - prior.dense_covariance
    assert errors[2] < 0.1 * float(first.abs().max())


@pytest.mark.parametrize("eta", [0.5, 1.0])
def test_ancestral_draws_follow_their_recursion(prior: GaussianPrior, eta: float) -> None:
    grid, batch = time_grid(SCHEDULE, 16, "rho", sigma_min=0.05), 10_000
    generator = torch.Generator().manual_seed(3)
    x = ddim(
        prior, (batch, *SHAPE), grid=grid, eta=eta, generator=generator, dtype=torch.float64
    ).flatten(1)
    mean, covariance = _ancestral_moments(prior, grid, eta)
    spread = covariance.diagonal()
    error = (x.mean(0) - mean).abs() / (spread / batch).sqrt()
    assert error.max() < 5
    limit = 5 * ((spread[:, None] * spread + covariance**2) / batch).sqrt()
    assert ((x.mT.cov() - covariance).abs() < limit).all()


def test_many_ancestral_steps_reach_the_prior(prior: GaussianPrior) -> None:
    mean, covariance = _ancestral_moments(prior, time_grid(SCHEDULE, 1000), 1.0)
    torch.testing.assert_close(mean, prior.mean.flatten(), rtol=0, atol=0.02)
    ratio = (covariance.diagonal() / prior.dense_covariance.diagonal()).sqrt()
    assert ((ratio > 0.97) & (ratio < 1.01)).all()


def test_step_with_the_true_signal_has_the_forward_marginal() -> None:
    """From x_t = alpha x0 + s z the step gives alpha' x0 + s' z', for every eta."""
    x0, z = _normal(1, *SHAPE), _normal(1, *SHAPE, seed=1)
    t, s = 700, 300
    x_t = SCHEDULE.alpha(t) * x0 + SCHEDULE.std(t) * z
    flat = ddpm_step(x_t, x0, t, s, SCHEDULE, None, eta=0.0)
    torch.testing.assert_close(flat, SCHEDULE.alpha(s) * x0 + SCHEDULE.std(s) * z)
    c_lo, c_hi, std = SCHEDULE.bridge(s, 0, t)
    noisy = ddpm_step(x_t, x0, t, s, SCHEDULE, z)
    torch.testing.assert_close(noisy, c_lo * x0 + c_hi * x_t + std * z)
    assert torch.equal(ddpm_step(x_t, x0, t, 0, SCHEDULE, z), x0)


@pytest.mark.parametrize("sampler", [ddpm, ddim, heun])
def test_samplers_are_reproducible_and_report_progress(
    prior: GaussianPrior, sampler: object
) -> None:
    seen: list[tuple[int, int]] = []

    def run(draws: range) -> Tensor:
        generator = streams(0, "record", draws)
        shape, grid = (len(draws), *SHAPE), [900, 500, 20]
        return sampler(  # type: ignore[operator, no-any-return]
            prior, shape, grid=grid, generator=generator, progress=lambda *p: seen.append(p)
        )

    both = run(range(2))
    assert both.dtype == torch.float32 and both.shape == (2, *SHAPE)
    torch.testing.assert_close(run(range(1, 2))[0], both[1], rtol=1e-5, atol=1e-5)
    assert seen[:3] == [(1, 3), (2, 3), (3, 3)]


def test_grids_must_decrease_to_a_noisy_level(prior: GaussianPrior) -> None:
    for grid in ([], [3, 3], [2, 5], [5, 0]):
        with pytest.raises(ValueError, match="decreases strictly"):
            ddpm(prior, (1, *SHAPE), grid=grid)
