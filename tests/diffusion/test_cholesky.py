"""Positive definite systems: both ways of solving them against general elimination."""

import numpy as np
import pytest
import torch

from ecgdiff.diffusion._cholesky import positive_solve


def system(m: int = 12) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(3)
    root = torch.randn(m, m, generator=g, dtype=torch.float64)
    return root @ root.mT + torch.eye(m, dtype=torch.float64), torch.randn(4, m, generator=g)


def test_solutions_are_those_of_elimination() -> None:
    matrix, rows = system()
    kept = matrix.clone()
    expected = np.linalg.solve(matrix.numpy(), rows.double().numpy().T).T
    np.testing.assert_allclose(positive_solve(matrix, rows).numpy(), expected, rtol=1e-10)
    torch.testing.assert_close(matrix, kept, rtol=0, atol=0)


def test_gradients_pass() -> None:
    matrix, rows = system(5)
    rows = rows.double().requires_grad_()
    torch.autograd.gradcheck(lambda r: positive_solve(matrix, r), rows)
    grown = matrix.clone().requires_grad_()
    torch.autograd.gradcheck(lambda m: positive_solve((m + m.mT) / 2, rows.detach()), grown)


def test_indefinite_matrices_are_refused() -> None:
    matrix, rows = system()
    with pytest.raises(np.linalg.LinAlgError):
        positive_solve(-matrix, rows)
