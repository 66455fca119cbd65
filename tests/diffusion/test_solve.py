import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion._solve import conjugate_gradient


def _spd(batch: int, n: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    b = torch.randn(batch, n, n, generator=generator, dtype=torch.float64)
    scale = torch.logspace(-1, 2, batch, dtype=torch.float64)[:, None, None]
    return scale * (b @ b.mT / n) + 0.1 * torch.eye(n, dtype=torch.float64)


def _rhs(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_solution_is_the_dense_one(preconditioned: bool) -> None:
    g, b = _spd(4, 24), _rhs(4, 3, 8)
    diagonal = g.diagonal(dim1=1, dim2=2).reshape(4, 3, 8)
    solution = conjugate_gradient(
        lambda v: (g @ v.reshape(4, 24, 1)).reshape(4, 3, 8),
        b,
        precondition=(lambda v: v / diagonal) if preconditioned else None,
        rtol=1e-12,
        max_iter=500,
    )
    expected = torch.linalg.solve(g, b.reshape(4, 24)).reshape(4, 3, 8)
    torch.testing.assert_close(solution.x, expected, rtol=1e-8, atol=1e-8)
    assert (solution.residual <= 1e-12).all()


def test_items_do_not_depend_on_their_batch() -> None:
    g, b = _spd(4, 24), _rhs(4, 24)
    together = conjugate_gradient(lambda v: (g @ v[..., None])[..., 0], b, rtol=1e-6)
    assert len(set(together.iterations.tolist())) > 1
    for i in range(4):
        alone = conjugate_gradient(lambda v, i=i: v @ g[i], b[i : i + 1], rtol=1e-6)
        assert alone.iterations == together.iterations[i]
        torch.testing.assert_close(alone.x[0], together.x[i], rtol=1e-9, atol=1e-12)


def test_tolerance_and_limit_stop_the_iteration() -> None:
    g, b = _spd(3, 24), _rhs(3, 24)
    loose = conjugate_gradient(lambda v: (g @ v[..., None])[..., 0], b, rtol=1e-2)
    tight = conjugate_gradient(lambda v: (g @ v[..., None])[..., 0], b, rtol=1e-8)
    assert (loose.iterations < tight.iterations).all()
    residual = (b - (g @ loose.x[..., None])[..., 0]).norm(dim=1) / b.norm(dim=1)
    torch.testing.assert_close(residual, loose.residual, rtol=1e-6, atol=1e-9)
    few = conjugate_gradient(lambda v: (g @ v[..., None])[..., 0], b, max_iter=2)
    assert few.iterations.tolist() == [2, 2, 2]


def test_zero_and_indefinite_items_stop_without_harm() -> None:
    g = torch.stack([torch.eye(5), torch.eye(5), -torch.eye(5)]).double()
    b = _rhs(3, 5)
    b[1] = 0
    solution = conjugate_gradient(lambda v: (g @ v[..., None])[..., 0], b)
    torch.testing.assert_close(solution.x[0], b[0])
    assert (solution.x[1:] == 0).all()
    assert solution.iterations.tolist() == [1, 0, 0]
    assert solution.residual.tolist()[1:] == [0, 1]


def test_single_precision_reaches_its_tolerance() -> None:
    g, b = _spd(4, 24).float(), _rhs(4, 24).float()
    solution = conjugate_gradient(lambda v: (g @ v[..., None])[..., 0], b, rtol=1e-5)
    expected = torch.linalg.solve(g.double(), b.double())
    torch.testing.assert_close(solution.x.double(), expected, rtol=1e-3, atol=1e-3)
