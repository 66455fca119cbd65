r"""All methods on a mixture of 25 distant Gaussians seen through one number; MGPS's own choices.

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

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import EcgDiffError
from ecgdiff.experiments.sliced import sliced_wasserstein
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

__all__ = ["DIVERGED", "Instance", "ablation", "figure", "instance", "methods", "run", "table"]

DIVERGED = 10.0
_EXTENT = 8.0


@dataclass(frozen=True)
class Instance:
    """One prior, one observation, and exact draws of the posterior.

    Attributes:
        prior: The mixture.
        observation: The observation, of one item.
        exact: Draws of the posterior, float64, with shape (count, d).
        floor: The score of other exact draws.
    """

    prior: UnitMixture
    observation: Observation
    exact: Tensor
    floor: float


def instance(seed: int, d: int, sigma: float, count: int, directions: int) -> Instance:
    """Draws a problem.

    Arguments:
        seed: The same seed gives the same problem, so methods are paired.
        d: The dimension, even.
        sigma: The noise's standard deviation.
        count: How many exact draws.
        directions: The directions of the score.
    """
    g = torch.Generator().manual_seed(seed)
    grid = _EXTENT * torch.arange(-2, 3, dtype=torch.float64)
    means = torch.cartesian_prod(grid, grid).repeat(1, d // 2)
    weights = torch.rand(len(means), generator=g, dtype=torch.float64)
    prior = UnitMixture(weights, means, Schedule.linear())
    matrix = torch.randn((1, d), generator=g, dtype=torch.float64)
    noise = sigma * torch.randn((1, 1), generator=g, dtype=torch.float64)
    y = prior.sample(1, g) @ matrix.mT + noise
    exact = prior.posterior_sample(matrix, y[0], sigma, count, g)
    other = prior.posterior_sample(matrix, y[0], sigma, count, g)
    return Instance(
        prior,
        Observation(y, Dense(matrix, (1, d)), sigma),
        exact,
        sliced_wasserstein(exact, other, directions, _directions(seed)),
    )


def _directions(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(1_000_003 + seed)


def methods(steps: int) -> dict[str, Sampler]:
    """Every method that takes a linear operator, in its published or default settings.

    Arguments:
        steps: The grid's levels, for the methods that have one; MGDM and DAPS have their own.
    """
    return {
        "MGPS, midpoint 1/2": MGPS.mixture(steps - 1),
        "MMPS, 3 iterations": MMPS(steps, iterations=3, spread=0.0),
        "CA-DPS": CADPS(steps),
        "PGDM, Bayes weight": PGDM(steps),
        "PGDM, released weight": PGDM(steps, weight="released"),
        "DPS, zeta 0.2": DPS(steps, zeta=0.2),
        "DiffPIR": DiffPIR(steps),
        "MGDM": MGDM(100, lr=0.1, scale_free=False),
        "DAPS": DAPS(200),
        "RED-diff": REDdiff(steps),
    }


def score(sampler: Sampler, problem: Instance, directions: int, seed: int) -> float:
    """The score of a sampler on one problem."""
    count, d = problem.exact.shape
    try:
        draws = sampler(
            problem.prior,
            problem.observation,
            (count, 1, d),
            generator=torch.Generator().manual_seed(seed),
        )
    except EcgDiffError:
        return DIVERGED
    return sliced_wasserstein(draws.flatten(1), problem.exact, directions, _directions(seed))


def run(
    d: int = 20,
    sigma: float = 0.05,
    steps: int = 300,
    replicates: int = 20,
    draws: int = 1000,
    directions: int = 1000,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores every method on the mixture of 25 Gaussians.

    Arguments:
        d: The dimension, even.
        sigma: The noise's standard deviation.
        steps: The levels of a grid.
        replicates: How many problems, the same for all methods.
        draws: The draws per problem.
        directions: The directions of the score.
        seed: The first problem's seed.
    """
    return _compare(
        methods(steps),
        {
            "d": d,
            "sigma": sigma,
            "steps": steps,
            "replicates": replicates,
            "draws": draws,
            "directions": directions,
            "seed": seed,
        },
    )


def ablation(
    d: int = 20,
    sigma: float = 0.05,
    steps: int = 100,
    replicates: int = 20,
    draws: int = 500,
    directions: int = 500,
    seed: int = 0,
) -> dict[str, Any]:
    """Scores MGPS for combinations of midpoint, gradient steps and step size, paired.

    Arguments:
        d: The dimension, even.
        sigma: The noise's standard deviation.
        steps: The levels of a grid.
        replicates: How many problems, the same for all settings.
        draws: The draws per problem.
        directions: The directions of the score.
        seed: The first problem's seed.
    """
    settings = {
        f"midpoint {eta:g}, M = {m}, lr {lr:g}": MGPS(
            steps, midpoint=eta, gradient_steps=m, lr=lr, scale_free=False
        )
        for m in (2, 5, 20)
        for lr in (0.03, 0.1, 0.3)
        for eta in (0.25, 0.5, 0.75, 1.0)
    }
    return _compare(
        settings,
        {
            "d": d,
            "sigma": sigma,
            "steps": steps,
            "replicates": replicates,
            "draws": draws,
            "directions": directions,
            "seed": seed,
        },
    )


def _compare(samplers: Mapping[str, Sampler], setting: Mapping[str, Any]) -> dict[str, Any]:
    """The scores of samplers on the problems of a setting, those of `run`'s arguments."""
    if setting["replicates"] < 2:
        raise EcgDiffError("An interval needs at least 2 replicates, got 1.")
    scores: dict[str, list[float]] = {name: [] for name in ("floor", *samplers)}
    for k in range(setting["replicates"]):
        seed = setting["seed"] + k
        problem = instance(
            seed, setting["d"], setting["sigma"], setting["draws"], setting["directions"]
        )
        scores["floor"].append(problem.floor)
        for name, sampler in samplers.items():
            scores[name].append(score(sampler, problem, setting["directions"], seed))
    return {
        "setting": dict(setting),
        "methods": {
            name: {
                "mean": sum(values) / len(values),
                "half_width": _half_width(values),
                "calls": list(samplers[name].nfe()) if name in samplers else [0, 0],
                "scores": [round(v, 4) for v in values],
            }
            for name, values in scores.items()
        },
    }


def _half_width(values: list[float]) -> float:
    """Half of a 95 % normal interval of the mean."""
    mean = sum(values) / len(values)
    variance = sum((v - mean) ** 2 for v in values) / (len(values) - 1)
    return 1.96 * math.sqrt(variance / len(values))


def table(result: dict[str, Any]) -> str:
    """The scores as Markdown, best first."""
    s = result["setting"]
    rows = [
        f"Sliced Wasserstein-1, mean of {s['replicates']} problems and 95 % interval; "
        f"d = {s['d']}, sigma = {s['sigma']:g}, {s['draws']} draws.\n",
        "| method | distance | calls (forward + vjp) |",
        "| --- | --- | --- |",
    ]
    for name, m in sorted(result["methods"].items(), key=lambda item: item[1]["mean"]):
        rows.append(
            f"| {name} | {m['mean']:.2f} ± {m['half_width']:.2f} | "
            f"{m['calls'][0]} + {m['calls'][1]} |"
        )
    return "\n".join(rows)


def figure(result: dict[str, Any]) -> dict[str, Any]:
    """The scores with their intervals, best first, as a plotly figure."""
    found = sorted(result["methods"].items(), key=lambda item: -item[1]["mean"])
    return {
        "data": [
            {
                "type": "scatter",
                "mode": "markers",
                "x": [m["mean"] for _, m in found],
                "y": [name for name, _ in found],
                "error_x": {"type": "data", "array": [m["half_width"] for _, m in found]},
            }
        ],
        "layout": {
            "title": {"text": f"25 Gaussians, one observation, d = {result['setting']['d']}"},
            "xaxis": {"title": {"text": "sliced Wasserstein-1"}, "rangemode": "tozero"},
            "yaxis": {"automargin": True},
            "template": "plotly_white",
        },
    }
