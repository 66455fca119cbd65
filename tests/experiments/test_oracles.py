"""The oracle against Bayes' rule on the density of x_t, and its spread; type II by hand."""

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from ecgdiff.diffusion import GaussianMixturePrior, GaussianPrior, Schedule
from ecgdiff.errors import OperatorError
from ecgdiff.experiments.anisotropic import prior
from ecgdiff.experiments.oracles import DiagonalTypeII, Oracle
from ecgdiff.operators import Dense, Mask, Observation, observe

pytestmark = pytest.mark.usefixtures("one_thread")

SCHEDULE = Schedule.linear()
D, SIGMA = 5, 0.3


def seen() -> tuple[GaussianMixturePrior, Observation]:
    """A prior of 5 coordinates, of which the first and fourth are observed."""
    g = torch.Generator().manual_seed(0)
    known = prior(g, D, components=3, rank=2)
    mask = torch.tensor([[[True, False, False, True, False]]])
    return known, observe(Mask(mask), known.sample(1, g), SIGMA, g)


def log_likelihood(known: GaussianMixturePrior, y: Tensor, x: Tensor, t: int) -> Tensor:
    """log p(y | x_t), from the joint Gaussian of (x_t, y) of each component."""
    alpha, std = float(SCHEDULE.alpha(t)), float(SCHEDULE.std(t))
    rows = torch.eye(D, dtype=torch.float64)[[0, 3]]
    maps = torch.cat([alpha * torch.eye(D, dtype=torch.float64), rows])
    noise = torch.diag(torch.tensor([std**2] * D + [SIGMA**2] * 2, dtype=torch.float64))
    joint = MultivariateNormal(known.means @ maps.mT, maps @ known.covariances @ maps.mT + noise)
    both = torch.cat([x, y.expand(len(x), 2)], 1)
    log_joint = (known.weights.log() + joint.log_prob(both[:, None])).logsumexp(1)
    marginal = MultivariateNormal(
        alpha * known.means,
        alpha**2 * known.covariances + std**2 * torch.eye(D, dtype=torch.float64),
    )
    log_x = (known.weights.log() + marginal.log_prob(x[:, None])).logsumexp(1)
    return log_joint - log_x


@pytest.mark.parametrize("t", [5, 300, 900])
def test_the_oracle_is_tweedie_s_formula(t: int) -> None:
    known, observation = seen()
    alpha, std = float(SCHEDULE.alpha(t)), float(SCHEDULE.std(t))
    g = torch.Generator().manual_seed(1)
    x = alpha * known.sample(4, g).flatten(1) + std * torch.randn((4, D), generator=g).double()
    x.requires_grad_()
    y = observation.y[0, 0, [0, 3]]
    (pull,) = torch.autograd.grad(log_likelihood(known, y, x, t).sum(), x)
    x = x.detach()[:, None]
    wanted = known(x, t) + std**2 / alpha * pull[:, None]
    found = Oracle().guide(known, observation)(x, t)
    torch.testing.assert_close(found, wanted, rtol=1e-7, atol=1e-8)


def test_the_spread_makes_a_gaussian_posterior_exact_at_any_number_of_steps() -> None:
    mixture, observation = seen()
    known = GaussianMixturePrior(
        torch.ones(1), mixture.means[:1], mixture.covariances[:1], SCHEDULE, (1, D)
    )
    posterior = known.posterior(observation)
    count, ratios = 20_000, []
    for spread in (True, False):
        draws = Oracle(4, spread=spread)(
            known, observation, (count, 1, D), generator=torch.Generator().manual_seed(2)
        ).flatten(1)
        ratios.append(torch.cov(draws.mT).trace() / posterior.covariances[0].trace())
        if spread:
            error = draws.mean(0) - posterior.means[0]
            z = error / (posterior.covariances[0].diagonal() / count).sqrt()
            # The chain starts at N(0, I), not quite the law of x_T.
            assert float(z.abs().max()) < 5
            gap = (torch.cov(draws.mT) - posterior.covariances[0]).norm()
            assert float(gap / posterior.covariances[0].norm()) < 0.04
    assert float(ratios[0]) == pytest.approx(1, abs=0.03)
    assert float(ratios[1]) < 0.8  # what four steps draw without it


def test_the_spread_has_the_conditional_covariance() -> None:
    known, observation = seen()
    guided = Oracle(spread=True).guide(known, observation)
    x = known.sample(1, torch.Generator().manual_seed(3)).expand(20_000, 1, D)
    draws = guided.predict(x, 400, torch.Generator().manual_seed(4)).flatten(1)
    wanted = known.posterior(observation).tweedie_covariance(x[:1], 400)[0]
    assert float((torch.cov(draws.mT) - wanted).norm() / wanted.norm()) < 0.04
    torch.testing.assert_close(draws.mean(0), guided(x[:1], 400)[0, 0], rtol=0, atol=0.03)


def test_type_two_is_exact_for_independent_coordinates_only() -> None:
    known, observation = seen()
    diagonal = torch.diag(torch.tensor([0.5, 1.0, 2.0, 0.3, 1.0], dtype=torch.float64))
    for covariance, exact in ((diagonal, True), (known.covariances[0], False)):
        one = GaussianMixturePrior(
            torch.ones(1), known.means[:1], covariance[None], SCHEDULE, (1, D)
        )
        x = one.sample(3, torch.Generator().manual_seed(5))
        found = DiagonalTypeII().guide(one, observation)(x, 300)
        wanted = Oracle().guide(one, observation)(x, 300)
        assert torch.allclose(found, wanted, rtol=1e-9) is exact
        # What was not observed stays where the prior's denoiser puts it.
        torch.testing.assert_close(found[..., [1, 2, 4]], one(x, 300)[..., [1, 2, 4]])


def test_oracles_refuse_what_they_do_not_know() -> None:
    known, observation = seen()
    matrix = torch.ones((1, D), dtype=torch.float64)
    row = Observation(torch.ones((1, 1)).double(), Dense(matrix, (1, D)), SIGMA)
    with pytest.raises(OperatorError, match="takes a Mask, got Dense"):
        DiagonalTypeII().guide(known, row)
    gaussian = GaussianPrior(known.means[:1], known.covariances[0], SCHEDULE)
    with pytest.raises(OperatorError, match="needs a GaussianMixturePrior, got GaussianPrior"):
        Oracle().guide(gaussian, observation)
