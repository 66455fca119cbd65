r"""Guided denoisers that need a prior in closed form: the exact one, and a counterexample.

*Oracle*: the denoiser of the exact posterior. An ancestral step takes its mean for x_0, and with
the spread also

.. math:: w \sim N(0, \mathrm{Cov}[x_0 | x_t, y]),

without which few steps draw too little; the step is then exact if the posterior is Gaussian.

*Diagonal, type II*: with the exact diagonal d of the covariance of x_0 given x_t, for a mask A,

.. math::
    \hat x_{0|y} = \hat x_0 + \mathrm{diag}(d) A^T (R + A\, \mathrm{diag}(d) A^T)^{-1}
        (y - A \hat x_0) .

CA-DPS has the same model in the solution but a product with the full covariance (a
pass back through the denoiser) in the place of d: *type I*. Here nothing moves lost coordinates.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ecgdiff.diffusion import Denoiser, GaussianMixturePrior
from ecgdiff.diffusion.grids import GridKind
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Mask, Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers.base import NFE
from ecgdiff.samplers.guided import GuidedDenoiser, GuidedSampler

__all__ = ["DiagonalTypeII", "Oracle"]


@dataclass(frozen=True)
class Oracle(GuidedSampler):
    """Creates the ancestral sampler of the exact posterior of a Gaussian mixture.

    Arguments:
        steps: The number of levels, at least 2.
        spread: Whether a step draws the conditional spread of x_0 too.
        grid: The spacing of the levels, see :func:`ecgdiff.diffusion.grids.time_grid`.
    """

    steps: int = 64
    spread: bool = False
    grid: GridKind = "rho"

    def nfe(self) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch."""
        return NFE(forward=self.steps, vjp=0)

    def guide(self, denoiser: Denoiser, observation: Observation) -> GuidedDenoiser:
        """The denoiser E[x_0 | x_t, y]; see :class:`ecgdiff.samplers.guided.GuidedSampler`."""
        posterior = _mixture(denoiser).posterior(observation)
        return _Exact(denoiser, observation, posterior, self.spread)


class _Exact(GuidedDenoiser):
    """The denoiser of the posterior."""

    def __init__(
        self,
        denoiser: Denoiser,
        observation: Observation,
        posterior: GaussianMixturePrior,
        spread: bool,
    ) -> None:
        super().__init__(denoiser, observation)
        self.posterior, self.spread = posterior, spread

    def mean(self, x_t: Tensor, t: int) -> Tensor:
        return self.posterior(x_t, t)

    def predict(self, x_t: Tensor, t: int, generator: Generator) -> Tensor:
        mean = self.mean(x_t, t)
        if not self.spread:
            return mean
        root = torch.linalg.cholesky(self.posterior.tweedie_covariance(x_t, t))
        z = normal(x_t.shape, generator, x_t.dtype, x_t.device)
        return mean + torch.einsum("bnm,bm->bn", root, z.flatten(1)).reshape(x_t.shape)


@dataclass(frozen=True)
class DiagonalTypeII(GuidedSampler):
    """Creates a sampler that takes the coordinates of x_0 given x_t to be independent.

    Arguments:
        steps: The number of levels, at least 2.
        grid: The spacing of the levels, see :func:`ecgdiff.diffusion.grids.time_grid`.
    """

    steps: int = 64
    grid: GridKind = "rho"

    def nfe(self) -> NFE:
        """The exact number of network calls, but for the diagonal, which is in closed form."""
        return NFE(forward=self.steps, vjp=0)

    def guide(self, denoiser: Denoiser, observation: Observation) -> GuidedDenoiser:
        """The denoiser E[x_0 | x_t, y]; see :class:`ecgdiff.samplers.guided.GuidedSampler`."""
        if not isinstance(observation.operator, Mask):
            raise OperatorError(
                f"DiagonalTypeII takes a Mask, got {type(observation.operator).__name__}."
            )
        return _Diagonal(denoiser, observation, _mixture(denoiser))


class _Diagonal(GuidedDenoiser):
    """The correction of each observed coordinate by itself."""

    def __init__(
        self, denoiser: Denoiser, observation: Observation, mixture: GaussianMixturePrior
    ) -> None:
        super().__init__(denoiser, observation)
        self.mixture = mixture

    def mean(self, x_t: Tensor, t: int) -> Tensor:
        x0 = self.mixture(x_t, t)
        d = self.mixture.tweedie_covariance(x_t, t).diagonal(dim1=1, dim2=2).reshape(x_t.shape)
        # The residual of a mask is zero where nothing was observed.
        return x0 + d / (self.observation.variance + d) * self.observation.residual(x0)


def _mixture(denoiser: Denoiser) -> GaussianMixturePrior:
    if not isinstance(denoiser, GaussianMixturePrior):
        raise OperatorError(
            f"This oracle needs a GaussianMixturePrior, got {type(denoiser).__name__}."
        )
    return denoiser
