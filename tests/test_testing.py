"""The contract checks find what they look for."""

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import Denoiser, GaussianPrior, LeadFrequencyCovariance, Schedule
from ecgdiff.operators import Dense, LinearOperator, Mask, Observation, RotatedMask
from ecgdiff.random import Generator, normal
from ecgdiff.samplers import NFE, Sampler, Surrogate
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
            case _:
                return x0 + (x0 - x0.detach()).sum()


def test_a_sound_denoiser_passes(prior: GaussianPrior) -> None:
    check_denoiser(prior, SHAPE)
    check_denoiser(CountingDenoiser(prior), SHAPE, torch.float64)


@pytest.mark.parametrize(
    "fault", ["shape", "type", "not finite", "two calls", "tensor of times", "batch", "pulls on"]
)
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
            case _:
                return 2 * x

    def adjoint(self, y: Tensor) -> Tensor:
        return 3 * y if self.fault == "differs from <x" else 2 * y

    def pinv(self, y: Tensor) -> Tensor:
        return y if self.fault == r"A A\^\+ A" else y / 2

    def solve(self, v: Tensor, c: float | Tensor) -> Tensor:
        return v if self.fault == "does not solve" else v / (4 + c)


@pytest.mark.parametrize(
    "fault",
    ["not linear", "items became", "two calls", "differs from <x", r"A A\^\+ A", "does not solve"],
)
def test_faults_of_an_operator(fault: str) -> None:
    check_operator(Faulty(""), SHAPE)
    with pytest.raises(AssertionError, match=fault):
        check_operator(Faulty(fault), SHAPE)


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


def test_items_must_be_given(prior: GaussianPrior, observation: Observation) -> None:
    with pytest.raises(ValueError, match="Give 3 items"):
        check_sampler(Wrong(""), prior, observation.expand(3), SHAPE)
