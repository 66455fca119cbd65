r"""Masks: some samples of some channels are observed, others are lost.

Observations keep the full size (batch, channels, time) with zeros where nothing was observed, so
one batch can hold a different pattern of lost channels and blocks for each item. With the 0/1
mask M (diagonal) and an orthogonal mixing Q of the channels:

.. math::
    A = M Q, \qquad A^T = Q^T M = A^+, \qquad A A^T = M, \qquad (A A^T + c I)^{-1} = (M + c
    I)^{-1} .
"""

import torch
from torch import Tensor

from ecgdiff.errors import OperatorError
from ecgdiff.operators.base import LinearOperator

__all__ = ["Mask", "RotatedMask"]


class Mask(LinearOperator):
    """Creates the operator that keeps the observed samples and writes zeros elsewhere.

    Arguments:
        mask: True or 1 where observed, False or 0 where lost, with shape (batch, channels, time);
            (1, channels, time) or (channels, time) serves every item of a batch.

    Attributes:
        mask: The mask as a bool tensor of shape (batch or 1, channels, time).

    Raises:
        OperatorError: If the mask has another shape or other values.
    """

    def __init__(self, mask: Tensor) -> None:
        self.mask = _checked(mask)

    def __call__(self, x: Tensor) -> Tensor:
        """The observed samples of `x` (batch, channels, time), zero elsewhere."""
        return x * self.mask

    def check(self, y: Tensor) -> None:
        """Refuses a `y` of another shape, or with values where nothing is observed."""
        _check_masked(y, self.mask)

    def restrict(self, y: Tensor) -> Tensor:
        """Sets to zero the entries of `y` (batch, channels, time) that are not observed."""
        return y * self.mask

    def adjoint(self, y: Tensor) -> Tensor:
        """The mask is its own adjoint."""
        return y * self.mask

    def pinv(self, y: Tensor) -> Tensor:
        """The mask is its own pseudo-inverse."""
        return y * self.mask

    def solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        """The solution of (M + c I) v' = v, with shape (batch, channels, time)."""
        return v / (self.mask.to(v.dtype) + c)


class RotatedMask(LinearOperator):
    """Creates the operator that mixes the channels orthogonally, then keeps the observed samples.

    Arguments:
        mask: True where the mixed channels are observed; see :class:`Mask`.
        rotation: The orthogonal matrix Q, with shape (channels, channels).

    Attributes:
        mask: The mask as a bool tensor of shape (batch or 1, channels, time).
        rotation: The matrix Q.

    Raises:
        OperatorError: If `mask` is not a mask or `rotation` is not orthogonal to 1e-5.
    """

    def __init__(self, mask: Tensor, rotation: Tensor) -> None:
        self.mask = _checked(mask)
        channels = self.mask.shape[1]
        if rotation.shape != (channels, channels):
            raise OperatorError(
                f"The rotation has shape {tuple(rotation.shape)} "
                f"but the mask has {channels} channels."
            )
        product = rotation.double() @ rotation.double().mT
        error = float((product - torch.eye(channels).to(product)).abs().max())
        if not error <= 1e-5:
            raise OperatorError(
                f"The rotation is not orthogonal: Q Q^T differs from the identity by {error:.2g}."
            )
        self.rotation = rotation

    def __call__(self, x: Tensor) -> Tensor:
        """The observed samples of the mixed channels of `x`, shaped as it, zero elsewhere."""
        return (self.rotation.to(x) @ x) * self.mask

    def check(self, y: Tensor) -> None:
        """Refuses a `y` of another shape, or with values where nothing is observed."""
        _check_masked(y, self.mask)

    def restrict(self, y: Tensor) -> Tensor:
        """Sets to zero the entries of `y` (batch, channels, time) that are not observed."""
        return y * self.mask

    def adjoint(self, y: Tensor) -> Tensor:
        """The signals Q^T M y, with shape (batch, channels, time)."""
        return self.rotation.to(y).mT @ (y * self.mask)

    def pinv(self, y: Tensor) -> Tensor:
        """The pseudo-inverse, which is the adjoint."""
        return self.adjoint(y)

    def solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        """The solution of (M + c I) v' = v, with shape (batch, channels, time)."""
        return v / (self.mask.to(v.dtype) + c)


def _checked(mask: Tensor) -> Tensor:
    """The mask as bool (batch or 1, channels, time)."""
    if mask.ndim not in (2, 3):
        raise OperatorError(
            f"The mask has shape {tuple(mask.shape)}; "
            "give (batch, channels, time) or (channels, time)."
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        raise OperatorError(
            "The mask holds values other than 0 and 1; noise levels go into sigma."
        )
    return mask.bool() if mask.ndim == 3 else mask.bool().unsqueeze(0)


def _check_masked(y: Tensor, mask: Tensor) -> None:
    if y.ndim != 3 or y.shape[1:] != mask.shape[1:] or mask.shape[0] not in (1, y.shape[0]):
        raise OperatorError(
            f"The observation has shape {tuple(y.shape)} and the mask {tuple(mask.shape)}; "
            "both are (batch, channels, time), and only the mask's batch may be 1."
        )
    outside = int(((y != 0) & ~mask).sum())
    if outside:
        raise OperatorError(
            f"The observation has {outside} non-zero values where the mask says "
            "nothing was observed; multiply it by the mask, or correct the mask."
        )
