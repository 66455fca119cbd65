import math
from itertools import pairwise

import pytest
import torch

from ecgdiff.diffusion import Schedule, time_grid

SCHEDULE = Schedule.linear()


@pytest.mark.parametrize("kind", ["uniform", "rho", "log-snr"])
@pytest.mark.parametrize("steps", [2, 3, 8, 25, 50, 64, 333, 999, 1000])
def test_grid_has_exactly_the_steps_asked(kind: str, steps: int) -> None:
    grid = time_grid(SCHEDULE, steps, kind)
    assert len(grid) == steps
    assert all(a > b for a, b in pairwise(grid))
    assert grid[0] == 1000 and grid[-1] >= 1
    assert all(type(t) is int for t in grid)


def test_uniform_grid_is_equally_spaced() -> None:
    assert time_grid(SCHEDULE, 4) == [1000, 750, 500, 250]
    assert time_grid(SCHEDULE, 1000) == list(range(1000, 0, -1))


def test_rho_and_log_snr_follow_their_formulas() -> None:
    u = torch.linspace(1, 0, 9, dtype=torch.float64)
    top = float(SCHEDULE.sigma(1000))
    karras = (0.05 ** (1 / 7) + u * (top ** (1 / 7) - 0.05 ** (1 / 7))) ** 7
    grid = time_grid(SCHEDULE, 9, "rho", sigma_min=0.05)
    assert grid == SCHEDULE.index(karras).tolist()
    geometric = 0.05 * (20 / 0.05) ** u
    grid = time_grid(SCHEDULE, 9, "log-snr", sigma_min=0.05, sigma_max=20.0)
    assert grid == SCHEDULE.index(geometric).tolist()
    far = time_grid(SCHEDULE, 9, "rho", sigma_min=0.05, sigma_max=20.0, rho=1e6)
    assert far == grid


def test_refusals_name_the_problem() -> None:
    with pytest.raises(ValueError, match=r"2\.\.1000"):
        time_grid(SCHEDULE, 1)
    with pytest.raises(ValueError, match=r"2\.\.1000"):
        time_grid(SCHEDULE, 1001)
    with pytest.raises(ValueError, match="sigma_min"):
        time_grid(SCHEDULE, 8, "rho", sigma_min=3.0, sigma_max=2.0)
    with pytest.raises(ValueError, match=r"got 0\.02 and inf"):
        time_grid(SCHEDULE, 8, "rho", sigma_max=math.inf)
    with pytest.raises(ValueError, match="Unknown grid 'cosine'"):
        time_grid(SCHEDULE, 8, "cosine")  # type: ignore[arg-type]
