"""What guided denoisers keep of their calls, against formulas and what must happen."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import Denoiser, GaussianPrior, Schedule
from ecgdiff.operators import Mask, Observation, observe
from ecgdiff.samplers import CADPS, MMPS, PGDM, DiffPIR, Surrogate
from ecgdiff.samplers.guided import GuidedSampler, ancestral
from ecgdiff.samplers.health import Call, overshoot

ANCESTRAL: list[GuidedSampler] = [
    MMPS(steps=4),
    MMPS(steps=4, spread=0.5),
    CADPS(steps=3),
    PGDM(steps=4),
    Surrogate(steps=4),
    Surrogate(steps=4, spread=0.0),
]


@dataclass
class Scaled(Denoiser):
    """D(x) = c x: Tweedie's covariance is c sigma^2, whatever c."""

    c: float
    schedule: Schedule
    covariance = None

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        return self.c * x_t / float(self.schedule.alpha(int(t)))


def measured(prior: GaussianPrior, mask: Tensor) -> Observation:
    x = prior.sample(3, torch.Generator().manual_seed(5))
    return observe(Mask(mask), x, 0.05, torch.Generator().manual_seed(6))


def test_overshoot_is_its_formula() -> None:
    g = torch.Generator().manual_seed(0)
    r, image = (torch.randn(2, 3, generator=g, dtype=torch.float64) for _ in range(2))
    variance = torch.tensor([[0.5, 1.0, 2.0]], dtype=torch.float64)
    q = overshoot(r, image, variance)
    for k in range(2):
        inverse = torch.diag(1 / variance[0])
        expected = (r[k] @ inverse @ image[k]) / (r[k] @ inverse @ r[k])
        torch.testing.assert_close(q[k], expected)
    assert float(overshoot(0 * r, image, variance).abs().max()) == 0


@pytest.mark.parametrize("sampler", [*ANCESTRAL, DiffPIR(steps=4)], ids=repr)
def test_every_call_is_kept_on_request_and_changes_nothing(
    sampler: GuidedSampler, stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    observation = measured(stationary, masks["leads"])
    shape, levels = (3, *stationary.shape), sampler.levels(stationary)
    guided = sampler.guide(stationary, observation)
    assert guided.calls is None
    plain = ancestral(guided, levels, shape, torch.Generator().manual_seed(1))
    guided.calls = []
    kept = ancestral(guided, levels, shape, torch.Generator().manual_seed(1))
    torch.testing.assert_close(kept, plain, rtol=0, atol=0)
    if sampler in ANCESTRAL:  # DiffPIR's own chain is another one
        own = sampler(stationary, observation, shape, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(own, plain, rtol=0, atol=0)
    assert [c.sigma for c in guided.calls] == [float(stationary.schedule.sigma(t)) for t in levels]
    assert all(c.overshoot.shape == (3,) for c in guided.calls)


def test_the_exact_correction_never_overshoots(
    stationary: GaussianPrior, masks: dict[str, Tensor]
) -> None:
    observation = measured(stationary, masks["block"])
    for sampler in (Surrogate(steps=8, spread=0.0), MMPS(steps=8, iterations=100)):
        guided = sampler.guide(stationary, observation)
        guided.calls = []
        ancestral(guided, sampler.levels(stationary), (3, *stationary.shape))
        q = torch.stack([c.overshoot for c in guided.calls])
        assert float(q.min()) >= 0
        assert float(q.max()) <= 1 + 1e-6
        assert float(q.max()) > 0.5  # it is not zero either


def one_call(sampler: GuidedSampler, c: float, sigma: float) -> Call:
    schedule = Schedule.linear()
    x = torch.ones(2, 1, 8, dtype=torch.float64)
    guided = sampler.guide(Scaled(c, schedule), Observation(x, Mask(x[:1] > 0), 0.1))
    guided.calls = []
    guided(0.5 * x, schedule.index(sigma))
    (call,) = guided.calls
    return call


def test_indefinite_directions_are_said() -> None:
    call = one_call(MMPS(iterations=3), -0.5, 1.0)
    assert call.indefinite is not None
    assert call.iterations is not None
    assert call.indefinite.all()
    assert (call.iterations == 0).all()
    torch.testing.assert_close(call.residual, torch.ones(2, dtype=torch.float64))
    call = one_call(MMPS(iterations=1), 0.5, 1.0)
    assert call.indefinite is not None
    assert call.iterations is not None
    assert call.residual is not None
    assert not call.indefinite.any()
    assert (call.iterations == 1).all()
    assert float(call.residual.max()) < 1e-9


@pytest.mark.parametrize(("c", "share"), [(-0.5, 1.0), (0.5, 0.0), (9.0, 1.0)])
def test_the_share_of_clipped_variances_is_said(c: float, share: float) -> None:
    call = one_call(CADPS(probes=1), c, 1.0)
    assert call.clipped is not None
    assert call.clipped.tolist() == [share, share]
    assert call.iterations is None


def test_overshoot_of_a_scaled_denoiser() -> None:
    """The shift is c sigma^2 / (R + c sigma^2) r, so q is that factor."""
    call = one_call(MMPS(iterations=1), 0.5, 1.0)
    spread = 0.5 * call.sigma**2
    expected = torch.full((2,), spread / (0.1**2 + spread), dtype=torch.float64)
    torch.testing.assert_close(call.overshoot, expected)
