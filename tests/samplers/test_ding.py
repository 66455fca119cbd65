"""DING against an affine recursion of its own, and against exact posteriors."""

import math
from itertools import pairwise
from typing import Literal

import pytest
import torch
from affine import accuracy, denoiser_map, matrix_of
from ecg_like import law
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Dense, Mask, Observation, Operator, RotatedMask, observe
from ecgdiff.samplers import DING, NFE
from ecgdiff.testing import CountingDenoiser


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def kernel_std(rule: str, schedule: Schedule, below: int, t: int) -> float:
    """The standard deviations s' as the rules write them."""
    a, v = float(schedule.alpha_bar[below]), 1 - float(schedule.alpha_bar[below])
    if rule == "square":
        return math.sqrt(v) * (1 - math.sqrt(a))
    if rule == "default":
        return math.sqrt(v) * math.sqrt(1 - math.sqrt(a))
    return schedule.bridge(below, 0, t).std


def recursion(
    sampler: DING, prior: GaussianPrior, a: Tensor, y: Tensor, noise: Tensor
) -> tuple[Tensor, Tensor]:
    """Means (n, p) and covariance of DING for data (m, p)."""
    schedule, n = prior.schedule, len(a.mT)
    times = time_grid(schedule, sampler.steps, sampler.grid)
    mean, cov = torch.zeros(n, y.shape[1], dtype=torch.float64), eye(n)
    for t, below in pairwise(times):
        abar_t, abar = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[below])
        alpha, s = math.sqrt(abar), math.sqrt(1 - abar)
        k = kernel_std(sampler.std, schedule, below, t)
        c_hi = math.sqrt((1 - abar - k**2) / (1 - abar_t))
        c_lo = alpha - c_hi * math.sqrt(abar_t)
        j, f = denoiser_map(prior, t)
        to_m, m0 = c_lo * j + c_hi * eye(n), c_lo * f
        if sampler.delayed:
            to_eps, eps0 = eye(n) - math.sqrt(abar_t) * j, -math.sqrt(abar_t) * f
            to_eps, eps0 = to_eps / math.sqrt(1 - abar_t), eps0 / math.sqrt(1 - abar_t)
            from_probe = torch.zeros_like(to_eps)
        else:
            j, f = denoiser_map(prior, below)
            from_probe = (eye(n) - alpha * j) / s
            to_eps, eps0 = from_probe @ to_m, from_probe @ m0 - alpha * f / s
        weight = a.mT / (abar * noise)
        g = torch.linalg.inv(eye(n) / k**2 + weight @ a)
        data = s * g @ weight @ a  # what a noise estimate moves
        move = g @ to_m / k**2 + data @ to_eps
        mean = move @ mean + g @ m0 / k**2 + data @ eps0 + alpha * g @ weight @ y
        cov = move @ cov @ move.mT + k**2 * data @ from_probe @ (data @ from_probe).mT + g
    j, f = denoiser_map(prior, times[-1])
    return j @ mean + f, j @ cov @ j.mT


@pytest.mark.parametrize("rule", ["square", "default", "ddpm"])
@pytest.mark.parametrize(
    ("kind", "delayed"),
    [("leads", False), ("block", False), ("rotated", False), ("leads", True), ("rotated", True)],
)
def test_draws_follow_the_recursion(
    kind: str,
    delayed: bool,
    rule: Literal["square", "default", "ddpm"],
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    operator: Operator = Mask(masks["block" if kind == "block" else "leads"])
    if kind == "rotated":
        rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0)))
        operator = RotatedMask(masks["leads"], rotation.Q.double())
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    sigma = torch.tensor([[0.05], [0.1], [0.2], [0.3]], dtype=torch.float64)
    observation = observe(operator, x, sigma, torch.Generator().manual_seed(2))
    sampler = DING(steps=3, std=rule, delayed=delayed)
    mean, cov = law(sampler, stationary, observation, calls=1 + 2 * (2 if delayed else 3))
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
        ("leads", DING(), 0.122, 0.872),
        ("block", DING(), 0.394, 1.347),
        ("leads", DING(delayed=True), 0.048, 0.853),
        ("block", DING(delayed=True), 0.290, 1.268),
    ],
)
def test_stated_bias(
    name: str,
    sampler: DING,
    bias: float,
    ratio: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """The data move lost samples only through the next denoising, by one noise estimate. Not
    sampled: the numbers are exact."""
    a = torch.diag(masks[name].flatten().double())
    noise = torch.full((128,), 0.05**2, dtype=torch.float64)
    found = accuracy(
        lambda y: recursion(sampler, stationary, a, y, noise), stationary, masks[name], 0.05
    )
    assert found == pytest.approx((bias, ratio), abs=2e-3)


@pytest.mark.parametrize("rule", ["square", "default", "ddpm"])
def test_kernels_keep_the_marginals(rule: Literal["square", "default", "ddpm"]) -> None:
    """s' = e tau with the bridge's coefficients of that e, from 1 upwards at high noise too."""
    schedule = Schedule.linear()
    shares = []
    for t, below in pairwise(time_grid(schedule, 28)):
        a_t, a = float(schedule.alpha_bar[t]), float(schedule.alpha_bar[below])
        c_lo, c_hi, std = DING(std=rule)._kernel(schedule, below, t)
        assert std == pytest.approx(kernel_std(rule, schedule, below, t))
        assert c_hi**2 * (1 - a_t) + std**2 == pytest.approx(1 - a)
        assert c_lo + c_hi * math.sqrt(a_t) == pytest.approx(math.sqrt(a))
        shares.append(std / schedule.bridge(below, 0, t).std)
    if rule != "ddpm":
        assert shares[0] > 1 > shares[-1]


def test_cost_is_what_it_says(stationary: GaussianPrior, masks: dict[str, Tensor]) -> None:
    assert DING().nfe() == NFE(forward=55, vjp=0)
    assert DING(delayed=True).nfe() == NFE(forward=28, vjp=0)
    observation = Observation(torch.zeros(1, 4, 32), Mask(masks["leads"]), 0.1)
    for delayed in (False, True):
        counted = CountingDenoiser(stationary)
        sampler = DING(steps=5, delayed=delayed)
        sampler(counted, observation, (2, 4, 32), generator=torch.Generator().manual_seed(0))
        assert NFE(counted.forward, counted.vjp) == sampler.nfe()


def test_refusals(stationary: GaussianPrior) -> None:
    observation = Observation(torch.zeros(1, 3), Dense(torch.ones(3, 128), (4, 32)), 0.1)
    with pytest.raises(OperatorError, match=r"Dense.*DAPS.*MGPS"):
        DING()(stationary, observation, (1, 4, 32))
    for wrong in ({"std": "none"}, {"steps": 1}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            DING(**wrong)  # type: ignore[arg-type]
