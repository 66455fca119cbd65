r"""Guided denoisers: methods that replace :math:`E[x_0 | x_t]` by :math:`E[x_0 | x_t, y]`.

.. math::
    x_s = c_{lo}\, \hat x_{0|y}(x_t) + c_{hi}\, x_t + \tau z, \qquad
    (c_{lo}, c_{hi}, \tau) = \mathrm{bridge}(s | 0, t)

The ancestral chain is the same for all of them, and what `guide` returns is a denoiser like any
other: :func:`ecgdiff.diffusion.sampling.ddim` and :func:`~ecgdiff.diffusion.sampling.heun` run it
too.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.operators.base import LinearOperator, Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers._grid import GridSampler
from ecgdiff.samplers.base import Progress
from ecgdiff.samplers.health import Call, overshoot

__all__ = ["GuidedDenoiser", "GuidedSampler", "ancestral", "linearize", "pullback", "shortened"]


class GuidedDenoiser(Denoiser):
    """A denoiser that has seen an observation.

    Arguments:
        denoiser: The prior.
        observation: The measurement.

    Attributes:
        calls: A list that is filled with what each call met (:mod:`ecgdiff.samplers.health`), or
            None, the default, to keep nothing.
    """

    calls: list[Call] | None = None

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

    def keep(self, t: int, r: Tensor, shift: Tensor) -> None:
        """Keeps the overshoot of a call, if calls are kept.

        Arguments:
            t: The level.
            r: The residual of the prior's mean.
            shift: What the method added to that mean.
        """
        if self.calls is not None:
            image = cast(LinearOperator, self.observation.operator)(shift)
            q = overshoot(r, image, self.observation.variance)
            self.calls.append(Call(float(self.schedule.sigma(t)), q))

    def predict(self, x_t: Tensor, t: int, generator: Generator) -> Tensor:
        """What an ancestral step takes for x_0: the mean here, a draw in calibrated methods.

        Arguments:
            x_t: The noisy signals, with shape (batch, channels, time).
            t: Their level.
            generator: The source of randomness.
        """
        return self.mean(x_t, t)


class GuidedSampler(GridSampler):
    """An ancestral sampler around a guided denoiser; the last step returns what it predicts."""

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
        return self._times(denoiser.schedule)

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        guided, times = self.guide(denoiser, observation), self.levels(denoiser)
        return ancestral(guided, times, shape, generator, progress)


def ancestral(
    guided: GuidedDenoiser,
    levels: Sequence[int],
    shape: tuple[int, int, int],
    generator: Generator = None,
    progress: Progress | None = None,
) -> Tensor:
    """Draws by the ancestral chain around a guided denoiser.

    Arguments:
        guided: The denoiser E[x_0 | x_t, y] or its calibrated draw.
        levels: The levels visited, from noisy to clean; 0 follows.
        shape: (batch, channels, time); the batch is that of the observation, if it has one.
        generator: The source of randomness.
        progress: Called after each step with the steps done and in all.

    Returns:
        The draws, with the dtype and device of the observation.
    """
    schedule, y = guided.schedule, guided.observation.y
    x = normal(shape, generator, y.dtype, y.device)
    for step, (t, s) in enumerate(pairwise([*levels, 0])):
        c_lo, c_hi, std = schedule.bridge(s, 0, t)
        x = c_lo * guided.predict(x, t, generator) + c_hi * x
        if s > 0:
            x = x + std * normal(shape, generator, y.dtype, y.device)
        if progress is not None:
            progress(step + 1, len(levels))
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


def shortened(shift: Tensor, q: Tensor) -> Tensor:
    """The shift of each item, divided by its overshoot where that exceeds one.

    Arguments:
        shift: The shifts, with shape (batch, channels, time).
        q: Their overshoots (:func:`ecgdiff.samplers.health.overshoot`), with shape (batch,).
    """
    return shift / q.clamp(min=1.0)[:, None, None]
