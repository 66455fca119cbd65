"""The recursion of the midpoint experiment against what shares no code with it: conditioning of
joint Gaussian laws, and the package's own sampler with fits that have converged."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.experiments.gaussian_midpoint import (
    VARIANTS,
    Problem,
    chain,
    midpoint,
    problem,
    published_grid,
    wasserstein,
)
from ecgdiff.operators import Dense, Observation
from ecgdiff.samplers import MGPS

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULE = Schedule.linear()


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def given(mean: Tensor, cov: Tensor, n: int) -> tuple[Tensor, Tensor, Tensor]:
    """F, f, P: the first n of jointly Gaussian numbers are N(F v + f, P) given the others, v."""
    gain = cov[:n, n:] @ torch.linalg.inv(cov[n:, n:])
    return gain, mean[:n] - gain @ mean[n:], cov[:n, :n] - gain @ cov[n:, :n]


def bridge(s: int, l: int, k: int) -> tuple[float, float, float]:
    """x_l = c_lo x_s + c_hi x_k + N(0, tau^2) for s <= l <= k, from the joint law given x_s."""
    a_s, a_l, a_k = (float(SCHEDULE.alpha_bar[level]) for level in (s, l, k))
    v_l, v_k = 1 - a_l / a_s, 1 - a_k / a_s
    cross = math.sqrt(a_k / a_l) * v_l
    c_hi = cross / v_k
    return math.sqrt(a_l / a_s) - c_hi * math.sqrt(a_k / a_s), c_hi, v_l - cross**2 / v_k


def joint(p: Problem, l: int, t: int) -> tuple[Tensor, Tensor]:
    """The law of (x_0, x_l, x_t, y), as published for the noising chain."""
    a_l, a_t, d = float(SCHEDULE.alpha_bar[l]), float(SCHEDULE.alpha_bar[t]), len(p.mean)
    rows = [eye(d), math.sqrt(a_l) * eye(d), math.sqrt(a_t) * eye(d), p.matrix]
    of_x0 = torch.cat(rows)
    noise = torch.zeros(len(of_x0), len(of_x0), dtype=torch.float64)
    noise[d : 2 * d, d : 2 * d] = (1 - a_l) * eye(d)
    noise[2 * d : 3 * d, 2 * d : 3 * d] = (1 - a_t) * eye(d)
    noise[d : 2 * d, 2 * d : 3 * d] = math.sqrt(a_t / a_l) * (1 - a_l) * eye(d)
    noise[2 * d : 3 * d, d : 2 * d] = noise[d : 2 * d, 2 * d : 3 * d]
    noise[3 * d :, 3 * d :] = p.sigma**2 * eye(len(p.y))
    return of_x0 @ p.mean, of_x0 @ torch.diag(p.values) @ of_x0.mT + noise


def part(law: tuple[Tensor, Tensor], *blocks: int, d: int) -> tuple[Tensor, Tensor]:
    """The law of some of (x_0, x_l, x_t, y), in this order."""
    index = torch.arange(len(law[0]))
    chosen = torch.cat([index[d * b : None if b == 3 else d * (b + 1)] for b in blocks])
    return law[0][chosen], law[1][chosen][:, chosen]


def at_midpoint(
    p: Problem, l: int, t: int, exact: tuple[bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """M, c, G of x_l = M x_t + c + N(0, G): the product of kernel and potential."""
    law, d = joint(p, l, t), len(p.mean)
    if exact == (True, True):
        f, shift, cov = given(*part(law, 1, 2, 3, d=d), d)
        return f[:, :d], shift + f[:, d:] @ p.y, cov
    slope, start, kernel = given(*part(law, 1, 2, d=d), d)
    if not exact[0]:
        jacobian, offset, _ = given(*part(law, 0, 2, d=d), d)
        c_lo, c_hi, tau2 = bridge(0, l, t)
        slope, start, kernel = c_lo * jacobian + c_hi * eye(d), c_lo * offset, tau2 * eye(d)
    a, b, noise = given(*part(law, 3, 1, d=d), len(p.y))
    if not exact[1]:
        jacobian, offset, _ = given(*part(law, 0, 1, d=d), d)
        a, b, noise = p.matrix @ jacobian, p.matrix @ offset, p.sigma**2 * eye(len(p.y))
    weight = a.mT @ torch.linalg.inv(noise)
    cov = torch.linalg.inv(torch.linalg.inv(kernel) + weight @ a)
    before = cov @ torch.linalg.inv(kernel)
    return before @ slope, before @ start + cov @ weight @ (p.y - b), cov


def law_of_draws(
    p: Problem,
    times: Sequence[int],
    level: Callable[[int, int], int],
    exact: tuple[bool, bool] = (False, False),
) -> tuple[Tensor, Tensor]:
    """What `chain` returns, by conditioning."""
    d = len(p.mean)
    mean, cov = torch.zeros_like(p.mean), eye(d)
    for t, below in pairwise(times):
        mid = level(t, below)
        m, c, g = at_midpoint(p, mid, t, exact)
        c_lo, c_hi, tau2 = bridge(mid, below, t)
        move = c_hi * eye(d) + c_lo * m
        mean = move @ mean + c_lo * c
        cov = move @ cov @ move.mT + c_lo**2 * g + tau2 * eye(d)
    jacobian, offset, _ = given(*part(joint(p, 1, times[-1]), 0, 2, d=d), d)
    return jacobian @ mean + offset, jacobian @ cov @ jacobian.mT


@pytest.mark.parametrize("eta", [0.3, 0.9])
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_recursion_is_conditioning(variant: str, eta: float) -> None:
    p, times = problem(1, d=6, m=3, sigma=0.3), published_grid(20)
    found = chain(p, SCHEDULE, times, midpoint(eta), VARIANTS[variant])
    wanted = law_of_draws(p, times, midpoint(eta), VARIANTS[variant])
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


def test_the_sampler_with_converged_fits_draws_from_the_recursion() -> None:
    """Coordinates of the eigenbasis are observed: the best fit is diagonal, as the sampler's."""
    values = torch.tensor([0.5, 1.0, 2.0, 4.0], dtype=torch.float64)
    mean = torch.tensor([0.5, -0.5, 1.0, 0.0], dtype=torch.float64)
    matrix = torch.diag(torch.tensor([1.0, 0.0, 0.7, 1.3], dtype=torch.float64))[[0, 2, 3]]
    y = torch.tensor([1.2, -0.4, 2.0], dtype=torch.float64)
    p = Problem(mean, values, matrix, y, 0.3)
    prior = GaussianPrior(mean.view(1, 4), torch.diag(values), SCHEDULE)
    count, steps = 2000, 12
    draws = MGPS(steps=steps, gradient_steps=40, lr=0.1)(
        prior,
        Observation(y[None], Dense(matrix, (1, 4)), 0.3),
        (count, 1, 4),
        generator=torch.Generator().manual_seed(1),
    ).flatten(1)
    times = time_grid(SCHEDULE, steps)
    law = chain(p, SCHEDULE, times, lambda t, below: max(1, below // 2))
    # Three standard errors, and the jitter of Adam's steps; three of a deviation are 0.05.
    error = (draws.mean(0) - law[0]).abs()
    assert bool((error < 3 * (law[1].diagonal() / count).sqrt() + 0.01).all())
    assert float((draws.std(0) / law[1].diagonal().sqrt() - 1).abs().max()) < 0.075
    found = draws.mean(0), torch.cov(draws.mT)
    off = wasserstein(*found, *law)
    assert off < 0.1
    # Neither other kernels and potentials nor another midpoint would pass.
    for wrong in (
        chain(p, SCHEDULE, times, lambda t, below: max(1, below // 2), (True, False)),
        chain(p, SCHEDULE, times, lambda t, below: max(1, below // 2), (False, True)),
        chain(p, SCHEDULE, times, lambda t, below: max(1, below * 4 // 5)),
    ):
        assert wasserstein(*found, *wrong) > 2 * off
