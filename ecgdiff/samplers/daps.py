r"""Decoupled annealing posterior sampling (DAPS), with an exact step for linear operators.

From level to level the state is forgotten but for its estimate of the clean signal. With
:math:`x_t = \alpha_t x_0 + s_t \epsilon` and :math:`\sigma_t = s_t / \alpha_t`, level t does

.. math::
    \bar x &= \text{probability flow from } x_t \text{ to level 0, by Euler moves } x_l = c_{lo}
        D_k(x_k) + c_{hi} x_k \\
    x_0 &\sim N(x; \bar x, r_t^2 I)\, N(y; A x, R) \quad \text{(normalized)} \\
    x_{t'} &= \alpha_{t'} x_0 + s_{t'} z, \quad z \sim N(0, I),

with the deterministic bridge(l | 0, k), that is :math:`c_{hi} = s_l / s_k`, and :math:`r_t^2 =
\sigma_t^2` or :math:`c\, \sigma_t^2 / (c + \sigma_t^2)` for a prior variance c. The second line is
exact, lost samples receive the noise :math:`r_t` too; the paper runs Langevin steps there, which
would take operators that are not linear, too: those are refused here. The last level returns
:math:`x_0` and not a noisy state.

References:
    | Improving Diffusion Inverse Problem Solving with Decoupled Noise Annealing
    | (Zhang et al., CVPR 2025), arXiv:2407.01521
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.grids import GridKind
from ecgdiff.diffusion.sampling import ddpm_step
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.operators.base import Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers._gaussian import conditional_draw
from ecgdiff.samplers._grid import GridSampler
from ecgdiff.samplers.base import NFE, Progress, linear_operator

__all__ = ["DAPS"]

RHO = 7.0  # of the spacing of the flow's levels, as of the grid's


@dataclass(frozen=True)
class DAPS(GridSampler):
    """Creates a DAPS sampler, for any linear operator; it needs no gradient.

    It is biased: what was observed reaches lost samples only through the next flow, while they
    receive the isotropic noise r, which knows nothing of their neighbors. On an ECG-like Gaussian
    prior the defaults missed the posterior mean of lost samples by 0.11 (channels) and 0.38
    (a block) prior standard deviations, RMS over all data, with 1.8 and 2.7 times its variance;
    `variance` = 1, the prior's, gave the same means with 1.2 and 1.9 times. Twice the steps missed
    it by 0.06 and 0.31.

    Arguments:
        steps: The number of levels, at least 2.
        ode_steps: The network calls of each flow to level 0, at least 1. From a level below this
            number there are fewer levels, and calls are repeated, without effect.
        variance: The variance r^2 around the flow's end: "level" for sigma^2 (the paper), or the
            prior's variance c in model units squared, for c sigma^2 / (c + sigma^2).
        grid: The spacing of the levels, see :func:`ecgdiff.diffusion.grids.time_grid`.
        sigma_min: The lowest noise level of the "rho" and "log-snr" grids, in model units; lost
            samples keep the noise r of it.
        sigma_max: Their highest noise level, in model units; the schedule's if None.
    """

    steps: int = 50
    ode_steps: int = 5
    variance: float | Literal["level"] = "level"
    grid: GridKind = "rho"
    sigma_min: float = 0.02
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ode_steps < 1:
            raise ValueError(f"ode_steps must be >= 1, got {self.ode_steps}.")
        known = self.variance == "level"
        if not known and (isinstance(self.variance, str) or not self.variance > 0):
            raise ValueError(f"variance must be 'level' or positive, got {self.variance!r}.")

    def nfe(self) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch."""
        return NFE(forward=self.steps * self.ode_steps, vjp=0)

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        schedule, y = denoiser.schedule, observation.y
        operator = linear_operator(observation, "DAPS")
        times = self._times(schedule)
        x = normal(shape, generator, y.dtype, y.device)
        for step, (t, below) in enumerate(pairwise([*times, 0])):
            mean = self._flow(denoiser, x, t)
            std = self._std(float(schedule.sigma(t)))
            x = conditional_draw(mean, std, y, operator, observation.variance, generator)
            if below > 0:
                z = normal(shape, generator, y.dtype, y.device)
                x = float(schedule.alpha(below)) * x + float(schedule.std(below)) * z
            progress(step + 1, self.steps)
        return x

    def _std(self, sigma: float) -> float:
        """The standard deviation r around the end of the flow from noise level sigma."""
        if self.variance == "level":
            return sigma
        c = float(self.variance)
        return sigma * math.sqrt(c / (c + sigma**2))

    def _flow(self, denoiser: Denoiser, x: Tensor, t: int) -> Tensor:
        """The end of the probability flow from x_t."""
        schedule = denoiser.schedule
        for k, l in pairwise([*_flow_levels(schedule, t, self.ode_steps), 0]):
            x = ddpm_step(x, denoiser(x, k), k, l, schedule, None, eta=0.0)
        return x


def _flow_levels(schedule: Schedule, t: int, steps: int) -> list[int]:
    """Levels from t down to 1, equally spaced in sigma^(1/7); distinct if t >= `steps`."""
    low, high = (float(schedule.sigma(level)) ** (1 / RHO) for level in (1, t))
    share = torch.linspace(1, 0, steps, dtype=torch.float64)
    levels = [int(level) for level in schedule.index((low + share * (high - low)) ** RHO)]
    for i in reversed(range(steps - 1)):
        levels[i] = max(levels[i], levels[i + 1] + 1)
    levels[0] = t
    for i in range(1, steps):
        levels[i] = max(1, min(levels[i], levels[i - 1] - 1))
    return levels
