"""The validation loss of a prior: per noise level, on noise that never changes.

Nothing here needs Lightning.
"""

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.quality import BANDS

__all__ = ["band_losses"]


@torch.no_grad()
def band_losses(denoiser: Denoiser, x0: Tensor, lost: Tensor | None, seed: int) -> list[float]:
    r"""Losses :math:`(1 + 1/\sigma^2) \, \mathrm{MSE}` per level of :data:`BANDS`, on fixed noise.

    Arguments:
        denoiser: Denoiser in model units.
        x0: Clean signals in model units, shape (batch, leads, time).
        lost: Which samples count, bool, same shape; all if None.
        seed: The number of the batch; together with the band it fixes the noise.
    """
    losses = []
    for band, sigma in enumerate(BANDS):
        t = denoiser.schedule.index(sigma)
        exact = float(denoiser.schedule.sigma(t))
        generator = torch.Generator().manual_seed(seed * len(BANDS) + band)
        noise = torch.randn(x0.shape, generator=generator).to(x0)
        x_t = float(denoiser.schedule.alpha(t)) * (x0 + exact * noise)
        error = (denoiser(x_t, t) - x0).square()
        error = error.mean() if lost is None else error[lost].mean()
        losses.append(float(error) * (1 + exact**-2))
    return losses
