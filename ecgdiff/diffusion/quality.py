r"""Is a prior fit for sampling? Checks by numbers, on records it was not trained on.

**Total variance.** For a perfect denoiser, at every noise level and with averages over records and
samples,

.. math:: \mathrm{var}\,D + \mathrm{E}(x_0 - D)^2 = \mathrm{var}\,x_0, \qquad
          \mathrm{cov}(D, x_0) / \mathrm{var}\,D = 1 .

A ratio above one in the second means that the denoiser is too timid: draws will be too small.

**Unconditional draws.** The quantiles over records of the per-record standard deviation, lead by
lead, next to those of real records. (The pooled standard deviation is ruled by a few records.)

Records, noise and results are on the CPU, wherever the denoiser is: every device sees the same.
"""

import math
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.grids import time_grid
from ecgdiff.diffusion.sampling import Progress, multistep
from ecgdiff.random import Streams

__all__ = [
    "BANDS",
    "LEVELS",
    "QUANTILES",
    "denoising_losses",
    "record_losses",
    "std_quantiles",
    "total_variance",
    "unconditional_draws",
]

LEVELS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
QUANTILES = (0.1, 0.5, 0.9)
BANDS = tuple(math.exp(v) for v in torch.linspace(math.log(0.02), math.log(50.0), 8).tolist())
"""Noise levels of the validation loss, in standard deviations of the data."""

_BATCH = 64


@torch.no_grad()
def total_variance(
    denoiser: Denoiser,
    x0: Tensor,
    levels: Sequence[float] = LEVELS,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> list[dict[str, float]]:
    """Computes the total-variance check per noise level.

    Arguments:
        denoiser: The prior's denoiser.
        x0: Real records in model units, shape (records, leads, time).
        levels: Noise levels sigma, in model units; the nearest of the schedule are used.
        seed: Seed of the noise.
        progress: Called after each level with the levels done and in all.
        device: Where the denoiser is.

    Returns:
        Per level: sigma, mse, `total` = (var D + MSE) / var x and `slope` = cov(D, x) / var D; 1
        is perfect for both; `total_error` and `slope_error`, their standard errors over records.
    """
    rows = []
    for sigma, d in _denoised(denoiser, x0, levels, seed, progress, device):
        centered, x = d - d.mean(), x0 - x0.mean()
        var_d, mse, var_x, cov = (
            v.mean(dim=(1, 2)).double()
            for v in (centered.square(), (d - x0).square(), x.square(), centered * x)
        )
        total, slope = _ratio(var_d + mse, var_x), _ratio(cov, var_d)
        rows.append(
            {
                "sigma": sigma,
                "mse": float(mse.mean()),
                "total": total[0],
                "slope": slope[0],
                "total_error": total[1],
                "slope_error": slope[1],
            }
        )
    return rows


def _ratio(above: Tensor, below: Tensor) -> tuple[float, float]:
    """The ratio of two means over records and its standard error."""
    ratio = above.mean() / below.mean()
    error = (above - ratio * below).std() / len(above) ** 0.5 / below.mean()
    return float(ratio), float(error)


def denoising_losses(
    denoiser: Denoiser,
    x0: Tensor,
    levels: Sequence[float],
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> list[float]:
    """The means over records of :func:`record_losses`, one per level."""
    found = record_losses(denoiser, x0, levels, seed, device=device)
    losses: list[float] = found.mean(axis=1).tolist()
    return losses


@torch.no_grad()
def record_losses(
    denoiser: Denoiser,
    x0: Tensor,
    levels: Sequence[float] = BANDS,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> NDArray[np.float64]:
    r"""Computes the losses :math:`(1 + 1/\sigma^2)\,\mathrm{MSE}` record by record.

    Arguments:
        denoiser: The prior's denoiser.
        x0: Real records in model units, shape (records, leads, time).
        levels: Noise levels sigma, in model units; the nearest of the schedule are used.
        seed: Seed of the noise.
        progress: Called after each level with the levels done and in all.
        device: Where the denoiser is.

    Returns:
        An array with shape (levels, records).
    """
    out = np.empty((len(levels), len(x0)))
    for k, (sigma, d) in enumerate(_denoised(denoiser, x0, levels, seed, progress, device)):
        out[k] = (1 + sigma**-2) * (d - x0).square().mean(dim=(1, 2)).double().numpy()
    return out


def _denoised(
    denoiser: Denoiser,
    x0: Tensor,
    levels: Sequence[float],
    seed: int,
    progress: Progress | None,
    device: torch.device | str,
) -> Iterator[tuple[float, Tensor]]:
    """The schedule's level nearest to each, and the records denoised from it, on fixed noise."""
    for k, sigma in enumerate(levels):
        t = denoiser.schedule.index(sigma)
        generator = torch.Generator().manual_seed(seed * 1000 + k)
        yield float(denoiser.schedule.sigma(t)), _denoise_all(denoiser, x0, t, generator, device)
        if progress is not None:
            progress(k + 1, len(levels))


def _denoise_all(
    denoiser: Denoiser,
    x0: Tensor,
    t: int,
    generator: torch.Generator,
    device: torch.device | str,
) -> Tensor:
    parts = []
    for part in x0.split(_BATCH):
        noise = torch.randn(part.shape, generator=generator)
        alpha, std = float(denoiser.schedule.alpha(t)), float(denoiser.schedule.std(t))
        parts.append(denoiser((alpha * part + std * noise).to(device), t).cpu())
    return torch.cat(parts)


@torch.no_grad()
def unconditional_draws(
    denoiser: Denoiser,
    shape: tuple[int, int],
    count: int = 512,
    steps: int = 32,
    seed: int = 0,
    progress: Progress | None = None,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws from the prior by the second-order flow: (count, leads, time), in model units.

    `progress` is called after each step with the signals denoised so far and in all; the denoiser
    is on `device`, the draws are on the CPU.
    """
    grid = time_grid(denoiser.schedule, steps, "log-snr")
    parts: list[Tensor] = []
    for start in range(0, count, _BATCH):
        size = min(_BATCH, count - start)

        def advance(done: int, total: int, start: int = start, size: int = size) -> None:
            if progress is not None:
                progress(start * total + size * done, count * total)

        generator = Streams([seed * 1_000_003 + start + k for k in range(size)])
        x = multistep(
            denoiser,
            (size, *shape),
            grid=grid,
            generator=generator,
            progress=advance,
            device=device,
        )
        parts.append(x.cpu())
    return torch.cat(parts)


def std_quantiles(
    x: NDArray[np.floating], quantiles: Sequence[float] = QUANTILES
) -> NDArray[np.float64]:
    """Quantiles over records (records, leads, time) of their spread, shape (quantiles, leads)."""
    found: NDArray[np.float64] = np.quantile(x.std(axis=-1, dtype=np.float64), quantiles, axis=0)
    return found
