"""The Gaussian fit that MGPS and MGDM share, against closed forms."""

import math

import torch
from torch import Tensor

from ecgdiff.samplers._fit import Kernel, fit


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


def test_the_fit_finds_the_best_diagonal_gaussian() -> None:
    """For a quadratic E = w^T H w / 2 - b^T w the divergence has its minimum in closed form."""
    g = torch.Generator().manual_seed(0)
    root = torch.randn(4, 4, generator=g, dtype=torch.float64)
    h, b = root @ root.mT, torch.randn(4, generator=g, dtype=torch.float64)
    mean, std = torch.randn(4, generator=g, dtype=torch.float64), 0.4
    precision = h + eye(4) / std**2
    wanted = torch.linalg.solve(precision, b + mean / std**2)
    batch = (400, 1, 4)
    start = Kernel(mean.expand(batch), std**2, torch.zeros(batch, dtype=torch.float64), 0.1)
    for unit, lr in ((std, 0.05), (1.0, 0.02)):
        mu, spread = fit(
            lambda w: w @ h - b,
            start,
            200,
            lr,
            unit,
            lambda: torch.randn(batch, generator=g, dtype=torch.float64),
        )
        # Each of the 400 fits jitters by about a step; their means by a twentieth of that.
        torch.testing.assert_close(mu.mean(0)[0], wanted, rtol=0, atol=0.01)
        torch.testing.assert_close(
            spread.log().mean(0)[0], -precision.diagonal().log() / 2, rtol=0, atol=0.03
        )


def test_one_step_moves_by_its_size() -> None:
    """From the start, whatever the gradient, by lr units; the deviation by lr nats."""
    zero = torch.zeros(1, 1, 2, dtype=torch.float64)
    for unit in (1.0, 0.4):
        mu, spread = fit(
            lambda w: torch.full_like(w, -50.0),
            Kernel(zero, 0.16, zero + 2, 0.4),
            1,
            0.03,
            unit,
            lambda: torch.ones_like(zero),
        )
        torch.testing.assert_close(mu, torch.full_like(mu, 2 + 0.03 * unit))
        torch.testing.assert_close(spread, torch.full_like(mu, 0.4 * math.exp(0.03)))
