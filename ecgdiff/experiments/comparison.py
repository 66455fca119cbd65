"""Scores samplers on problems whose posterior can be drawn from: paired, with intervals."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from scipy.special import stdtrit
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.errors import EcgDiffError, OperatorError
from ecgdiff.experiments.sliced import sliced_wasserstein
from ecgdiff.operators import Observation
from ecgdiff.samplers import Sampler

__all__ = ["DIVERGED", "Problem", "compare", "figure", "interval", "row", "score", "table"]

DIVERGED = 10.0
"""The score of a method that diverges."""

# Sampler and directions take their numbers from other streams than the problem itself.
_DIRECTIONS, _SAMPLER = 1_000_003, 2_000_003


@dataclass(frozen=True)
class Problem:
    """One prior, one observation, and exact draws of the posterior.

    Attributes:
        prior: The prior, for signals (batch, 1, d).
        observation: The observation, of one item, in the data type that samplers shall use.
        exact: Draws of the posterior, float64, with shape (count, d).
        other: As many more of them, for the floor.
        directions: The directions of the score.
        seed: The problem's seed; all methods meet the same noise and directions.
    """

    prior: Denoiser
    observation: Observation
    exact: Tensor
    other: Tensor
    directions: int
    seed: int

    def distance(self, draws: Tensor) -> float:
        """The sliced Wasserstein-1 distance of draws (count, d) to the exact ones."""
        g = torch.Generator().manual_seed(_DIRECTIONS + self.seed)
        return sliced_wasserstein(draws.double(), self.exact, self.directions, g)


def score(sampler: Sampler, problem: Problem) -> float:
    """The score of a sampler on one problem: its distance, or 10 if it diverged.

    Raises:
        OperatorError: If the sampler does not take the problem's observation.
    """
    count, d = problem.exact.shape
    g = torch.Generator().manual_seed(_SAMPLER + problem.seed)
    shape = (count, 1, d)
    try:
        draws = sampler(problem.prior, problem.observation, shape, generator=g)
    except OperatorError:
        raise
    except EcgDiffError:
        return DIVERGED
    return problem.distance(draws.flatten(1))


def compare(
    samplers: Mapping[str, Sampler], problem_of: Callable[[int], Problem], replicates: int
) -> dict[str, Any]:
    """The scores of samplers on the same problems, by name; first the floor, exact draws.

    Arguments:
        samplers: The methods.
        problem_of: Draws the problem of a number from 0.
        replicates: How many problems, at least 2.

    Raises:
        EcgDiffError: If there are fewer than two problems.
    """
    if replicates < 2:
        raise EcgDiffError(f"An interval needs at least 2 replicates, got {replicates}.")
    scores: dict[str, list[float]] = {name: [] for name in ("floor", *samplers)}
    for problem in map(problem_of, range(replicates)):
        scores["floor"].append(problem.distance(problem.other))
        for name, sampler in samplers.items():
            scores[name].append(score(sampler, problem))
    calls = {name: list(sampler.nfe()) for name, sampler in samplers.items()}
    return {
        name: {**interval(values), "calls": calls.get(name, [0, 0])}
        for name, values in scores.items()
    }


def interval(values: Sequence[float]) -> dict[str, Any]:
    """The mean of at least two values, half of its 95 % t interval, and the values."""
    x = torch.tensor(values, dtype=torch.float64)
    quantile = float(stdtrit(len(x) - 1, 0.975))
    return {
        "mean": float(x.mean()),
        "half_width": quantile * float(x.std()) / math.sqrt(len(x)),
        "scores": [round(v, 4) for v in values],
    }


def row(name: str, method: Mapping[str, Any], digits: int = 2) -> str:
    """A method's row of a Markdown table: name, distance with interval, network calls."""
    mean, half_width = method["mean"], method["half_width"]
    calls = " + ".join(str(n) for n in method["calls"])
    return f"| {name} | {mean:.{digits}f} ± {half_width:.{digits}f} | {calls} |"


def table(result: Mapping[str, Any], digits: int = 2) -> str:
    """The scores as Markdown, best first, and what was left out.

    Arguments:
        result: With `setting` (d, sigma, draws, directions, replicates), `methods` and,
            optionally, `left_out`.
        digits: The decimals of distances.
    """
    s = result["setting"]
    lines = [
        f"Sliced Wasserstein-1, mean of {s['replicates']} problems and 95 % t interval; "
        f"d = {s['d']}, sigma = {s['sigma']:g}, {s['draws']} draws, {s['directions']} "
        "directions.\n",
        "| method | distance | calls (forward + vjp) |",
        "| --- | --- | --- |",
    ]
    ranked = sorted(result["methods"].items(), key=lambda item: float(item[1]["mean"]))
    lines += [row(name, method, digits) for name, method in ranked]
    left = result.get("left_out", {})
    return "\n".join([*lines, *(f"\nNot run: {name}, {why}" for name, why in left.items())])


def figure(result: Mapping[str, Any], title: str) -> dict[str, Any]:
    """The scores with their intervals, best first, as a plotly figure."""
    found = sorted(result["methods"].items(), key=lambda item: -float(item[1]["mean"]))
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
            "title": {"text": title},
            "xaxis": {"title": {"text": "sliced Wasserstein-1"}, "rangemode": "tozero"},
            "yaxis": {"automargin": True},
            "template": "plotly_white",
        },
    }
