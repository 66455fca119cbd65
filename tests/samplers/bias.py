"""How far a sampler's draws are from the posterior of a Gaussian prior, on lost samples.

Both give the RMS over observations of the error of the mean, in prior standard deviations, and the
ratio of the draws' standard deviation to the posterior's.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior
from ecgdiff.operators import Mask, Observation
from ecgdiff.random import Streams, normal
from ecgdiff.samplers import Sampler


class QuietFirst(Streams):
    """Zeros for the first items, one stream of noise for the others."""

    def __init__(self, quiet: int) -> None:
        self.quiet, self.generator = quiet, torch.Generator().manual_seed(5)

    def normal(
        self,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        z = normal(shape, self.generator, dtype, device)
        z[: self.quiet] = 0
        return z


def kalman(prior: GaussianPrior, mask: Tensor, sigma: float) -> tuple[Tensor, Tensor, Tensor]:
    """The covariance of y, the gain (n, m) and the posterior variances (n,)."""
    seen, cov = mask.flatten(), prior.dense_covariance
    g = cov[seen][:, seen] + sigma**2 * torch.eye(int(seen.sum()), dtype=torch.float64)
    gain = torch.linalg.solve(g, cov[seen]).mT
    return g, gain, (cov - gain @ cov[seen]).diagonal()


def affine_bias(
    sampler: Sampler, prior: GaussianPrior, mask: Tensor, sigma: float = 0.05, count: int = 300
) -> tuple[float, float]:
    """For samplers affine in y and their noise: the error is exact, the spread that of draws."""
    seen, mean = mask.flatten(), prior.mean.flatten()
    g, gain, posterior = kalman(prior, mask, sigma)
    m, n = len(g), len(seen)
    basis = torch.eye(n, dtype=torch.float64)[seen]
    y = torch.cat([basis, torch.zeros(1 + count, n, dtype=torch.float64)])
    shape = (len(y), *prior.shape)
    draws = sampler(
        prior, Observation(y.view(shape), Mask(mask), sigma), shape, generator=QuietFirst(m + 1)
    ).flatten(1)
    # Noise of zero gives the mean of the draws: its response to y, and its offset.
    found = (draws[:m] - draws[m]).mT
    wrong = (found - gain)[~seen]
    offset = (draws[m] + found @ mean[seen] - mean)[~seen]
    error = (wrong @ g @ wrong.mT).diagonal() + offset**2
    spread = draws[m + 1 :].var(0)[~seen].mean() / posterior[~seen].mean()
    return _scaled(error.mean(), prior, seen), float(spread.sqrt())


def paired_bias(
    sampler: Sampler, prior: GaussianPrior, mask: Tensor, sigma: float = 0.05, count: int = 150
) -> tuple[float, float]:
    """For any sampler: two draws for each of `count` observations."""
    seen, g = mask.flatten(), torch.Generator().manual_seed(3)
    x = prior.sample(count, g)
    y = (x + sigma * normal(x.shape, g, torch.float64)) * mask
    once = Observation(y, Mask(mask), sigma)
    mean = prior.posterior(once)[0]
    twice = Observation(torch.cat([y, y]), Mask(mask), sigma)
    draws = sampler(prior, twice, (2 * count, *prior.shape), generator=g)
    one, two = ((half - mean).flatten(1)[:, ~seen] for half in (draws[:count], draws[count:]))
    # Their noises are independent, so the product keeps the square of the bias alone.
    error = (one * two).mean().clamp(min=0)
    posterior = kalman(prior, mask, sigma)[2][~seen].mean()
    return _scaled(error, prior, seen), float(((one - two).square().mean() / 2 / posterior).sqrt())


def _scaled(square: Tensor, prior: GaussianPrior, seen: Tensor) -> float:
    return float((square / prior.dense_covariance.diagonal()[~seen].mean()).sqrt())
