"""DDNM+ against its rule value by value, and its bias against exact posteriors."""

import math
from collections.abc import Sequence

import pytest
import torch
from bias import affine_bias
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.operators import Mask, Observation, RotatedMask
from ecgdiff.random import Streams
from ecgdiff.samplers import DDNM, NFE
from ecgdiff.samplers.ddnm import _seen

SHAPE = (3, 2, 4)


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    b = normal(0, 8, 8)
    return GaussianPrior(torch.full((2, 4), 0.5), b @ b.mT / 8, Schedule.linear())


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
@pytest.mark.parametrize("t", [1, 30, 500, 999])
def test_observed_values_get_the_noise_of_their_level(t: int, eta: float) -> None:
    schedule, sigma = Schedule.linear(), torch.tensor([1e-3, 0.05, 0.4, 9.0], dtype=torch.float64)
    alpha, std = float(schedule.alpha(t)), float(schedule.std(t))
    trust, added = _seen(alpha, std, sigma, eta)
    torch.testing.assert_close(
        (alpha * trust * sigma) ** 2 + added**2, torch.full_like(sigma, std**2)
    )
    assert bool((trust <= 1).all())


def test_a_step_value_by_value(prior: GaussianPrior) -> None:
    mask = torch.ones(2, 4, dtype=torch.bool)
    mask[:, 1] = False
    sigma = torch.tensor([[0.1], [6.0]], dtype=torch.float64)
    y = normal(1, 1, 2, 4) * mask
    t, s = time_grid(prior.schedule, 2)
    alpha, std = float(prior.schedule.alpha(s)), float(prior.schedule.std(s))
    assert 0.1 * alpha < std < 6.0 * alpha  # one channel in each case of the rule
    draws = DDNM(steps=2, eta=0.6)(
        prior, Observation(y, Mask(mask), sigma), SHAPE, generator=Streams([1, 2, 3])
    )
    noise = Streams([1, 2, 3])
    x, z = noise.normal(SHAPE, torch.float64), noise.normal(SHAPE, torch.float64)
    x0 = prior(x, t)
    eps = (x - float(prior.schedule.alpha(t)) * x0) / float(prior.schedule.std(t))
    wanted = torch.empty(SHAPE, dtype=torch.float64)
    for b, c, k in torch.cartesian_prod(*map(torch.arange, SHAPE)).tolist():
        if not mask[c, k]:
            new = 0.8 * std * eps[b, c, k] + 0.6 * std * z[b, c, k] + alpha * x0[b, c, k]
        elif c == 0:
            new = alpha * y[0, c, k] + math.sqrt(std**2 - alpha**2 * 0.01) * z[b, c, k]
        else:
            trust = 0.8 * std / (alpha * 6.0)
            new = alpha * ((1 - trust) * x0[b, c, k] + trust * y[0, c, k]) + 0.6 * std * z[b, c, k]
        wanted[b, c, k] = new
    torch.testing.assert_close(draws, prior(wanted, s))


def test_a_rotated_mask_is_a_mask_in_other_coordinates(prior: GaussianPrior) -> None:
    rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]], dtype=torch.float64)
    mask = torch.tensor([[True], [False]]).expand(2, 4)
    y = normal(1, 1, 2, 4) * mask
    full = torch.kron(rotation, torch.eye(4, dtype=torch.float64))
    turned = GaussianPrior(
        rotation @ prior.mean, full @ prior.dense_covariance @ full.mT, prior.schedule
    )

    class Turned(Streams):
        """The same noise, in which only the first draw, the start, has to be turned."""

        first = True

        def normal(
            self,
            shape: Sequence[int],
            dtype: torch.dtype = torch.float32,
            device: torch.device | str = "cpu",
        ) -> Tensor:
            z = super().normal(shape, dtype, device)
            z, self.first = (rotation @ z if self.first else z), False
            return z

    sampler = DDNM(steps=6)
    found = sampler(
        prior,
        Observation(y, RotatedMask(mask, rotation), 0.1),
        SHAPE,
        generator=Streams([1, 2, 3]),
    )
    wanted = sampler(turned, Observation(y, Mask(mask), 0.1), SHAPE, generator=Turned([1, 2, 3]))
    torch.testing.assert_close(found, rotation.mT @ wanted)


@pytest.mark.parametrize(
    ("name", "error", "spread"), [("leads", 0.044, 0.86), ("block", 0.258, 1.01)]
)
def test_stated_bias(
    name: str,
    error: float,
    spread: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """Lost values meet y only through the denoiser, and each step noises them again."""
    found_error, found_spread = affine_bias(DDNM(), stationary, masks[name][0], count=100)
    assert abs(found_error - error) < 0.005
    assert abs(found_spread - spread) < 0.07  # three standard errors of 100 draws


def test_settings() -> None:
    assert DDNM(steps=9).nfe() == NFE(forward=9, vjp=0)
    assert DDNM.ecg() == DDNM(steps=200, eta=0.85)
    with pytest.raises(ValueError, match="eta"):
        DDNM(eta=1.1)
