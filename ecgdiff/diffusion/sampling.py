r"""Unconditional samplers: ancestral (DDPM), deterministic (DDIM), and two of second order.

All walk a grid of levels :math:`t_1 > t_2 > \dots > t_K`, then 0. Ancestral ones draw from the
bridge

.. math::
    x_s = c_{lo}\, \hat x_0(x_t) + c_{hi}\, x_t + \tau z, \qquad
    (c_{lo}, c_{hi}, \tau) = \mathrm{bridge}(s | 0, t),

with :math:`\eta = 1` for DDPM and :math:`\eta = 0` for DDIM. Heun integrates the probability flow
of
:math:`x = x_t / \alpha_t` in :math:`\sigma`,

.. math::
    \frac{dx}{d\sigma} = d(x, \sigma) = \frac{x - D(x; \sigma)}{\sigma}, \qquad
    x' = x + (\sigma' - \sigma)\, \tfrac12 \left( d(x, \sigma) + d(\tilde x, \sigma') \right),
    \quad \tilde x = x + (\sigma' - \sigma)\, d(x, \sigma),

with Euler's step, which is the denoiser itself, at the end. The multistep method (DPM-Solver++ 2M)
gets its second order from the level before, marked by a minus, instead of a second call,

.. math::
    x' = e^{-(1 + \eta^2) h} x + \left(1 - e^{-(1 + \eta^2) h}\right)
         \left( D + \frac{h}{2 h_-} (D - D_-) \right) + \sigma' \sqrt{1 - e^{-2 \eta^2 h}}\, z,
    \qquad h = \ln \frac{\sigma}{\sigma'} . All of them end with the denoiser at :math:`t_K`.

References:
    | Denoising Diffusion Probabilistic Models (Ho et al., 2020), arXiv:2006.11239
    | Denoising Diffusion Implicit Models (Song et al., 2020), arXiv:2010.02502
    | Elucidating the Design Space of Diffusion-Based Generative Models (Karras et al., 2022),
    | arXiv:2206.00364
    | DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models
    | (Lu et al., 2022), arXiv:2211.01095
"""

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.random import Generator, normal

__all__ = ["Progress", "ddim", "ddpm", "ddpm_step", "heun", "multistep", "transitions"]

Progress = Callable[[int, int], None]
"""Called with the steps done and the steps in all."""


def transitions(grid: Sequence[int]) -> list[tuple[int, int]]:
    """The moves (t, s) along a grid of levels, the last one to 0.

    Raises:
        ValueError: If the grid is empty or does not decrease strictly to a level >= 1.
    """
    moves = list(itertools.pairwise([*grid, 0]))
    if not moves or any(s >= t for t, s in moves):
        raise ValueError(f"A grid decreases strictly and ends at a level >= 1, got {list(grid)}.")
    return moves


def ddpm_step(
    x_t: Tensor,
    x0: Tensor,
    t: int,
    s: int,
    schedule: Schedule,
    noise: Tensor | None,
    eta: float = 1.0,
) -> Tensor:
    """One ancestral step from level t to level s < t.

    Arguments:
        x_t: The states, with shape (batch, channels, time).
        x0: The predictions of the clean signals, with the same shape.
        t: The level of `x_t`.
        s: The next level, 0 <= s < t.
        schedule: The noise levels.
        noise: Standard normal numbers of the same shape; None leaves the noise out, which is
            exact only for `eta` = 0 or s = 0.
        eta: The stochasticity: 1 for DDPM, 0 for DDIM.

    Returns:
        The states at level s.
    """
    c_lo, c_hi, std = schedule.bridge(s, 0, t, eta)
    x_s = c_lo * x0 + c_hi * x_t
    return x_s if noise is None or std == 0 else x_s + std * noise


def ddim(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    grid: Sequence[int],
    eta: float = 0.0,
    start: Tensor | None = None,
    generator: Generator = None,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws from the prior by ancestral steps of stochasticity `eta`; one denoiser call per level.

    Arguments:
        denoiser: The prior.
        shape: The shape (batch, channels, time) of the draws.
        grid: The levels, strictly decreasing to one >= 1; see
            :func:`ecgdiff.diffusion.grids.time_grid`.
        eta: The stochasticity: 0 deterministic (DDIM), 1 ancestral (DDPM).
        start: The states at the first level; standard normal if None.
        generator: The source of randomness.
        progress: Called after each step with the steps done and in all.
        dtype: The dtype of the draws; ignored if `start` is given.
        device: Where they are computed; ignored if `start` is given.

    Returns:
        The draws in model units.
    """
    x = normal(shape, generator, dtype, device) if start is None else start
    moves = transitions(grid)
    for done, (t, s) in enumerate(moves, start=1):
        noise = normal(x.shape, generator, x.dtype, x.device) if eta and s else None
        x = ddpm_step(x, denoiser(x, t), t, s, denoiser.schedule, noise, eta)
        if progress is not None:
            progress(done, len(moves))
    return x


def ddpm(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    grid: Sequence[int],
    start: Tensor | None = None,
    generator: Generator = None,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws from the prior by the forward chain's own bridges: :func:`ddim` with `eta` = 1."""
    return ddim(
        denoiser,
        shape,
        grid=grid,
        eta=1.0,
        start=start,
        generator=generator,
        progress=progress,
        dtype=dtype,
        device=device,
    )


def heun(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    grid: Sequence[int],
    start: Tensor | None = None,
    generator: Generator = None,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws from the prior along its probability flow, to second order.

    K levels take 2 K - 1 denoiser calls. The arguments are those of :func:`ddim`; randomness
    enters only through the start.
    """
    schedule = denoiser.schedule
    x_t = normal(shape, generator, dtype, device) if start is None else start
    moves = transitions(grid)
    for done, (t, s) in enumerate(moves, start=1):
        x0 = denoiser(x_t, t)
        if s == 0:
            x_t = x0
        else:
            sigma, sigma_s = float(schedule.sigma(t)), float(schedule.sigma(s))
            alpha_s = float(schedule.alpha(s))
            x = x_t / float(schedule.alpha(t))
            slope = (x - x0) / sigma
            euler = x + (sigma_s - sigma) * slope
            slope_s = (euler - denoiser(alpha_s * euler, s)) / sigma_s
            x_t = alpha_s * (x + (sigma_s - sigma) * (slope + slope_s) / 2)
        if progress is not None:
            progress(done, len(moves))
    return x_t


def multistep(
    denoiser: Denoiser,
    shape: Sequence[int],
    *,
    grid: Sequence[int],
    eta: float = 0.0,
    inflation: float = 1.0,
    above: float = 0.0,
    start: Tensor | None = None,
    generator: Generator = None,
    progress: Progress | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Draws from the prior to second order with one denoiser call per level (DPM-Solver++ 2M).

    On a Gaussian with the spectrum of ECGs, 16 calls leave an error of the variance of 3 % (7 %
    for `eta` = 1) where Heun's method leaves more than 20 %; the "log-snr" grid suits it.

    Arguments:
        denoiser: The prior.
        shape: The shape (batch, channels, time) of the draws.
        grid: The levels, strictly decreasing to one >= 1.
        eta: The stochasticity: 0 for the probability flow, in which randomness enters only through
            the start; 1 for the ancestral process, which forgets its own errors and those of the
            denoiser.
        inflation: A factor on the noise drawn (S_noise of Karras et al.): 1 is exact, a little
            more makes up for trained denoisers that are too sure.
        above: The level sigma, in model units, down to which noise is inflated.
        start: The states at the first level; standard normal if None.
        generator: The source of randomness.
        progress: Called after each step with the steps done and in all.
        dtype: The dtype of the draws; ignored if `start` is given.
        device: Where they are computed; ignored if `start` is given.

    Returns:
        The draws in model units.
    """
    schedule = denoiser.schedule
    x_t = normal(shape, generator, dtype, device) if start is None else start
    moves = transitions(grid)
    before: tuple[Tensor, float] | None = None
    for done, (t, s) in enumerate(moves, start=1):
        x0 = denoiser(x_t, t)
        if s == 0:
            x_t = x0
        else:
            sigma_s = float(schedule.sigma(s))
            h = math.log(float(schedule.sigma(t)) / sigma_s)
            kept = math.exp(-(1 + eta**2) * h)
            ahead = x0 if before is None else x0 + h / (2 * before[1]) * (x0 - before[0])
            x = kept * (x_t / float(schedule.alpha(t))) + (1 - kept) * ahead
            if eta:
                std = sigma_s * math.sqrt(-math.expm1(-2 * eta**2 * h))
                std *= inflation if sigma_s >= above else 1.0
                x = x + std * normal(x.shape, generator, x.dtype, x.device)
            x_t, before = float(schedule.alpha(s)) * x, (x0, h)
        if progress is not None:
            progress(done, len(moves))
    return x_t
