"""MGPS against affine recursions of its own approximations, and its bias against exact
posteriors."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from affine import accuracy
from ecg_like import sampled_accuracy
from torch import Tensor

from ecgdiff.diffusion import GaussianMixturePrior, GaussianPrior, Schedule, time_grid
from ecgdiff.diffusion.denoiser import score_from_x0
from ecgdiff.operators import Dense, Mask, Observation
from ecgdiff.samplers import MGPS, NFE
from ecgdiff.samplers._fit import Kernel, Pull, clean_pull, gradient, guided_pull
from ecgdiff.samplers.mgps import _score_kernel
from ecgdiff.samplers.mgps_rules import GRADIENT_STEPS, MidpointSwitch, RisingRate
from ecgdiff.testing import CountingDenoiser, check_sampler

SCHEDULE = Schedule.linear()


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def affine_denoiser(mean: Tensor, cov: Tensor, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The Tweedie covariance S, and J, f of D_k(x) = J x + f, of the prior N(mean, cov)."""
    a = float(SCHEDULE.alpha_bar[k])
    tweedie = torch.linalg.inv(a / (1 - a) * eye(len(mean)) + torch.linalg.inv(cov))
    return tweedie, math.sqrt(a) / (1 - a) * tweedie, tweedie @ torch.linalg.solve(cov, mean)


def covariance_of(precision: Tensor, mean_field: bool) -> Tensor:
    """That of the Gaussian closest in MGPS's divergence, diagonal if `mean_field`."""
    return torch.diag(1 / precision.diagonal()) if mean_field else torch.linalg.inv(precision)


def second_target(
    prior: tuple[Tensor, Tensor], data: tuple[Tensor, Tensor, float], mid: int
) -> tuple[Tensor, Tensor, Tensor]:
    """G, c and the precision Q of p_1(x_1) g(x_1) q(x_l | x_1) = N(G x_l + c, Q^{-1})."""
    (mean, cov), (matrix, y, sigma) = prior, data
    a = float(SCHEDULE.alpha_bar[1])
    kap = float(SCHEDULE.alpha_bar[mid]) / a
    marginal = torch.linalg.inv(a * cov + (1 - a) * eye(len(mean)))
    weight = matrix.mT / sigma**2
    precision = marginal + kap / (1 - kap) * eye(len(mean)) + weight @ matrix
    gain = math.sqrt(kap) / (1 - kap) * torch.linalg.inv(precision)
    shift = torch.linalg.solve(precision, marginal @ (math.sqrt(a) * mean) + weight @ y)
    return gain, shift, precision


def chain(
    times: Sequence[int],
    level: Callable[[int, int], int],
    prior: tuple[Tensor, Tensor],
    data: tuple[Tensor, Tensor, float],
    *,
    exact: bool = False,
    mean_field: bool = False,
    warm: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of MGPS on a Gaussian prior, its fits converged.

    `exact` puts the true backward kernel and potential in the place of DDPM's and DPS's;
    `mean_field` gives the fitted Gaussians the diagonal covariance that MGPS gives them; moves
    from level `warm` up are two-stage. A prior's mean (n, 1) takes data (m, p) to p means (n, p).
    """
    matrix, y, sigma = data
    n = len(prior[0])
    mean, cov = torch.zeros_like(prior[0]), eye(n)
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
        fitted = covariance_of(precision, mean_field)
        if warm is not None and t >= warm and mid > 1:
            gain, offset, precision = second_target(prior, data, mid)
            slope, shift = gain @ slope, gain @ shift + offset
            fitted = gain @ fitted @ gain.mT + covariance_of(precision, mean_field)
            mid = 1
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


Distance = Callable[[int, float, bool], float]


@pytest.fixture(scope="module")
def published_toy() -> Distance:
    """100 dimensions, 50 observations: Wasserstein-2 for K, the midpoint and exact kernels."""
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

    def distance(k: int, eta: float, exact: bool) -> float:
        times = [int(t) for t in torch.linspace(0, 999, k, dtype=torch.float64)][:0:-1]
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

    return distance


@pytest.mark.usefixtures("one_thread")
def test_the_recursion_reproduces_the_published_curve(published_toy: Distance) -> None:
    """K = 100: against the midpoint."""
    floors = [published_toy(100, eta, True) for eta in (0.3, 0.7)]
    assert floors[0] == pytest.approx(0.235, rel=0.05)  # what the last D_{t_1} costs
    assert floors[1] == pytest.approx(floors[0], abs=1e-3)
    found = {eta: published_toy(100, eta, False) for eta in (0.3, 0.5, 0.571, 0.7, 0.95)}
    # Instances differ by up to a quarter.
    for eta, published in ((0.3, 1.15), (0.5, 0.487), (0.7, 1.03)):
        assert found[eta] == pytest.approx(published, rel=0.25)
    assert found[0.571] < min(found[0.5], found[0.7]) < found[0.95]


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_the_recursion_reproduces_the_published_curve_of_300(published_toy: Distance) -> None:
    """K = 300: the floor, and the minimum between 0.5 and 0.6, a tenth of what 0.95 gives."""
    assert published_toy(300, 0.5, True) == pytest.approx(0.076, rel=0.25)
    found = {eta: published_toy(300, eta, False) for eta in (0.476, 0.571, 0.619, 0.952)}
    for eta, published in ((0.476, 0.588), (0.571, 0.156), (0.619, 0.317), (0.952, 2.717)):
        assert found[eta] == pytest.approx(published, rel=0.25)
    assert found[0.952] > 10 * found[0.571]


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
def test_the_two_stage_recursion_is_exact_with_exact_kernels() -> None:
    """What is left is that g(x_1) stands for g(D_1(x_1)), and the last D_{t_1}."""
    mean, cov = torch.full((8,), 0.5, dtype=torch.float64), 0.5 * eye(8) + 0.5
    matrix, y = eye(8)[:3], torch.tensor([1.0, -0.5, 0.8], dtype=torch.float64)
    gain = torch.linalg.solve(matrix @ cov @ matrix.mT + 0.04 * eye(3), matrix @ cov).mT
    posterior = mean + gain @ (y - matrix @ mean), cov - gain @ matrix @ cov
    found = {
        warm: wasserstein(
            *chain(
                time_grid(SCHEDULE, 300),
                lambda t, below: max(1, below // 2),
                (mean, cov),
                (matrix, y, 0.2),
                exact=True,
                warm=warm,
            ),
            *posterior,
        )
        for warm in (None, 0)
    }
    assert found[0] == pytest.approx(found[None], abs=0.01)
    assert found[0] < 0.03


@pytest.mark.usefixtures("one_thread")
def test_long_second_fits_reach_their_target() -> None:
    """The Gaussian of precision Q with its off-diagonal left out, from a start 30 times too
    narrow."""
    g = torch.Generator().manual_seed(3)
    b = torch.randn(6, 6, generator=g, dtype=torch.float64)
    mean, cov = torch.randn(6, generator=g, dtype=torch.float64), (b @ b.mT + eye(6)) / 6
    matrix, y = eye(6)[:3], torch.randn(3, generator=g, dtype=torch.float64)
    prior = GaussianPrior(mean.view(2, 3), cov, SCHEDULE)
    mask = torch.tensor([[True], [False]]).expand(2, 3)
    observed = torch.cat([y, torch.zeros(3, dtype=torch.float64)]).view(1, 2, 3)
    w = torch.randn(6, generator=g, dtype=torch.float64)
    gain, shift, precision = second_target((mean, cov), (matrix, y, 0.3), 400)
    count = 4000
    draws = (
        MGPS()
        ._second(
            prior,
            Observation(observed, Mask(mask), 0.3),
            w.view(1, 2, 3).expand(count, 2, 3),
            400,
            steps=350,
            lr=0.02,
            noise=lambda: torch.randn((count, 2, 3), generator=g, dtype=torch.float64),
        )
        .flatten(1)
    )
    std = precision.diagonal().rsqrt()
    error = (draws.mean(0) - gain @ w - shift) / std
    # Three standard errors. Adam's own jitter widens the draws by 1-2 %.
    assert float(error.abs().max()) < 3.5 / math.sqrt(count)
    assert float((draws.std(0) / std - 1).abs().max()) < 0.06


@pytest.mark.usefixtures("one_thread")
def test_many_gradient_steps_reach_the_two_stage_recursion() -> None:
    """Two moves of two stages, then one of one stage, at midpoints where that matters."""
    k = torch.arange(3, dtype=torch.float64)
    time = 0.9 * torch.exp(-((k[:, None] - k) ** 2) / 8) + 0.1 * eye(3)
    channels = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    prior = GaussianPrior(torch.full((2, 3), 0.5), torch.kron(channels, time), SCHEDULE)
    mask = torch.tensor([[True, True, True], [False, True, False]])
    y = torch.tensor([[1.2, -0.3, 0.8], [0.0, -0.5, 0.0]], dtype=torch.float64)
    sampler = MGPS(steps=4, midpoint=0.9, gradient_steps=300, lr=0.02, warm=750)
    count = 1000
    draws = sampler(
        prior,
        Observation(y[None], Mask(mask), 0.3),
        (count, 2, 3),
        generator=torch.Generator().manual_seed(1),
    ).flatten(1)
    seen = mask.flatten()
    one, two = (
        chain(
            time_grid(SCHEDULE, 4),
            lambda t, below: math.floor(0.9 * below),
            (prior.mean.flatten(), prior.dense_covariance),
            (eye(6)[seen], y.flatten()[seen], 0.3),
            mean_field=True,
            warm=warm,
        )
        for warm in (None, 750)
    )
    # As for one stage: three standard errors, and what Adam's jitter adds.
    error = (draws.mean(0) - two[0]).abs()
    assert bool((error < 3 * (two[1].diagonal() / count).sqrt() + 0.01).all())
    ratio = (draws.var(0) / two[1].diagonal()).sqrt()
    assert float((ratio - 1).abs().max()) < 0.075
    # The test can tell the two apart.
    found = draws.mean(0), torch.cov(draws.mT)
    assert wasserstein(*one, *found) > 3 * wasserstein(*two, *found)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("sampler", "name", "error", "spread"),
    [
        (MGPS(), "leads", 0.21, 0.86),
        (MGPS(), "block", 0.26, 0.84),
        (MGPS(midpoint=0.35), "leads", 0.08, 0.81),
        (MGPS(midpoint=0.35), "block", 0.15, 0.94),
        (MGPS(warm=700), "leads", 0.22, 0.87),
        (MGPS(warm=700), "block", 0.26, 0.85),
        pytest.param(MGPS.ecg_block(std=0.236), "leads", 0.23, 0.83, marks=pytest.mark.slow),
        pytest.param(MGPS.ecg_block(std=0.236), "block", 0.25, 0.84, marks=pytest.mark.slow),
    ],
)
def test_stated_bias(
    sampler: MGPS,
    name: str,
    error: float,
    spread: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """On lost samples of an ECG-like Gaussian prior, RMS over records, in the prior's standard
    deviations. The values are those of 200 records, the bounds three standard errors of 50."""
    found, ratio, _ = sampled_accuracy(sampler, stationary, masks[name][0], count=50)
    found /= float(stationary.dense_covariance.diagonal()[~masks[name].flatten()].mean().sqrt())
    assert abs(found - error) < (0.03 if name == "leads" else 0.06)
    assert abs(ratio - spread) < (0.06 if name == "leads" else 0.1)


@pytest.mark.parametrize("warm", [None, 700])
@pytest.mark.parametrize(
    ("name", "error", "ratio"), [("leads", 0.062, 0.90), ("block", 0.117, 1.04)]
)
def test_stated_bias_of_converged_fits(
    name: str,
    error: float,
    ratio: float,
    warm: int | None,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """With the same grid and midpoints as the defaults, exactly; of variances, not deviations."""
    seen = masks[name].flatten()

    def converged(y: Tensor) -> tuple[Tensor, Tensor]:
        return chain(
            time_grid(SCHEDULE, MGPS().steps),
            lambda t, below: max(1, below // 2),
            (stationary.mean.reshape(-1, 1), stationary.dense_covariance),
            (eye(len(seen))[seen], y[seen], 0.05),
            mean_field=True,
            warm=warm,
        )

    found = accuracy(converged, stationary, masks[name], 0.05)
    assert found == pytest.approx((error, ratio), abs=5e-3)


def target_of(
    form: str,
    prior: GaussianPrior | GaussianMixturePrior,
    observation: Observation,
    x: Tensor,
    t: int,
    mid: int,
) -> tuple[Kernel, Pull]:
    """The kernel and pull of a fit; "second" is that of x_1 given x at level `mid`."""
    if form == "second":
        return _score_kernel(SCHEDULE, x, mid, 1, x, 1.0), clean_pull(prior, observation)
    sampler = MGPS(form=form)  # type: ignore[arg-type]
    kernel = sampler._kernel(prior, x, prior(x, t), t, mid, first=False)
    return kernel, guided_pull(prior, observation, mid, score=form == "score")


@pytest.mark.parametrize("form", ["gaussian", "score", "second"])
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
    kernel, pull = target_of(form, prior, observation, x.view(1, 2, 3), t, mid)

    if form == "second":
        gain, shift, precision = second_target((mean, cov), (matrix, y, 0.3), mid)
        linear = precision @ (gain @ x + shift)
    else:
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
    grad_mu, grad_rho = gradient(
        pull, kernel, mu.view(1, 2, 3).expand(batch), std.view(1, 2, 3).expand(batch), z
    )
    torch.testing.assert_close(grad_mu.mean(0).flatten(), precision @ mu - linear)
    torch.testing.assert_close(grad_rho.mean(0).flatten(), precision.diagonal() * std**2 - 1)


@pytest.mark.parametrize("form", ["gaussian", "score", "second"])
def test_gradients_are_those_of_the_printed_loss(form: str) -> None:
    """Against autograd, for a denoiser that is not affine and one draw of noise per item."""
    g = torch.Generator().manual_seed(1)

    def numbers(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    means, covs = 2 * numbers(2, 6), torch.stack([eye(6), 0.2 * eye(6)])
    prior = GaussianMixturePrior(torch.tensor([0.4, 0.6]), means, covs, SCHEDULE, (2, 3))
    mask = torch.tensor([[True, True, False], [False, True, False]])
    observation = Observation(numbers(1, 2, 3) * mask, Mask(mask), torch.tensor([[0.3], [0.5]]))
    t, mid = 400, 150
    x, mu, rho, z = numbers(4, 2, 3), numbers(4, 2, 3), 0.3 * numbers(4, 2, 3), numbers(4, 2, 3)
    kernel, pull = target_of(form, prior, observation, x, t, mid)
    found = gradient(pull, kernel, mu, rho.exp(), z)

    leaves = mu.clone().requires_grad_(), rho.clone().requires_grad_()
    w = leaves[0] + leaves[1].exp() * z
    level, above = (1, mid) if form == "second" else (mid, t)
    clean = w if form == "second" else prior(w, level)
    loss = -observation.log_likelihood(clean).sum() - leaves[1].sum()
    if form == "gaussian":
        c_lo, c_hi, s = SCHEDULE.bridge(mid, 0, t)
        m = c_lo * prior(x, t) + c_hi * x
        loss = loss + ((leaves[0] - m) ** 2 + (2 * leaves[1]).exp()).sum() / (2 * s**2)
    else:
        kap = float(SCHEDULE.alpha_bar[above] / SCHEDULE.alpha_bar[level])
        spread = (x - math.sqrt(kap) * leaves[0]) ** 2 + kap * (2 * leaves[1]).exp()
        score = score_from_x0(w, prior(w, level), level, SCHEDULE).detach()
        loss = loss + spread.sum() / (2 * (1 - kap)) - (w * score).sum()
    wanted = torch.autograd.grad(loss, leaves)
    torch.testing.assert_close(found, wanted)


def test_published_numbers_of_gradient_steps() -> None:
    assert MGPS.ecg_leads(1.0).nfe() == NFE(forward=290 + 48 + 1, vjp=290)
    assert MGPS.ecg_leads(std=0.3).lr == pytest.approx(0.1)
    assert not MGPS.ecg_leads(1.0).scale_free
    # 298 moves of (2 + M) calls, 90 of them two-stage with M more, and the first and last one;
    # the first kernel's call is the first one, and after the last move none is needed.
    images = MGPS.images()
    assert images.nfe() == NFE(forward=298 * 2 + 1172 + 432 + 2 - 2, vjp=1172)
    assert replace(images, warm=None).nfe() == NFE(forward=298 * 2 + 1172, vjp=1172)
    # Second fits: M again at every move, and their start.
    fits = 20 * 20 + 28 * 2
    assert MGPS.ecg_block(1.0).nfe() == NFE(forward=2 * fits + 48 + 2, vjp=fits)


@pytest.mark.parametrize(
    ("name", "k", "rule"),
    [
        ("ffhq", 300, lambda i, k: 2 if i <= 20 else 20 if i >= k - 5 or i % 10 == 0 else 2),
        (
            "ffhq-ldm",
            300,
            lambda i, k: 2 if i <= 10 else 20 if i >= k - 5 else 5 if i % 10 else 10,
        ),
        (
            "imagenet",
            300,
            lambda i, k: 2 if i <= 10 else 20 if i >= k - 5 else 2 if i % 20 else 10,
        ),
        ("mixture", 300, lambda i, k: 20 if i > 20 and (i >= k - 10 or i % 10 == 0) else 2),
        ("generic", 300, lambda i, k: 10 if i >= k - 10 else 2),
        ("ecg-leads", 50, lambda i, k: 10 if i >= k - 10 else 5),
        ("ecg-block", 50, lambda i, k: 20 if i >= k - 20 else 2),
        ("ecg-block", 30, lambda i, k: 20 if i > 20 else 2),  # the first that matches wins
    ],
)
def test_published_rules(name: str, k: int, rule: Callable[[int, int], int]) -> None:
    """As printed, for the descending index i = K - 1, ..., 2."""
    wanted = [rule(i, k) for i in range(k - 1, 1, -1)]
    assert [GRADIENT_STEPS[name](move, k - 2) for move in range(k - 2)] == wanted


def test_published_presets() -> None:
    assert MGPS.latent().nfe().vjp == sum(GRADIENT_STEPS["ffhq-ldm"](n, 298) for n in range(298))
    latent = MGPS.latent()
    assert [latent._level(999, below) for below in (1, 400, 500, 501)] == [1, 400, 500, 250]
    assert (latent.warm, latent.lr, latent.form) == (700, 0.03, "gaussian")
    mixture = MGPS.mixture(steps=99)
    assert (mixture.warm, mixture.lr, mixture.steps) == (None, 0.1, 99)
    # The block rule at both ends of 49 moves, from the formula's i = 49 and i = 2.
    rate = MGPS.ecg_block(std=0.5).second_lr
    assert callable(rate)
    times = time_grid(SCHEDULE, 49)
    for i, level in ((49, times[0]), (2, times[-2])):
        wanted = 1e-4 + 0.03 * (1 - math.exp(-0.0040172 * i))
        assert rate(level) == pytest.approx(2 * wanted, rel=0.02)
    assert RisingRate(999)(300) == pytest.approx(1e-4 + 0.03 * 0.7, rel=1e-3)


@pytest.mark.parametrize(
    "sampler",
    [
        MGPS.ecg_leads(1.0),
        MGPS.ecg_block(1.0, steps=9),
        MGPS.images(steps=9),
        MGPS(5, gradient_steps=0),
        MGPS(5, gradient_steps=0, warm=0),
        MGPS(2),
        MGPS(2, warm=0),
        MGPS(9, warm=700, grid="log-snr"),
        MGPS(9, warm=0, midpoint=0.0),
        MGPS(9, warm=400, form="score", midpoint=1.0),
        MGPS(9, warm=0, midpoint=lambda t, below: 1 if t > 700 else t // 2),
    ],
)
def test_cost_is_what_it_says(sampler: MGPS) -> None:
    counted = CountingDenoiser(GaussianPrior(torch.zeros(1, 2), eye(2), SCHEDULE))
    sampler(counted, Observation(torch.zeros(1, 1, 2), Mask(torch.ones(1, 2)), 0.1), (2, 1, 2))
    assert NFE(counted.forward, counted.vjp) == sampler.nfe()


@pytest.mark.parametrize("warm", [0, 4, 7, 12])
@pytest.mark.parametrize("form", ["gaussian", "score"])
def test_two_stages_on_a_schedule_of_few_levels(form: str, warm: int) -> None:
    """Down to level 1 itself, where neither a bridge nor a second fit is left."""
    schedule = Schedule.linear(12, 0.01, 0.5)
    counted = CountingDenoiser(GaussianPrior(torch.zeros(1, 2), eye(2), schedule))
    sampler = MGPS(12, form=form, warm=warm, gradient_steps=2)  # type: ignore[arg-type]
    observation = Observation(torch.zeros(1, 1, 2), Mask(torch.ones(1, 2)), 0.1)
    draws = sampler(counted, observation, (2, 1, 2))
    assert NFE(counted.forward, counted.vjp) == sampler.nfe(schedule)
    assert bool(torch.isfinite(draws).all())


@pytest.mark.parametrize("midpoint", [0.5, lambda t, below: t // 2])
@pytest.mark.parametrize("form", ["gaussian", "score"])
def test_without_gradient_steps_the_chain_is_bridges(
    form: str, midpoint: float | Callable[[int, int], int]
) -> None:
    """Algorithm 3 written out: what is bridged to what, from which level, in which order."""
    prior = GaussianPrior(torch.full((1, 3), 0.5), eye(3) + 0.5, SCHEDULE)
    observation = Observation(torch.ones(1, 1, 3, dtype=torch.float64), Mask(torch.ones(1, 3)), 1)
    settings = {"warm": 500, "gradient_steps": 0, "form": form, "midpoint": midpoint}
    sampler = MGPS(6, **settings)  # type: ignore[arg-type]
    found = sampler(prior, observation, (2, 1, 3), generator=torch.Generator().manual_seed(4))

    g = torch.Generator().manual_seed(4)

    def bridged(l: int, s: int, k: int, clean: Tensor, noisy: Tensor) -> Tensor:
        c_lo, c_hi, std = SCHEDULE.bridge(l, s, k)
        z = torch.randn((2, 1, 3), generator=g, dtype=torch.float64)
        return c_lo * clean + c_hi * noisy + std * z

    x = torch.randn((2, 1, 3), generator=g, dtype=torch.float64)
    times = time_grid(SCHEDULE, 6)
    seen, at = prior(x, times[0]), 0
    for t, below in pairwise(times):
        mid = (t if callable(midpoint) else below) // 2
        w = bridged(mid, at, t, seen, x)
        if t >= 500:
            seen, at = bridged(1, 0, mid, prior(w, mid), w), 1
            x = bridged(below, 1, t, seen, x)
        else:
            seen, at = prior(w, mid), 0
            x = bridged(below, mid, t, w, x)
    torch.testing.assert_close(found, prior(x, times[-1]))


def test_second_fits_have_a_step_size_of_their_own() -> None:
    levels: list[int] = []

    def rate(level: int) -> float:
        levels.append(level)
        return 0.05

    prior = GaussianPrior(torch.zeros(1, 3), eye(3) + 0.5, SCHEDULE)
    observation = Observation(torch.ones(1, 1, 3, dtype=torch.float64), Mask(torch.ones(1, 3)), 1)

    def draws(**settings: object) -> Tensor:
        sampler = MGPS(6, warm=500, lr=0.05, **settings)  # type: ignore[arg-type]
        return sampler(prior, observation, (1, 1, 3), generator=torch.Generator().manual_seed(4))

    assert torch.equal(draws(second_lr=rate), draws())
    assert levels == [t for t in time_grid(SCHEDULE, 6) if t >= 500]
    assert not torch.allclose(draws(second_lr=0.5), draws())


@pytest.mark.parametrize(
    "sampler",
    [
        MGPS(6, warm=500, gradient_steps=2),
        MGPS(6, warm=0, gradient_steps=2, form="score", second_lr=0.05),
        MGPS.ecg_block(1.0, steps=5),
        MGPS.latent(steps=5),
    ],
)
def test_two_stages_keep_the_contract(sampler: MGPS) -> None:
    """Draws repeat, and do not depend on their batch.

    In float64: at level 1 the score is a difference divided by 1e-4, so that in float32 it is
    good to 1e-3, and where it vanishes the sign that is Adam's first step is left to rounding.
    """
    prior = GaussianPrior(torch.zeros(2, 3), eye(6) + 0.5, SCHEDULE)
    mask = torch.tensor([[True, True, True], [False, True, False]])
    y = torch.ones(3, 2, 3, dtype=torch.float64) * mask
    sigma = torch.tensor([0.1, 0.2, 0.3])[:, None, None]
    items = [Observation(y[:1], Mask(mask), s[None]) for s in sigma]
    check_sampler(sampler, prior, Observation(y, Mask(mask), sigma), (3, 2, 3), items)


def test_midpoints_stay_between_one_and_the_target() -> None:
    assert [MGPS()._level(999, below) for below in (1, 2, 3, 500)] == [1, 1, 1, 250]
    assert [MGPS(midpoint=1.0)._level(999, below) for below in (1, 7)] == [1, 7]
    assert MGPS(midpoint=0.0)._level(999, 80) == 1
    switch = MGPS(midpoint=lambda t, below: below + 5 if t <= 500 else 0)
    assert [switch._level(t, 400) for t in (500, 501)] == [400, 1]
    with pytest.raises(ValueError, match="fraction"):
        MidpointSwitch(1.5)


def test_a_warm_start_above_the_schedule_is_refused() -> None:
    """It would never begin."""
    prior = GaussianPrior(torch.zeros(1, 2), eye(2), Schedule.linear(12, 0.01, 0.5))
    observation = Observation(torch.zeros(1, 1, 2), Mask(torch.ones(1, 2)), 0.1)
    with pytest.raises(ValueError, match=r"warm is level 13.*has 12.*None"):
        MGPS(12, warm=13)(prior, observation, (1, 1, 2))
    with pytest.raises(ValueError, match="warm is level 700"):
        MGPS.images(steps=9).nfe(prior.schedule)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 1},
        {"midpoint": 1.5},
        {"gradient_steps": -1},
        {"lr": 0.0},
        {"form": "exact"},
        {"warm": -1},
        {"second_lr": 0.0},
    ],
)
def test_refusals(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MGPS(**wrong)  # type: ignore[arg-type]
