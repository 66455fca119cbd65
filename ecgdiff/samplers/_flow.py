"""Few-step draws of a conditional denoiser: one ancestral move, then the probability flow."""

from collections.abc import Sequence

from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.sampling import ddpm_step, multistep
from ecgdiff.operators.base import Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers.base import Progress

__all__ = ["draw"]


def draw(
    denoiser: Denoiser,
    observation: Observation,
    shape: tuple[int, int, int],
    grid: Sequence[int],
    generator: Generator,
    progress: Progress,
) -> Tensor:
    """Draws from a conditional denoiser with one call per level.

    The chain starts with a standard normal number, which has forgotten the posterior's mean. The
    flow would carry what is missing along, up to 5 % of the mean for ECGs; an ancestral move puts
    the mean right.

    Arguments:
        denoiser: E[x_0 | x_t, y].
        observation: The measurement y, for its dtype and device.
        shape: The shape (batch, channels, time) of the draws.
        grid: The levels, two at least, strictly decreasing to one >= 1.
        generator: The source of randomness.
        progress: Called after each call with the number done and in all.
    """
    y = observation.y
    start, noise = (normal(shape, generator, y.dtype, y.device) for _ in range(2))
    t, s = grid[:2]
    x = ddpm_step(start, denoiser(start, t), t, s, denoiser.schedule, noise)
    progress(1, len(grid))
    return multistep(
        denoiser,
        shape,
        grid=grid[1:],
        start=x,
        progress=lambda done, total: progress(done + 1, total + 1),
    )
