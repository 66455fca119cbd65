"""The denoiser that sees observations: what it tells its network, and what it returns."""

import pytest
import torch
from torch import Tensor, nn

from ecgdiff.diffusion.inpainting import InpaintingDenoiser, Seen, trust
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.testing import check_denoiser

SCHEDULE = Schedule.linear()
SHAPE = (2, 3, 8)


class Recorder(nn.Module):
    """Answers with the mean of the trusted inputs of each item, and keeps what it was given."""

    def forward(self, u: Tensor, level: Tensor, trusted: Tensor) -> Tensor:
        self.given = u, level, trusted
        shown = (u * trusted).flatten(1).sum(1) / trusted.flatten(1).sum(1).clamp(min=1e-6)
        return shown[:, None, None].expand_as(u) + 0 * u


def observation() -> tuple[Tensor, Tensor]:
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0, 0], mask[1, :, :4] = True, True
    y = torch.randn(SHAPE, generator=torch.Generator().manual_seed(0)) * mask
    return y, mask


@pytest.mark.parametrize("t", [1, 300, 1000])
def test_observed_samples_are_returned_and_lost_ones_follow_the_formula(t: int) -> None:
    net = Recorder()
    y, mask = observation()
    x_t = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    x0 = Seen(InpaintingDenoiser(net, SCHEDULE), y, mask, 0.25)(x_t, t)
    assert torch.equal(x0[mask], y[mask])
    sigma, alpha = float(SCHEDULE.sigma(t)), float(SCHEDULE.alpha(t))
    u, level, trusted = net.given
    torch.testing.assert_close(u[~mask], x_t[~mask] / alpha / (sigma**2 + 1) ** 0.5)
    assert torch.equal(u[mask], y[mask])
    assert torch.equal(trusted, mask * 0.5)
    torch.testing.assert_close(level, torch.full((2,), sigma).log() / 4)
    out = net(u, level, trusted)
    wanted = x_t / alpha / (sigma**2 + 1) + sigma / (sigma**2 + 1) ** 0.5 * out
    torch.testing.assert_close(x0[~mask], wanted[~mask])


def test_what_was_noisy_where_it_is_observed_does_not_matter() -> None:
    y, mask = observation()
    seen = Seen(InpaintingDenoiser(Recorder(), SCHEDULE), y, mask, 0.1)
    x_t = torch.randn(SHAPE, generator=torch.Generator().manual_seed(1))
    assert torch.equal(seen(x_t, 500), seen(torch.where(mask, 7.0, x_t), 500))


def test_it_is_a_denoiser() -> None:
    denoiser = InpaintingDenoiser(Recorder(), SCHEDULE)
    check_denoiser(denoiser, SHAPE)
    y, mask = observation()
    one = Seen(denoiser, y[:1], mask[:1], 0.1)
    check_denoiser(one, SHAPE)


def test_trust_falls_with_the_noise_and_is_zero_where_nothing_was_observed() -> None:
    mask = torch.tensor([True, False])
    assert trust(mask, 0.0).tolist() == [1.0, 0.0]
    noisy = trust(torch.ones(3, dtype=torch.bool), torch.tensor([0.02, 0.2, 1.0]))
    assert noisy.tolist() == sorted(noisy.tolist(), reverse=True)


class Narrow(nn.Module):
    """A network of single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    def forward(self, u: Tensor, level: Tensor, trusted: Tensor) -> Tensor:
        out: Tensor = self.layer(u + trusted) + level[:, None, None]
        return out


def test_a_network_computes_in_its_own_type() -> None:
    net = Narrow()
    y, mask = observation()
    y, x_t = y.double(), torch.randn(SHAPE, generator=torch.Generator().manual_seed(1)).double()
    y[0, 0, 0] = 1 / 3  # of no single-precision number
    found = Seen(InpaintingDenoiser(net, SCHEDULE), y, mask, 0.25)(x_t, 500)
    assert found.dtype == torch.float64
    assert torch.equal(found[mask], y[mask])
    wanted = Seen(InpaintingDenoiser(net.double(), SCHEDULE), y, mask, 0.25)(x_t, 500)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
