"""Solutions of a dense symmetric positive definite system, one per row, in float64."""

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

__all__ = ["positive_solve"]


def positive_solve(matrix: Tensor, rows: Tensor) -> Tensor:
    """Solves matrix x = r for each of the rows r.

    Arguments:
        matrix: Symmetric and positive definite, float64, with shape (m, m).
        rows: The right-hand sides, with shape (batch, m).

    Returns:
        The solutions, float64, with shape (batch, m).

    Raises:
        numpy.linalg.LinAlgError: If the matrix is not positive definite; on other devices, and
            where gradients are wanted, `torch.linalg.LinAlgError`.
    """
    right = rows.double().mT
    if matrix.device.type != "cpu" or right.requires_grad or matrix.requires_grad:
        return torch.cholesky_solve(right, torch.linalg.cholesky(matrix)).mT
    # PyTorch's own spends more than half of its time on triangles before and after LAPACK; the
    # transpose, the same matrix, is in LAPACK's order already.
    factor = scipy.linalg.cho_factor(matrix.numpy().T, lower=True, check_finite=False)
    found = scipy.linalg.cho_solve(factor, np.asfortranarray(right.numpy()), check_finite=False)
    return torch.from_numpy(found).mT
