r"""Midpoint-guided posterior sampling (MGPS).

A move from level t to t' goes through a midpoint l <= t' in two draws:

.. math::
    \pi(x_{t'} | x_t) = \int q(x_{t'} | x_l, x_t) \, \pi(x_l | x_t) \, dx_l, \qquad
    \pi(x_l | x_t) \propto g(D_l(x_l)) \, p(x_l | x_t)

with the exact bridge q, the denoiser D_l(x) = E[x_0 | x_l = x], the likelihood g(x_0) = p(y |
x_0), and the DDPM kernel p(x_l | x_t) = N(m, s^2 I), that is bridge(l | 0, t) at (D_t(x_t), x_t).
The second factor is fitted at each step by N(mu, diag(e^{2 rho})): from w = mu + e^rho z, z ~ N(0,
I), and G = -grad_w log g(D_l(w)), the gradients of

.. math::
    KL = -E[\log g(D_l(w))] + \tfrac12 \sum [ (\mu - m)^2 + e^{2\rho} ] / s^2 - \sum \rho

are G + (mu - m) / s^2 for mu and G e^rho z + e^{2 rho} / s^2 - 1 for rho, followed by Adam for M
steps.

The *score form* replaces the DDPM kernel by p_l(x_l) q(x_t | x_l): with kap = a_t / a_l this is
the same pair of gradients with m = x_t / sqrt(kap), s^2 = (1 - kap) / kap and G - score_l(w) for
G, where score_l(w) = (sqrt(a_l) D_l(w) - w) / (1 - a_l) comes from the same network call.

References:
    | Variational Diffusion Posterior Sampling with Midpoint Guidance (Janati et al., ICLR 2025)
    | arXiv:2410.09945
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser, score_from_x0
from ecgdiff.diffusion.grids import GridKind, time_grid
from ecgdiff.operators.base import Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers.base import NFE, Progress, Sampler

__all__ = ["MGPS"]


class _Kernel(NamedTuple):
    """The Gaussian factor N(mean, variance I) of the fit, and where (mu, e^rho) start."""

    mean: Tensor
    variance: float
    start: Tensor
    std: float


@dataclass(frozen=True)
class MGPS(Sampler):
    r"""Creates an MGPS sampler, without the paper's warm start.

    A grid of `steps` levels makes `steps` - 1 moves, of `gradient_steps` network calls and
    backward passes each. The draw is the denoiser's mean at the lowest level, as in the paper.

    It is biased even when its fits converge: its kernel and likelihood neglect the spread of x_0
    given x_t, and its fit is diagonal. On ECG-like Gaussian priors the defaults missed the
    posterior mean of lost samples by 0.06-0.13 (channels) and 0.22-0.34 (blocks) prior standard
    deviations; a midpoint of 0.35 missed it by less than half of that for blocks.

    Arguments:
        steps: The number of levels t >= 1 of the grid, at least 2 (the paper's K counts t = 0 too:
            K = steps + 1).
        midpoint: The fraction :math:`\eta` of t' that is the midpoint, l = floor(eta t'), or a
            function of t'. The midpoint is clamped to [1, t'].
        gradient_steps: The gradient steps M of each fit, or a function M(move, moves) of the
            move's number, from 0 at the noisy end.
        lr: Adam's step size: in units of the kernel's standard deviation if `scale_free`, else in
            model units.
        scale_free: Whether mu is fitted in units of the kernel's standard deviation. The paper's
            method is False.
        form: "gaussian" (Algorithm 1 as printed) or "score" (the authors' form for ECG leads).
        grid: The spacing of the levels, see :func:`ecgdiff.diffusion.grids.time_grid`.
    """

    steps: int = 50
    midpoint: float | Callable[[int], int] = 0.5
    gradient_steps: int | Callable[[int, int], int] = 5
    lr: float = 0.2
    scale_free: bool = True
    form: Literal["gaussian", "score"] = "gaussian"
    grid: GridKind = "uniform"

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"MGPS needs at least 2 steps, got {self.steps}.")
        if not callable(self.midpoint) and not 0 <= self.midpoint <= 1:
            raise ValueError(f"midpoint must be a fraction in [0, 1], got {self.midpoint}.")
        if not callable(self.gradient_steps) and self.gradient_steps < 0:
            raise ValueError(f"gradient_steps must be >= 0, got {self.gradient_steps}.")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"lr must be positive and finite, got {self.lr}.")
        if self.form not in ("gaussian", "score"):
            raise ValueError(f"form must be 'gaussian' or 'score', got {self.form!r}.")

    @classmethod
    def ecg_leads(cls, std: float = 1.0) -> "MGPS":
        """The setting published for lost leads: K = 50, 290 gradient steps, Adam at 0.03 mV.

        The authors start the chain by 200 unguided steps; here it starts from noise like every
        other.

        Arguments:
            std: The millivolts in one model unit, to convert the published step size.
        """
        return cls(
            steps=49, gradient_steps=_ten_then_five, lr=0.03 / std, scale_free=False, form="score"
        )

    def nfe(self) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch."""
        moves = self.steps - 1
        fits = sum(self._fit_steps(move) for move in range(moves))
        around = 2 * moves if self.form == "gaussian" else moves + 1
        return NFE(forward=fits + around, vjp=fits)

    def _fit_steps(self, move: int) -> int:
        if callable(self.gradient_steps):
            return self.gradient_steps(move, self.steps - 1)
        return self.gradient_steps

    def _level(self, below: int) -> int:
        """The midpoint l of a move to level `below`; never 0, where no denoiser is needed."""
        if callable(self.midpoint):
            return min(max(self.midpoint(below), 1), below)
        return min(max(math.floor(self.midpoint * below), 1), below)

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        schedule = denoiser.schedule
        times = time_grid(schedule, self.steps, self.grid)

        def noise() -> Tensor:
            return normal(shape, generator, observation.y.dtype, observation.y.device)

        x = noise()
        x0 = denoiser(x, times[0])
        for move, (t, below) in enumerate(pairwise(times)):
            level = self._level(below)
            kernel = self._kernel(denoiser, x, x0, t, level, first=move == 0)
            w = self._fit(denoiser, observation, kernel, level, self._fit_steps(move), noise)
            down = schedule.bridge(below, level, t)
            x = down.c_lo * w + down.c_hi * x + down.std * noise()
            progress(move + 1, self.steps)
            if move + 2 < self.steps:
                x0 = denoiser(w, level)
        x = denoiser(x, times[-1])
        progress(self.steps, self.steps)
        return x

    def _kernel(
        self, denoiser: Denoiser, x: Tensor, x0: Tensor, t: int, level: int, *, first: bool
    ) -> _Kernel:
        """The Gaussian factor of p(x_l | x_t), and a start that has seen y through x0."""
        schedule = denoiser.schedule
        c_lo, c_hi, std = schedule.bridge(level, 0, t)
        start = c_lo * x0 + c_hi * x
        if self.form == "gaussian":
            mean = start if first else c_lo * denoiser(x, t) + c_hi * x
            return _Kernel(mean, std**2, start, std)
        kap = float(schedule.alpha_bar[t] / schedule.alpha_bar[level])
        return _Kernel(x / math.sqrt(kap), (1 - kap) / kap, start, std)

    def _fit(
        self,
        denoiser: Denoiser,
        observation: Observation,
        kernel: _Kernel,
        level: int,
        steps: int,
        noise: Callable[[], Tensor],
    ) -> Tensor:
        """Draws w from the Gaussian fitted to g(D_l(w)) times the kernel."""
        unit = kernel.std if self.scale_free else 1.0
        # mu = start + unit u and rho = ln std + h; Adam does not depend on where its variables are
        # centered.
        start = kernel.start
        variables = torch.zeros((2, *start.shape), dtype=start.dtype, device=start.device)
        adam = _Adam(self.lr, variables)
        for _ in range(steps):
            mu, std = start + unit * variables[0], kernel.std * variables[1].exp()
            grad_mu, grad_rho = self._gradient(
                denoiser, observation, kernel, level, mu, std, noise()
            )
            variables = adam.step(variables, torch.stack((unit * grad_mu, grad_rho)))
        return start + unit * variables[0] + kernel.std * variables[1].exp() * noise()

    def _gradient(
        self,
        denoiser: Denoiser,
        observation: Observation,
        kernel: _Kernel,
        level: int,
        mu: Tensor,
        std: Tensor,
        z: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """One-sample gradients of the KL in mu and rho = ln std, at w = mu + std z."""
        pull = self._pull(denoiser, observation, mu + std * z, level)
        grad_mu = pull + (mu - kernel.mean) / kernel.variance
        return grad_mu, pull * std * z + std**2 / kernel.variance - 1

    def _pull(self, denoiser: Denoiser, observation: Observation, w: Tensor, level: int) -> Tensor:
        """-grad_w log g(D_l(w)), less the prior's score at w in the score form."""
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            x0 = denoiser(w, level)
            (gradient,) = torch.autograd.grad(observation.log_likelihood(x0).sum(), w)
        if self.form == "gaussian":
            return -gradient
        return -gradient - score_from_x0(w.detach(), x0.detach(), level, denoiser.schedule)


class _Adam:
    """Adam (Kingma & Ba, 2015) with its usual constants, elementwise."""

    def __init__(self, lr: float, like: Tensor) -> None:
        self.lr, self.count = lr, 0
        self.first, self.second = torch.zeros_like(like), torch.zeros_like(like)

    def step(self, variables: Tensor, gradient: Tensor) -> Tensor:
        """The variables after one step."""
        self.count += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        first = self.first / (1 - 0.9**self.count)
        second = self.second / (1 - 0.999**self.count)
        return variables - self.lr * first / (second.sqrt() + 1e-8)


def _ten_then_five(move: int, moves: int) -> int:
    return 10 if move < 10 else 5
