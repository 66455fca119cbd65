r"""All samplers on the Gaussian that has the ECGs' covariance, for five kinds of observation.

The prior is :math:`N(0, C)` with the covariance of leads and frequencies that comes with the
default prior, estimated on its training set. Given :math:`y = A x_0 + N(0, R)` the posterior is

.. math::
    K = C A^T (A C A^T + R)^{-1}, \qquad E[x_0 | y] = K y, \qquad S = C - K A C,

which is solved here as dense matrices. Each of some records is observed once and drawn four
times, as two pairs; within a pair all noise is mirrored, so the mean of a pair is that of the
draws as far as a sampler is affine. With e the errors of pairs' means and d the difference of two
independent draws, records i and j,

.. math::
    \text{bias}^2 = \langle e_i e'_i \rangle, \qquad
    \text{variance} = \tfrac12 \langle d_i^2 \rangle, \qquad
    \|\text{covariance} - S\|^2 = \langle (\tfrac12 d_i d_i^T - S) \cdot (\tfrac12 d_j d_j^T - S)
        \rangle_{i \ne j}

have no bias of their own, whatever the number of records: they may come out below zero.
"""

import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecgdiff import __version__
from ecgdiff.diffusion import Denoiser, GaussianPrior, LeadFrequencyCovariance, Schedule
from ecgdiff.diffusion.denoiser import LinearObservation
from ecgdiff.errors import EcgDiffError
from ecgdiff.operators import Dense, LinearOperator, Mask, Observation, observe
from ecgdiff.prior import load_prior
from ecgdiff.random import Streams, normal
from ecgdiff.samplers import MMPS, SAMPLERS, Conditional, Sampler

__all__ = [
    "Mirrored",
    "Problem",
    "Setting",
    "ecg_covariance",
    "figure",
    "measure",
    "methods",
    "problems",
    "run",
    "table",
]

KINDS = {
    "lead": "lead I",
    "half": "half of the time",
    "random": "half of the samples",
    "dense": "random sums",
    "noise": "lead I, noise x 1-10",
}
"""The observations, and what there is of the signal."""


class Problem(Denoiser):
    """Creates a Gaussian prior together with an observation of it, and the posterior.

    Arguments:
        prior: The prior, of zero mean.
        operator: What is observed.
        sigma: The noise, as :class:`ecgdiff.operators.Observation` takes it.

    Attributes:
        lost: Where nothing was observed, flat, bool; all entries if each value of y is of several.
        gain: The matrix K, for flattened signals and observations.
        posterior: The covariance S.
    """

    def __init__(
        self, prior: GaussianPrior, operator: LinearOperator, sigma: float | Tensor
    ) -> None:
        self.prior, self.operator, self.sigma = prior, operator, sigma
        self.schedule, self.covariance = prior.schedule, prior.covariance
        c = prior.dense_covariance
        image = operator(torch.eye(len(c), dtype=c.dtype).unflatten(1, prior.shape))
        noise = torch.as_tensor(sigma, dtype=c.dtype).expand(image[:1].shape).flatten() ** 2
        a = image.flatten(1).mT
        self.gain = torch.linalg.solve(a @ c @ a.mT + noise.diag(), a @ c).mT
        posterior = c - self.gain @ a @ c
        self.posterior = (posterior + posterior.mT) / 2
        seen = operator.mask.flatten() if isinstance(operator, Mask) else torch.zeros(len(c))
        self.lost = ~seen.bool()

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        """The denoiser of the prior."""
        return self.prior(x_t, t)

    def mean(self, y: Tensor) -> Tensor:
        """The posterior means, with shape (batch, channels, time)."""
        means: Tensor = y.flatten(1).to(self.gain) @ self.gain.mT
        return means.reshape(-1, *self.prior.shape)

    def condition(self, observation: LinearObservation) -> Denoiser:
        """The denoiser of the posterior; all items have its covariance in common."""
        centered = GaussianPrior(torch.zeros(self.prior.shape), self.posterior, self.schedule)
        return _Shifted(centered, self.mean(observation.y))


class _Shifted(Denoiser):
    """A prior of zero mean moved to a mean per item."""

    def __init__(self, centered: GaussianPrior, means: Tensor) -> None:
        self.schedule, self.centered, self.means = centered.schedule, centered, means

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        alpha, means = self.schedule.alpha(t).reshape(-1, 1, 1).to(x_t), self.means.to(x_t)
        return means + self.centered(x_t - alpha * means, t)


@dataclass(frozen=True)
class Setting:
    """The settings of the comparison.

    Arguments:
        n_samples: The samples of a lead, 100 in a second.
        records: The records that are observed, each drawn four times.
        exact_records: The same for methods that should be exact; a covariance takes more draws
            than a variance.
        sigma: The noise's standard deviation, in model units.
        seed: The seed of the records, and of what is observed of them.
        rows: The folder of finished cells; the same command goes on from them.
    """

    n_samples: int = 128
    records: int = 8
    exact_records: int = 32
    sigma: float = 0.05
    seed: int = 0
    rows: str = "gaussian_ecg_rows"


def ecg_covariance(n_samples: int) -> LeadFrequencyCovariance:
    """The covariance of the default prior's training set, for windows of `n_samples`.

    Raises:
        EcgDiffError: If the prior that is installed has none.
    """
    covariance = load_prior("default").denoiser.covariance
    if covariance is None:
        raise EcgDiffError("The default prior comes without a covariance; install one that has.")
    return covariance.for_length(n_samples)


def problems(
    covariance: LeadFrequencyCovariance, sigma: float = 0.05, seed: int = 0
) -> dict[str, Problem]:
    """The five observations of `KINDS` for one prior.

    Arguments:
        covariance: The covariance of the prior.
        sigma: The noise's standard deviation; the fifth ends at ten times it.
        seed: The seed of the third and the fourth.
    """
    prior = GaussianPrior.from_covariance(covariance, Schedule.linear())
    (channels, n_samples), g = prior.shape, torch.Generator().manual_seed(seed)
    lead, half = (torch.zeros(prior.shape, dtype=torch.bool) for _ in range(2))
    lead[0] = True
    half[:, : n_samples // 2] = True
    size = channels * n_samples
    scattered = torch.rand(prior.shape, generator=g) < 0.5
    sums = torch.randn(size // 16, size, generator=g, dtype=torch.float64) / math.sqrt(size)
    rising = sigma * torch.logspace(0, 1, n_samples, dtype=torch.float64)
    return {
        "lead": Problem(prior, Mask(lead), sigma),
        "half": Problem(prior, Mask(half), sigma),
        "random": Problem(prior, Mask(scattered), sigma),
        "dense": Problem(prior, Dense(sums, prior.shape), sigma),
        "noise": Problem(prior, Mask(lead), rising[None]),
    }


class Mirrored(Streams):
    """Noise for the first half of the items, and its negative for the second.

    Arguments:
        seed: The seed of the first half.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def normal(
        self,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        """Standard normal numbers of `shape` (batch, ...), for an even batch."""
        z = normal((shape[0] // 2, *shape[1:]), self.generator, dtype)
        return torch.cat([z, -z]).to(device)


def measure(sampler: Sampler, problem: Problem, records: int, seed: int = 0) -> dict[str, float]:
    """How far a sampler's draws are from the posterior.

    Arguments:
        sampler: The sampler.
        problem: The prior and what is observed.
        records: The records, at least 2.
        seed: Their seed.

    Returns:
        By name, each with its standard error as `NAME_se`: `error`, the root-mean-square error of
        the mean on lost samples in prior standard deviations; `spread`, the ratio of the draws'
        standard deviation to the posterior's there; `covariance`, the relative error of the whole
        covariance, as the Frobenius norm; for masks also `seen_error` and `seen_spread`.
    """
    g = torch.Generator().manual_seed(1000 + seed)
    once = observe(problem.operator, problem.prior.sample(records, g), problem.sigma, g)
    # Single precision, in which ECGs are drawn.
    y = once.y.float().repeat(4, *[1] * (once.y.ndim - 1))
    observation = Observation(y, problem.operator, problem.sigma)
    shape = (len(y), *problem.prior.shape)
    draws = sampler(problem, observation, shape, generator=Mirrored(2000 + seed))
    off = (draws - problem.mean(y)).flatten(1).view(2, 2, records, -1)
    difference = off[:, 0] - off[:, 1]
    found = _marginal("", off.mean(0), difference, problem, problem.lost)
    if not bool(problem.lost.all()):
        found |= _marginal("seen_", off.mean(0), difference, problem, ~problem.lost)
    return found | _root("covariance", *_covariance_error(difference, problem.posterior))


def _marginal(
    prefix: str, pairs: Tensor, difference: Tensor, problem: Problem, where: Tensor
) -> dict[str, float]:
    """The errors of mean and spread on some entries, from terms of shape (2, records, n)."""
    scale = problem.prior.dense_covariance.diagonal()[where].mean()
    error = pairs.prod(0)[:, where].mean(1) / scale
    exact = problem.posterior.diagonal()[where].mean()
    variance = difference.square().mean(0)[:, where].mean(1) / (2 * exact)
    return {
        key: value
        for name, x in (("error", error), ("spread", variance))
        for key, value in _root(prefix + name, float(x.mean()), _standard_error(x)).items()
    }


def _covariance_error(difference: Tensor, exact: Tensor) -> tuple[float, float]:
    """The squared relative error of the covariance and its standard error, by a U-statistic."""
    count, size = difference.shape[1], exact.square().sum()
    d = difference.flatten(0, 1)
    among = ((d @ d.mT) ** 2 / 4).view(2, count, 2, count).mean((0, 2))
    with_exact = ((d @ exact) * d).sum(1).view(2, count).mean(0) / 2
    product = (among - with_exact - with_exact[:, None] + size) / size
    product.fill_diagonal_(0)
    each = product.sum(1) / (count - 1)
    # The first term is the records' own, the second is what is left without an error.
    own, pairs = 4 * each.var() / count, 2 * product.square().sum() / (count * (count - 1)) ** 2
    return float(each.mean()), math.sqrt(float(torch.maximum(own, pairs)))


def _standard_error(x: Tensor) -> float:
    return float(x.std()) / math.sqrt(len(x))


def _root(name: str, square: float, se: float) -> dict[str, float]:
    """The root of an estimate that may be below zero; its standard error is the upper one."""
    root = math.sqrt(max(square, 0.0))
    return {name: root, f"{name}_se": math.sqrt(max(square, 0.0) + se) - root}


def methods(operator: LinearOperator) -> dict[str, Sampler]:
    """The samplers with their defaults, then the settings that should be exact.

    Arguments:
        operator: What is observed: MMPS can precondition masks, and else needs more iterations.
    """
    masked = isinstance(operator, Mask)
    return {
        **{name: sampler() for name, sampler in SAMPLERS.items()},
        "conditional, not inflated": Conditional(inflation=1.0),
        "mmps, converged": MMPS(5, 2 if masked else 100, precondition=masked, spread=1.0),
    }


_EXACT = {"surrogate", "conditional, not inflated", "mmps, converged"}


def run(setting: Setting) -> dict[str, Any]:
    """Scores every sampler on the Gaussian with the ECGs' covariance, five observations each."""
    found: dict[str, dict[str, Any]] = {}
    covariance = ecg_covariance(setting.n_samples)
    for kind, problem in problems(covariance, setting.sigma, setting.seed).items():
        for name, sampler in methods(problem.operator).items():
            of = {**_numbers(setting), "version": __version__, "calls": list(sampler.nfe())}
            row = Path(setting.rows) / f"{kind} {name}.json"
            kept = json.loads(row.read_text(encoding="utf-8")) if row.is_file() else {}
            if kept.get("of") != of:
                records = setting.exact_records if name in _EXACT else setting.records
                kept = {"of": of, "cell": _cell(sampler, problem, records, setting.seed)}
                row.parent.mkdir(parents=True, exist_ok=True)
                row.write_text(json.dumps(kept), encoding="utf-8")
            found.setdefault(name, {})[kind] = kept["cell"]
    # Of all runs that the cells took.
    seconds = sum(cell.get("seconds", 0.0) for row in found.values() for cell in row.values())
    return {
        "setting": _numbers(setting),
        "observations": KINDS,
        "methods": found,
        "seconds": round(seconds, 1),
    }


def _numbers(setting: Setting) -> dict[str, Any]:
    return {key: value for key, value in asdict(setting).items() if key != "rows"}


def _cell(sampler: Sampler, problem: Problem, records: int, seed: int) -> dict[str, Any]:
    begin = time.perf_counter()
    try:
        found = measure(sampler, problem, records, seed)
    except EcgDiffError as error:
        return {"refused": type(error).__name__, "why": str(error)}
    seconds = round(time.perf_counter() - begin, 1)
    rounded = {key: round(value, 5) for key, value in found.items()}
    return {**rounded, "records": records, "calls": list(sampler.nfe()), "seconds": seconds}


_TABLES = (
    (
        "Error of the posterior mean where nothing was observed (of the whole signal for random "
        "sums), in prior standard deviations",
        "error",
    ),
    ("Standard deviation of the draws there, over the posterior's", "spread"),
    ("Error of the mean where something was observed", "seen_error"),
    ("Standard deviation of the draws there, over the posterior's", "seen_spread"),
)


def table(result: dict[str, Any]) -> str:
    """The errors of the mean and the ratios of spread as Markdown, each with its standard error.

    Arguments:
        result: What :func:`run` returns.
    """
    s, kinds = result["setting"], result["observations"]
    text = [
        f"Gaussian prior of the ECGs' covariance, {s['n_samples']} samples, noise {s['sigma']:g}; "
        f"{s['records']} records ({s['exact_records']} where exactness is claimed), four draws of "
        "each, ± one standard error."
    ]
    for title, key in _TABLES:
        rows = ["| method | " + " | ".join(kinds.values()) + " |", "| --- " * 6 + "|"]
        for name, cells in result["methods"].items():
            shown = (_shown(cells[kind], key) for kind in kinds)
            rows.append(f"| {name} | " + " | ".join(shown) + " |")
        text += [f"{title}:", "\n".join(rows)]
    return "\n\n".join(text)


def _shown(cell: dict[str, Any], key: str) -> str:
    if "refused" in cell:
        return f"refused ({cell['refused']})"
    return f"{cell[key]:.3f} ± {cell[key + '_se']:.3f}" if key in cell else "-"


def figure(result: dict[str, Any]) -> dict[str, Any]:
    """The error of the mean against the ratio of spread, a color per observation.

    Arguments:
        result: What :func:`run` returns.
    """
    traces = []
    for kind, words in result["observations"].items():
        cells = {
            name: cells[kind]
            for name, cells in result["methods"].items()
            if "refused" not in cells[kind]
        }
        trace: dict[str, Any] = {"type": "scatter", "mode": "markers", "name": words}
        for axis, key in (("x", "error"), ("y", "spread")):
            trace[axis] = [cell[key] for cell in cells.values()]
            bars = [cell[f"{key}_se"] for cell in cells.values()]
            trace[f"error_{axis}"] = {"type": "data", "array": bars}
        traces.append({**trace, "text": list(cells)})
    return {
        "data": traces,
        "layout": {
            "title": {"text": "Gaussian prior with the ECGs' covariance; hover for the method"},
            "xaxis": {"title": {"text": "error of the mean, in prior standard deviations"}},
            "yaxis": {"title": {"text": "standard deviation of draws / of the posterior"}},
            "template": "plotly_white",
        },
    }
