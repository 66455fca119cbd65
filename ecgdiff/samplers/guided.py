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

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.errors import OperatorError
from ecgdiff.operators.base import LinearOperator, Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers.base import Progress, Sampler

__all__ = ["GuidedDenoiser", "GuidedSampler", "capped", "linear_operator", "linearize"]


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

    @abstractmethod
    def levels(self, denoiser: Denoiser) -> Sequence[int]:
        """The levels visited, from noisy to clean; 0 follows."""

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


def linear_operator(observation: Observation, method: str) -> LinearOperator:
    """The observation's operator, for methods that need its adjoint.

    Arguments:
        observation: The measurement.
        method: The name of the method, for the message.

    Raises:
        OperatorError: If the operator is not linear.
    """
    if not isinstance(observation.operator, LinearOperator):
        raise OperatorError(
            f"{method} needs a linear operator, got {type(observation.operator).__name__}; "
            "use a sampler that takes any differentiable operator, such as MGPS."
        )
    return observation.operator


def linearize(
    denoiser: Denoiser, x_t: Tensor, t: int
) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
    r"""The denoiser's mean, and products with Tweedie's covariance by passes back through it.

    Arguments:
        denoiser: The prior.
        x_t: The noisy signals, with shape (batch, channels, time).
        t: Their level.

    Returns:
        The mean, and the map :math:`u \mapsto \Sigma u = (s^2 / \alpha) J^T u` of signals; each
        call is one vector-Jacobian product.
    """
    with torch.enable_grad():
        leaf = x_t.detach().requires_grad_()
        mean = denoiser(leaf, t)
    factor = float(denoiser.schedule.std(t)) ** 2 / float(denoiser.schedule.alpha(t))

    def product(u: Tensor) -> Tensor:
        return factor * torch.autograd.grad(mean, leaf, u, retain_graph=True)[0]

    return mean.detach(), product


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
