"""DAPS against an affine recursion of its own, exact conditional draws, and exact posteriors."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from affine import accuracy, denoiser_map, matrix_of
from ecg_like import law
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.errors import OperatorError
from ecgdiff.operators import (
    Dense,
    LinearOperator,
    Mask,
    Observation,
    Operator,
    RotatedMask,
    observe,
)
from ecgdiff.random import Streams
from ecgdiff.samplers import DAPS, NFE
from ecgdiff.samplers._gaussian import conditional_draw
from ecgdiff.samplers.daps import _flow_levels
from ecgdiff.testing import check_sampler


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def recursion(
    sampler: DAPS, prior: GaussianPrior, a: Tensor, y: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Means (n, p) and covariance of DAPS for data (m, p), in variance-exploding coordinates."""
    schedule, n = prior.schedule, len(a.mT)
    times = time_grid(schedule, sampler.steps, sampler.grid, sigma_min=sampler.sigma_min)
    top = float(schedule.alpha(times[0]))
    mean, cov = torch.zeros(n, y.shape[1], dtype=torch.float64), eye(n) / top**2
    weight = a.mT / noise
    for t, below in pairwise([*times, 0]):
        for k, l in pairwise([*_flow_levels(schedule, t, sampler.ode_steps), 0]):
            share = 1 - float(schedule.sigma(l) / schedule.sigma(k))
            jacobian, offset = denoiser_map(prior, k)
            euler = (1 - share) * eye(n) + share * float(schedule.alpha(k)) * jacobian
            mean, cov = euler @ mean + share * offset, euler @ cov @ euler.mT
        r2, c = float(schedule.sigma(t)) ** 2, sampler.variance
        r2 = r2 if c == "level" else r2 * c / (r2 + c)
        g = torch.linalg.inv(eye(n) / r2 + weight @ a)
        mean = g @ (mean / r2 + weight @ y)
        cov = g @ cov @ g / r2**2 + g + float(schedule.sigma(below)) ** 2 * eye(n)
    return mean, cov


@pytest.mark.parametrize("variance", ["level", 0.7])
@pytest.mark.parametrize("kind", ["leads", "block", "rotated"])
def test_draws_follow_the_recursion(
    kind: str, variance: float, stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    operator: Operator = Mask(masks["block" if kind == "block" else "leads"])
    if kind == "rotated":
        rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
        operator = RotatedMask(masks["leads"], rotation.Q.double())
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    sigma = torch.tensor([[0.05], [0.1], [0.2], [0.3]], dtype=torch.float64)
    observation = observe(operator, x, sigma, torch.Generator().manual_seed(2))
    sampler = DAPS(steps=3, ode_steps=3, variance=variance)
    mean, cov = law(sampler, stationary, observation, calls=1 + 3 * 2 + 2)
    wanted, wanted_cov = recursion(
        sampler,
        stationary,
        matrix_of(operator, (4, 32)),
        observation.y.flatten()[:, None],
        observation.variance.expand(4, 32).flatten(),
    )
    torch.testing.assert_close(mean, wanted[:, 0])
    torch.testing.assert_close(cov, wanted_cov)


@pytest.mark.parametrize(
    ("name", "sampler", "bias", "ratio"),
    [
        ("leads", DAPS(), 0.109, 1.811),
        ("block", DAPS(), 0.382, 2.738),
        ("leads", DAPS(variance=1.0), 0.109, 1.197),
        ("block", DAPS(variance=1.0), 0.382, 1.909),
        ("leads", DAPS(steps=100), 0.064, 1.617),
        ("block", DAPS(steps=100), 0.305, 2.241),
    ],
)
def test_stated_bias(
    name: str,
    sampler: DAPS,
    bias: float,
    ratio: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """The noise given to lost samples knows nothing of their neighbors, the next flow sees the
    data through it. Not sampled: the numbers are exact."""
    a = torch.diag(masks[name].flatten().double())
    noise = torch.full((128,), 0.05**2, dtype=torch.float64)
    found = accuracy(
        lambda y: recursion(sampler, stationary, a, y, noise), stationary, masks[name], 0.05
    )
    assert found == pytest.approx((bias, ratio), abs=2e-3)
    # A draw of the prior itself is off by more in the mean.
    ignorant = accuracy(
        lambda y: (
            stationary.mean.reshape(-1, 1).expand(-1, y.shape[1]).clone(),
            stationary.dense_covariance,
        ),
        stationary,
        masks[name],
        0.05,
    )
    assert 2 * found[0] < ignorant[0]


class Listed(Streams):
    """Gives the listed standard normal numbers, one tensor a call."""

    def __init__(self, *numbers: Tensor) -> None:
        self.numbers = list(numbers)

    def normal(
        self,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        return self.numbers.pop(0).to(dtype).reshape(tuple(shape))


def draw_law(
    operator: LinearOperator, mean: Tensor, std: float, y: Tensor, variance: Tensor
) -> tuple[Tensor, Tensor]:
    """The exact mean (n,) and covariance (n, n) of the conditional draw of one item."""
    n, m = mean.numel(), y.numel()
    z = torch.zeros(n + m + 1, n, dtype=torch.float64)
    e = torch.zeros(n + m + 1, m, dtype=torch.float64)
    z[:n], e[n : n + m] = eye(n), eye(m)
    batch = mean.expand(n + m + 1, *mean.shape[1:])
    draws = conditional_draw(batch, std, y, operator, variance, Listed(z, e)).flatten(1)
    columns = draws[:-1] - draws[-1]
    return draws[-1], columns.mT @ columns


@pytest.mark.parametrize(("r", "sigma"), [(0.3, 0.1), (0.1, 0.4), (2.0, 0.05)])
def test_the_mask_step_draws_the_posterior_of_a_grid(r: float, sigma: float) -> None:
    """One observed sample, one lost: brute force in one dimension each."""
    mean = torch.tensor([[[0.4, -0.7]]], dtype=torch.float64)
    y = torch.tensor([[[0.9, 0.0]]], dtype=torch.float64)
    mask = Mask(torch.tensor([[True, False]]))
    variance = torch.tensor(sigma**2, dtype=torch.float64)
    found, cov = draw_law(mask, mean, r, y, variance)
    x = torch.linspace(-20, 20, 200_001, dtype=torch.float64)
    for i, seen in enumerate((True, False)):
        log = -((x - mean[0, 0, i]) ** 2) / (2 * r**2)
        if seen:
            log = log - (y[0, 0, i] - x) ** 2 / (2 * sigma**2)
        weight = log.softmax(0)
        center = (weight * x).sum()
        torch.testing.assert_close(found[i], center)
        torch.testing.assert_close(cov[i, i], (weight * (x - center) ** 2).sum())
    assert float(cov[0, 1]) == 0


@pytest.mark.parametrize("kind", ["mask", "rotated", "dense"])
def test_the_conditional_draw_is_exact_for_linear_operators(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    shape, mask = (2, 3), torch.tensor([[True, False, True], [False, True, True]])
    operator: LinearOperator = Mask(mask)
    if kind == "rotated":
        operator = RotatedMask(mask, torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64))
    elif kind == "dense":
        operator = Dense(torch.randn(4, 6, generator=g, dtype=torch.float64), shape)
    a = matrix_of(operator, shape)
    mean = torch.randn(1, *shape, generator=g, dtype=torch.float64)
    y = operator(torch.randn(1, *shape, generator=g, dtype=torch.float64))
    variance = torch.rand(y.shape, generator=g, dtype=torch.float64) + 0.1
    found, cov = draw_law(operator, mean, 0.8, y, variance)
    weight = a.mT / variance.flatten()
    wanted = torch.linalg.inv(eye(6) / 0.64 + weight @ a)
    torch.testing.assert_close(cov, wanted)
    torch.testing.assert_close(found, wanted @ (mean.flatten() / 0.64 + weight @ y.flatten()))


def test_the_flow_reaches_the_end_of_the_exact_one() -> None:
    """For N(mu, c) it is mu + sqrt(c / (c + sigma^2)) (x - mu), x in variance-exploding units."""
    variances = torch.tensor([0.01, 0.3, 2.0, 9.0], dtype=torch.float64)
    prior = GaussianPrior(
        torch.full((1, 4), 0.5, dtype=torch.float64), torch.diag(variances), Schedule.linear()
    )
    t = 700
    x = torch.tensor([[[0.5, -1.0, 2.0, 1.0]]], dtype=torch.float64)
    sigma, alpha = float(prior.schedule.sigma(t)), float(prior.schedule.alpha(t))
    exact = 0.5 + (variances / (variances + sigma**2)).sqrt() * (x / alpha - 0.5)
    errors = [
        float((DAPS(ode_steps=n)._flow(prior, x, t) - exact).abs().max()) for n in (50, 100, 200)
    ]
    assert errors[0] > 1.6 * errors[1] > 1.6**2 * errors[2]  # Euler: half the step, half the error
    assert errors[2] < 0.03


def test_the_levels_of_a_flow() -> None:
    schedule = Schedule.linear()
    for t in (1, 2, 5, 6, 100, 1000):
        for steps in (1, 2, 5, 40):
            levels = _flow_levels(schedule, t, steps)
            assert len(levels) == steps
            assert levels[0] == t
            assert levels[-1] == 1 or steps == 1
            assert levels == sorted(levels, reverse=True)
            assert len(set(levels)) == min(steps, t)
    sigma = schedule.sigma(torch.tensor(_flow_levels(schedule, 1000, 5))) ** (1 / 7)
    torch.testing.assert_close(sigma.diff(), sigma.diff().mean().expand(4), rtol=0.02, atol=0)


def test_repeated_calls_change_nothing(stationary: GaussianPrior) -> None:
    x = stationary.sample(2, torch.Generator().manual_seed(1))
    wanted = DAPS(ode_steps=3)._flow(stationary, x, 3)
    assert torch.equal(DAPS(ode_steps=7)._flow(stationary, x, 3), wanted)


def test_cost_and_operators_with_another_output_shape(stationary: GaussianPrior) -> None:
    assert DAPS().nfe() == NFE(forward=250, vjp=0)
    assert DAPS(steps=9, ode_steps=2).nfe() == NFE(forward=18, vjp=0)
    matrix = torch.randn(3, 128, generator=torch.Generator().manual_seed(0))
    observation = Observation(torch.zeros(1, 3), Dense(matrix, (4, 32)), 0.1)
    check_sampler(DAPS(steps=3, ode_steps=2), stationary, observation, (2, 4, 32))


class Square(Operator):
    def __call__(self, x: Tensor) -> Tensor:
        return x**2


def test_refusals(stationary: GaussianPrior) -> None:
    observation = Observation(torch.ones(1, 4, 32), Square(), 0.1)
    with pytest.raises(OperatorError, match=r"Square.*MGPS"):
        DAPS()(stationary, observation, (1, 4, 32))
    for wrong in ({"ode_steps": 0}, {"variance": 0.0}, {"variance": "sigma"}, {"steps": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DAPS(**wrong)  # type: ignore[arg-type]
