"""The time grid as an option that all samplers have in common."""

from numbers import Integral

from ecgdiff.diffusion.grids import GridKind, check_grid, time_grid
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.samplers.base import Sampler

__all__ = ["GridSampler"]


class GridSampler(Sampler):
    """A sampler that visits the levels of a time grid; subclasses declare these as fields.

    Attributes:
        steps: The number of levels.
        grid: Their spacing, see :func:`ecgdiff.diffusion.grids.time_grid`.
        sigma_min: The lowest noise level of the "rho" and "log-snr" grids, in model units.
        sigma_max: Their highest noise level, in model units; the schedule's if None.
    """

    steps: int
    grid: GridKind
    # Limits that a subclass does not declare are those of `time_grid`.
    sigma_min: float = 0.02
    sigma_max: float | None = None

    def __post_init__(self) -> None:
        name = type(self).__name__
        if not isinstance(self.steps, Integral):
            raise ValueError(f"{name} needs a whole number of steps, got {self.steps!r}.")
        if self.steps < 2:
            raise ValueError(f"{name} needs at least 2 steps, got {self.steps}.")
        check_grid(self.grid, self.sigma_min, self.sigma_max)

    def _times(self, schedule: Schedule) -> list[int]:
        """The levels visited, from noisy to clean; 0 follows."""
        return time_grid(
            schedule, self.steps, self.grid, sigma_min=self.sigma_min, sigma_max=self.sigma_max
        )
