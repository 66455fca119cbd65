"""The posterior sampler: draws from p(x_0 | y) for any denoiser and any observation.

A sampler is a frozen dataclass of hyperparameters. The prior and the observation are arguments of
the call, and so is the randomness, hence one sampler serves every record and can be shared between
threads and processes.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import EcgDiffError, OperatorError
from ecgdiff.operators.base import LinearOperator, Observation
from ecgdiff.random import Generator

__all__ = ["NFE", "Progress", "Sampler", "linear_operator"]

Progress = Callable[[int, int], None]
"""Called as `progress(done, total)` after each step, last as `progress(total, total)`."""


class NFE(NamedTuple):
    """The network calls one draw costs.

    Attributes:
        forward: Evaluations of the denoiser.
        vjp: Vector-Jacobian products, each one backward pass on an evaluation already counted in
            `forward`.
    """

    forward: int
    vjp: int


class Sampler(ABC):
    """Draws from the posterior p(x_0 | y); subclasses are frozen dataclasses."""

    def __call__(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        *,
        generator: Generator = None,
        progress: Progress | None = None,
    ) -> Tensor:
        """Draws one posterior sample for each item of the batch.

        Arguments:
            denoiser: The prior, E[x_0 | x_t].
            observation: The measurement, with one item or as many as the batch, in model units.
            shape: The shape (batch, channels, time) of the draws.
            generator: One generator, or :class:`ecgdiff.random.Streams` to make each item's draw
                independent of the batch it is computed in.
            progress: Called after each step with the number of steps done and their total.

        Returns:
            The draws, with shape `shape` and the data type and device of `observation.y`.

        Raises:
            OperatorError: If the observation does not fit the shape, or it or the denoiser lacks
                what the method needs, such as a schedule or a gradient.
            EcgDiffError: If the method diverged, that is, a draw is not finite.
        """
        _check_denoiser(denoiser)
        _check(observation, shape)
        try:
            with torch.no_grad():
                draws = self._sample(denoiser, observation, shape, generator, progress or _silent)
        except RuntimeError as error:
            if not any(words in str(error) for words in _NO_GRADIENT):
                raise
            raise OperatorError(
                f"{type(self).__name__} needs gradients, and none passes through the denoiser "
                f"({type(denoiser).__name__}) or the operator "
                f"({type(observation.operator).__name__}); check_denoiser and check_operator of "
                "ecgdiff.testing tell through which. Leave out what cuts them there, such as "
                "torch.no_grad, detach or NumPy; code that takes a gradient of its own needs "
                "torch.enable_grad. Or use a sampler that needs none, such as DDNM or DAPS."
            ) from error
        bad = int((~torch.isfinite(draws)).flatten(1).any(1).sum())
        if bad:
            raise EcgDiffError(
                f"{type(self).__name__} diverged: {bad} of {shape[0]} draws are not finite. "
                "Use more steps, or a larger observation noise."
            )
        return draws

    @abstractmethod
    def nfe(self) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch."""

    @abstractmethod
    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        """The method itself; runs without gradients unless it enables them."""


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


# What autograd says where a gradient is asked for and there is no path to it.
_NO_GRADIENT = ("does not require grad", "to not have been used in the graph")


def _silent(done: int, total: int) -> None:
    """Reports nothing."""


def _check_denoiser(denoiser: Denoiser) -> None:
    """Refuses what is no prior, such as a bare network or function."""
    if not (callable(denoiser) and isinstance(getattr(denoiser, "schedule", None), Schedule)):
        raise OperatorError(
            f"The denoiser is a {type(denoiser).__name__} without a schedule of noise levels; "
            "make it a subclass of ecgdiff.diffusion.Denoiser, or wrap a network that predicts "
            "noise in EpsDenoiser, one with EDM's preconditioning in NetworkDenoiser."
        )


def _check(observation: Observation, shape: tuple[int, int, int]) -> None:
    """Refuses an observation that cannot come from a signal of `shape`."""
    if len(shape) != 3 or min(shape) < 1:
        raise ValueError(f"shape must be (batch, channels, time), all >= 1, got {tuple(shape)}.")
    y = observation.y
    if not y.is_floating_point():
        raise OperatorError(f"y has type {y.dtype}; convert it to float32 or float64.")
    if y.shape[0] not in (1, shape[0]):
        raise OperatorError(
            f"y has {y.shape[0]} items and shape asks for {shape[0]} draws; "
            "give one observation, or one per draw."
        )
    operator = observation.operator
    try:
        image = operator(torch.zeros(shape, dtype=y.dtype, device=y.device))
    except (RuntimeError, ValueError) as error:
        raise OperatorError(
            f"The operator does not take a signal of shape {tuple(shape)}: {error}"
        ) from error
    fits = image.shape[0] == shape[0] and image.shape[1:] == y.shape[1:]
    # A mask broadcasts a signal of too few channels; the way back shows the channels it has.
    if fits and isinstance(operator, LinearOperator):
        fits = operator.adjoint(y).shape[1:] == shape[1:]
    if not fits:
        raise OperatorError(
            f"The operator maps {tuple(shape)} to {tuple(image.shape)} and y is {tuple(y.shape)}; "
            "ask for draws of the operator's input shape and give y in its output shape."
        )
