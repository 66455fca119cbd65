"""The time grid as an option that all samplers have in common."""

from ecgdiff.diffusion.grids import GridKind, check_grid, time_grid
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.samplers._fields import check_fields
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
        kind = type(self)
        check_fields(self)
        if self.steps < 2:
            raise ValueError(f"{kind.__name__} needs at least 2 steps, got {self.steps}.")
        check_grid(self.grid, self.sigma_min, self.sigma_max)
        usual = (kind.sigma_min, kind.sigma_max)
        if self.grid == "uniform" and (self.sigma_min, self.sigma_max) != usual:
            raise ValueError(
                'The grid "uniform" takes its levels from the schedule and has no sigma_min or '
                'sigma_max; choose grid="rho" or "log-snr", or leave them out.'
            )

    def _times(self, schedule: Schedule) -> list[int]:
        """The levels visited, from noisy to clean; 0 follows."""
        return time_grid(
            schedule, self.steps, self.grid, sigma_min=self.sigma_min, sigma_max=self.sigma_max
        )
