"""Our samplers against deepinv's: moment matching, PGDM, DPS and DiffPIR on one Gaussian problem.

deepinv's denoisers and guidance gradients are those of x = x_t / alpha at the level sigma = s /
alpha, as images (batch, 1, channels, time). Denoisers are called in float32, so agreement is to
float32. Its DPS and DiffPIR clip to [-1, 1]: their problem is small enough for that not to act.
"""

import inspect
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from gaussian_problem import (
    BATCH,
    LEVELS,
    OPERATORS,
    SHAPE,
    Case,
    Given,
    deviation,
    dps_step,
    gaussian_prior,
    library,
    make_case,
    states,
    two_levels,
    two_levels_at,
)
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule
from ecgdiff.samplers import MMPS, PGDM, DiffPIR

try:
    deepinv = library("deepinv")
except RuntimeError as error:
    if "torchvision::nms" not in str(error):
        raise
    # deepinv imports torchvision, whose wheels on PyPI are compiled for the GPU build of torch:
    # beside a CPU build their operators are missing, and two declarations of them stop the
    # import. Nothing here uses these operators, so that empty ones are enough.
    missing = torch.library.Library("torchvision", "FRAGMENT")
    for operator in ("nms", "qnms"):
        missing.define(f"{operator}(Tensor dets, Tensor scores, float threshold) -> Tensor")
    deepinv = library("deepinv")

SINGLE = 1e-6
SMALL = 2.0**-4  # of the problems that are clipped; exact in float32, like all noise here


class Wrapped(deepinv.models.Denoiser):
    """Our denoiser as deepinv's, for signals that are `scale` times ours plus `offset`.

    `calls` holds the states (over alpha) and levels it was asked for, `largest` what it returned.
    """

    def __init__(self, prior: GaussianPrior, offset: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.ours, self.offset, self.scale = prior, offset, scale
        self.calls: list[tuple[Tensor, int]] = []
        self.largest = 0.0

    def forward(self, x: Tensor, sigma: Tensor | float) -> Tensor:
        schedule = self.ours.schedule
        sigma = float(torch.as_tensor(sigma).flatten()[0]) / self.scale
        t = schedule.index(sigma)
        assert sigma == pytest.approx(float(schedule.sigma(t)), rel=1e-6)
        ours = (x.double().view(-1, *SHAPE) - self.offset) / self.scale
        mean = self.ours(schedule.alpha(t) * ours, t)
        self.largest = max(self.largest, float(mean.detach().abs().max()))
        self.calls.append((ours.detach(), t))
        return (self.scale * mean + self.offset).view(x.shape)


def image(x: Tensor) -> Tensor:
    """As deepinv shapes signals and full-size observations."""
    return x[:, None] if x.ndim == 3 else x


def make_physics(case: Case, sigma: float, scale: float = 1.0) -> Any:
    """The operator on signals that were multiplied by `scale`."""
    noise_model = deepinv.physics.GaussianNoise(sigma * scale)
    size = (1, *SHAPE)
    if case.observation.y.ndim == 3:
        mask = case.observation.operator.mask.double()
        return deepinv.physics.Inpainting(size, mask=mask, noise_model=noise_model)
    return deepinv.physics.LinearPhysics(
        A=lambda x, **_: x.flatten(1) @ case.matrix.mT.to(x),
        A_adjoint=lambda y, **_: (y @ case.matrix.to(y)).view(-1, *size),
        img_size=size,
        noise_model=noise_model,
        max_iter=50,
        tol=1e-12,
    )


def rounded_states(prior: GaussianPrior, t: int) -> Tensor:
    """Noisy signals of level t that float32 can hold when divided by alpha."""
    alpha = prior.schedule.alpha(t)
    return (states(prior, t) / alpha).float().double() * alpha


def restated(case: Case, prior: GaussianPrior, x: Tensor, t: int, factor: float) -> Case:
    """The case with each residual of the denoised signal multiplied."""
    clean = prior(x, t)
    image_of = case.observation.operator(clean)
    y = image_of + factor * case.observation.residual(clean)
    return Case(replace(case.observation, y=y), case.matrix)


def shift(fidelity: Any, case: Case, prior: GaussianPrior, x: Tensor, t: int) -> Tensor:
    """The move -sigma^2 grad of x_0 by deepinv's grad = -grad log p(y | x_t / alpha)."""
    fidelity.denoiser = Wrapped(prior)
    sigma, physics = prior.schedule.sigma(t), make_physics(case, 0.25)
    scaled = image(x / prior.schedule.alpha(t))
    found = fidelity.grad(scaled, image(case.observation.y), physics, sigma)
    return -(sigma**2) * found.detach().view(-1, *SHAPE)


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_moment_matching(iterations: int, name: str) -> None:
    """The shift after 1, 2 and 3 conjugate gradients, where 1e-8 is nothing: see the next test."""
    prior = gaussian_prior()
    matching = deepinv.sampling.MomentMatchingDataFidelity(cg_max_iter=iterations, cg_tol=0.0)
    for t in LEVELS:
        x = rounded_states(prior, t)
        case = restated(make_case(name), prior, x, t, 2.0**12)
        wanted = MMPS(iterations=iterations).guide(prior, case.observation)(x, t) - prior(x, t)
        assert deviation(shift(matching, case, prior, x, t), wanted) < SINGLE


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("factor", [1.0, 2.0**-18])
def test_its_conjugate_gradients_have_a_scale(name: str, factor: float) -> None:
    """deepinv adds 1e-8 to r^T G r, so its first iterate is short: of residuals of 1e-5 almost
    nothing is corrected."""
    prior, t = gaussian_prior(), 400
    matching = deepinv.sampling.MomentMatchingDataFidelity(cg_max_iter=1, cg_tol=0.0)
    x = rounded_states(prior, t)
    case = restated(make_case(name), prior, x, t, factor)
    wanted = MMPS(iterations=1).guide(prior, case.observation)(x, t) - prior(x, t)
    r = case.values(case.observation.residual(prior(x, t)))
    gram = case.matrix @ prior.tweedie_covariance(t) @ case.matrix.mT + case.variance.diag()
    curvature = ((r @ gram) * r).sum(1)
    part = curvature / (curvature + 1e-8)
    assert deviation(shift(matching, case, prior, x, t), part[:, None, None] * wanted) < SINGLE


@pytest.mark.parametrize("name", OPERATORS)
def test_pgdm(name: str) -> None:
    """Its r^2 = sigma^2 / (1 + sigma^2) is ours for a prior of variance 1, Bayes weight."""
    prior = gaussian_prior()
    pseudo = deepinv.sampling.PiGDMDataFidelity(cg_max_iter=10, cg_tol=0.0)
    for t in LEVELS:
        x = rounded_states(prior, t)
        case = restated(make_case(name), prior, x, t, 2.0**12)
        wanted = PGDM(variance=1.0).guide(prior, case.observation)(x, t) - prior(x, t)
        assert deviation(shift(pseudo, case, prior, x, t), wanted) < SINGLE


@pytest.mark.parametrize("name", OPERATORS)
def test_moment_matching_draws(name: str) -> None:
    """Eight ancestral steps from the same numbers."""
    sde = deepinv.sampling.VariancePreservingDiffusion()
    times = torch.linspace(1, 0, 9, dtype=torch.float64)
    prior = gaussian_prior(Schedule(sde.scale_t(times).flip(0) ** 2))
    case, x = make_case(name), rounded_states(prior, 8)
    solver = deepinv.sampling.DDPMSolver(times, rng=torch.Generator().manual_seed(0))
    model = deepinv.sampling.PosteriorDiffusion(
        deepinv.sampling.MomentMatchingDataFidelity(cg_max_iter=2, cg_tol=0.0),
        Wrapped(prior),
        sde,
        solver,
        minus_one_one=False,
    )
    y, physics = image(case.observation.y), make_physics(case, 0.25)
    theirs = model(y.expand(BATCH, *y.shape[1:]), physics, x_init=image(x)).view_as(x)
    again = torch.Generator().manual_seed(0)
    numbers = [torch.empty_like(x).normal_(generator=again) for _ in range(7)]
    ours = MMPS(steps=8, iterations=2, grid="uniform")
    draws = ours(prior, case.observation, x.shape, generator=Given(x, *numbers))
    assert deviation(theirs, draws) < SINGLE


def small(schedule: Schedule) -> GaussianPrior:
    """A prior that [-1, 1] does not cut."""
    return gaussian_prior(schedule, SMALL)


def full(value: float) -> Tensor:
    return torch.full((1, *SHAPE), value, dtype=torch.float64)


def steps_of(sde: Any, times: Tensor) -> list[tuple[float, float]]:
    """The signal fractions of each step."""
    scale = sde.scale_t(times)
    torch.testing.assert_close(
        scale * (1 + sde.sigma_t(times) ** 2).sqrt(), torch.ones_like(times)
    )
    return list(pairwise((scale**2).tolist()))


@pytest.mark.parametrize("guidance", ["norm", "annealed"])
@pytest.mark.parametrize("name", OPERATORS)
def test_dps_gradient(name: str, guidance: str) -> None:
    """alpha times ours, since it is that in x_t / alpha; "annealed" is the gradient of the
    square over 2 (sigma_y^2 + sigma_t^2), which we do not have."""
    case = make_case(name)
    fidelity = deepinv.sampling.DPSDataFidelity(guidance=guidance)
    for t in LEVELS:
        prior = gaussian_prior(two_levels_at(t))
        alpha, sigma = prior.schedule.alpha(2), prior.schedule.sigma(2)
        x = rounded_states(prior, 2)
        move = shift(fidelity, case, prior, x, 2) / (sigma**2 * alpha)
        if guidance == "annealed":
            norm = case.observation.residual(prior(x, 2)).flatten(1).norm(dim=1)
            move = move * ((0.25**2 + sigma**2) / norm)[:, None, None]
        ours, plain = (dps_step(prior, case.observation, x, 0 * x, zeta) for zeta in (1.0, 0.0))
        assert deviation(prior(move, 1) - prior(0 * move, 1), ours - plain) < SINGLE


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_dps_steps(name: str, centered: bool) -> None:
    """Its DDPM step is ours; its gradient is weighted as a likelihood's score and not as the
    paper's step: zeta = weight alpha_t alpha_s (sigma_t^2 - sigma_s^2), and half of that by
    default, where data in [0, 1] and a state in [-1, 1] are assumed."""
    weight, case = 3.0, make_case(name, sigma=SMALL / 4, scale=SMALL)
    half, offset = (0.5, 0.5) if centered else (1.0, 0.0)
    y = image(half * case.observation.y + case.observation.operator(full(offset)))
    generator, again = (torch.Generator().manual_seed(0) for _ in range(2))
    times = torch.linspace(1, 0, 9, dtype=torch.float64)
    sde = deepinv.sampling.VariancePreservingDiffusion()
    for i, (noisy, clean) in enumerate(steps_of(sde, times[:-1])):
        prior = small(two_levels(noisy, clean))
        schedule, wrapped = prior.schedule, Wrapped(prior, offset, half)
        model = deepinv.sampling.DPS(
            wrapped, weight=weight, num_steps=9, rng=generator, minus_one_one=centered
        )
        torch.testing.assert_close(model.solver.timesteps, times)
        x = rounded_states(prior, 2)
        physics = make_physics(case, SMALL / 4, half)
        theirs, _ = model.solver.step(
            model.posterior, times[i], times[i + 1], image(x), y=y, physics=physics
        )
        z = torch.empty_like(x).normal_(generator=again)
        spread = float(schedule.sigma(2) ** 2 - schedule.sigma(1) ** 2)
        zeta = half * weight * float(schedule.alpha(2) * schedule.alpha(1)) * spread
        ours, plain = (dps_step(prior, case.observation, x, z, size) for size in (zeta, 0.0))
        found = prior(theirs.view_as(x), 1)
        assert deviation(found, ours) < SINGLE
        assert deviation(found - plain, ours - plain) < SINGLE
        assert wrapped.largest < 1


def test_dps_steps_by_default_are_short() -> None:
    """From 5e-5 to 1e-2 for its weight and number of steps, where published ones are 0.3 to 1."""
    times = torch.linspace(1, 0, 1000, dtype=torch.float64)
    steps = torch.tensor(steps_of(deepinv.sampling.VariancePreservingDiffusion(), times)).double()
    noisy, clean = steps.mT
    zeta = 0.5 * (noisy * clean).sqrt() * (1 / noisy - 1 / clean)
    assert float(zeta.min()) == pytest.approx(5e-5, rel=0.15)
    assert float(zeta.max()) == pytest.approx(1e-2, rel=0.01)


@pytest.mark.parametrize("zeta", [0.0, 0.3])
@pytest.mark.parametrize("name", OPERATORS)
def test_diffpir_draws(name: str, zeta: float) -> None:
    """Its lambda is twice ours, since it takes the noise of data in [0, 1] and the levels of a
    state in [-1, 1]; and it returns the noisy state of the last level, where ours takes the
    proximal step once more."""
    case, steps, lam = make_case(name, sigma=SMALL / 2, scale=SMALL), 6, 7.0
    fidelity = deepinv.optim.data_fidelity.L2()
    model = deepinv.sampling.DiffPIR(None, fidelity, max_iter=steps, zeta=zeta, lambda_=lam)
    table = model.compute_alpha(model.betas, torch.arange(model.num_train_timesteps)).double()
    wrapped = Wrapped(small(Schedule(torch.cat([torch.ones(1).double(), table]))), 0.5, 0.5)
    model.model = wrapped
    y = image(0.5 * case.observation.y + case.observation.operator(full(0.5)))
    y = y.expand(BATCH, *y.shape[1:])
    physics, start = make_physics(case, SMALL / 2, 0.5), image(full(0.5).expand(BATCH, *SHAPE))
    torch.manual_seed(0)
    theirs = (2 * model(y, physics, x_init=start) - 1).view(BATCH, *SHAPE)
    torch.manual_seed(0)
    torch.randn_like(start)
    numbers = [torch.randn_like(start).view(BATCH, *SHAPE) for _ in range(steps - 1)]
    levels = [t for _, t in wrapped.calls]
    assert len(levels) == steps and wrapped.largest < 1
    schedule = Schedule(torch.cat([torch.ones(1).double(), table[[t - 1 for t in levels[::-1]]]]))
    prior, ours = small(schedule), DiffPIR(steps=steps, lam=lam / 2, zeta=zeta)
    x = wrapped.calls[0][0] * schedule.alpha(steps)
    draws = ours(prior, case.observation, x.shape, generator=Given(x, *numbers))
    found = ours.guide(prior, case.observation)(theirs, 1)
    assert deviation(found, draws) < SINGLE
    assert deviation(theirs, draws) > 1e-3


def test_its_defaults_are_those_described() -> None:
    """What these tests say of deepinv's defaults holds as long as its signatures stay."""

    def default(function: Any, name: str) -> Any:
        return inspect.signature(function).parameters[name].default

    sampling = deepinv.sampling
    for fidelity in (sampling.MomentMatchingDataFidelity, sampling.PiGDMDataFidelity):
        assert default(fidelity, "cg_max_iter") == 3
        assert default(fidelity, "cg_tol") == 1e-4
    assert default(sampling.DPSDataFidelity, "guidance") == "norm"
    assert default(sampling.DPS, "weight") == 1.0
    assert default(sampling.DPS, "solver") == "ddpm"
    assert default(sampling.DPS, "num_steps") == 1000
    assert default(sampling.PosteriorDiffusion, "minus_one_one") is True
    assert default(sampling.DiffPIR, "lambda_") == 7.0
