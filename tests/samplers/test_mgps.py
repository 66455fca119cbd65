"""MGPS against affine recursions of its own approximations, and its bias against exact
posteriors."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.operators import Dense, Mask, Observation, observe
from ecgdiff.samplers import MGPS, NFE
from ecgdiff.samplers.mgps import _Kernel
from ecgdiff.testing import CountingDenoiser

SCHEDULE = Schedule.linear()


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def affine_denoiser(mean: Tensor, cov: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The Tweedie covariance S, and J, f of D_k(x) = J x + f, of the prior N(mean, cov)."""
    a = float(SCHEDULE.alpha_bar[k])
    tweedie = torch.linalg.inv(a / (1 - a) * eye(len(mean)) + torch.linalg.inv(cov))
    return tweedie, math.sqrt(a) / (1 - a) * tweedie, tweedie @ torch.linalg.solve(cov, mean)


def chain(
    times: Sequence[int],
    level: Callable[[int, int], int],
    prior: tuple[Tensor, Tensor],
    data: tuple[Tensor, Tensor, float],
    *,
    exact: bool = False,
    mean_field: bool = False,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of MGPS on a Gaussian prior, its fits converged.

    `exact` puts the true backward kernel and potential in the place of DDPM's and DPS's;
    `mean_field` gives the fitted Gaussian the diagonal covariance that MGPS gives it.
    """
    matrix, y, sigma = data
    n = len(prior[0])
    mean, cov = torch.zeros(n, dtype=torch.float64), eye(n)
    for t, below in pairwise(times):
        mid = level(t, below)
        c_lo, c_hi, std = SCHEDULE.bridge(mid, 0, t)
        tweedie, jacobian, offset = affine_denoiser(*prior, t)
        kernel = std**2 * eye(n) + (c_lo**2 * tweedie if exact else 0)
        tweedie, at_mid, offset_mid = affine_denoiser(*prior, mid)
        a, b = matrix @ at_mid, matrix @ offset_mid
        noise = sigma**2 * eye(len(y)) + (matrix @ tweedie @ matrix.mT if exact else 0)
        weight = a.mT @ torch.linalg.inv(noise)
        kernel_inverse = torch.linalg.inv(kernel)
        precision = kernel_inverse + weight @ a
        slope = torch.linalg.solve(precision, kernel_inverse @ (c_hi * eye(n) + c_lo * jacobian))
        shift = torch.linalg.solve(precision, kernel_inverse @ (c_lo * offset) + weight @ (y - b))
        fitted = (
            torch.diag(1 / precision.diagonal()) if mean_field else torch.linalg.inv(precision)
        )
        down = SCHEDULE.bridge(below, mid, t)
        move = down.c_hi * eye(n) + down.c_lo * slope
        mean = move @ mean + down.c_lo * shift
        cov = move @ cov @ move.mT + down.c_lo**2 * fitted + down.std**2 * eye(n)
    _, jacobian, offset = affine_denoiser(*prior, times[-1])
    return jacobian @ mean + offset, jacobian @ cov @ jacobian.mT


def root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((cov + cov.mT) / 2)
    return (vectors * values.clamp(min=0).sqrt()) @ vectors.mT


def wasserstein(m1: Tensor, c1: Tensor, m2: Tensor, c2: Tensor) -> float:
    cross = root(root(c1) @ c2 @ root(c1))
    return math.sqrt(max(float((m1 - m2).square().sum() + (c1 + c2 - 2 * cross).trace()), 0.0))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Small problems are faster on one thread, much so on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("one_thread")
def test_the_recursion_reproduces_the_published_curve() -> None:
    """100 dimensions, 50 observations, K = 100: Wasserstein-2 against the midpoint."""
    g = torch.Generator().manual_seed(0)
    columns = torch.randn(100, 100, generator=g, dtype=torch.float64)
    columns = columns / columns.norm(dim=0)
    cov = columns @ columns.mT + eye(100)
    mean = torch.randn(100, generator=g, dtype=torch.float64)
    matrix = torch.randn(50, 100, generator=g, dtype=torch.float64)
    x = mean + torch.linalg.cholesky(cov) @ torch.randn(100, generator=g, dtype=torch.float64)
    y = matrix @ x + 0.1 * torch.randn(50, generator=g, dtype=torch.float64)
    gain = torch.linalg.solve(matrix @ cov @ matrix.mT + 0.01 * eye(50), matrix @ cov).mT
    posterior = mean + gain @ (y - matrix @ mean), cov - gain @ matrix @ cov
    times = [int(t) for t in torch.linspace(0, 999, 100, dtype=torch.float64)][:0:-1]

    def distance(eta: float, exact: bool = False) -> float:
        return wasserstein(
            *chain(
                times,
                lambda t, below: min(max(1, math.floor(eta * t)), below),
                (mean, cov),
                (matrix, y, 0.1),
                exact=exact,
            ),
            *posterior,
        )

    floors = [distance(eta, exact=True) for eta in (0.3, 0.7)]
    assert floors[0] == pytest.approx(0.235, rel=0.05)  # what the last D_{t_1} costs
    assert floors[1] == pytest.approx(floors[0], abs=1e-3)
    # Instances differ by up to a quarter.
    for eta, published in ((0.3, 1.15), (0.5, 0.487), (0.7, 1.03)):
        assert distance(eta) == pytest.approx(published, rel=0.25)
    assert distance(0.571) < min(distance(0.5), distance(0.7)) < distance(0.95)


@pytest.mark.parametrize("name", ["leads", "block"])
def test_many_gradient_steps_reach_the_recursion(name: str) -> None:
    k = torch.arange(4, dtype=torch.float64)
    time = 0.9 * torch.exp(-((k[:, None] - k) ** 2) / 8) + 0.1 * eye(4)
    channels = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    prior = GaussianPrior(torch.full((2, 4), 0.5), torch.kron(channels, time), SCHEDULE)
    mask = torch.ones(2, 4, dtype=torch.bool)
    if name == "leads":
        mask[1] = False
    else:
        mask[:, 1:3] = False
    y = torch.tensor([[1.2, -0.3, 0.8, 0.1], [1.0, -0.5, 0.4, 0.9]], dtype=torch.float64) * mask
    count, sampler = 1500, MGPS(steps=12, gradient_steps=30, lr=0.1)
    draws = sampler(
        prior,
        Observation(y[None], Mask(mask), 0.2),
        (count, 2, 4),
        generator=torch.Generator().manual_seed(1),
    ).flatten(1)
    seen = mask.flatten()
    mean, cov = chain(
        time_grid(SCHEDULE, 12),
        lambda t, below: max(1, below // 2),
        (prior.mean.flatten(), prior.dense_covariance),
        (eye(8)[seen], y.flatten()[seen], 0.2),
        mean_field=True,
    )
    # The mean to three standard errors and the fit's own jitter, 0.01 measured; the standard
    # deviations to 2 % sampling error (three are 5.5 %) and 2 % of fits that have not settled
    # after 30 steps of 0.1.
    error = (draws.mean(0) - mean).abs()
    assert bool((error < 3 * (cov.diagonal() / count).sqrt() + 0.01).all())
    ratio = (draws.var(0) / cov.diagonal()).sqrt()
    assert float((ratio - 1).abs().max()) < 0.075
    assert float((torch.cov(draws.mT) - cov).norm() / cov.norm()) < 0.12


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("name", "bias", "spread"), [("leads", 0.15, (0.7, 1.0)), ("block", 0.35, (0.7, 1.0))]
)
def test_stated_bias_of_the_defaults(
    name: str,
    bias: float,
    spread: tuple[float, float],
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """MGPS is biased even when converged: its kernel and potential are DDPM's and DPS's, and its
    fit is diagonal.

    On lost samples of an ECG-like Gaussian prior the mean is off by the stated part of the prior's
    standard deviation and the draws vary less than the posterior.
    """
    x = stationary.sample(1, torch.Generator().manual_seed(1))
    observation = observe(Mask(masks[name]), x, 0.05, torch.Generator().manual_seed(2))
    mean, cov = stationary.posterior(observation)
    lost = ~masks[name].flatten()
    count = 200
    draws = MGPS()(
        stationary, observation, (count, 4, 32), generator=torch.Generator().manual_seed(5)
    ).flatten(1)[:, lost]
    exact = cov[0].diagonal()[lost]
    error = (draws.mean(0) - mean.flatten()[lost]).square().mean() - exact.mean() / count
    assert float(error.clamp(min=0).sqrt()) < bias
    assert spread[0] < float((draws.var(0).mean() / exact.mean()).sqrt()) < spread[1]


@pytest.mark.parametrize("form", ["gaussian", "score"])
def test_gradients_are_those_of_the_divergence(form: str) -> None:
    """Exact for a Gaussian target, averaged over noise of zero mean and unit covariance."""
    g = torch.Generator().manual_seed(0)
    b = torch.randn(6, 6, generator=g, dtype=torch.float64)
    mean, cov = torch.randn(6, generator=g, dtype=torch.float64), b @ b.mT + eye(6)
    matrix, y = b[:3], torch.randn(3, generator=g, dtype=torch.float64)
    prior = GaussianPrior(mean.view(2, 3), cov, SCHEDULE)
    observation = Observation(y[None], Dense(matrix, (2, 3)), 0.3)
    x = torch.randn(6, generator=g, dtype=torch.float64)
    t, mid = 400, 150
    sampler = MGPS(form=form)  # type: ignore[arg-type]
    kernel = sampler._kernel(
        prior, x.view(1, 2, 3), prior(x.view(1, 2, 3), t), t, mid, first=False
    )

    a = float(SCHEDULE.alpha_bar[mid])
    _, jacobian, offset = affine_denoiser(mean, cov, mid)
    am, bm = matrix @ jacobian, matrix @ offset
    precision = am.mT @ am / 0.09 + eye(6) / kernel.variance
    linear = am.mT @ (y - bm) / 0.09 + kernel.mean.flatten() / kernel.variance
    if form == "score":
        marginal = torch.linalg.inv(a * cov + (1 - a) * eye(6))
        precision = precision + marginal
        linear = linear + marginal @ (math.sqrt(a) * mean)
        kap = float(SCHEDULE.alpha_bar[t]) / a
        assert kernel.variance == pytest.approx((1 - kap) / kap)

    mu = torch.randn(6, generator=g, dtype=torch.float64)
    std = torch.rand(6, generator=g, dtype=torch.float64) + 0.1
    z = math.sqrt(6) * torch.cat([eye(6), -eye(6)]).view(12, 2, 3)
    batch = (12, 2, 3)
    grad_mu, grad_rho = sampler._gradient(
        prior, observation, kernel, mid, mu.view(1, 2, 3).expand(batch),
        std.view(1, 2, 3).expand(batch), z,
    )  # fmt: skip
    torch.testing.assert_close(grad_mu.mean(0).flatten(), precision @ mu - linear)
    torch.testing.assert_close(grad_rho.mean(0).flatten(), precision.diagonal() * std**2 - 1)


def test_one_adam_step_moves_by_its_size() -> None:
    """From its start, whatever the gradient: lr model units, or lr kernel standard deviations."""
    prior = GaussianPrior(torch.zeros(1, 2), eye(2), SCHEDULE)
    observation = Observation(torch.full((1, 1, 2), 5.0).double(), Mask(torch.ones(1, 2)), 0.1)
    start = torch.zeros(1, 1, 2, dtype=torch.float64)
    for scale_free, wanted in ((False, 0.03), (True, 0.03 * 0.4)):
        sampler = MGPS(lr=0.03, scale_free=scale_free)
        noise = iter([torch.ones_like(start), torch.zeros_like(start)])
        w = sampler._fit(
            prior, observation, _Kernel(start, 0.16, start, 0.4), 50, 1, lambda n=noise: next(n)
        )
        torch.testing.assert_close(w, torch.full_like(w, wanted))


def faces(move: int, moves: int) -> int:
    """The published rule for faces at K = 300, in the paper's descending index i."""
    i = moves + 1 - move
    return 20 if i > 20 and (i >= 295 or i % 10 == 0) else 2


def test_published_numbers_of_gradient_steps() -> None:
    assert MGPS.ecg_leads().nfe() == NFE(forward=290 + 48 + 1, vjp=290)
    assert MGPS(steps=299, gradient_steps=faces).nfe().vjp == 1172
    assert MGPS.ecg_leads(std=0.3).lr == pytest.approx(0.1)
    assert not MGPS.ecg_leads().scale_free


@pytest.mark.parametrize("sampler", [MGPS.ecg_leads(), MGPS(5, gradient_steps=0), MGPS(2)])
def test_cost_is_what_it_says(sampler: MGPS) -> None:
    counted = CountingDenoiser(GaussianPrior(torch.zeros(1, 2), eye(2), SCHEDULE))
    sampler(counted, Observation(torch.zeros(1, 1, 2), Mask(torch.ones(1, 2)), 0.1), (2, 1, 2))
    assert NFE(counted.forward, counted.vjp) == sampler.nfe()


def test_midpoints_stay_between_one_and_the_target() -> None:
    assert [MGPS()._level(below) for below in (1, 2, 3, 500)] == [1, 1, 1, 250]
    assert [MGPS(midpoint=1.0)._level(below) for below in (1, 7)] == [1, 7]
    assert MGPS(midpoint=0.0)._level(80) == 1
    switch = MGPS(midpoint=lambda below: below + 5 if below <= 500 else 0)
    assert [switch._level(below) for below in (400, 600)] == [400, 1]


@pytest.mark.parametrize(
    "wrong",
    [{"steps": 1}, {"midpoint": 1.5}, {"gradient_steps": -1}, {"lr": 0.0}, {"form": "exact"}],
)
def test_refusals(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MGPS(**wrong)  # type: ignore[arg-type]
