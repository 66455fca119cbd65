"""MMPS against conditional denoisers in closed form, exact affine propagation and dense solves."""

from collections.abc import Callable

import pytest
import torch
from bias import paired_bias
from ecg_like import (
    accuracy,
    channel_covariance,
    guided_law,
    karras_schedule,
    kronecker_mask,
    kronecker_prior,
    law,
    model,
    relative_error,
    sampled_accuracy,
    time_covariance,
)
from torch import Tensor

from ecgdiff.diffusion import Denoiser, GaussianMixturePrior, GaussianPrior, Schedule
from ecgdiff.diffusion._solve import Solution, conjugate_gradient
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Dense, LinearOperator, Mask, Observation, Operator, RotatedMask
from ecgdiff.operators import observe as observed
from ecgdiff.samplers import MMPS, NFE
from ecgdiff.samplers._model import model_of
from ecgdiff.testing import CountingDenoiser

SCHEDULE = Schedule.linear()
SHAPE = (2, 6)
LEVELS = (5, 100, 400, 900)


def preconditioned(**settings: object) -> MMPS:
    """With everything that the Gaussian model offers."""
    return MMPS(**{"steps": 32, "precondition": True, "spread": 1.0, **settings})  # type: ignore[arg-type]


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def dense_prior() -> GaussianPrior:
    """2 x 6, any covariance, a mean that is not zero, no model of it."""
    b = randn(12, 12, seed=1)
    return GaussianPrior(randn(*SHAPE, seed=2), b @ b.mT / 6 + 0.1 * eye(12), SCHEDULE)


def operators() -> dict[str, LinearOperator]:
    mask = randn(1, *SHAPE, seed=3) > 0
    rotation = torch.linalg.qr(randn(2, 2, seed=4)).Q
    return {
        "mask": Mask(mask),
        "rotated": RotatedMask(mask, rotation),
        "dense": Dense(randn(5, 12, seed=5), SHAPE),
    }


def observe(operator: LinearOperator, sigma: float | Tensor = 0.3) -> Observation:
    return observed(operator, randn(1, *SHAPE, seed=6), sigma, torch.Generator().manual_seed(7))


def conditional(prior: GaussianPrior, observation: Observation, x: Tensor, t: int) -> Tensor:
    """E[x_0 | x_t, y] by the variance-exploding formula, which sees x_t / alpha and sigma only."""
    mean, covariance = prior.posterior(observation)
    total = covariance[0] + float(SCHEDULE.sigma(t)) ** 2 * eye(12)
    deviation = (x / SCHEDULE.alpha(t) - mean).flatten(1)
    return mean + (deviation @ torch.linalg.solve(total, covariance[0])).view(-1, *SHAPE)


@pytest.mark.parametrize("name", ["mask", "rotated", "dense"])
def test_converged_it_is_the_exact_conditional_denoiser(name: str) -> None:
    prior, observation = dense_prior(), observe(operators()[name])
    guided = preconditioned(iterations=60, spread=0.0).guide(prior, observation)
    x = randn(3, *SHAPE, seed=8)
    for t in LEVELS:
        wanted = conditional(prior, observation, x, t)
        torch.testing.assert_close(guided(x, t), wanted, rtol=0, atol=1e-9)


def test_noise_of_its_own_per_sample_and_the_weights_of_the_overshoot() -> None:
    """Without R^{-1} in q the cap would cut the exact correction of the worst residual."""
    prior, operator, t = dense_prior(), Mask(torch.ones(SHAPE)), 400
    sigma = torch.logspace(-2, 1, 12, dtype=torch.float64)[randn(12, seed=9).argsort()]
    c, level = prior.dense_covariance, float(SCHEDULE.sigma(t)) ** 2
    tweedie = c - c @ torch.linalg.solve(c + level * eye(12), c)
    smoother = torch.linalg.solve(tweedie + (sigma**2).diag(), tweedie).mT
    worst = torch.linalg.eigh(smoother + smoother.mT).eigenvectors[:, -1]
    x = randn(1, *SHAPE, seed=10)
    x0 = prior(x, t)
    observation = Observation(x0 + worst.view(SHAPE), operator, sigma.view(SHAPE))
    found = preconditioned(iterations=200, spread=0.0).guide(prior, observation)(x, t)
    wanted = conditional(prior, observation, x, t)
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-9)
    shift, weight = (found - x0).flatten(), 1 / sigma**2
    assert float((weight * worst * shift).sum() / (weight * worst**2).sum()) < 1
    assert float((worst * shift).sum() / (worst**2).sum()) > 1.05


@pytest.mark.parametrize("name", ["mask", "dense"])
def test_vanishing_noise_reproduces_the_observation(name: str) -> None:
    operator = operators()[name]
    observation = observe(operator, 1e-6)
    guided = preconditioned(iterations=60, spread=0.0).guide(dense_prior(), observation)
    for t in LEVELS:
        found = operator(guided(randn(2, *SHAPE, seed=8), t))
        torch.testing.assert_close(found, observation.y.expand_as(found), rtol=0, atol=1e-6)


class Skew(Denoiser):
    """A denoiser whose Jacobian depends on x and is neither symmetric nor definite."""

    schedule = SCHEDULE

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return (torch.tanh(x_t.flatten(1)) @ (randn(12, 12, seed=11) + 5 * eye(12))).view(
            x_t.shape
        )


def mixture() -> GaussianMixturePrior:
    b = randn(3, 12, 12, seed=12)
    return GaussianMixturePrior(
        torch.ones(3), randn(3, 12, seed=13), b @ b.mT / 12 + 0.1 * eye(12), SCHEDULE, SHAPE
    )


@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("prior", [mixture(), Skew()])
def test_iterations_are_those_of_plain_conjugate_gradients(
    prior: Denoiser, iterations: int
) -> None:
    """An independent loop over dense matrices, item by item; the Jacobian enters transposed."""
    operator, noise = operators()["dense"], 0.3
    a, t = operator.matrix, 300  # type: ignore[attr-defined]
    observation, x = observe(operator, noise), randn(4, *SHAPE, seed=14)
    found = preconditioned(iterations=iterations, spread=0.0).guide(prior, observation)(x, t)
    factor = float(SCHEDULE.std(t)) ** 2 / float(SCHEDULE.alpha(t))
    for item in range(4):
        jacobian = torch.autograd.functional.jacobian(
            lambda u: prior(u.view(1, *SHAPE), t).flatten(), x[item].flatten()
        )
        sigma = factor * jacobian.mT
        x0 = prior(x[item : item + 1], t)
        r = (observation.y - operator(x0))[0]
        g = noise**2 * eye(5) + a @ sigma @ a.mT
        v, rho, p = torch.zeros(5).double(), r, r
        for _ in range(iterations):
            w = g @ p
            step = rho @ rho / (p @ w)
            assert p @ w > 0
            v, old, rho = v + step * p, rho, rho - step * w
            p = rho + rho @ rho / (old @ old) * p
        shift = sigma @ a.mT @ v
        shift = shift / max(float(r @ a @ shift / (r @ r)), 1.0)
        torch.testing.assert_close(found[item].flatten(), x0.flatten() + shift)


def test_negative_curvature_stops_an_item_and_leaves_the_others() -> None:
    class Mixed(Denoiser):
        schedule = SCHEDULE

        def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
            return x_t * torch.tensor([1.0, -1.0]).to(x_t)[:, None, None]

    y = torch.ones(2, *SHAPE, dtype=torch.float64)
    observation = Observation(y, Mask(torch.ones(SHAPE)), 0.1)
    x, t = randn(2, *SHAPE, seed=1), 500
    shift = preconditioned(iterations=3, spread=0.0).guide(Mixed(), observation)(x, t) - Mixed()(
        x, t
    )
    variance = float(SCHEDULE.std(t)) ** 2 / float(SCHEDULE.alpha(t))
    wanted = variance / (variance + 0.01) * (y - x)[0]
    torch.testing.assert_close(shift[0], wanted)
    assert bool((shift[1] == 0).all())


@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_an_iteration_is_one_backward_pass(
    iterations: int, spread: float, stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    counted = CountingDenoiser(stationary)
    sampler = preconditioned(steps=3, iterations=iterations, spread=spread)
    sampler(counted, Observation(torch.zeros(1, 4, 32), Mask(masks["block"]), 0.1), (2, 4, 32))
    assert NFE(counted.forward, counted.vjp) == sampler.nfe() == NFE(3, 3 * iterations)


@pytest.mark.parametrize("name", ["leads", "block"])
def test_draws_are_exact_for_the_model_itself(
    name: str, stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    sigma = torch.tensor([[0.05], [0.1], [0.2], [0.3]])
    observation = observed(Mask(masks[name]), x, sigma, torch.Generator().manual_seed(2))
    mean, covariance = stationary.posterior(observation)
    found_mean, found = law(
        preconditioned(steps=3, iterations=2), stationary, observation, calls=9
    )
    # The start N(0, I) stands for a level with 0.6 % of the signal left.
    assert float((found_mean - mean[0].flatten()).abs().max()) < 1e-3
    assert relative_error(found, covariance[0]) < 1e-3


@pytest.mark.parametrize("name", ["leads", "block"])
def test_spread_at_thirty_two_steps(name: str, masks: dict[str, Tensor]) -> None:
    covariance = model(channel_covariance(4), time_covariance(32))
    prior = GaussianPrior.from_covariance(covariance, karras_schedule(32))
    sampler = preconditioned(sigma_min=0.002, sigma_max=80.0)
    error, spread, observed_spread = accuracy(sampler, prior, masks[name][0], drawn=True)
    assert error < 1e-3
    assert (spread, observed_spread) == pytest.approx((1, 1), abs=1e-3)


@pytest.mark.parametrize(
    ("name", "iterations", "error", "spread"),
    [("leads", 4, 0.000, 0.845), ("block", 3, 0.001, 0.857)],
)
def test_published_accuracy_on_the_kronecker_prior(
    name: str, iterations: int, error: float, spread: float
) -> None:
    """Converged, without the spread that a step should draw."""
    sampler = preconditioned(iterations=iterations, spread=0.0, sigma_min=0.002, sigma_max=80.0)
    found = accuracy(sampler, kronecker_prior(32), kronecker_mask(name))
    assert found[:2] == pytest.approx((error, spread), abs=6e-4)  # the table has three digits


def test_spread_of_an_approximate_model() -> None:
    """Published: 1.000 for draws of the exact conditional spread; these are the model's."""
    sampler = preconditioned(iterations=3, sigma_min=0.002, sigma_max=80.0)
    found = accuracy(sampler, kronecker_prior(32), kronecker_mask("leads"), drawn=True)
    assert found == pytest.approx((0, 1, 1), abs=2e-3)


@pytest.mark.parametrize(("name", "bias"), [("leads", 0.05), ("block", 0.02)])
def test_stated_bias_of_the_defaults(name: str, bias: float) -> None:
    karras = kronecker_prior(4)
    prior = GaussianPrior(karras.mean, karras.dense_covariance, SCHEDULE)
    prior.covariance = karras.covariance
    error, lost, seen = sampled_accuracy(preconditioned(), prior, kronecker_mask(name), 50)
    assert error < bias
    assert (lost, seen) == pytest.approx((1, 1), abs=0.05)


@pytest.mark.parametrize("name", ["leads", "block"])
@pytest.mark.parametrize("sigma", [10.0, 3.0, 1.0, 0.3, 0.1])
def test_preconditioned_iterations_are_few(name: str, sigma: float) -> None:
    prior, mask = kronecker_prior(8), kronecker_mask(name)
    seen = mask.flatten().double()
    values, vectors = torch.linalg.eigh(prior.dense_covariance)
    tweedie = (vectors * (values * sigma**2 / (values + sigma**2))) @ vectors.mT
    g = 0.05**2 * eye(288) + seen[:, None] * tweedie * seen
    r = randn(16, 288) @ torch.linalg.cholesky(g).mT * seen
    observation = Observation(torch.zeros(1, 9, 32).double(), Mask(mask), 0.05)
    here = model_of(prior, observation, 1e-4).at(sigma)

    def solve(precondition: Callable[[Tensor], Tensor] | None) -> Solution:
        return conjugate_gradient(
            lambda v: (v.flatten(1) @ g).view_as(v),
            r.view(16, 9, 32),
            precondition=precondition,
            rtol=1e-2,
        )

    few, many = solve(here.solve), solve(None)
    assert int(few.iterations.max()) <= 5
    assert float(few.residual.max()) <= 1e-2
    if sigma >= 1:
        assert int(many.iterations.min()) > 3 * int(few.iterations.max())


def test_central_intervals_cover_the_truth() -> None:
    """500 signals, one lost sample of each ranked among 39 draws given its own observation."""
    pairs, draws = 500, 39
    covariance = model(channel_covariance(2), time_covariance(8))
    prior = GaussianPrior.from_covariance(covariance, SCHEDULE, 0.5)
    x = prior.sample(pairs, torch.Generator().manual_seed(0))
    mask = torch.zeros(pairs, 2, 8, dtype=torch.bool)
    mask[:, 0] = True
    mask[::2, 1, :3] = True
    observation = observed(Mask(mask), x, 0.1, torch.Generator().manual_seed(1))
    many = Observation(
        observation.y.repeat_interleave(draws, 0), Mask(mask.repeat_interleave(draws, 0)), 0.1
    )

    def coverage(sampler: MMPS) -> tuple[float, float]:
        found = sampler(
            prior, many, (pairs * draws, 2, 8), generator=torch.Generator().manual_seed(2)
        )
        rank = (found.view(pairs, draws, 2, 8)[:, :, 1, 5] < x[:, None, 1, 5]).sum(1)
        # 40 equally probable ranks, of which the middle 20 and 36.
        half, most = (rank >= 10) & (rank < 30), (rank >= 2) & (rank < 38)
        return float(half.double().mean()), float(most.double().mean())

    half, most = coverage(preconditioned(steps=3, iterations=2))
    assert abs(half - 0.5) < 3 * (0.5 * 0.5 / pairs) ** 0.5
    assert abs(most - 0.9) < 3 * (0.9 * 0.1 / pairs) ** 0.5
    half, most = coverage(preconditioned(steps=3, iterations=2, spread=0.0))
    assert half < 0.35
    assert most < 0.75


def test_part_of_the_spread(masks: dict[str, Tensor]) -> None:
    """The share scales what a step draws, and leaves the mean."""
    covariance = model(channel_covariance(4), time_covariance(32))
    prior = GaussianPrior.from_covariance(covariance, karras_schedule(8))
    mask = masks["leads"][0]
    laws = [
        guided_law(
            preconditioned(steps=8, iterations=2, spread=spread, sigma_min=0.002, sigma_max=80.0),
            prior,
            mask,
            0.1,
            drawn=spread > 0,
        )
        for spread in (0.0, 0.5, 1.0)
    ]
    torch.testing.assert_close(laws[1][0], laws[2][0])
    quarter = laws[0][1] + (laws[2][1] - laws[0][1]) / 4
    torch.testing.assert_close(laws[1][1], quarter, rtol=1e-6, atol=1e-9)


def test_refusals() -> None:
    class Square(Operator):
        def __call__(self, x: Tensor) -> Tensor:
            return x**2

    prior = dense_prior()
    observation = Observation(torch.zeros(1, *SHAPE), Square(), 0.1)
    with pytest.raises(OperatorError, match=r"linear operator, got Square.*MGPS"):
        preconditioned()(prior, observation, (1, *SHAPE))
    with pytest.raises(OperatorError, match=r"denoiser\.covariance"):
        preconditioned()(prior, observe(operators()["mask"]), (1, *SHAPE))
    prior.covariance = model(channel_covariance(3), time_covariance(6))
    with pytest.raises(OperatorError, match="3 channels and the signals have 2"):
        preconditioned()(prior, observe(operators()["dense"]), (1, *SHAPE))
    prior.covariance = None
    with pytest.raises(ValueError, match="one level"):
        preconditioned(spread=0.0).guide(prior, observe(operators()["mask"]))(
            torch.zeros(2, *SHAPE).double(), torch.tensor([1, 2])
        )
    with pytest.raises(ValueError, match="iteration"):
        MMPS(iterations=0)
    with pytest.raises(ValueError, match="spread"):
        MMPS(spread=-0.1)


def test_the_defaults_need_no_model(stationary: GaussianPrior, masks: dict[str, Tensor]) -> None:
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observed(Mask(masks["block"]), x, 0.1, torch.Generator().manual_seed(2))
    bare = GaussianPrior(stationary.mean, stationary.dense_covariance, SCHEDULE)
    draws = [
        MMPS(steps=5)(p, observation, (2, 4, 32), generator=torch.Generator().manual_seed(3))
        for p in (stationary, bare)
    ]
    assert bare.covariance is None
    torch.testing.assert_close(*draws)


@pytest.mark.parametrize(
    ("iterations", "name", "error", "spread"),
    [(1, "leads", 0.0, 0.94), (1, "block", 0.25, 1.08), (2, "block", 0.11, 0.96)],
)
def test_stated_bias_of_plain_iterations(
    iterations: int,
    name: str,
    error: float,
    spread: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """One step along the gradient leaves most of what a lost stretch's neighbors say unsaid."""
    found = paired_bias(MMPS(iterations=iterations), stationary, masks[name][0], count=60)
    assert abs(found[0] - error) < 0.06  # an error below 0.05 is not told from zero by 60 pairs
    assert abs(found[1] - spread) < 0.05
