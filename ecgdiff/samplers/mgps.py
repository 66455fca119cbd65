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

The *two-stage* move of the paper's warm start goes on from the midpoint to level 1, where the
likelihood needs no denoiser, and bridges from there:

.. math::
    \pi(x_1 | x_l) \propto g(x_1) \, p_1(x_1) \, q(x_l | x_1), \qquad
    x_{t'} \sim q(x_{t'} | x_1, x_t).

That is the score form with 1 for l, l for t, x_l for x_t and g(w) for g(D_l(w)): one network call
and no backward pass for each gradient step.

References:
    | Variational Diffusion Posterior Sampling with Midpoint Guidance (Janati et al., ICLR 2025)
    | arXiv:2410.09945
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.grids import GridKind
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.operators.base import Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers._fit import Kernel, Noise, clean_pull, fit, guided_pull
from ecgdiff.samplers._grid import GridSampler
from ecgdiff.samplers.base import NFE, Progress
from ecgdiff.samplers.mgps_rules import GRADIENT_STEPS, MidpointSwitch, RisingRate, fraction_of

__all__ = ["MGPS"]


@dataclass(frozen=True)
class MGPS(GridSampler):
    r"""Creates an MGPS sampler, by default without the paper's warm start.

    A grid of `steps` levels makes `steps` - 1 moves, of `gradient_steps` network calls and
    backward passes each; a two-stage move calls the network as often again, without backward
    passes. The draw is the denoiser's mean at the lowest level, as in the paper.

    It is biased even when its fits converge: its kernel and likelihood neglect the spread of x_0
    given x_t, and its fit is diagonal. On an ECG-like Gaussian prior the defaults missed the
    posterior mean of lost samples by 0.21 (channels) and 0.26 (a block) prior standard deviations,
    RMS over records, with 0.86 and 0.84 of the posterior's spread. A midpoint of 0.35 missed it by
    0.08 and 0.15, a warm start down to 700 by 0.22 and 0.26, the preset for lost blocks by 0.23
    and 0.25. Converged fits, of one stage or two, missed it by 0.06 and 0.12: the rest is fits
    that stop early.

    In float32 the score of second fits has an error of 1e-3 (a difference divided by 1e-4). Where
    it vanishes, the sign that is Adam's first step is left to rounding, and so to the batch.

    The presets are the settings of the released code. They count K = steps + 1 levels, spread as
    this package spreads them (the paper's go to level 999 and are truncated to integers). Their
    levels (`warm`, the rules of midpoints and of step sizes) are those of a schedule of 1000.

    Arguments:
        steps: The number of levels t >= 1 of the grid, at least 2 (the paper's K counts t = 0 too:
            K = steps + 1).
        midpoint: The fraction :math:`\eta` of t' that is the midpoint, l = floor(eta t'), or a
            function l(t, t') of the levels before and after the move, such as
            :class:`ecgdiff.samplers.mgps_rules.MidpointSwitch`; the fraction of t that the
            authors' ECG code takes is `lambda t, below: t // 2`. It is clamped to [1, t'].
        gradient_steps: The gradient steps M of each fit, or a function M(move, moves) of the
            move's number, from 0 at the noisy end, such as those of
            :data:`ecgdiff.samplers.mgps_rules.GRADIENT_STEPS`.
        lr: Adam's step size: in units of the kernel's standard deviation if `scale_free`, else in
            model units.
        scale_free: Whether mu is fitted in units of the kernel's standard deviation (in second
            fits, that of q(x_l | x_1)). The paper's method is False.
        form: "gaussian" (Algorithm 1 as printed) or "score" (the authors' form for ECG leads).
        grid: The spacing of the levels, see :func:`ecgdiff.diffusion.grids.time_grid`.
        warm: The level down to which moves are two-stage (Algorithm 3; 700 of 1000 in the paper, 0
            for all moves); None for no such moves. Refused where the schedule ends below it.
        second_lr: The step size of second fits, a number or a function of the level t that the
            move starts from; None for `lr`.
        sigma_min: The lowest noise level of the "rho" and "log-snr" grids, in model units.
        sigma_max: Their highest noise level, in model units; the schedule's if None.
    """

    steps: int = 50
    midpoint: float | Callable[[int, int], int] = 0.5
    gradient_steps: int | Callable[[int, int], int] = 5
    lr: float = 0.2
    scale_free: bool = True
    form: Literal["gaussian", "score"] = "gaussian"
    grid: GridKind = "uniform"
    warm: int | None = None
    second_lr: float | Callable[[int], float] | None = None
    sigma_min: float = 0.02
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not callable(self.midpoint) and not 0 <= self.midpoint <= 1:
            raise ValueError(f"midpoint must be a fraction in [0, 1], got {self.midpoint}.")
        if not callable(self.gradient_steps) and self.gradient_steps < 0:
            raise ValueError(f"gradient_steps must be >= 0, got {self.gradient_steps}.")
        rates = {"lr": self.lr}
        if self.second_lr is not None and not callable(self.second_lr):
            rates["second_lr"] = self.second_lr
        for name, rate in rates.items():
            if not (math.isfinite(rate) and rate > 0):
                raise ValueError(f"{name} must be positive and finite, got {rate}.")
        if self.form not in ("gaussian", "score"):
            raise ValueError(f"form must be 'gaussian' or 'score', got {self.form!r}.")
        if self.warm is not None and self.warm < 0:
            raise ValueError(f"warm must be a level >= 0 or None, got {self.warm}.")

    @classmethod
    def images(cls, steps: int = 299) -> "MGPS":
        """The setting published for images in [-1, 1] (FFHQ): K = 300, warm start, Adam at 0.03.

        For ImageNet take `GRADIENT_STEPS["imagenet"]` and the same midpoints; what was used for
        its blurs is not published. The released entry script, run as it is, takes the "generic"
        rule for all data.

        Arguments:
            steps: The number of levels; the rule is the same for the first and last moves.
        """
        return cls(
            steps=steps,
            gradient_steps=GRADIENT_STEPS["ffhq"],
            lr=0.03,
            scale_free=False,
            warm=700,
        )

    @classmethod
    def latent(cls, steps: int = 299) -> "MGPS":
        """The setting published for latent images (FFHQ-LDM): as images, with other midpoints.

        They are t' itself from level 500 down, as in the released code.

        Arguments:
            steps: The number of levels; the rule is the same for the first and last moves.
        """
        return cls(
            steps=steps,
            midpoint=MidpointSwitch(),
            gradient_steps=GRADIENT_STEPS["ffhq-ldm"],
            lr=0.03,
            scale_free=False,
            warm=700,
        )

    @classmethod
    def mixture(cls, steps: int = 299) -> "MGPS":
        """The setting published for a Gaussian mixture of scale 16: K = 300, no warm start.

        Adam's 0.1 is the released configuration; the paper states 0.03, which is far worse.

        Arguments:
            steps: The number of levels; the rule is the same for the first and last moves.
        """
        return cls(steps=steps, gradient_steps=GRADIENT_STEPS["mixture"], lr=0.1, scale_free=False)

    @classmethod
    def ecg_leads(cls, std: float, steps: int = 49) -> "MGPS":
        """The setting published for lost leads: K = 50, 290 gradient steps, Adam at 0.03 mV.

        The authors start the chain by 200 unguided steps and take their midpoints at a fraction of
        t; here it starts from noise like every other, and they are at the fraction of t'.

        Arguments:
            std: The millivolts in one model unit (`scale` of a prior), for the step size.
            steps: The number of levels; the rule is the same for the first and last moves.
        """
        return cls(
            steps=steps,
            gradient_steps=GRADIENT_STEPS["ecg-leads"],
            lr=0.03 / std,
            scale_free=False,
            form="score",
        )

    @classmethod
    def ecg_block(cls, std: float, steps: int = 49) -> "MGPS":
        """The setting published for lost blocks: K = 50, two-stage at every move.

        It differs from Algorithm 3 as printed: score form, and a step size of second fits that
        rises with the noise (:class:`ecgdiff.samplers.mgps_rules.RisingRate`). Midpoints are at a
        fraction of t', not of t as in the authors' ECG code.

        Arguments:
            std: The millivolts in one model unit (`scale` of a prior), for the step sizes.
            steps: The number of levels; the rule is the same for the first and last moves.
        """
        return cls(
            steps=steps,
            gradient_steps=GRADIENT_STEPS["ecg-block"],
            lr=0.03 / std,
            scale_free=False,
            form="score",
            warm=0,
            second_lr=RisingRate(steps, std),
        )

    def nfe(self, schedule: Schedule | None = None) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch.

        Arguments:
            schedule: The prior's noise levels, which decide what moves are two-stage;
                `Schedule.linear()` if None. Without a warm start they change nothing.

        Raises:
            ValueError: If the schedule ends below the level `warm`.
        """
        moves = self.steps - 1
        fits = [self._fit_steps(move) for move in range(moves)]
        # The denoiser at the midpoint starts the next fit, or the second one.
        after = [1] * (moves - 1) + [0]
        if self.warm is not None:
            times = self._times(schedule or Schedule.linear())
            for move, (t, below) in enumerate(pairwise(times)):
                if self._two_stage(t):
                    after[move] = 1 + fits[move] if self._level(t, below) > 1 else 0
        kernels = moves - 1 if self.form == "gaussian" else 0
        return NFE(forward=2 + sum(fits) + sum(after) + kernels, vjp=sum(fits))

    def _fit_steps(self, move: int) -> int:
        if callable(self.gradient_steps):
            return self.gradient_steps(move, self.steps - 1)
        return self.gradient_steps

    def _times(self, schedule: Schedule) -> list[int]:
        if self.warm is not None and self.warm > schedule.T:
            raise ValueError(
                f"warm is level {self.warm} and this schedule has {schedule.T}, so that no move "
                "would be two-stage; give a level of the schedule, or None for no such moves."
            )
        return super()._times(schedule)

    def _level(self, t: int, below: int) -> int:
        """The midpoint l of a move; never 0, where no denoiser is needed."""
        if callable(self.midpoint):
            return min(max(self.midpoint(t, below), 1), below)
        return fraction_of(below, self.midpoint)

    def _two_stage(self, t: int) -> bool:
        return self.warm is not None and t >= self.warm

    def _second_rate(self, t: int) -> float:
        if callable(self.second_lr):
            return self.second_lr(t)
        return self.lr if self.second_lr is None else self.second_lr

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        schedule = denoiser.schedule
        times = self._times(schedule)

        def noise() -> Tensor:
            return normal(shape, generator, observation.y.dtype, observation.y.device)

        x = noise()
        seen, at = denoiser(x, times[0]), 0
        for move, (t, below) in enumerate(pairwise(times)):
            level, steps = self._level(t, below), self._fit_steps(move)
            kernel = self._kernel(denoiser, x, seen, t, level, first=move == 0, at=at)
            pull = guided_pull(denoiser, observation, level, score=self.form == "score")
            unit = kernel.std if self.scale_free else 1.0
            mu, std = fit(pull, kernel, steps, self.lr, unit, noise)
            w = mu + std * noise()
            if self._two_stage(t):
                rate = self._second_rate(t)
                seen, at = self._second(denoiser, observation, w, level, steps, rate, noise), 1
                down, known = schedule.bridge(below, 1, t), seen
            else:
                down, known = schedule.bridge(below, level, t), w
            x = down.c_lo * known + down.c_hi * x + down.std * noise()
            progress(move + 1, self.steps)
            if not self._two_stage(t) and move + 2 < self.steps:
                seen, at = denoiser(w, level), 0
        x = denoiser(x, times[-1])
        progress(self.steps, self.steps)
        return x

    def _kernel(
        self,
        denoiser: Denoiser,
        x: Tensor,
        seen: Tensor,
        t: int,
        level: int,
        *,
        first: bool,
        at: int = 0,
    ) -> Kernel:
        """The Gaussian factor of p(x_l | x_t), and a start that has seen y.

        `seen` is the cleanest signal of the move before, of level `at`: 0 or 1.
        """
        schedule = denoiser.schedule
        # A bridge to level 1 from level 1 would have no spread to start from.
        c_lo, c_hi, std = schedule.bridge(level, min(at, level - 1), t)
        start = c_lo * seen + c_hi * x
        if self.form == "score":
            return _score_kernel(schedule, x, t, level, start, std)
        if first:
            return Kernel(start, std**2, start, std)
        c_lo, c_hi, spread = schedule.bridge(level, 0, t)
        return Kernel(c_lo * denoiser(x, t) + c_hi * x, spread**2, start, std)

    def _second(
        self,
        denoiser: Denoiser,
        observation: Observation,
        w: Tensor,
        level: int,
        steps: int,
        lr: float,
        noise: Noise,
    ) -> Tensor:
        """Draws x_1 given w of a midpoint (Algorithm 2)."""
        if level == 1:
            return w
        schedule = denoiser.schedule
        c_lo, c_hi, std = schedule.bridge(1, 0, level)
        start = c_lo * denoiser(w, level) + c_hi * w
        kernel = _score_kernel(schedule, w, level, 1, start, std)
        # The start's spread is that of x_1 given x_0, far below what is to be found.
        forward = math.sqrt(1 - float(schedule.alpha_bar[level] / schedule.alpha_bar[1]))
        unit = forward if self.scale_free else 1.0
        mu, found = fit(clean_pull(denoiser, observation), kernel, steps, lr, unit, noise)
        return mu + found * noise()


def _score_kernel(
    schedule: Schedule, x: Tensor, t: int, level: int, start: Tensor, std: float
) -> Kernel:
    """The forward kernel q(x_t | x_l) at x, as a Gaussian in x_l."""
    kap = float(schedule.alpha_bar[t] / schedule.alpha_bar[level])
    return Kernel(x / math.sqrt(kap), (1 - kap) / kap, start, std)
