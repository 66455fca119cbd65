"""What all samplers say of denoisers that cannot serve, and networks of another type than y."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ecgdiff.diffusion import Denoiser, EpsDenoiser, NetworkDenoiser, Schedule
from ecgdiff.diffusion.inpainting import InpaintingDenoiser
from ecgdiff.errors import OperatorError
from ecgdiff.operators import Mask, Observation, Operator
from ecgdiff.random import Streams
from ecgdiff.samplers import DDNM, DPS, MGPS, MMPS, Conditional, REDdiff, Sampler

SCHEDULE = Schedule.linear()
SHAPE = (2, 2, 6)


class Net(nn.Module):
    """A small smooth network; it takes a mask, too."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 8), nn.Linear(8, 12)
        generator = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.4, generator=generator)

    def forward(self, x: Tensor, level: Tensor, trusted: Tensor | float = 0.0) -> Tensor:
        inner = self.first((x + trusted).flatten(1)) + torch.cos(level)[:, None]
        out: Tensor = self.last(torch.tanh(inner)).view_as(x)
        return out


class Rounded(Streams):
    """Streams that give every type the same numbers, to its precision."""

    def normal(
        self,
        shape: Any,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        return super().normal(shape, torch.float32, device).to(dtype)


def observed(dtype: torch.dtype) -> Observation:
    mask = torch.tensor([[True], [False]]).expand(2, 6)
    y = Streams([5]).normal((1, 2, 6)).to(dtype) * mask
    return Observation(y, Mask(mask), 0.1)


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        (DDNM(steps=4), NetworkDenoiser),
        (MMPS(steps=4), NetworkDenoiser),
        (MMPS(steps=4), EpsDenoiser),
        (MMPS(steps=4), InpaintingDenoiser),
        (MGPS(steps=3, gradient_steps=1), NetworkDenoiser),
        (Conditional(steps=4), InpaintingDenoiser),
    ],
)
def test_a_network_serves_observations_of_another_type(
    sampler: Sampler, kind: type[NetworkDenoiser | EpsDenoiser | InpaintingDenoiser]
) -> None:
    prior = kind(Net(), SCHEDULE)
    single, double = (
        sampler(prior, observed(dtype), SHAPE, generator=Rounded([1, 2]))
        for dtype in (torch.float32, torch.float64)
    )
    assert double.dtype == torch.float64
    assert float(double.std()) > 0.05
    torch.testing.assert_close(double, single.double(), rtol=0, atol=1e-4)


@pytest.mark.parametrize("denoiser", [Net(), torch.tanh, Net])
def test_what_is_no_denoiser_is_refused(denoiser: Any) -> None:
    with pytest.raises(OperatorError, match=r"without a schedule.*EpsDenoiser"):
        DDNM(steps=2)(denoiser, observed(torch.float32), SHAPE)


class Cut(Denoiser):
    """Halves the signal, and passes no gradient to it, or only one to a weight."""

    schedule = SCHEDULE

    def __init__(self, weight: float | Tensor) -> None:
        self.weight = weight

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return x_t.detach() * self.weight


class CutOperator(Operator):
    def __call__(self, x: Tensor) -> Tensor:
        return x.detach()


@pytest.mark.parametrize("weight", [0.5, torch.full((1,), 0.5, requires_grad=True)])
@pytest.mark.parametrize("sampler", [DPS(steps=3), MMPS(steps=3), MGPS(steps=3)])
def test_a_denoiser_without_gradient_is_named(sampler: Sampler, weight: float | Tensor) -> None:
    with pytest.raises(OperatorError, match=r"needs gradients.*\(Cut\).*such as DDNM") as refusal:
        sampler(Cut(weight), observed(torch.float32), SHAPE)
    assert isinstance(refusal.value.__cause__, RuntimeError)


def test_an_operator_without_gradient_is_named() -> None:
    observation = Observation(torch.zeros(1, 2, 6), CutOperator(), 0.1)
    with pytest.raises(OperatorError, match=r"REDdiff needs gradients.*\(CutOperator\)"):
        REDdiff(steps=3)(NetworkDenoiser(Net(), SCHEDULE), observation, SHAPE)


def test_other_errors_of_a_denoiser_stay_as_they_are() -> None:
    class Broken(Cut):
        def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
            return x_t @ x_t

    with pytest.raises(RuntimeError, match="Expected size"):
        DDNM(steps=2)(Broken(1.0), observed(torch.float32), SHAPE)
