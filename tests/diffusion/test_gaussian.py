import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import (
    GaussianMixturePrior,
    GaussianPrior,
    LeadFrequencyCovariance,
    Schedule,
)
from ecgdiff.diffusion.denoiser import score_from_x0
from ecgdiff.operators import Dense, Mask, Observation, RotatedMask, observe

SCHEDULE = Schedule.linear()
SHAPE = (2, 4)
N = 8
TIMES = [1, 100, 500, 1000]


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=_generator(seed), dtype=torch.float64)


def _covariance(seed: int, n: int = N) -> Tensor:
    b = _normal(n, n, seed=seed)
    return b @ b.mT / n + 0.1 * torch.eye(n, dtype=torch.float64)


@pytest.fixture(params=["dense", "lead-frequency"])
def prior(request: pytest.FixtureRequest) -> GaussianPrior:
    mean = _normal(*SHAPE, seed=7)
    if request.param == "dense":
        return GaussianPrior(mean, _covariance(1), SCHEDULE)
    spectrum = torch.stack([_covariance(f, SHAPE[0]) for f in range(SHAPE[1])])
    covariance = LeadFrequencyCovariance(spectrum)
    return GaussianPrior.from_covariance(covariance, SCHEDULE, mean)


@pytest.fixture
def mixture() -> GaussianMixturePrior:
    covariances = torch.stack([_covariance(k) for k in range(3)])
    weights = torch.tensor([1.0, 2.0, 3.0])
    return GaussianMixturePrior(weights, 2 * _normal(3, N, seed=5), covariances, SCHEDULE, SHAPE)


def _jacobian(prior: GaussianPrior | GaussianMixturePrior, x: Tensor, t: int) -> Tensor:
    jacobian = torch.autograd.functional.jacobian(lambda v: prior(v, t), x)
    assert isinstance(jacobian, Tensor)
    return jacobian.reshape(N, N)


@pytest.mark.parametrize("t", TIMES)
def test_four_forms_of_the_tweedie_covariance_agree(prior: GaussianPrior, t: int) -> None:
    c, eye = prior.dense_covariance, torch.eye(N, dtype=torch.float64)
    a, v = float(SCHEDULE.alpha(t)), float(SCHEDULE.std(t)) ** 2
    sigma = prior.tweedie_covariance(t)
    marginal = a**2 * c + v * eye
    close = {"rtol": 0, "atol": 1e-10}
    torch.testing.assert_close(sigma, c - a**2 * c @ torch.linalg.solve(marginal, c), **close)
    torch.testing.assert_close(sigma, (c.inverse() + a**2 / v * eye).inverse(), **close)
    hessian = -marginal.inverse()
    torch.testing.assert_close(sigma, v / a**2 * (eye + v * hessian), rtol=0, atol=1e-8)
    jacobian = _jacobian(prior, _normal(1, *SHAPE), t)
    torch.testing.assert_close(sigma, v / a * jacobian, **close)
    torch.testing.assert_close(jacobian, a * c @ marginal.inverse(), **close)


@pytest.mark.parametrize("t", TIMES)
def test_gaussian_denoiser_is_the_formula_and_the_score(prior: GaussianPrior, t: int) -> None:
    x = _normal(3, *SHAPE).requires_grad_()
    c, mu = prior.dense_covariance, prior.mean.flatten()
    a, v = float(SCHEDULE.alpha(t)), float(SCHEDULE.std(t)) ** 2
    marginal = a**2 * c + v * torch.eye(N, dtype=torch.float64)
    x0 = prior(x, t)
    expected = mu + (x.flatten(1) - a * mu) @ (a * marginal.inverse() @ c)
    torch.testing.assert_close(x0.flatten(1), expected, rtol=0, atol=1e-10)
    density = torch.distributions.MultivariateNormal(a * mu, marginal).log_prob(x.flatten(1))
    torch.testing.assert_close(prior.log_density(x, t), density, rtol=0, atol=1e-9)
    (score,) = torch.autograd.grad(density.sum(), x)
    torch.testing.assert_close(score_from_x0(x, x0, t, SCHEDULE), score, rtol=1e-8, atol=1e-8)


def test_levels_per_item_and_the_clean_level(
    prior: GaussianPrior, mixture: GaussianMixturePrior
) -> None:
    x, t = _normal(3, *SHAPE), torch.tensor([1, 500, 1000])
    for p in (prior, mixture):
        one = torch.cat([p(x[i : i + 1], int(t[i])) for i in range(3)])
        torch.testing.assert_close(p(x, t), one, rtol=0, atol=1e-12)
        torch.testing.assert_close(p(x, 0), x, rtol=0, atol=1e-12)
        single = p(x.float(), 500)
        assert single.dtype == torch.float32
        torch.testing.assert_close(single.double(), p(x, 500), rtol=1e-4, atol=1e-4)


def test_singular_covariance_stays_at_its_mean() -> None:
    prior = GaussianPrior(torch.ones(SHAPE), torch.zeros(N, N), SCHEDULE)
    for t in (0, 500):
        assert torch.equal(prior(_normal(2, *SHAPE), t), torch.ones(2, *SHAPE).double())


def _observations() -> list[Observation]:
    x = _normal(1, *SHAPE, seed=3)
    mask = torch.tensor([[1, 1, 0, 1], [0, 0, 0, 1]])
    q = torch.linalg.qr(_normal(2, 2, seed=4))[0]
    sigma = torch.tensor([[0.1], [0.5]])
    return [
        observe(Mask(mask), x, 0.3, _generator()),
        observe(Mask(mask), x, sigma, _generator()),
        observe(RotatedMask(mask, q), x, 0.2, _generator()),
        observe(Dense(_normal(3, N, seed=2), SHAPE), x, 0.3, _generator()),
    ]


def _rows(observation: Observation) -> tuple[Tensor, Tensor, Tensor]:
    """The observed rows of A, y and R as dense algebra sees them."""
    basis = torch.eye(N, dtype=torch.float64).reshape(N, *SHAPE)
    a = observation.operator(basis).flatten(1).mT
    rows = a.abs().sum(1) > 0
    noise = observation.variance.expand(observation.y.shape).flatten()
    return a[rows], observation.y.flatten()[rows], noise[rows].diag()


@pytest.mark.parametrize("case", range(4))
def test_gaussian_posterior_is_dense_algebra(prior: GaussianPrior, case: int) -> None:
    observation = _observations()[case]
    a, y, r = _rows(observation)
    c, mu = prior.dense_covariance, prior.mean.flatten()
    precision = c.inverse() + a.mT @ r.inverse() @ a
    mean, covariance = prior.posterior(observation)
    assert mean.shape == (1, *SHAPE) and covariance.shape == (1, N, N)
    torch.testing.assert_close(covariance[0], precision.inverse(), rtol=0, atol=1e-10)
    expected = torch.linalg.solve(precision, c.inverse() @ mu + a.mT @ r.inverse() @ y)
    torch.testing.assert_close(mean.flatten(), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("t", TIMES)
@pytest.mark.parametrize("case", range(4))
def test_moment_matching_is_the_conditional_denoiser(
    prior: GaussianPrior, case: int, t: int
) -> None:
    """x0hat + S A^T (R + A S A^T)^-1 (y - A x0hat) = E[x0 | x_t, y] for a Gaussian prior."""
    observation = _observations()[case]
    a, y, r = _rows(observation)
    x = _normal(1, *SHAPE, seed=6)
    x0, s = prior(x, t).flatten(), prior.tweedie_covariance(t)
    expected = x0 + s @ a.mT @ torch.linalg.solve(r + a @ s @ a.mT, y - a @ x0)
    conditional = prior.condition(observation)(x, t)
    torch.testing.assert_close(conditional.flatten(), expected, rtol=0, atol=1e-9)


def test_posterior_serves_a_mask_per_item(prior: GaussianPrior) -> None:
    masks = torch.rand(3, *SHAPE, generator=_generator()) > 0.5
    observation = observe(Mask(masks), _normal(3, *SHAPE), 0.3, _generator())
    mean, covariance = prior.posterior(observation)
    for i in range(3):
        alone = Observation(observation.y[i : i + 1], Mask(masks[i]), 0.3)
        one_mean, one_covariance = prior.posterior(alone)
        torch.testing.assert_close(mean[i], one_mean[0], rtol=0, atol=1e-12)
        torch.testing.assert_close(covariance[i], one_covariance[0], rtol=0, atol=1e-12)
    x_t = _normal(3, *SHAPE, seed=7)
    together = prior.condition(observation)(x_t, 300)
    for i in range(3):
        alone = Observation(observation.y[i : i + 1], Mask(masks[i]), 0.3)
        torch.testing.assert_close(together[i], prior.condition(alone)(x_t[i : i + 1], 300)[0])


def test_prior_draws_have_the_prior_moments(
    prior: GaussianPrior, mixture: GaussianMixturePrior
) -> None:
    x = prior.sample(10_000, _generator()).flatten(1)
    torch.testing.assert_close(x.mean(0), prior.mean.flatten(), rtol=0, atol=0.08)
    torch.testing.assert_close(x.mT.cov(), prior.dense_covariance, rtol=0, atol=0.15)
    x = mixture.sample(10_000, _generator()).flatten(1)
    mean = mixture.weights @ mixture.means
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.15)


@pytest.mark.parametrize("t", TIMES)
def test_mixture_denoiser_is_the_score_of_its_density(
    mixture: GaussianMixturePrior, t: int
) -> None:
    a, v = float(SCHEDULE.alpha(t)), float(SCHEDULE.std(t)) ** 2
    x = (a * mixture.sample(4, _generator()) + v**0.5 * _normal(4, *SHAPE)).requires_grad_()
    marginals = torch.distributions.MultivariateNormal(
        a * mixture.means, a**2 * mixture.covariances + v * torch.eye(N, dtype=torch.float64)
    )
    log_p = (mixture.weights.log() + marginals.log_prob(x.flatten(1)[:, None])).logsumexp(1)
    torch.testing.assert_close(mixture.log_density(x, t), log_p, rtol=0, atol=1e-9)
    (score,) = torch.autograd.grad(log_p.sum(), x)
    expected = (x + v * score) / a
    torch.testing.assert_close(mixture(x, t), expected, rtol=1e-9, atol=1e-9)
    covariance = mixture.tweedie_covariance(x.detach(), t)
    jacobian = _jacobian(mixture, x[:1].detach(), t)
    torch.testing.assert_close(covariance[0], v / a * jacobian, rtol=0, atol=1e-9)


@pytest.mark.parametrize("case", range(4))
def test_mixture_posterior_is_bayes_rule(mixture: GaussianMixturePrior, case: int) -> None:
    """log p(x | y) - log p(x) - log p(y | x) is the same constant for every x."""
    observation = _observations()[case]
    posterior = mixture.posterior(observation)
    x = mixture.sample(20, _generator())
    evidence = observation.log_likelihood(x) + mixture.log_density(x, 0)
    constant = posterior.log_density(x, 0) - evidence
    torch.testing.assert_close(constant, constant[:1].expand(20), rtol=0, atol=1e-7)
    assert float(posterior.weights.sum()) == pytest.approx(1, abs=1e-12)


def test_mixture_of_one_is_the_gaussian() -> None:
    mean, covariance = _normal(*SHAPE), _covariance(0)
    one = GaussianMixturePrior(
        torch.ones(1), mean.reshape(1, N), covariance[None], SCHEDULE, SHAPE
    )
    prior = GaussianPrior(mean, covariance, SCHEDULE)
    x = _normal(3, *SHAPE, seed=1)
    torch.testing.assert_close(one(x, 300), prior(x, 300), rtol=0, atol=1e-11)
    observation = _observations()[0]
    posterior = one.posterior(observation)
    expected_mean, expected_covariance = prior.posterior(observation)
    torch.testing.assert_close(posterior.means, expected_mean.flatten(1))
    torch.testing.assert_close(posterior.covariances, expected_covariance)


def test_refusals_name_the_problem() -> None:
    eye = torch.eye(N)
    with pytest.raises(ValueError, match=r"give \(channels, time\)"):
        GaussianPrior(torch.zeros(N), eye, SCHEDULE)
    with pytest.raises(ValueError, match=r"needs \(8, 8\)"):
        GaussianPrior(torch.zeros(SHAPE), torch.eye(4), SCHEDULE)
    with pytest.raises(ValueError, match="negative eigenvalue"):
        GaussianPrior(torch.zeros(SHAPE), -eye, SCHEDULE)
    with pytest.raises(ValueError, match="symmetric"):
        GaussianPrior(torch.zeros(SHAPE), eye.triu() + eye.roll(1, 1).triu(), SCHEDULE)
    with pytest.raises(ValueError, match="the covariance is of"):
        GaussianPrior(torch.zeros(SHAPE), LeadFrequencyCovariance(torch.eye(2)[None]), SCHEDULE)
    with pytest.raises(ValueError, match="must be positive"):
        GaussianMixturePrior(torch.zeros(1), torch.zeros(1, N), eye[None], SCHEDULE, SHAPE)
    with pytest.raises(ValueError, match="do not agree"):
        GaussianMixturePrior(torch.ones(2), torch.zeros(1, N), eye[None], SCHEDULE, SHAPE)
