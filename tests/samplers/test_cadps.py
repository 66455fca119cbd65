"""CA-DPS against its formula in dense matrices, its diagonals against the exact ones, and its bias
by exact affine propagation."""

import pytest
import torch
from ecg_like import accuracy, kronecker_mask, kronecker_prior, sampled_accuracy
from torch import Tensor

from ecgdiff.diffusion import Denoiser, GaussianPrior, Schedule, ddim
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
from ecgdiff.samplers import CADPS, MMPS, NFE
from ecgdiff.samplers.cadps import _difference, _Guided, _signs
from ecgdiff.samplers.guided import linearize
from ecgdiff.testing import CountingDenoiser

SCHEDULE = Schedule.linear()
SHAPE = (2, 6)
LEVELS = (5, 100, 400, 900)


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    b = randn(12, 12, seed=1)
    return GaussianPrior(randn(*SHAPE, seed=2), b @ b.mT / 12 + 0.1 * eye(12), SCHEDULE)


def operators() -> dict[str, LinearOperator]:
    mask = randn(1, *SHAPE, seed=3) > 0
    return {
        "mask": Mask(mask),
        "rotated": RotatedMask(mask, torch.linalg.qr(randn(2, 2, seed=4)).Q),
        "dense": Dense(randn(5, 12, seed=5), SHAPE),
    }


def tweedie(prior: GaussianPrior, t: int) -> Tensor:
    """The covariance of x_0 given x_t, by a factorization that the prior does not use."""
    level = float(prior.schedule.sigma(t)) ** 2
    c = prior.dense_covariance
    return c - c @ torch.linalg.solve(c + level * eye(len(c)), c)


def formula(
    prior: GaussianPrior, observation: Observation, x: Tensor, t: int, *, cap: bool
) -> Tensor:
    """CA-DPS with the exact diagonal and dense solves."""
    basis = eye(12).view(-1, *SHAPE)
    a = observation.operator(basis).flatten(1).mT
    noise = observation.variance.expand_as(observation.y).flatten()
    sigma, x0 = tweedie(prior, t), prior(x, t)
    r = observation.residual(x0).flatten(1)
    v = torch.linalg.solve(noise.diag() + a @ sigma.diagonal().diag() @ a.mT, r.mT)
    shift = (sigma @ a.mT @ v).mT
    q = (r * (shift @ a.mT) / noise).sum(1) / (r**2 / noise).sum(1)
    return x0 + (shift / q.clamp(min=1.0)[:, None] if cap else shift).view(x.shape)


@pytest.mark.parametrize("name", ["mask", "rotated", "dense"])
def test_it_is_the_formula_for_an_exact_diagonal(
    name: str, prior: GaussianPrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Combs with one tooth; the denoiser is affine, so central differences are exact."""
    monkeypatch.setattr("ecgdiff.samplers.cadps.RTOL", 1e-12)
    operator = operators()[name]
    shape = operator(torch.zeros(1, *SHAPE)).shape
    sigma = 0.05 + randn(*shape, seed=8).abs()
    observation = observe(operator, randn(1, *SHAPE, seed=6), sigma, torch.Generator())
    x = 3 * randn(20, *SHAPE, seed=9)
    overshot = 0
    for t in LEVELS:
        free, cut = (formula(prior, observation, x, t, cap=cap) for cap in (False, True))
        overshot += int((free - cut).abs().sum() > 0)
        for cap, wanted in ((False, free), (True, cut)):
            sampler = CADPS(probe="comb", spacing=6, channels=2, ceiling=1e9, cap=cap)
            found = sampler.guide(prior, observation)(x, t)
            torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8)
    assert overshot > 0


@pytest.mark.parametrize("name", ["mask", "dense"])
@pytest.mark.parametrize("probe", ["rademacher", "vjp"])
def test_for_a_white_prior_it_is_exact_and_so_is_mmps(name: str, probe: str) -> None:
    """One probe gives the diagonal of c I exactly; then PGDM for variance c is the same too."""
    operator, c = operators()[name], 0.7
    prior = GaussianPrior(randn(*SHAPE, seed=2), c * eye(12), SCHEDULE)
    observation = observe(operator, randn(1, *SHAPE, seed=6), 0.2, torch.Generator())
    matrix = operator(eye(12).view(-1, *SHAPE)).flatten(1).mT
    x = randn(3, *SHAPE, seed=7)
    guided = CADPS(probe=probe, probes=1).guide(prior, observation)  # type: ignore[arg-type]
    mmps = MMPS(iterations=12, spread=0.0).guide(prior, observation)
    for t in LEVELS[:3]:
        level = float(SCHEDULE.sigma(t)) ** 2
        variance, x0 = c * level / (c + level), prior(x, t)
        gram = 0.2**2 * eye(len(matrix)) + variance * matrix @ matrix.mT
        v = torch.linalg.solve(gram, observation.residual(x0).flatten(1).mT)
        pgdm = x0 + variance * (matrix.mT @ v).mT.view(x.shape)
        torch.testing.assert_close(mmps(x, t), pgdm, rtol=1e-9, atol=1e-9)
        tolerance = 1e-9 if name == "mask" else 1e-3
        torch.testing.assert_close(guided(x, t), pgdm, rtol=tolerance, atol=tolerance)


def test_vanishing_noise_reproduces_the_observation_of_a_white_prior() -> None:
    prior = GaussianPrior(torch.zeros(SHAPE), eye(12), SCHEDULE)
    operator = operators()["mask"]
    observation = observe(operator, randn(1, *SHAPE, seed=6), 1e-6, torch.Generator())
    guided = CADPS(probes=1).guide(prior, observation)
    for t in LEVELS:
        found = operator(guided(randn(2, *SHAPE, seed=7), t))
        torch.testing.assert_close(found, observation.y.expand_as(found), rtol=0, atol=1e-8)


def diagonals(sampler: CADPS, prior: Denoiser, x: Tensor, t: int) -> Tensor:
    """The sampler's estimates of the diagonal, not clipped, flattened."""
    guided = sampler.guide(prior, Observation(torch.zeros_like(x), Mask(torch.ones(SHAPE)), 0.1))
    assert isinstance(guided, _Guided)
    _, sigma = linearize(prior, x, t)
    random = torch.Generator().manual_seed(0)
    return guided._diagonal(x, sigma, lambda: _signs(x.shape, random, x)).flatten(1)


@pytest.mark.parametrize("probes", [1, 16])
def test_random_signs_are_unbiased_with_the_known_error(probes: int, prior: GaussianPrior) -> None:
    t, count = 400, 2000
    sigma = tweedie(prior, t)
    x = torch.zeros(count, *SHAPE, dtype=torch.float64)
    found = diagonals(CADPS(probes=probes), prior, x, t)
    wanted = sigma.diagonal()
    off = (sigma**2).sum(1) - wanted**2
    standard_error = (off / probes / count).sqrt()
    assert float(((found.mean(0) - wanted) / standard_error).abs().max()) < 4
    error = (found - wanted).square().sum(1).mean().sqrt()
    expected = (off.sum() / probes).sqrt()
    assert float(error / expected) == pytest.approx(1, abs=0.05)


def test_combs_neglect_what_is_between_their_teeth(prior: GaussianPrior) -> None:
    sigma, x = tweedie(prior, 400), torch.zeros(1, *SHAPE, dtype=torch.float64)
    found = diagonals(CADPS(probe="comb", spacing=2, channels=2), prior, x, 400)[0]
    index = torch.arange(12)
    same = (index[:, None] // 6 == index // 6) & ((index[:, None] - index) % 2 == 0)
    torch.testing.assert_close(found, (sigma * same).sum(1))


def test_differences_and_backward_passes_agree(prior: GaussianPrior) -> None:
    observation = observe(operators()["mask"], randn(1, *SHAPE, seed=6), 0.2, torch.Generator())
    x = randn(3, *SHAPE, seed=7)
    for t in LEVELS:
        found = [
            CADPS(probe=probe)  # type: ignore[arg-type]
            .guide(prior, observation)
            .predict(x, t, Streams([1, 2, 3]))
            for probe in ("rademacher", "vjp")
        ]
        torch.testing.assert_close(found[0], found[1], rtol=1e-8, atol=1e-8)


def test_the_best_difference_step_is_the_default_one() -> None:
    """In single precision short steps drown in rounding and long ones in curvature."""
    weights = randn(12, 12, seed=3) / 12**0.5

    class Squashed(Denoiser):
        schedule = SCHEDULE

        def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
            return torch.tanh(x_t.flatten(1) @ weights.to(x_t)).view(x_t.shape)

    t = SCHEDULE.index(0.3)
    x, v = randn(50, *SHAPE, seed=4), randn(50, *SHAPE, seed=5).sign()
    slope = (v.flatten(1) @ weights) * (1 - torch.tanh(x.flatten(1) @ weights) ** 2)
    exact = slope.view(x.shape) * float(SCHEDULE.std(t)) ** 2 / float(SCHEDULE.alpha(t))

    def error(h: float) -> float:
        found = _difference(Squashed(), x.float(), t, h, v.float())
        return float((found - exact).norm() / exact.norm())

    default = error(CADPS().h * 0.3)
    assert default < 1e-4
    assert min(error(1e-5), error(0.1)) > 5 * default
    assert error(1e-6) > 3 * error(1e-5)
    assert error(1.0) > 10 * error(0.1)


def test_variances_are_clipped(prior: GaussianPrior) -> None:
    x, t = torch.zeros(1, *SHAPE, dtype=torch.float64), 400
    observation = Observation(torch.zeros_like(x), Mask(torch.ones(SHAPE)), 0.1)
    guided = CADPS(probes=1, floor=0.05, ceiling=0.5).guide(prior, observation)
    assert isinstance(guided, _Guided)
    d = guided._variances(x, t, lambda u: u, lambda: _signs(x.shape, torch.Generator(), x))
    assert float(d.min()) == pytest.approx(0.05 * float(SCHEDULE.sigma(t)) ** 2)
    assert float(d.max()) == 0.5


def ideal(monkeypatch: pytest.MonkeyPatch, prior: GaussianPrior) -> None:
    """Puts the exact diagonal in the place of every estimate."""
    values, vectors = torch.linalg.eigh(prior.dense_covariance)

    def variances(self: object, x_t: Tensor, t: int, *_: object) -> Tensor:
        level = float(prior.schedule.sigma(t)) ** 2
        return (vectors**2 @ (values * level / (values + level))).view(x_t.shape[1:])

    monkeypatch.setattr(_Guided, "_variances", variances)


@pytest.mark.parametrize(
    ("name", "steps", "error", "spread", "observed"),
    [
        ("leads", 32, 0.094, 0.774, 3.25),
        ("leads", 128, 0.089, 0.836, None),
        ("block", 128, 0.251, 0.878, None),
    ],
)
def test_published_bias_of_the_exact_diagonal(
    name: str,
    steps: int,
    error: float,
    spread: float,
    observed: float | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the cap, which would not be affine."""
    prior = kronecker_prior(steps)
    ideal(monkeypatch, prior)
    found = accuracy(CADPS(steps=steps, cap=False), prior, kronecker_mask(name))
    assert found[:2] == pytest.approx((error, spread), abs=6e-4)  # the table has three digits
    if observed is not None:
        assert found[2] == pytest.approx(observed, abs=6e-3)


def errors(sampler: CADPS, prior: GaussianPrior, mask: Tensor, count: int) -> tuple[float, float]:
    """RMS error over y of one draw each, in posterior standard deviations: (observed, lost)."""
    x = prior.sample(count, torch.Generator().manual_seed(1))
    observation = observe(Mask(mask), x, 0.05, torch.Generator().manual_seed(2))
    draws = sampler(
        prior, observation, (count, *prior.shape), generator=torch.Generator().manual_seed(3)
    )
    seen, c = mask.flatten(), prior.dense_covariance
    g = c[seen][:, seen] + 0.05**2 * eye(int(seen.sum()))
    gain = torch.linalg.solve(g, c[seen]).mT
    std = (c - gain @ c[seen]).diagonal().sqrt()
    off = (draws.flatten(1) - observation.y.flatten(1)[:, seen] @ gain.mT) / std
    return float(off[:, seen].square().mean().sqrt()), float(off[:, ~seen].square().mean().sqrt())


@pytest.mark.parametrize(
    ("name", "observed", "lost"), [("leads", 0.93, None), ("block", 0.73, 1.12)]
)
def test_the_cap_keeps_few_steps_finite(
    name: str, observed: float, lost: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Published: errors of 1 are calibrated draws; a lost block diverges without the cap."""
    prior, mask = kronecker_prior(32), kronecker_mask(name)
    ideal(monkeypatch, prior)
    found = errors(CADPS(steps=32), prior, mask, 200)
    assert found[0] == pytest.approx(observed, abs=0.05)
    if lost is not None:
        assert found[1] == pytest.approx(lost, abs=0.08)
        assert errors(CADPS(steps=32, cap=False), prior, mask, 50)[0] > 1e3
    else:
        assert errors(CADPS(steps=32, cap=False), prior, mask, 50)[0] > 2


@pytest.mark.parametrize("name", ["leads", "block"])
def test_without_the_cap_estimated_diagonals_diverge(name: str) -> None:
    prior, mask = kronecker_prior(128), kronecker_mask(name)
    assert min(errors(CADPS(cap=False), prior, mask, 5)) > 1e6
    assert max(errors(CADPS(), prior, mask, 5)) < 2


@pytest.mark.parametrize(("name", "low", "high"), [("leads", 0.02, 0.07), ("block", 0.2, 0.3)])
def test_stated_bias_of_the_defaults(
    name: str, low: float, high: float, stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    error, lost, observed = sampled_accuracy(CADPS(), stationary, masks[name][0], 40)
    assert low < error < high
    assert 0.9 < lost < 1.1
    assert 0.55 < observed < 0.8


@pytest.mark.parametrize(
    "sampler",
    [
        CADPS(3),
        CADPS(3, "comb", spacing=4, channels=2),
        CADPS(3, "vjp", probes=2),
        CADPS(2, probes=7),
    ],
)
def test_cost_is_what_it_says(sampler: CADPS, prior: GaussianPrior) -> None:
    counted = CountingDenoiser(prior)
    observation = Observation(torch.zeros(1, *SHAPE), operators()["mask"], 0.1)
    sampler(counted, observation, (2, *SHAPE), generator=Streams([1, 2]))
    assert NFE(counted.forward, counted.vjp) == sampler.nfe()
    costs = {"rademacher": NFE(3 * 9, 3), "comb": NFE(3 * 17, 3), "vjp": NFE(3, 9)}
    if sampler.steps == 3:
        assert sampler.nfe() == costs[sampler.probe]


def test_without_a_generator_it_is_a_function(prior: GaussianPrior) -> None:
    """Fixed signs for each level, the same for all items: ODE solvers need that."""
    observation = observe(operators()["mask"], randn(1, *SHAPE, seed=6), 0.2, torch.Generator())
    guided, x = CADPS(probes=1).guide(prior, observation), randn(3, *SHAPE, seed=7)
    state = torch.get_rng_state()
    found = guided(x, 100)
    assert bool((torch.get_rng_state() == state).all())
    torch.testing.assert_close(guided(x, 100), found, rtol=0, atol=0)
    torch.testing.assert_close(guided(x[1:2], 100), found[1:2])
    other = guided.predict(x, 100, torch.Generator().manual_seed(0))
    assert float((other - found).abs().max()) > 1e-3
    draws = ddim(guided, (2, *SHAPE), grid=[900, 500, 100, 10], start=x[:2])
    assert bool(torch.isfinite(draws).all())
    with pytest.raises(ValueError, match="one level"):
        guided(x, torch.tensor([1, 2, 3]))


def test_refusals(prior: GaussianPrior) -> None:
    class Square(Operator):
        def __call__(self, x: Tensor) -> Tensor:
            return x**2

    observation = Observation(torch.zeros(1, *SHAPE), Square(), 0.1)
    with pytest.raises(OperatorError, match=r"CADPS.*linear operator, got Square.*MGPS"):
        CADPS()(prior, observation, (1, *SHAPE))
    observation = Observation(torch.zeros(1, 5), operators()["dense"], 0.1)
    with pytest.raises(OperatorError, match=r"Dense have 2; give channels=2"):
        CADPS(probe="comb")(prior, observation, (1, *SHAPE))
    for wrong in ("probe", "probes", "spacing", "channels", "h", "floor", "ceiling"):
        with pytest.raises(ValueError, match=wrong):
            CADPS(**{wrong: 0})  # type: ignore[arg-type]
