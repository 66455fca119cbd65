"""Every sampler against the posterior of a mixture of anisotropic Gaussians, half of it seen.

A Gaussian prior cannot tell a method that matches moments from one that chooses among modes. The
biases are stated, with what they were measured to be, as for the Gaussian of test_ecg_oracles.
"""

from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianMixturePrior, Schedule
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Mask, observe
from ecgdiff.operators.base import Observation
from ecgdiff.samplers import (
    CADPS,
    DAPS,
    DDNM,
    DING,
    DPS,
    MGDM,
    MGPS,
    MMPS,
    PGDM,
    SAMPLERS,
    Conditional,
    DiffPIR,
    REDdiff,
    Sampler,
    Surrogate,
)

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (2, 4)


class Bias(NamedTuple):
    """What a sampler does on the mixture.

    Arguments:
        sampler: The sampler.
        error: The root-mean-square error of the mean of its draws, in standard deviations of the
            prior.
        spread: The draws' standard deviation over the posterior's.
        reason: Why it is not exact.

    Both numbers are over the channel that was not observed, and of 1,000 other observations.
    """

    sampler: Sampler
    error: float
    spread: float
    reason: str


MERGES = "What is known of x_0 given x_t enters as one Gaussian, which merges the modes"
EXPECTED = {
    "cadps": Bias(CADPS(steps=32), 0.39, 1.48, f"{MERGES}, by the diagonal of its covariance."),
    "conditional": Bias(Conditional(inflation=1.0), 0.0, 1.0, "None, but the error of its steps."),
    "daps": Bias(
        DAPS(), 0.48, 1.92, "Lost samples receive isotropic noise, wide enough for all modes."
    ),
    "ddnm": Bias(
        DDNM(steps=100), 0.39, 1.37, "y reaches a lost sample only by the next denoising."
    ),
    "diffpir": Bias(
        DiffPIR(steps=100), 0.42, 1.52, "Its proximal step takes samples to be independent."
    ),
    "ding": Bias(DING(), 0.39, 1.44, "y reaches a lost sample only by the next denoising."),
    "dps": Bias(DPS(steps=100), 0.2, 1.01, "The likelihood neglects the spread of x_0 given x_t."),
    "mgdm": Bias(MGDM(steps=20, denoising_steps=5), 0.5, 1.66, "As DPS, at a lower level."),
    "mgps": Bias(
        MGPS(steps=20), 0.38, 1.31, "As DPS, at the midpoint, and its kernel is one Gaussian."
    ),
    "mmps": Bias(MMPS(steps=25), 0.39, 1.3, f"{MERGES}, and one iteration does not solve for it."),
    "pgdm": Bias(PGDM(steps=50), 0.36, 1.3, f"{MERGES}, by a multiple of the identity."),
    "reddiff": Bias(REDdiff(steps=100), 0.46, 0.65, "It looks for one point."),
}


def known() -> GaussianMixturePrior:
    """Four modes, each narrow in some directions and wide in others."""
    g = torch.Generator().manual_seed(5)
    means = 1.5 * torch.randn(4, 8, generator=g, dtype=torch.float64)
    basis = torch.linalg.qr(torch.randn(4, 8, 8, generator=g, dtype=torch.float64)).Q
    sizes = torch.logspace(-1.5, 0, 8, dtype=torch.float64)
    covariances = basis @ torch.diag(sizes) @ basis.mT
    weights = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)
    return GaussianMixturePrior(weights, means, covariances, Schedule.linear(), SHAPE)


def seen(prior: GaussianMixturePrior, count: int, seed: int) -> Observation:
    """The first channel of some signals of the prior, with noise."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0] = True
    return observe(Mask(mask), prior.sample(count, g), 0.2, g)


def moments(prior: GaussianMixturePrior, observation: Observation) -> tuple[Tensor, Tensor]:
    """Mean and variance of the second channel, exact, each (items, 4)."""
    each = []
    for i in range(len(observation.y)):
        exact = prior.posterior(replace(observation, y=observation.y[i : i + 1]))
        mean = exact.weights @ exact.means
        second = exact.covariances.diagonal(dim1=-2, dim2=-1) + exact.means**2
        each.append(torch.stack([mean, exact.weights @ second - mean**2]))
    mean, variance = torch.stack(each, 1)[:, :, SHAPE[1] :]
    return mean, variance


def measure(sampler: Sampler, count: int, seed: int, draws: int = 16) -> dict[str, float]:
    """Error and spread of the draws, each with its standard error over observations."""
    prior = known()
    observation = seen(prior, count, seed)
    mean, variance = moments(prior, observation)
    # The closed form of a mixture's conditional denoiser is for one observation.
    size = 1 if isinstance(sampler, Conditional) else count
    generator = torch.Generator().manual_seed(seed + 1)
    parts = [
        sampler(
            prior,
            replace(observation, y=y if size == 1 else y.repeat_interleave(draws, 0)),
            (size * draws, *SHAPE),
            generator=generator,
        )
        for y in observation.y.split(size)
    ]
    x = torch.cat(parts)[:, 1].reshape(count, draws, SHAPE[1])
    scale = prior.sample(100_000, torch.Generator().manual_seed(0))[:, 1].var(0).sum()
    # The mean of few draws has noise of its own, whose expected square is known.
    squared = ((x.mean(1) - mean) ** 2 - x.var(1) / draws).sum(1) / scale
    ratio = x.var(1).sum(1).mean() / variance.sum(1).mean()
    off = (x.var(1).sum(1) - ratio * variance.sum(1)) / variance.sum(1).mean()
    error, spread = squared.mean().clamp(min=0).sqrt(), ratio.sqrt()
    return {
        "error": float(error),
        "error_se": float(squared.std() / count**0.5 / (2 * error.clamp(min=0.02))),
        "spread": float(spread),
        "spread_se": float(off.std() / count**0.5 / (2 * spread)),
    }


def test_every_sampler_is_here_or_refuses() -> None:
    assert {name: type(bias.sampler) for name, bias in EXPECTED.items()} == {
        name: kind for name, kind in SAMPLERS.items() if kind is not Surrogate
    }
    with pytest.raises(OperatorError, match="covariance"):
        Surrogate()(known(), seen(known(), 1, 0), (1, *SHAPE))


def test_the_exact_moments_are_those_of_weighted_signals() -> None:
    prior = known()
    observation = seen(prior, 1, 7)
    x = prior.sample(400_000, torch.Generator().manual_seed(8))
    weights = observation.log_likelihood(x).softmax(0)
    assert 1 / float(weights.square().sum()) > 1000  # effective signals
    mean = torch.einsum("i,ij->j", weights, x[:, 1])
    variance = torch.einsum("i,ij->j", weights, (x[:, 1] - mean) ** 2)
    for found, wanted in zip(moments(prior, observation), (mean, variance), strict=True):
        torch.testing.assert_close(found[0], wanted, rtol=0, atol=0.1)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_bias_is_what_it_was_measured_to_be(name: str) -> None:
    expected = EXPECTED[name]
    found = measure(expected.sampler, 400, seed=3)
    for key in ("error", "spread"):
        # Five standard errors, and two of the table, of 1,000 observations.
        wanted, allowed = getattr(expected, key), 0.01 + 6 * found[f"{key}_se"]
        assert found[key] == pytest.approx(wanted, abs=allowed), expected.reason
        # A test that would pass an exact sampler as this one, or the reverse, tells nothing.
        assert allowed < (0.3 if key == "spread" else max(0.5 * wanted, 0.2))
