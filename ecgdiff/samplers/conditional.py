r"""A network that is shown the observation: no guidance, one call per step.

Where the prior has a conditional denoiser :math:`D(x; \sigma, y) = E[x_0 | x_t, y]`, learned or in
closed form, the draws follow its probability flow in :math:`x = x_t / \alpha_t`

.. math:: \frac{dx}{d\sigma} = \frac{x - D(x; \sigma, y)}{\sigma}

by a multistep method of second order (:func:`ecgdiff.diffusion.sampling.multistep`), after one
ancestral move, and end with D itself.

For a closed-form prior the only error is that of the steps. A learned D is as good as its
training: what ties its draws to y is that D saw y, and returns it where it was measured.

References:
    | Diffusion-based Time Series Imputation and Forecasting with Structured State Space Models
    | (Alcaraz and Strodthoff, 2022), arXiv:2208.09399
    | DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models
    | (Lu et al., 2022), arXiv:2211.01095
"""

from dataclasses import dataclass

from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.diffusion.grids import GridKind, time_grid
from ecgdiff.operators.base import Observation
from ecgdiff.random import Generator
from ecgdiff.samplers._flow import draw
from ecgdiff.samplers.base import NFE, Progress, Sampler

__all__ = ["Conditional"]


@dataclass(frozen=True)
class Conditional(Sampler):
    """Creates a sampler of a conditional denoiser: one network call per step, never a gradient.

    It needs a prior that has one for the observation
    (:meth:`ecgdiff.diffusion.denoiser.Denoiser.condition`).

    Arguments:
        steps: The number of levels, at least 2.
        grid: Their spacing, see :func:`ecgdiff.diffusion.grids.time_grid`.
        sigma_min: The lowest noise level of the "rho" and "log-snr" grids, in model units.
        sigma_max: Their highest noise level, in model units; the schedule's if None.
    """

    steps: int = 16
    grid: GridKind = "log-snr"
    sigma_min: float = 0.05
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        if self.steps < 2:
            raise ValueError(f"Conditional needs at least 2 steps, got {self.steps}.")

    def nfe(self) -> NFE:
        """The exact number of network calls of one call of the sampler, whatever the batch."""
        return NFE(forward=self.steps, vjp=0)

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        grid = time_grid(
            denoiser.schedule,
            self.steps,
            self.grid,
            sigma_min=self.sigma_min,
            sigma_max=self.sigma_max,
        )
        seen = denoiser.condition(observation)
        return draw(seen, observation, shape, grid, generator, progress)
