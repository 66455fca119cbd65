"""Our samplers against azula's: MMPS, DPS, PGDM and DiffPIR on one Gaussian problem.

azula writes x_t = alpha x + sigma z, so its sigma is our s and its times are here our levels. It
takes flat signals and the observed values only.
"""

import inspect
from itertools import pairwise
from typing import Any

import pytest
import torch
from gaussian_problem import (
    BATCH,
    LEVELS,
    OPERATORS,
    SCHEDULE,
    SHAPE,
    SIZE,
    Case,
    Given,
    deviation,
    dps_step,
    gaussian_prior,
    library,
    make_case,
    randn,
    states,
    two_levels_at,
)
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.samplers import DPS, MMPS, PGDM, DiffPIR

library("azula")
covariance, denoise = library("azula.linalg.covariance"), library("azula.denoise")
guidance, noise, sample = (
    library("azula.guidance"),
    library("azula.noise"),
    library("azula.sample"),
)

EXACT = 1e-8

# torch.func.jvp, by which azula applies A, makes torch warn of itself.
pytestmark = pytest.mark.filterwarnings(
    "ignore:.torch.jit.script. is deprecated:DeprecationWarning:torch.jit._script"
)


class Levels(noise.Schedule):
    """Our levels as azula's times, with or without the factor alpha."""

    def __init__(self, schedule: Schedule = SCHEDULE, exploding: bool = False) -> None:
        self.ours, self.exploding = schedule, exploding

    def __call__(self, t: Tensor) -> tuple[Tensor, Tensor]:
        if self.exploding:
            return torch.ones((), dtype=torch.float64), self.ours.sigma(t)
        return self.ours.alpha(t), self.ours.std(t)


class Wrapped(denoise.Denoiser):
    """Our denoiser as azula's, on flat signals."""

    def __init__(self, prior: GaussianPrior, exploding: bool = False) -> None:
        super().__init__()
        self.ours, self.schedule = prior, Levels(prior.schedule, exploding)

    def forward(self, x_t: Tensor, t: Tensor) -> Any:
        scale = self.ours.schedule.alpha(t) / self.schedule(t)[0]
        mean = self.ours((scale * x_t).view(-1, *SHAPE), int(t))
        return denoise.DiracPosterior(mean=mean.flatten(1))


def level(t: int) -> Tensor:
    return torch.tensor(t)


def forward_map(case: Case) -> Any:
    return lambda x: x @ case.matrix.mT


def mmps(prior: GaussianPrior, case: Case, exploding: bool = False, **settings: object) -> Any:
    cov_y = covariance.DiagonalCovariance(case.variance)
    wrapped = Wrapped(prior, exploding)
    return guidance.MMPSDenoiser(wrapped, case.y, forward_map(case), cov_y, **settings)


@pytest.mark.parametrize("kind", ["preserving", "exploding", "azula's own"])
@pytest.mark.parametrize("t", LEVELS)
def test_its_gaussian_denoiser_is_ours_at_the_same_sigma(kind: str, t: int) -> None:
    """Two closed forms, in three parametrizations of the same noise level s / alpha."""
    prior = gaussian_prior()
    values, vectors = torch.linalg.eigh(prior.dense_covariance)
    schedule: Any = Levels(exploding=kind == "exploding")
    time = level(t)
    if kind == "azula's own":  # its alpha^2 + sigma^2 is not 1
        schedule, time = noise.VPSchedule(), torch.tensor(t / 1000, dtype=torch.float64)
        alpha, s = schedule(time)
        assert float(alpha**2 + s**2 - 1) == pytest.approx(1e-6, rel=1e-6)
        fractions = torch.stack([torch.ones_like(alpha), alpha**2 / (alpha**2 + s**2)])
        prior, t = gaussian_prior(Schedule(fractions)), 1
    alpha, s = schedule(time)
    torch.testing.assert_close(s / alpha, prior.schedule.sigma(t))
    x = states(prior, t)
    full = covariance.FullCovariance(vectors, values)
    theirs = denoise.GaussianDenoiser(prior.mean.flatten(), full, schedule)
    total = (alpha**2 + s**2).sqrt()
    scale = 1 / prior.schedule.alpha(t) if kind == "exploding" else total
    mean = theirs((scale * x).flatten(1), time).mean
    assert deviation(mean.view_as(x), prior(x, t)) < EXACT


@pytest.mark.parametrize("exploding", [False, True])
@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_mmps(iterations: int, name: str, own: bool, exploding: bool) -> None:
    """The shift after 1, 2 and 3 conjugate gradients, with one noise and with one per value.

    Ours is divided by the overshoot q where that is above one, which is possible before the
    iterations converge and where values differ in their noise, and only there.
    """
    prior, case = gaussian_prior(), make_case(name, own=own)
    ours = MMPS(iterations=iterations).guide(prior, case.observation)
    theirs = mmps(prior, case, exploding, solver="cg", iterations=iterations)
    for t in LEVELS:
        x = states(prior, t)
        scale = 1 / prior.schedule.alpha(t) if exploding else 1.0
        shift = theirs((scale * x).flatten(1), level(t)).mean - prior(x, t).flatten(1)
        r, weight = case.y - prior(x, t).flatten(1) @ case.matrix.mT, 1 / case.variance
        q = (r * weight * (shift @ case.matrix.mT)).sum(1) / (r**2 * weight).sum(1)
        assert own or q.max() < 1
        found = (shift / q.clamp(min=1.0)[:, None]).view_as(x)
        assert deviation(found, ours(x, t) - prior(x, t)) < EXACT


@pytest.mark.parametrize("name", OPERATORS)
def test_mmps_by_default_is_a_shorter_step(name: str) -> None:
    """One GMRES iteration goes where one CG iteration goes, cos^2 of the way: the angle is that
    between the residual r and (R + A Sigma A^T) r."""
    prior, case = gaussian_prior(), make_case(name, own=True)
    ours = MMPS(iterations=1).guide(prior, case.observation)
    for t in LEVELS:
        x = states(prior, t)
        r = case.y - prior(x, t).flatten(1) @ case.matrix.mT
        gram = case.matrix @ prior.tweedie_covariance(t) @ case.matrix.mT + case.variance.diag()
        cosine = torch.nn.functional.cosine_similarity(r, r @ gram)
        found = mmps(prior, case)(x.flatten(1), level(t)).mean.view_as(x) - prior(x, t)
        wanted = cosine[:, None, None] ** 2 * (ours(x, t) - prior(x, t))
        assert cosine.min() < 0.99
        assert deviation(found, wanted) < EXACT


@pytest.mark.parametrize("solver", ["cg", "gmres"])
@pytest.mark.parametrize("name", OPERATORS)
def test_mmps_converged_is_exact_in_both(name: str, solver: str) -> None:
    prior, case = gaussian_prior(), make_case(name)
    exact, size = prior.condition(case.observation), len(case.matrix)
    ours = MMPS(iterations=size).guide(prior, case.observation)
    theirs = mmps(prior, case, solver=solver, iterations=size)
    for t in LEVELS:
        x = states(prior, t)
        wanted = exact(x, t) - prior(x, t)
        found = theirs(x.flatten(1), level(t)).mean.view_as(x) - prior(x, t)
        assert deviation(found, wanted) < EXACT
        assert deviation(ours(x, t) - prior(x, t), wanted) < EXACT


@pytest.mark.parametrize("name", OPERATORS)
def test_mmps_draws(name: str) -> None:
    """Twelve ancestral steps from the same numbers."""
    prior, case = gaussian_prior(), make_case(name)
    ours = MMPS(steps=12, iterations=2)
    torch.manual_seed(0)
    draws = ours(prior, case.observation, (BATCH, *SHAPE))
    torch.manual_seed(0)
    sampler = sample.DDPMSampler(mmps(prior, case, solver="cg", iterations=2))
    x = torch.randn(BATCH, SIZE, dtype=torch.float64)
    grid = [*ours.levels(prior), 0]
    for t, s in pairwise(grid):
        x = sampler.step(x, level(t), level(s))
    assert deviation(x.view_as(draws), draws) < EXACT


@pytest.mark.parametrize("name", OPERATORS)
def test_dps_draws_of_one_item(name: str) -> None:
    """The same length and direction; azula's last step, which ours leaves out, is not made."""
    prior, case = gaussian_prior(), make_case(name)
    torch.manual_seed(0)
    draws = DPS(steps=12, zeta=0.7)(prior, case.observation, (1, *SHAPE))
    torch.manual_seed(0)
    sampler = guidance.DPSSampler(Wrapped(prior), case.y, forward_map(case), zeta=0.7)
    x = torch.randn(1, SIZE, dtype=torch.float64)
    grid = time_grid(prior.schedule, 12)
    for t, s in pairwise(grid):
        x = sampler.step(x, level(t), level(s))
    assert deviation(prior(x.view_as(draws), grid[-1]), draws) < EXACT


@pytest.mark.parametrize("name", OPERATORS)
@pytest.mark.parametrize("t", LEVELS)
def test_dps_couples_the_items_of_a_batch_in_azula(name: str, t: int) -> None:
    """Its norm is that of the whole batch, so item i takes zeta |r_i| / |r| of ours."""
    prior, case = gaussian_prior(two_levels_at(t)), make_case(name)
    x = states(prior, 2)
    torch.manual_seed(0)
    sampler = guidance.DPSSampler(Wrapped(prior), case.y, forward_map(case), zeta=0.7)
    theirs = prior(sampler.step(x.flatten(1), level(2), level(1)).view_as(x), 1)
    torch.manual_seed(0)
    z = torch.randn(BATCH, *SHAPE, dtype=torch.float64)
    norms = case.observation.residual(prior(x, 2)).flatten(1).norm(dim=1)
    for i, norm in enumerate(norms):
        x_i, z_i = x[i : i + 1], z[i : i + 1]
        zeta = 0.7 * float(norm / norms.norm())
        ours, plain = (dps_step(prior, case.observation, x_i, z_i, size) for size in (zeta, 0.0))
        assert deviation(theirs[i : i + 1] - plain, ours - plain) < EXACT


def pgdm(prior: GaussianPrior, case: Case, inverse: Tensor) -> Any:
    def back(y: Tensor) -> Tensor:
        return y @ inverse.mT

    wrapped = Wrapped(prior)
    return guidance.PGDMSampler(wrapped, case.y, forward_map(case), back, eta=1.0)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_pgdm_draws_with_the_inverse_that_knows_the_noise(name: str, own: bool) -> None:
    """azula's is the released weight; it takes the inverse of A as given, so it can be given
    A^T (A A^T + R / s_t^2)^{-1}."""
    prior, case = gaussian_prior(), make_case(name, own=own)
    torch.manual_seed(0)
    ours = PGDM(steps=12, weight="released")
    draws = ours(prior, case.observation, (BATCH, *SHAPE))
    torch.manual_seed(0)
    x = torch.randn(BATCH, SIZE, dtype=torch.float64)
    a, grid = case.matrix, ours.levels(prior)
    for t, s in pairwise(grid):
        gram = a @ a.mT + (case.variance / prior.schedule.std(t) ** 2).diag()
        x = pgdm(prior, case, a.mT @ torch.linalg.inv(gram)).step(x, level(t), level(s))
    assert deviation(prior(x.view_as(draws), grid[-1]), draws) < EXACT


@pytest.mark.parametrize("t", LEVELS)
def test_pgdm_with_the_plain_inverse_neglects_the_noise(t: int) -> None:
    """For a mask its pull is (s_t^2 + sigma_y^2) / s_t^2 times ours."""
    prior, case = gaussian_prior(two_levels_at(t)), make_case("mask")
    x, ours = states(prior, 2), PGDM(steps=2, weight="released")
    torch.manual_seed(0)
    x_s = pgdm(prior, case, case.matrix.mT).step(x.flatten(1), level(2), level(1))
    theirs = prior(x_s.view_as(x), 1)
    torch.manual_seed(0)
    z = torch.randn(x.shape, dtype=torch.float64)
    nothing = make_case("mask", sigma=1e9).observation
    draws, plain = (
        ours(prior, observation, (BATCH, *SHAPE), generator=Given(x, z))
        for observation in (case.observation, nothing)
    )
    variance = float(prior.schedule.std(2)) ** 2
    wanted = (variance + 0.25**2) / variance * (draws - plain)
    assert deviation(theirs - plain, wanted) < EXACT


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("name", OPERATORS)
def test_diffpir(name: str, own: bool) -> None:
    """The same lambda; its solver needs an iteration per value, ours solves directly."""
    prior, case = gaussian_prior(), make_case(name, own=own)
    for lam in (0.5, 6.0):
        ours = DiffPIR(lam=lam).guide(prior, case.observation)
        theirs = guidance.DiffPIRDenoiser(
            Wrapped(prior),
            case.y,
            forward_map(case),
            case.variance,
            lmbda=lam,
            solver="cg",
            iterations=len(case.matrix),
        )
        for t in LEVELS:
            x = states(prior, t)
            found = theirs(x.flatten(1), level(t)).mean.view_as(x) - prior(x, t)
            assert deviation(found, ours(x, t) - prior(x, t)) < EXACT


def test_diffpir_by_default_solves_masks_alone() -> None:
    """One iteration is the whole solution where A A^T = I and the noise is the same everywhere."""
    for name, solved in (("mask", True), ("dense", False)):
        prior, case = gaussian_prior(), make_case(name)
        ours = DiffPIR(lam=10.0).guide(prior, case.observation)
        theirs = guidance.DiffPIRDenoiser(
            Wrapped(prior), case.y, forward_map(case), float(case.variance[0])
        )
        x = states(prior, 400)
        found = theirs(x.flatten(1), level(400)).mean.view_as(x) - prior(x, 400)
        wanted = ours(x, 400) - prior(x, 400)
        assert (deviation(found, wanted) < EXACT) == solved


def test_its_defaults_are_those_described() -> None:
    """What these tests say of azula's defaults holds as long as its signatures stay."""

    def defaults(function: Any) -> dict[str, object]:
        given = inspect.signature(function).parameters.values()
        return {p.name: p.default for p in given if p.default is not p.empty}

    assert defaults(guidance.MMPSDenoiser) == {"solver": "gmres", "iterations": 1}
    assert defaults(guidance.DiffPIRDenoiser) == {
        "lmbda": 10.0,
        "solver": "gmres",
        "iterations": 1,
    }
    assert defaults(guidance.DPSSampler) == {"zeta": 1.0}
    assert defaults(guidance.PGDMSampler) == {}
    assert defaults(sample.DDIMSampler) == {"eta": 0.0}


@pytest.mark.parametrize("name", OPERATORS)
def test_full_size_and_observed_values_are_one_problem(name: str) -> None:
    case, x = make_case(name, own=True), randn(1, *SHAPE, seed=0)
    residual = case.observation.residual(x)
    torch.testing.assert_close(case.values(residual), case.y - x.flatten(1) @ case.matrix.mT)
    torch.testing.assert_close((residual**2).sum(), (case.values(residual) ** 2).sum())
