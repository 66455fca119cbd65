"""The sliced Wasserstein-1 distance between two sets of draws."""

import torch
from torch import Tensor

__all__ = ["sliced_wasserstein"]

CHUNK = 250
"""Directions projected at once."""


def sliced_wasserstein(a: Tensor, b: Tensor, directions: int, generator: torch.Generator) -> float:
    """The mean over random unit directions of the one-dimensional Wasserstein-1 distance.

    Arguments:
        a: Draws, float64, with shape (count, d).
        b: As many draws of the other law, with the same shape.
        directions: How many directions.
        generator: The source of the directions.
    """
    if a.shape != b.shape:
        raise ValueError(f"Give as many draws of both laws, got {len(a)} and {len(b)}.")
    total = 0.0
    for start in range(0, directions, CHUNK):
        count = min(CHUNK, directions - start)
        u = torch.randn((a.shape[1], count), generator=generator, dtype=torch.float64)
        u = u / u.norm(dim=0)
        gap = ((a @ u).sort(0).values - (b @ u).sort(0).values).abs().mean(0)
        total += float(gap.sum())
    return total / directions
