import pytest
import torch
from torch import Tensor

from ecgdiff.errors import OperatorError
from ecgdiff.operators import Dense, LinearOperator, Mask, RotatedMask

SHAPE = (3, 5)


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def _mask(batch: int, seed: int = 0) -> Tensor:
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(seed)) > 0.4


ROTATION = torch.linalg.qr(_normal(3, 3, seed=5))[0]
OPERATORS = {
    "mask": Mask(_mask(4)),
    "shared mask": Mask(_mask(1)),
    "rotated mask": RotatedMask(_mask(4), ROTATION),
    "shared rotated mask": RotatedMask(_mask(1), ROTATION),
    "dense": Dense(_normal(6, 15), SHAPE),
    "tall dense": Dense(_normal(20, 15), SHAPE),
}


@pytest.fixture(params=list(OPERATORS))
def operator(request: pytest.FixtureRequest) -> LinearOperator:
    return OPERATORS[request.param]


def _matrices(operator: LinearOperator) -> Tensor:
    basis = torch.eye(15, dtype=torch.float64).reshape(15, 1, *SHAPE).expand(15, 4, *SHAPE)
    return torch.stack([operator(e).flatten(1) for e in basis], -1)


def test_adjoint_identity(operator: LinearOperator) -> None:
    x = _normal(4, *SHAPE)
    y = _normal(*operator(x).shape, seed=1)
    left = (operator(x) * y).flatten(1).sum(1)
    right = (x * operator.adjoint(y)).flatten(1).sum(1)
    torch.testing.assert_close(left, right, rtol=0, atol=1e-12)


def test_pseudo_inverse_is_moore_penrose(operator: LinearOperator) -> None:
    x = _normal(4, *SHAPE)
    y = _normal(*operator(x).shape, seed=1)
    expected = (torch.linalg.pinv(_matrices(operator)) @ y.flatten(1)[..., None])[..., 0]
    torch.testing.assert_close(operator.pinv(y).flatten(1), expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(operator(operator.pinv(operator(x))), operator(x))


@pytest.mark.parametrize("case", ["number", "per item", "per entry"])
def test_solve_is_the_dense_solution(operator: LinearOperator, case: str) -> None:
    v = operator(_normal(4, *SHAPE))
    c: float | Tensor = 0.3
    if case == "per item":
        c = torch.linspace(0.1, 1, 4, dtype=torch.float64).reshape(4, *[1] * (v.ndim - 1))
    elif case == "per entry":
        c = 0.1 + _normal(*v.shape, seed=2) ** 2
    a = _matrices(operator)
    diagonal = torch.as_tensor(c, dtype=torch.float64).expand(v.shape).flatten(1)
    gram = a @ a.mT + torch.diag_embed(diagonal)
    expected = torch.linalg.solve(gram, v.flatten(1))
    torch.testing.assert_close(operator.solve(v, c).flatten(1), expected, rtol=0, atol=1e-10)


def test_masks_keep_the_observed_and_zero_the_rest() -> None:
    x, mask = _normal(4, *SHAPE), _mask(4)
    y = Mask(mask)(x)
    assert torch.equal(y[mask], x[mask]) and (y[~mask] == 0).all()
    assert torch.equal(Mask(mask.double())(x), y)
    assert torch.equal(Mask(mask[0])(x), Mask(mask[:1])(x))
    assert torch.equal(RotatedMask(mask, torch.eye(3))(x), y)
    assert Mask(mask)(x.float()).dtype == torch.float32
    assert torch.equal(Mask(mask).restrict(x), y)
    assert torch.equal(RotatedMask(mask, ROTATION).restrict(x), y)


def test_bad_masks_and_matrices_are_refused() -> None:
    with pytest.raises(OperatorError, match="other than 0 and 1"):
        Mask(torch.full(SHAPE, 0.5))
    with pytest.raises(OperatorError, match="other than 0 and 1"):
        Mask(torch.full(SHAPE, float("nan")))
    with pytest.raises(OperatorError, match=r"shape \(5,\)"):
        Mask(torch.ones(5))
    with pytest.raises(OperatorError, match="not orthogonal"):
        RotatedMask(torch.ones(SHAPE), 2 * torch.eye(3))
    with pytest.raises(OperatorError, match="3 channels"):
        RotatedMask(torch.ones(SHAPE), torch.eye(2))
    with pytest.raises(OperatorError, match=r"give \(m, 15\)"):
        Dense(torch.ones(4, 14), SHAPE)
