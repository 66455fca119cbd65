"""The contract checks find what they look for."""

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import Denoiser, GaussianPrior, LeadFrequencyCovariance, Schedule
from ecgdiff.operators import Dense, LinearOperator, Mask, Observation, Operator, RotatedMask
from ecgdiff.random import Generator, normal
from ecgdiff.samplers import MGPS, NFE, Sampler, Surrogate
from ecgdiff.samplers.base import Progress
from ecgdiff.testing import CountingDenoiser, check_denoiser, check_operator, check_sampler

SHAPE = (3, 2, 4)


@pytest.fixture
def prior() -> GaussianPrior:
    spectrum = torch.eye(2, dtype=torch.float64).expand(4, 2, 2)
    return GaussianPrior.from_covariance(LeadFrequencyCovariance(spectrum), Schedule.linear(50))


@pytest.fixture
def observation() -> Observation:
    return Observation(torch.zeros(1, 2, 4), Mask(torch.ones(2, 4)), 0.1)


class Changed(Denoiser):
    """A denoiser with a fault."""

    def __init__(self, denoiser: Denoiser, fault: str) -> None:
        self.schedule, self.covariance = denoiser.schedule, denoiser.covariance
        self.denoiser, self.fault = denoiser, fault

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        x0 = self.denoiser(x_t, t)
        match self.fault:
            case "shape":
                return x0[..., :-1]
            case "type":
                return x0.to(torch.float16)
            case "not finite":
                return x0 / 0
            case "two calls":
                return x0 + torch.randn_like(x0)
            case "tensor of times":
                return x0 if isinstance(t, int) else x0 + 1
            case "batch":
                return x0 - x0.mean(0)
            case "no gradient":
                with torch.no_grad():
                    return self.denoiser(x_t, t)
            case "no gradient passes":  # though one reaches a weight
                return x0.detach() * torch.ones(1, requires_grad=True)
            case "gradient gives":
                return 2 * x0.detach() - x0
            case "gradient gives a slope":
                return torch.cat([x0[:, :1], x0[:, 1:].detach()], 1)
            case _:
                return x0 + (x0 - x0.detach()).sum()


def test_a_sound_denoiser_passes(prior: GaussianPrior) -> None:
    check_denoiser(prior, SHAPE)
    check_denoiser(CountingDenoiser(prior), SHAPE, torch.float64)


@pytest.mark.parametrize(
    "fault",
    ["shape", "type", "not finite", "two calls", "tensor of times", "batch", "pulls on",
     "no gradient", "no gradient passes", "gradient gives", "gradient gives a slope"],
)  # fmt: skip
def test_faults_of_a_denoiser(prior: GaussianPrior, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_denoiser(Changed(prior, fault), SHAPE)


def test_counting(prior: GaussianPrior) -> None:
    counted = CountingDenoiser(prior)
    x = torch.zeros(SHAPE, requires_grad=True)
    counted(x, 3)
    counted(x, 3).sum().backward()
    assert (counted.forward, counted.vjp) == (2, 1)
    assert counted.covariance is prior.covariance
    assert counted.mean is prior.mean


def test_sound_operators_pass() -> None:
    g = torch.Generator().manual_seed(0)
    mask = torch.rand(SHAPE, generator=g) < 0.5
    rotation = torch.linalg.qr(torch.randn(2, 2, generator=g, dtype=torch.float64)).Q
    check_operator(Mask(mask), SHAPE)
    check_operator(Mask(mask), SHAPE, torch.float32)
    check_operator(RotatedMask(mask, rotation), SHAPE)
    check_operator(Dense(torch.randn(5, 8, generator=g).double(), (2, 4)), SHAPE)


class Faulty(LinearOperator):
    """Twice the identity, with a fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def __call__(self, x: Tensor) -> Tensor:
        match self.fault:
            case "not linear":
                return 2 * x + 1
            case "items became":
                return 2 * x[:1]
            case "two calls":
                return 2 * x + torch.randn_like(x)
            case "depends on its batch":
                return 2 * x - 2 * x.mean(0)
            case "an item depends":  # on the one before it only
                return 2 * torch.cat([x[:1], x[1:] - x[:-1]])
            case "axis and data":
                return 2 * x[:, 0, 0]
            case "no gradient":
                return 2 * x.detach()
            case "gradient gives a slope of 0 ":
                return 2 * x.detach() + 0 * x
            case "gradient gives":
                return 3 * x - x.detach()
            case _:
                return 2 * x

    def adjoint(self, y: Tensor) -> Tensor:
        return 3 * y if self.fault == "differs from <x" else 2 * y

    def pinv(self, y: Tensor) -> Tensor:
        return y if self.fault == r"A A\^\+ A" else y / 2

    def solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        match self.fault:
            case "does not solve":
                return v
            case "c shaped as r":
                return v / (4 + (c[:, :1, :1] if isinstance(c, Tensor) else c))
            case "c one number per item":
                return v / (4 + (c.mean() if isinstance(c, Tensor) else c))
            case _:
                return v / (4 + c)


@pytest.mark.parametrize(
    "fault",
    ["not linear", "items became", "two calls", "differs from <x", r"A A\^\+ A", "does not solve",
     "depends on its batch", "an item depends", "axis and data", "no gradient",
     "gradient gives a slope of 0 ", "gradient gives", "c shaped as r", "c one number per item"],
)  # fmt: skip
def test_faults_of_an_operator(fault: str) -> None:
    check_operator(Faulty(""), SHAPE)
    with pytest.raises(AssertionError, match=fault):
        check_operator(Faulty(fault), SHAPE)


class Rounded(Operator):
    """Rounds to tenths, with the gradient of what it rounds."""

    def __call__(self, x: Tensor) -> Tensor:
        return x + ((10 * x).round() / 10 - x).detach()


class Steps(Operator):
    """The sign, with the gradient of the signal: nothing changes over a small step."""

    def __call__(self, x: Tensor) -> Tensor:
        return x + (x.sign() - x).detach()


@pytest.mark.parametrize("operator", [Rounded(), Steps()])
def test_gradients_that_pass_straight_through_must_be_declared(operator: Operator) -> None:
    with pytest.raises(AssertionError, match="gradient gives"):
        check_operator(operator, SHAPE)
    check_operator(operator, SHAPE, straight_through=True)
    with pytest.raises(AssertionError, match="no gradient"):
        check_operator(Faulty("no gradient"), SHAPE, straight_through=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kinks_and_saturation_are_no_faults(dtype: torch.dtype) -> None:
    class Clipped(Operator):
        def __call__(self, x: Tensor) -> Tensor:
            return x.clamp(-1, 1)

    class Saturated(Operator):
        def __call__(self, x: Tensor) -> Tensor:
            return torch.tanh(x + 9)

    for operator in (Clipped(), Saturated()):
        check_operator(operator, (4, 3, 50), dtype)


class Wrong(Sampler):
    """A sampler that draws from the standard normal law, with a fault."""

    def __init__(self, fault: str) -> None:
        self.fault = fault

    def nfe(self) -> NFE:
        return NFE(1, 0) if self.fault == "promises" else NFE(0, 0)

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        x = normal(shape, generator)
        progress(0 if self.fault == "progress ended" else 1, 1)
        match self.fault:
            case "draws of type":
                return x.double()
            case "draws of":
                return x[:1]
            case "random state":
                return torch.randn(shape)
            case "same draw":
                return torch.zeros(shape)
            case "depends on its batch":
                return x * shape[0]
            case "y was changed":
                observation.y.add_(1)
        return x


def test_a_sound_sampler_passes(prior: GaussianPrior, observation: Observation) -> None:
    check_sampler(Wrong(""), prior, observation, SHAPE)
    check_sampler(Surrogate(steps=3), prior, observation, SHAPE)
    check_sampler(Wrong(""), prior, observation.expand(3), SHAPE, [observation] * 3)


@pytest.mark.parametrize(
    "fault",
    ["promises", "progress ended", "draws of type", "draws of", "random state", "same draw",
     "depends on its batch", "y was changed"],
)  # fmt: skip
def test_faults_of_a_sampler(prior: GaussianPrior, observation: Observation, fault: str) -> None:
    with pytest.raises(AssertionError, match=fault):
        check_sampler(Wrong(fault), prior, observation, SHAPE)


def test_calls_are_those_promised_for_the_schedule(prior: GaussianPrior) -> None:
    # A warm start goes down to a level, and there are fewer above it in a schedule of a hundred.
    short = GaussianPrior(prior.mean, prior.covariance, Schedule.linear(100, 1e-3, 0.2))  # type: ignore[arg-type]
    observation = Observation(torch.zeros(1, 2, 4), Mask(torch.ones(2, 4)), 0.1)
    sampler = MGPS(steps=5, warm=50)
    assert sampler.nfe() != sampler.nfe(short.schedule)
    check_sampler(sampler, short, observation, SHAPE)


def test_items_must_be_given(prior: GaussianPrior, observation: Observation) -> None:
    with pytest.raises(ValueError, match="Give 3 items"):
        check_sampler(Wrong(""), prior, observation.expand(3), SHAPE)
