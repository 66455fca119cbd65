"""The numbers that decide whether a prior is good enough, as its configuration holds them.

Nothing here needs Lightning.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.quality import (
    BANDS,
    QUANTILES,
    std_quantiles,
    total_variance,
    unconditional_draws,
)

__all__ = ["acceptance"]


def acceptance(
    denoiser: Denoiser,
    validation: Tensor,
    scale: float,
    losses: Sequence[float],
    draws: int,
    device: torch.device | str = "cpu",
) -> tuple[dict[str, Any], Tensor]:
    """Computes the numbers of a prior's card.

    Arguments:
        denoiser: The prior's denoiser, on `device`.
        validation: The records of fold 9 in model units, shape (records, leads, time).
        scale: mV per model unit.
        losses: The losses on fold 9, one for each of `BANDS`.
        draws: How many unconditional draws are compared with them.
        device: Where to compute.

    Returns:
        The numbers, and the draws in model units, on the CPU.
    """
    shape = (validation.shape[1], validation.shape[2])
    sample = unconditional_draws(denoiser, shape, draws, device=device)
    numbers = {
        "bands": list(BANDS),
        "losses_fold9": list(losses),
        "total_variance_fold9": total_variance(denoiser, validation, device=device),
        "std_quantiles": list(QUANTILES),
        "std_mv_draws": (std_quantiles(sample.numpy()) * scale).round(4).tolist(),
        "std_mv_fold9": (std_quantiles(validation.numpy()) * scale).round(4).tolist(),
        "draws": draws,
    }
    return numbers, sample
