"""Exact laws of samplers that are affine in their noise and data, as all gradient-free ones are
for a Gaussian prior."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior
from ecgdiff.operators import Observation, Operator
from ecgdiff.random import Streams
from ecgdiff.samplers import Sampler

# From p data sets (n, p), zero where nothing is observed, to the means (n, p) and the covariance
# (n, n) of the draws.
Recursion = Callable[[Tensor], tuple[Tensor, Tensor]]


class Basis(Streams):
    """Affine propagation: item i draws the i-th unit vector of all noise, the last item zeros."""

    def __init__(self, calls: int, n: int) -> None:
        self.calls, self.n, self.done = calls, n, 0

    def __len__(self) -> int:
        return self.calls * self.n + 1

    def normal(
        self,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        z = torch.zeros(len(self), self.n, dtype=dtype)
        z[self.done * self.n : (self.done + 1) * self.n] = torch.eye(self.n, dtype=dtype)
        self.done += 1
        return z.view(tuple(shape)).to(device)


def law(
    sampler: Sampler, prior: GaussianPrior, observation: Observation, calls: int
) -> tuple[Tensor, Tensor]:
    """The exact mean (n,) and covariance (n, n) of draws that take `calls` times n numbers."""
    noise = Basis(calls, prior.mean.numel())
    draws = sampler(prior, observation, (len(noise), *prior.shape), generator=noise).flatten(1)
    assert noise.done == calls
    columns = draws[:-1] - draws[-1]
    return draws[-1], columns.mT @ columns


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
