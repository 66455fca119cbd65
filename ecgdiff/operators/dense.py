r"""A dense matrix as an operator, for oracles and small problems.

.. math:: y = A\,\mathrm{vec}(x), \qquad v' = (A A^T + \mathrm{diag}(c))^{-1} v

The pseudo-inverse comes from the singular values of A, the solution from a factorization.
"""

from functools import cached_property

import torch
from torch import Tensor

from ecgdiff.errors import OperatorError
from ecgdiff.operators.base import LinearOperator

__all__ = ["Dense"]


class Dense(LinearOperator):
    """Creates the operator of a matrix that acts on flattened signals.

    Arguments:
        matrix: The matrix A, with shape (m, channels * time).
        shape: The shape (channels, time) of one signal.

    Raises:
        OperatorError: If the matrix does not fit the shape.
    """

    def __init__(self, matrix: Tensor, shape: tuple[int, int]) -> None:
        if matrix.ndim != 2 or matrix.shape[1] != shape[0] * shape[1]:
            raise OperatorError(
                f"The matrix has shape {tuple(matrix.shape)} but signals of shape {tuple(shape)} "
                f"have {shape[0] * shape[1]} values; give (m, {shape[0] * shape[1]})."
            )
        self.matrix = matrix
        self.shape = shape

    @cached_property
    def _pinv(self) -> Tensor:
        with torch.inference_mode(False):  # kept, so it must serve later gradients too
            inverse: Tensor = torch.linalg.pinv(self.matrix)
            return inverse

    def __call__(self, x: Tensor) -> Tensor:
        """The products A vec(x), with shape (batch, m), for signals (batch, channels, time)."""
        return x.flatten(1) @ self.matrix.to(x).mT

    def check(self, y: Tensor) -> None:
        """Refuses a `y` whose shape is not (batch, m)."""
        if y.ndim != 2 or y.shape[1] != len(self.matrix):
            raise OperatorError(
                f"The observation has shape {tuple(y.shape)}; "
                f"the matrix gives (batch, {len(self.matrix)})."
            )

    def adjoint(self, y: Tensor) -> Tensor:
        """The signals A^T y, with shape (batch, channels, time)."""
        return (y @ self.matrix.to(y)).reshape(-1, *self.shape)

    def pinv(self, y: Tensor) -> Tensor:
        """The least-norm least-squares signals, with shape (batch, channels, time)."""
        return (y @ self._pinv.to(y).mT).reshape(-1, *self.shape)

    def solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        """The solution of (A A^T + diag(c)) v' = v, with shape (batch, m)."""
        matrix = self.matrix.to(v)
        added = torch.as_tensor(c, dtype=v.dtype, device=v.device).expand(v.shape)
        gram = matrix @ matrix.mT + torch.diag_embed(added)
        solution: Tensor = torch.linalg.solve(gram, v)
        return solution
