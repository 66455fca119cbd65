r"""All methods on a mixture of 25 distant Gaussians seen through one number.

Prior: unit covariances, means (8 i, 8 j) for i, j in -2..2, repeated d / 2 times along the
coordinates, weights uniform in (0, 1), normalized. Observation: one row A of standard normal
numbers, y = A x + sigma z. The posterior is such a mixture too, in closed form; what is hard is to
choose among modes that are 8 standard deviations apart. Score: sliced Wasserstein-1 between a
method's draws and as many exact ones; a method that diverges scores 10. *Floor* is the score of
other exact draws.

References:
    | Variational Diffusion Posterior Sampling with Midpoint Guidance (Janati et al., ICLR 2025),
    | arXiv:2410.09945, Section 4
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.experiments import comparison
from ecgdiff.experiments.comparison import Problem, compare
from ecgdiff.experiments.unit_mixture import UnitMixture
from ecgdiff.operators import Dense, Observation
from ecgdiff.samplers import (
    CADPS,
    DAPS,
    DPS,
    MGDM,
    MGPS,
    MMPS,
    PGDM,
    DiffPIR,
    REDdiff,
    Sampler,
)

__all__ = ["LEFT_OUT", "Problems", "Setting", "figure", "methods", "run", "table"]

LEFT_OUT = {
    "conditional": "which takes a prior that can be shown an observation.",
    "ddnm": "which takes masks; this observation is a sum of coordinates.",
    "ding": "which takes masks; this observation is a sum of coordinates.",
    "surrogate": "which takes masks, and a prior with a covariance of leads and frequencies.",
}
"""The samplers that cannot run on this problem, and why."""

_EXTENT = 8.0
_VARIANCE = 1 + 2 * _EXTENT**2  # of a coordinate, for equal weights


@dataclass(frozen=True)
class Problems:
    """Which problems, for the experiments on this mixture.

    Arguments:
        d: The dimension, even.
        sigma: The noise's standard deviation.
        replicates: How many problems, the same for all methods.
        draws: The draws per problem.
        directions: The directions of the score.
        seed: The first problem's seed.
    """

    d: int = 20
    sigma: float = 0.05
    replicates: int = 20
    draws: int = 1000
    directions: int = 1000
    seed: int = 0

    def problem(self, k: int) -> Problem:
        """Draws the problem number k; the same number is the same problem for all methods."""
        g = torch.Generator().manual_seed(self.seed + k)
        grid = _EXTENT * torch.arange(-2, 3, dtype=torch.float64)
        means = torch.cartesian_prod(grid, grid).repeat(1, self.d // 2)
        weights = torch.rand(len(means), generator=g, dtype=torch.float64)
        prior = UnitMixture(weights, means, Schedule.linear())
        matrix = torch.randn((1, self.d), generator=g, dtype=torch.float64)
        noise = self.sigma * torch.randn((1, 1), generator=g, dtype=torch.float64)
        y = prior.sample(1, g) @ matrix.mT + noise
        exact, other = (
            prior.posterior_sample(matrix, y[0], self.sigma, self.draws, g) for _ in range(2)
        )
        # Single precision is as good for the samplers, and twice as fast.
        observation = Observation(y.float(), Dense(matrix.float(), (1, self.d)), self.sigma)
        return Problem(prior, observation, exact, other, self.directions, self.seed + k)


@dataclass(frozen=True)
class Setting(Problems):
    """The settings of the comparison, besides those of the problems.

    Arguments:
        steps: The levels of a grid.
    """

    steps: int = 300


def methods(steps: int) -> dict[str, Sampler]:
    """Every method that takes a linear operator, in its published or default settings.

    MMPS solves exactly: one observed number takes one iteration.

    Arguments:
        steps: The levels of a grid; MGDM takes a third and DAPS two thirds of them, for the
            network calls that each level costs there.
    """
    return {
        "MGPS, midpoint 1/2": MGPS.mixture(steps - 1),
        "MMPS": MMPS(steps),
        "CA-DPS": CADPS(steps, ceiling=4 * _VARIANCE),
        "PGDM, Bayes weight": PGDM(steps),
        "PGDM, Bayes weight, the prior's variance": PGDM(steps, variance=_VARIANCE),
        "PGDM, released weight": PGDM(steps, weight="released"),
        "DPS, zeta 0.2": DPS(steps, zeta=0.2),
        "DiffPIR": DiffPIR(steps),
        "MGDM": MGDM(max(2, steps // 3), lr=0.1, scale_free=False),
        "DAPS": DAPS(max(2, 2 * steps // 3)),
        "RED-diff": REDdiff(steps),
    }


def run(setting: Setting) -> dict[str, Any]:
    """Scores every method on the mixture of 25 Gaussians."""
    return {
        "setting": asdict(setting),
        "methods": compare(methods(setting.steps), setting.problem, setting.replicates),
        "left_out": LEFT_OUT,
    }


def table(result: dict[str, Any]) -> str:
    """The scores as Markdown, best first."""
    return comparison.table(result)


def figure(result: dict[str, Any]) -> dict[str, Any]:
    """The scores with their intervals, best first, as a plotly figure."""
    d = result["setting"]["d"]
    return comparison.figure(result, f"25 Gaussians, one observation, d = {d}")
