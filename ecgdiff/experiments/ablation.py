r"""MGPS's own choices on the mixture of 25 Gaussians: midpoint, gradient steps, step size.

Is the midpoint :math:`\eta = 1/2` the best, as published? All that is compared runs on the same
problems, and nothing was tuned on them:

- *tuned*: for each :math:`\eta` the gradient steps M and Adam's step size that were best on other
  problems. All candidates cost the same: the more gradient steps a move takes, the fewer moves.
- *published*: the authors' settings for this mixture, with only :math:`\eta` changed.
- *gradient steps*: for each M, at :math:`\eta = 1/2` and the same cost, the step size that was
  best on the other problems.

References:
    | Variational Diffusion Posterior Sampling with Midpoint Guidance (Janati et al., ICLR 2025),
    | arXiv:2410.09945, Section 4
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from typing import Any

from ecgdiff.experiments import comparison
from ecgdiff.experiments.comparison import compare, interval, row
from ecgdiff.experiments.mixture import Problems
from ecgdiff.samplers import MGPS

__all__ = ["Setting", "candidates", "equal_cost", "figure", "run", "table"]

ETAS = (0.25, 0.5, 0.75, 1.0)
STEPS = (2, 5, 20)
RATES = (0.2, 0.5, 1.0, 1.5)

_TUNING = 100_000  # the first problem to tune on


@dataclass(frozen=True)
class Setting(Problems):
    """The settings of the ablation, besides those of the problems.

    Arguments:
        calls: The network calls of a candidate, forward and backward ones together.
        tuning: How many problems to tune on, at least 2.
        published: The levels K of the published setting (300), the level 0 included.
    """

    calls: int = 1500
    tuning: int = 10
    published: int = 300


def equal_cost(eta: float, gradient_steps: int, lr: float, calls: int) -> MGPS:
    """The paper's MGPS with as many levels as make no more than `calls` network calls.

    Arguments:
        eta: The midpoint.
        gradient_steps: The gradient steps M of each move.
        lr: Adam's step size, in model units.
        calls: Forward and backward ones together.
    """

    def made(steps: int) -> MGPS:
        return MGPS(steps, midpoint=eta, gradient_steps=gradient_steps, lr=lr, scale_free=False)

    two, three = (sum(made(steps).nfe()) for steps in (2, 3))
    return made(2 + max(0, calls - two) // (three - two))


def candidates(calls: int) -> dict[tuple[float, int, float], MGPS]:
    """All settings (midpoint, gradient steps, step size) that cost the same.

    Arguments:
        calls: Their network calls, forward and backward ones together.
    """
    return {key: equal_cost(*key, calls) for key in product(ETAS, STEPS, RATES)}


def run(setting: Setting) -> dict[str, Any]:
    """Scores MGPS over the midpoint, tuned at equal cost and as published, and over M."""
    made = candidates(setting.calls)
    every = {_name(*key): sampler for key, sampler in made.items()}
    tuning = compare(every, lambda k: setting.problem(_TUNING + k), setting.tuning)

    def best(keys: Iterable[tuple[float, int, float]]) -> str:
        return min((_name(*key) for key in keys), key=lambda name: float(tuning[name]["mean"]))

    released = MGPS.mixture(setting.published - 1)
    published = {f"midpoint {eta:g}, published": eta for eta in ETAS}
    families = {
        "tuned": {f"{eta:g}": best(key for key in made if key[0] == eta) for eta in ETAS},
        "published": {f"{eta:g}": name for name, eta in published.items()},
        "gradient steps": {
            str(m): best(key for key in made if key[:2] == (0.5, m)) for m in STEPS
        },
    }
    chosen = {*families["tuned"].values(), *families["gradient steps"].values()}
    samplers = {name: every[name] for name in sorted(chosen)}
    samplers |= {name: replace(released, midpoint=eta) for name, eta in published.items()}
    methods = compare(samplers, setting.problem, setting.replicates)
    return {
        "setting": asdict(setting),
        "families": families,
        "methods": methods,
        "worse_than_half": {
            family: {
                eta: _gap(methods[name], methods[families[family]["0.5"]])
                for eta, name in families[family].items()
                if eta != "0.5"
            }
            for family in ("tuned", "published")
        },
        "tuning": tuning,
    }


def _name(eta: float, gradient_steps: int, lr: float) -> str:
    return f"midpoint {eta:g}, M = {gradient_steps}, lr {lr:g}"


def _gap(method: Mapping[str, Any], half: Mapping[str, Any]) -> dict[str, Any]:
    """The paired differences of a method's scores from those of midpoint 1/2."""
    return interval([a - b for a, b in zip(method["scores"], half["scores"], strict=True)])


def table(result: dict[str, Any]) -> str:
    """The scores as Markdown, the paired differences from midpoint 1/2, and the tuning."""
    s, methods = result["setting"], result["methods"]
    lines = [comparison.table(result)]
    for family, names in result["families"].items():
        lines += [f"\n| {family} | setting | distance | worse than midpoint 1/2 (paired) |"]
        lines += ["| --- | --- | --- | --- |"]
        gaps = result["worse_than_half"].get(family, {})
        for key, name in names.items():
            cells = [key, name, _cell(methods[name])]
            cells.append(_cell(gaps[key], "+") if key in gaps else "-")
            lines.append("| " + " | ".join(cells) + " |")
    lines += [
        f"\nTuned on {s['tuning']} other problems, candidates of {s['calls']} calls:\n",
        "| candidate | distance | calls (forward + vjp) |",
        "| --- | --- | --- |",
    ]
    lines += [row(n, m) for n, m in sorted(result["tuning"].items(), key=_mean)]
    return "\n".join(lines)


def _cell(found: Mapping[str, Any], sign: str = "") -> str:
    return f"{found['mean']:{sign}.2f} ± {found['half_width']:.2f}"


def _mean(item: tuple[str, Mapping[str, Any]]) -> float:
    return float(item[1]["mean"])


def figure(result: dict[str, Any]) -> dict[str, Any]:
    """The scores with their intervals, best first, as a plotly figure."""
    d = result["setting"]["d"]
    return comparison.figure(result, f"MGPS on 25 Gaussians, one observation, d = {d}")
