"""The Gaussian model of a prior as one observation sees it: what samplers draw and solve with."""

from dataclasses import dataclass, replace

from torch import Tensor

from ecgdiff.diffusion.covariance import LeadFrequencyCovariance
from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.errors import OperatorError
from ecgdiff.operators.base import LinearOperator, Observation
from ecgdiff.operators.masks import Mask, RotatedMask
from ecgdiff.random import Generator

__all__ = ["Model", "model_of"]


@dataclass(frozen=True, eq=False)
class Model:
    """The covariance of x_0, in the channels that the operator's mask sees.

    Attributes:
        covariance: The covariance of the rotated channels.
        mask: True where observed, bool, with shape (batch or 1, channels, time); None if the
            operator is no mask, then the model can draw but not solve.
        rotation: The rotation of channels before the mask, if any.
        variance: The noise variances, broadcastable to the observation.
        rtol: The relative residual of solves that have no direct form.
    """

    covariance: LeadFrequencyCovariance
    mask: Tensor | None
    rotation: Tensor | None
    variance: Tensor
    rtol: float

    def at(self, sigma: float) -> "Model":
        """The model of x_0 given x_0 + sigma z, for a noise level in model units."""
        return replace(self, covariance=self.covariance.tweedie(sigma))

    def sample(self, like: Tensor, generator: Generator) -> Tensor:
        """Draws from N(0, Sigma), with the shape (batch, channels, time) of `like`."""
        return self._back(self.covariance.sample(like.shape, generator, like.dtype, like.device))

    def solve(self, v: Tensor) -> Tensor:
        """The solution of (R + A Sigma A^T) v' = v for a mask."""
        return self.covariance.solve(v, self._mask(), self.variance, rtol=self.rtol)

    def gain(self, residual: Tensor) -> Tensor:
        """The correction Sigma A^T (R + A Sigma A^T)^{-1} r of the mean, for a mask."""
        return self._back(
            self.covariance.gain(residual, self._mask(), self.variance, rtol=self.rtol)
        )

    def condition(self, residual: Tensor, generator: Generator) -> Tensor:
        """The correction of the mean plus a draw of what the observation leaves open."""
        return self._back(
            self.covariance.condition(
                residual, self._mask(), self.variance, generator, rtol=self.rtol
            )
        )

    def _mask(self) -> Tensor:
        if self.mask is None:
            raise OperatorError("The Gaussian model solves for Mask and RotatedMask only.")
        return self.mask

    def _back(self, x: Tensor) -> Tensor:
        return x if self.rotation is None else self.rotation.mT @ x


def model_of(denoiser: Denoiser, observation: Observation, rtol: float) -> Model:
    """The prior's model for one observation.

    Raises:
        OperatorError: If the denoiser has no covariance, or one of other channels than signals.
    """
    covariance = denoiser.covariance
    if covariance is None:
        raise OperatorError(
            "This sampler needs denoiser.covariance, a LeadFrequencyCovariance of the prior, and "
            "found none; fit one with LeadFrequencyCovariance.fit, or use a sampler that needs "
            "none, such as MGPS."
        )
    operator, y = observation.operator, observation.y
    _, channels, n = (operator.adjoint(y) if isinstance(operator, LinearOperator) else y).shape
    if covariance.channels != channels:
        raise OperatorError(
            f"denoiser.covariance has {covariance.channels} channels and the signals have "
            f"{channels}; use the covariance that was fitted to this prior."
        )
    covariance = covariance.for_length(n)
    if not isinstance(operator, Mask | RotatedMask):
        return Model(covariance, None, None, observation.variance, rtol)
    rotation = None
    if isinstance(operator, RotatedMask):
        rotation = operator.rotation.to(y)
        covariance = covariance.rotate(rotation)
    return Model(covariance, operator.mask.to(y.device), rotation, observation.variance, rtol)
