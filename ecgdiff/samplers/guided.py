r"""Guided denoisers: methods that replace :math:`E[x_0 | x_t]` by :math:`E[x_0 | x_t, y]`.

.. math::
    x_s = c_{lo}\, \hat x_{0|y}(x_t) + c_{hi}\, x_t + \tau z, \qquad
    (c_{lo}, c_{hi}, \tau) = \mathrm{bridge}(s | 0, t)

The ancestral chain is the same for all of them, and what `guide` returns is a denoiser like any
other: :func:`ecgdiff.diffusion.sampling.ddim` and :func:`~ecgdiff.diffusion.sampling.heun` run it
too.
"""

from abc import abstractmethod
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.grids import GridKind, time_grid
from ecgdiff.operators.base import Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers.base import Progress, Sampler

__all__ = ["GuidedDenoiser", "GuidedSampler", "capped", "linearize", "pullback"]


class GuidedDenoiser(Denoiser):
    """A denoiser that has seen an observation.

    Arguments:
        denoiser: The prior.
        observation: The measurement.
    """

    def __init__(self, denoiser: Denoiser, observation: Observation) -> None:
        self.schedule, self.covariance = denoiser.schedule, denoiser.covariance
        self.denoiser, self.observation = denoiser, observation

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The mean E[x_0 | x_t, y] at one level; see :class:`Denoiser`."""
        if not isinstance(t, int):
            raise ValueError("A guided denoiser takes one level at a time; give t as an integer.")
        return self.mean(x_t, t)

    @abstractmethod
    def mean(self, x_t: Tensor, t: int) -> Tensor:
        """The method's E[x_0 | x_t, y], shaped as `x_t` (batch, channels, time), at level t."""

    def predict(self, x_t: Tensor, t: int, generator: Generator) -> Tensor:
        """What an ancestral step takes for x_0: the mean here, a draw in calibrated methods.

        Arguments:
            x_t: The noisy signals, with shape (batch, channels, time).
            t: Their level.
            generator: The source of randomness.
        """
        return self.mean(x_t, t)


class GuidedSampler(Sampler):
    """An ancestral sampler around a guided denoiser; the last step returns what it predicts.

    Attributes:
        steps: The number of levels.
        grid: Their spacing, see :func:`ecgdiff.diffusion.grids.time_grid`.
        sigma_min: The lowest noise level of the "rho" and "log-snr" grids, in model units.
        sigma_max: Their highest noise level, in model units; the schedule's if None.
    """

    # Subclasses declare them as fields; limits that one does not declare are those of `time_grid`.
    steps: int
    grid: GridKind
    sigma_min: float = 0.02
    sigma_max: float | None = None

    @abstractmethod
    def guide(self, denoiser: Denoiser, observation: Observation) -> GuidedDenoiser:
        """The denoiser E[x_0 | x_t, y] of this method.

        Arguments:
            denoiser: The prior.
            observation: The measurement, with one item or as many as the batches to come.

        Raises:
            OperatorError: If the method needs something of them that is missing.
        """

    def levels(self, denoiser: Denoiser) -> list[int]:
        """The levels visited, from noisy to clean; 0 follows."""
        return time_grid(
            denoiser.schedule,
            self.steps,
            self.grid,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        schedule, y = denoiser.schedule, observation.y
        guided, times = self.guide(denoiser, observation), self.levels(denoiser)
        x = normal(shape, generator, y.dtype, y.device)
        for step, (t, s) in enumerate(pairwise([*times, 0])):
            c_lo, c_hi, std = schedule.bridge(s, 0, t)
            x = c_lo * guided.predict(x, t, generator) + c_hi * x
            if s > 0:
                x = x + std * normal(shape, generator, y.dtype, y.device)
            progress(step + 1, len(times))
        return x


def pullback(denoiser: Denoiser, x_t: Tensor, t: int) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    r"""The denoiser's mean, and products with its Jacobian by passes back through it.

    Arguments:
        denoiser: The prior.
        x_t: The noisy signals, with shape (batch, channels, time).
        t: Their level.

    Returns:
        The mean, and the map :math:`u \mapsto J^T u` of signals; each call is one vector-Jacobian
        product.
    """
    with torch.enable_grad():
        leaf = x_t.detach().requires_grad_()
        mean = denoiser(leaf, t)

    def product(u: Tensor) -> Tensor:
        return torch.autograd.grad(mean, leaf, u, retain_graph=True)[0]

    return mean.detach(), product


def linearize(
    denoiser: Denoiser, x_t: Tensor, t: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    r"""The denoiser's mean, and products with Tweedie's covariance by passes back through it.

    Arguments as in :func:`pullback`.

    Returns:
        The mean, and the map :math:`u \mapsto \Sigma u = (s^2 / \alpha) J^T u` of signals; each
        call is one vector-Jacobian product.
    """
    mean, product = pullback(denoiser, x_t, t)
    factor = float(denoiser.schedule.std(t)) ** 2 / float(denoiser.schedule.alpha(t))
    return mean, lambda u: factor * product(u)


def capped(shift: Tensor, r: Tensor, image: Tensor, variance: Tensor) -> Tensor:
    r"""The shift of each item, divided by its overshoot q where that exceeds one.

    The overshoot is :math:`q = r^T R^{-1} A \Delta / r^T R^{-1} r`. It is below one for the exact
    correction, whatever the noise R; without the weights it would not be.

    Arguments:
        shift: The shifts :math:`\Delta`, with shape (batch, channels, time).
        r: The residuals, with shape (batch, ...).
        image: The images A Delta, shaped as `r`.
        variance: The noise variances R, broadcastable to `r`.
    """
    size = (r**2 / variance).flatten(1).sum(1)
    q = (r * image / variance).flatten(1).sum(1) / torch.where(size > 0, size, 1.0)
    return shift / q.clamp(min=1.0)[:, None, None]
