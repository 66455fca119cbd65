import pytest
import torch
from torch import Tensor

from ecgdiff.errors import OperatorError
from ecgdiff.operators import Dense, Mask, Observation, Operator, observe

SHAPE = (2, 3)
MASK = torch.tensor([[1, 0, 1], [1, 1, 0]]).bool()


class Square(Operator):
    def __call__(self, x: Tensor) -> Tensor:
        return x**2


def _normal(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("per", ["scalar", "channel", "item", "entry"])
def test_log_likelihood_is_the_gaussian_over_observed_entries(per: str) -> None:
    sigma: float | Tensor = {
        "scalar": 0.5,
        "channel": torch.tensor([[0.5], [2.0]]),
        "item": torch.tensor([0.5, 2.0]).reshape(2, 1, 1),
        "entry": _normal(2, *SHAPE, seed=3).abs() + 0.1,
    }[per]
    x, y = _normal(2, *SHAPE), _normal(2, *SHAPE, seed=1) * MASK
    observation = Observation(y, Mask(MASK), sigma)
    scale = torch.as_tensor(sigma, dtype=torch.float64).expand(2, *SHAPE)
    density = torch.distributions.Normal(x, scale)
    terms = density.log_prob(y) + scale.log() + 0.5 * torch.log(torch.tensor(2 * torch.pi))
    expected = (terms * MASK).sum((1, 2))
    torch.testing.assert_close(observation.log_likelihood(x), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(observation.residual(x), (y - x) * MASK)
    assert observation.variance.dtype == torch.float64


def test_any_differentiable_operator_serves() -> None:
    x = _normal(2, *SHAPE).requires_grad_()
    observation = Observation(_normal(2, *SHAPE, seed=1), Square(), 0.5)
    (gradient,) = torch.autograd.grad(observation.log_likelihood(x).sum(), x)
    expected = 2 * x * observation.residual(x) / 0.25
    torch.testing.assert_close(gradient, expected)


def test_expand_repeats_one_item() -> None:
    y = _normal(1, *SHAPE) * MASK
    observation = Observation(y, Mask(MASK), torch.full((1, 1, 1), 0.5)).expand(3)
    assert observation.batch == 3 and observation.y.shape == (3, *SHAPE)
    assert observation.log_likelihood(_normal(3, *SHAPE)).shape == (3,)
    assert observation.expand(3) is observation
    with pytest.raises(OperatorError, match="3 items"):
        observation.expand(2)


def test_observe_adds_noise_where_it_observes() -> None:
    x = torch.zeros(4000, *SHAPE, dtype=torch.float64)
    sigma = torch.tensor([[0.5], [2.0]])
    generator = torch.Generator().manual_seed(0)
    observation = observe(Mask(MASK), x, sigma, generator)
    spread = observation.y.std(0)
    assert (spread[~MASK] == 0).all()
    torch.testing.assert_close(spread[MASK], sigma.expand(SHAPE)[MASK].double(), rtol=0.05, atol=0)
    assert observe(Dense(_normal(4, 6), SHAPE), x, 0.1, generator).y.shape == (4000, 4)


def test_bad_observations_are_refused_with_the_reason() -> None:
    y = _normal(2, *SHAPE) * MASK
    operator = Mask(MASK)
    bad = y.clone()
    bad[0, 0, 0], bad[1, 0, 0] = float("nan"), float("inf")
    with pytest.raises(OperatorError, match="2 NaN or infinite values of 12"):
        Observation(bad, operator, 0.1)
    for sigma in (0.0, -1.0, float("nan"), float("inf"), torch.tensor([[0.1], [0.0]])):
        with pytest.raises(OperatorError, match="must be positive and finite"):
            Observation(y, operator, sigma)
    for bad_one in (-2.0, float("inf"), float("nan")):
        # The value that is wrong, not the smallest.
        with pytest.raises(OperatorError, match=rf"sigma is {bad_one:g} somewhere.*mask"):
            Observation(y, operator, torch.tensor([[0.1], [bad_one]]))
    with pytest.raises(OperatorError, match=r"y is a ndarray.*torch\.as_tensor"):
        Observation(y.numpy(), operator, 0.1)  # type: ignore[arg-type]
    with pytest.raises(OperatorError, match=r"tensor.*got ndarray.*torch\.as_tensor"):
        observe(operator, y.numpy(), 0.1)  # type: ignore[arg-type]
    with pytest.raises(OperatorError, match=r"\(4,\), which does not broadcast"):
        Observation(y, operator, torch.ones(4))
    with pytest.raises(OperatorError, match="does not broadcast"):
        Observation(y, operator, torch.ones(5, 2, 2, 3))
    with pytest.raises(OperatorError, match=r"shape \(2, 2, 2\) and the mask \(1, 2, 3\)"):
        Observation(y[..., :2], operator, 0.1)
    with pytest.raises(OperatorError, match="only the mask's batch may be 1"):
        Observation(y, Mask(MASK.expand(3, *SHAPE)), 0.1)
    with pytest.raises(OperatorError, match="4 non-zero values"):
        Observation(y + 1, operator, 0.1)
    with pytest.raises(OperatorError, match=r"gives \(batch, 4\)"):
        Observation(y, Dense(torch.ones(4, 6), SHAPE), 0.1)
    with pytest.raises(OperatorError, match="batch axis"):
        Observation(torch.ones(3), Square(), 0.1)
