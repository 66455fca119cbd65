"""Exact laws of samplers that are affine in their noise and data, as all gradient-free ones are
for a Gaussian prior."""

from collections.abc import Callable

import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior
from ecgdiff.operators import Operator

# From p data sets (n, p), zero where nothing is observed, to the means (n, p) and the covariance
# (n, n) of the draws.
Recursion = Callable[[Tensor], tuple[Tensor, Tensor]]


def denoiser_map(prior: GaussianPrior, t: int) -> tuple[Tensor, Tensor]:
    """J (n, n) and f (n, 1) of the denoiser D_t(x) = J x + f."""
    n = prior.mean.numel()
    points = torch.cat([torch.eye(n), torch.zeros(1, n)]).double().view(n + 1, *prior.shape)
    images = prior(points, t).flatten(1)
    return (images[:-1] - images[-1]).mT, images[-1:].mT


def matrix_of(operator: Operator, shape: tuple[int, int]) -> Tensor:
    """The matrix of a linear operator."""
    n = shape[0] * shape[1]
    return operator(torch.eye(n, dtype=torch.float64).view(n, *shape)).flatten(1).mT


def accuracy(
    recursion: Recursion, prior: GaussianPrior, mask: Tensor, sigma: float
) -> tuple[float, float]:
    """On lost samples: the error of the mean over all data that the prior gives, RMS, in standard
    deviations of the prior, and the ratio of variances to the posterior's."""
    seen, c, mu = mask.flatten(), prior.dense_covariance, prior.mean.reshape(-1, 1)
    a = torch.diag(seen.double())
    gram = a @ c @ a + sigma**2 * torch.eye(len(c), dtype=torch.float64)
    gain = torch.linalg.solve(gram, a @ c).mT
    deviations = a @ torch.linalg.cholesky(gram)
    y = torch.cat([a @ mu, a @ mu + deviations], 1)
    found, cov = recursion(y)
    error = found - mu - gain @ (y - a @ mu)
    error[:, 1:] -= error[:, :1]
    lost = ~seen
    rms = error[lost].square().sum(1).mean() / c.diagonal()[lost].mean()
    ratio = cov.diagonal()[lost].mean() / (c - gain @ a @ c).diagonal()[lost].mean()
    return float(rms.sqrt()), float(ratio)
