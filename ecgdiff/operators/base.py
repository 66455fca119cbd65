r"""Observations: y = A(x) + noise, with independent Gaussian noise of known standard deviation.

.. math:: \log p(y | x) = -\tfrac12 \sum_i ((y_i - A(x)_i) / \sigma_i)^2 + \mathrm{const}

An operator is anything differentiable. A linear one adds its adjoint, its pseudo-inverse and the
solution of :math:`(A A^T + c I)\,v' = v`, which is what the closed-form corrections need.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ecgdiff.errors import OperatorError
from ecgdiff.random import Generator, normal

__all__ = ["LinearOperator", "Observation", "Operator", "observe"]


class Operator(ABC):
    """A differentiable map from signals (batch, channels, time) to observations (batch, ...)."""

    @abstractmethod
    def __call__(self, x: Tensor) -> Tensor:
        """The noise-free observation of `x` (batch, channels, time)."""

    def check(self, y: Tensor) -> None:
        """Refuses a `y` that cannot be an observation of this operator.

        Operators that know the shape of what they return, or where it is zero, override this.

        Raises:
            OperatorError: If `y` (batch, ...) does not fit, saying how.
        """
        if y.ndim < 2:
            raise OperatorError(
                f"The observation has shape {tuple(y.shape)}; it needs a batch axis and data."
            )

    def restrict(self, y: Tensor) -> Tensor:
        """Sets to zero the entries of `y` that this operator never fills; by default none."""
        return y


class LinearOperator(Operator):
    """An operator that is a matrix A per item."""

    @abstractmethod
    def adjoint(self, y: Tensor) -> Tensor:
        """The signals A^T y, with shape (batch, channels, time)."""

    @abstractmethod
    def pinv(self, y: Tensor) -> Tensor:
        """The smallest signals (batch, channels, time) that fit `y` best (Moore-Penrose)."""

    @abstractmethod
    def solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        """The solution v' of (A A^T + c I) v' = v, with the shape of `v` (that of an observation).

        Arguments:
            v: The right-hand side.
            c: The added variance, positive: a number or a tensor that broadcasts to `v` (then c I
                is its diagonal).
        """


@dataclass(frozen=True, eq=False)
class Observation:
    r"""Creates an observation y = A(x) + sigma z.

    Arguments:
        y: What was observed, finite, in model units, with shape (batch, ...). A masked
            observation is full size, (batch, channels, time), with zeros where nothing was
            observed.
        operator: The operator A.
        sigma: The noise standard deviation in model units, positive: a number, or a tensor that
            broadcasts to `y`, such as (channels, 1) per channel or (batch, 1, 1) per item.

    Raises:
        OperatorError: If `y` is no tensor, holds NaN or infinite values or does not fit the
            operator, or `sigma` is not positive and finite.
    """

    y: Tensor
    operator: Operator
    sigma: float | Tensor

    def __post_init__(self) -> None:
        if not isinstance(self.y, Tensor):
            raise OperatorError(
                f"The observation y is a {type(self.y).__name__}; it must be a tensor: convert it "
                "by torch.as_tensor."
            )
        self._check_sigma()
        bad = int((~torch.isfinite(self.y)).sum())
        if bad:
            raise OperatorError(
                f"The observation y holds {bad} NaN or infinite values of {self.y.numel()}; "
                "write zeros there and leave them out of the operator's mask."
            )
        self.operator.check(self.y)

    def _check_sigma(self) -> None:
        sigma = torch.as_tensor(self.sigma)
        wrong = sigma[~((sigma > 0) & torch.isfinite(sigma))]
        if wrong.numel():
            raise OperatorError(
                f"The noise sigma is {float(wrong[0]):g} somewhere; it must be "
                "positive and finite (for noise-free data give a small value, such as 1e-3 of "
                "the signal's spread; leave samples that tell nothing out of the operator's "
                "mask)."
            )
        try:
            fits = torch.broadcast_shapes(sigma.shape, self.y.shape) == self.y.shape
        except RuntimeError:
            fits = False
        if not fits:
            raise OperatorError(
                f"The noise sigma has shape {tuple(sigma.shape)}, which does not broadcast to the "
                f"observation's {tuple(self.y.shape)}."
            )

    @property
    def batch(self) -> int:
        """The number of items."""
        return len(self.y)

    @property
    def variance(self) -> Tensor:
        """The noise variance sigma^2, with the dtype and device of `y`; broadcasts to `y`."""
        return torch.as_tensor(self.sigma, dtype=self.y.dtype, device=self.y.device) ** 2

    def residual(self, x: Tensor) -> Tensor:
        """The difference y - A(x), with the shape of `y`, for signals (batch, channels, time)."""
        return self.y - self.operator(x)

    def log_likelihood(self, x: Tensor) -> Tensor:
        """The log-likelihood, up to a constant, (batch,), of signals (batch, channels, time)."""
        scaled = self.residual(x) / self.variance.sqrt()
        return -(scaled**2).flatten(1).sum(1) / 2

    def expand(self, batch: int) -> "Observation":
        """Repeats an observation of one item `batch` times, as views.

        Raises:
            OperatorError: If the observation already has several items, and not `batch` of them.
        """
        if self.batch == batch:
            return self
        if self.batch != 1:
            raise OperatorError(
                f"An observation of {self.batch} items cannot be repeated to {batch}; "
                "expand observations of one item only."
            )
        return replace(self, y=self.y.expand(batch, *self.y.shape[1:]))


def observe(
    operator: Operator, x: Tensor, sigma: float | Tensor, generator: Generator = None
) -> Observation:
    """Simulates an observation of `x`: applies the operator and adds noise where it observes.

    Arguments:
        operator: The operator A.
        x: The signals, with shape (batch, channels, time), in model units.
        sigma: The noise standard deviation; see :class:`Observation`.
        generator: The source of the noise.

    Raises:
        OperatorError: If `x` is no tensor.
    """
    if not isinstance(x, Tensor):
        raise OperatorError(
            f"observe needs a torch tensor (batch, channels, time), got {type(x).__name__}: give "
            "torch.as_tensor(x)."
        )
    clean = operator(x)
    noise = normal(clean.shape, generator, clean.dtype, clean.device)
    scale = torch.as_tensor(sigma, dtype=clean.dtype, device=clean.device)
    return Observation(clean + operator.restrict(scale * noise), operator, sigma)
