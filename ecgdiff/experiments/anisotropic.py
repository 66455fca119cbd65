r"""All methods on a mixture of anisotropic Gaussians of which some coordinates are observed.

Prior in d = 16 dimensions: K = 4 components with standard normal means, weights Dirichlet(3) and
covariances

.. math:: C_k = c\, (B B^T + 0.02 I), \qquad B \in R^{d \times 4} \text{ standard normal}, \quad
    \mathrm{tr}\, C_k = d .

Observation: 6 of the 16 coordinates with noise 0.1. On mixtures of unit covariance an isotropic
guess of the covariance of x_0 given x_t is right within a component, which flatters PGDM; here
coordinates are correlated, and only a method that knows how can tell the lost ones. The oracle is
the ancestral chain with the denoiser of the exact posterior, without and with the spread w that
its steps leave out: what separates it from the floor, other exact draws, is discretization.
"""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianMixturePrior, Schedule
from ecgdiff.experiments import comparison
from ecgdiff.experiments.comparison import Problem, compare
from ecgdiff.experiments.oracles import DiagonalTypeII, Oracle
from ecgdiff.operators import Mask, observe
from ecgdiff.samplers import (
    CADPS,
    DAPS,
    DDNM,
    DING,
    DPS,
    MGDM,
    MGPS,
    MMPS,
    PGDM,
    Conditional,
    DiffPIR,
    REDdiff,
    Sampler,
)

__all__ = ["LEFT_OUT", "Setting", "figure", "methods", "prior", "run", "table"]

LEFT_OUT = {
    "surrogate": "which takes a prior with a covariance of leads and frequencies.",
}
"""The samplers that cannot run on this problem, and why."""


def prior(
    generator: torch.Generator, d: int, components: int = 4, rank: int = 4
) -> GaussianMixturePrior:
    """Draws a prior, for signals (batch, 1, d).

    Arguments:
        generator: The source of randomness.
        d: The dimension.
        components: How many components.
        rank: The rank of a covariance without its floor.
    """

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    factor = normal(components, d, rank)
    covariances = factor @ factor.mT + 0.02 * torch.eye(d, dtype=torch.float64)
    mean_variance = covariances.diagonal(dim1=1, dim2=2).mean(1)
    # Dirichlet(3): a sum of three exponentials is Gamma(3).
    uniform = torch.rand((components, 3), generator=generator, dtype=torch.float64)
    return GaussianMixturePrior(
        -(1 - uniform).log().sum(1),
        normal(components, d),
        covariances / mean_variance[:, None, None],
        Schedule.linear(),
        (1, d),
    )


@dataclass(frozen=True)
class Setting:
    """The settings of the comparison.

    Arguments:
        d: The dimension.
        observed: How many coordinates are observed.
        sigma: The noise's standard deviation.
        steps: The levels of a guided chain.
        replicates: How many problems, the same for all methods.
        draws: The draws per problem.
        directions: The directions of the score.
        seed: The first problem's seed.
    """

    d: int = 16
    observed: int = 6
    sigma: float = 0.1
    steps: int = 64
    replicates: int = 20
    draws: int = 1500
    directions: int = 300
    seed: int = 0

    def problem(self, k: int) -> Problem:
        """Draws the problem number k; the same number is the same problem for all methods."""
        g = torch.Generator().manual_seed(self.seed + k)
        known = prior(g, self.d)
        mask = torch.zeros((1, 1, self.d), dtype=torch.bool)
        mask[..., torch.randperm(self.d, generator=g)[: self.observed]] = True
        observation = observe(Mask(mask), known.sample(1, g), self.sigma, g)
        posterior = known.posterior(observation)
        exact, other = (posterior.sample(self.draws, g).flatten(1) for _ in range(2))
        return Problem(known, observation, exact, other, self.directions, self.seed + k)


def guided(setting: Setting) -> dict[str, Sampler]:
    """The oracles and the methods that differ only in their model of the covariance.

    All of them run the same ancestral chain on the Karras grid. MMPS is solved until it converges.

    Arguments:
        setting: The settings.
    """
    steps = setting.steps
    return {
        "oracle": Oracle(steps),
        "oracle with its spread": Oracle(steps, spread=True),
        "MMPS, converged": MMPS(steps, iterations=setting.observed + 2),
        "CA-DPS, exact diagonal (type I)": _exact_diagonal(setting),
        "PGDM": PGDM(steps, grid="rho"),
        "exact diagonal, type II": DiagonalTypeII(steps),
    }


def _exact_diagonal(setting: Setting) -> CADPS:
    """CA-DPS with a comb for each coordinate, which makes its diagonal exact."""
    return CADPS(setting.steps, probe="comb", spacing=setting.d, channels=1, h=1e-3, grid="rho")


def methods(setting: Setting) -> dict[str, Sampler]:
    """Every method: those of `guided`, and the others with the defaults of this package.

    Arguments:
        setting: The settings.
    """
    return {
        **guided(setting),
        "oracle along the flow": Conditional(16, eta=0.0, inflation=1.0),
        "MMPS, 1 iteration": MMPS(setting.steps),
        "CA-DPS, exact diagonal, overshoot not capped": replace(
            _exact_diagonal(setting), cap=False
        ),
        "CA-DPS, defaults": CADPS(),
        "DPS": DPS(),
        "DDNM+": DDNM(),
        "DiffPIR": DiffPIR(),
        "DING": DING(),
        "DAPS": DAPS(),
        "MGPS": MGPS(),
        "MGDM": MGDM(),
        "RED-diff": REDdiff(),
    }


def run(setting: Setting) -> dict[str, Any]:
    """Scores every method on the mixture of anisotropic Gaussians."""
    return {
        "setting": asdict(setting),
        "methods": compare(methods(setting), setting.problem, setting.replicates),
        "left_out": LEFT_OUT,
    }


def table(result: dict[str, Any]) -> str:
    """The scores as Markdown, best first."""
    return comparison.table(result, digits=3)


def figure(result: dict[str, Any]) -> dict[str, Any]:
    """The scores with their intervals, best first, as a plotly figure."""
    s = result["setting"]
    return comparison.figure(result, f"4 anisotropic Gaussians, {s['observed']} of {s['d']} seen")
