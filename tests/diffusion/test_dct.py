from math import pi, sqrt

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion._dct import dct, idct


def _matrix(n: int) -> Tensor:
    k = torch.arange(n, dtype=torch.float64)
    w = torch.cos(pi * (2 * k[None] + 1) * k[:, None] / (2 * n)) * sqrt(2 / n)
    w[0] /= sqrt(2)
    return w


@pytest.mark.parametrize("n", [1, 2, 3, 4, 9, 32, 101, 1000])
def test_transform_is_the_orthonormal_matrix(n: int) -> None:
    w = _matrix(n)
    x = torch.randn(2, 3, n, generator=torch.Generator().manual_seed(n), dtype=torch.float64)
    torch.testing.assert_close(w @ w.mT, torch.eye(n, dtype=torch.float64), rtol=0, atol=1e-11)
    torch.testing.assert_close(dct(x), x @ w.mT, rtol=0, atol=1e-11)
    torch.testing.assert_close(idct(x), x @ w, rtol=0, atol=1e-11)
    torch.testing.assert_close(idct(dct(x)), x, rtol=0, atol=1e-12)


def test_gradients_flow_also_after_inference_mode() -> None:
    with torch.inference_mode():
        dct(torch.zeros(7, dtype=torch.float64))
    x = torch.randn(2, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(dct, (x,))
    assert torch.autograd.gradcheck(idct, (x,))


def test_single_precision_is_accurate() -> None:
    x = torch.randn(4, 8, 1000, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(dct(x).double(), dct(x.double()), rtol=0, atol=1e-5)
    torch.testing.assert_close(idct(dct(x)), x, rtol=0, atol=1e-5)
