r"""Where should the midpoint lie? MGPS with converged fits on a Gaussian prior, exactly.

Prior N(m, S) in d dimensions, y = A x + sigma_y z. With a Gaussian prior every factor of a move is
Gaussian, so the law of the chain follows from an affine recursion, without sampling. In the
eigenbasis of S the kernel p(x_l | x_t) = N(F x_t + f, P) is diagonal and the potential is
N(y; A_l x_l + b_l, R_l); a converged fit is their product

.. math::
    G = (P^{-1} + A_l^T R_l^{-1} A_l)^{-1}, \quad M = G P^{-1} F, \quad
    c = G (P^{-1} f + A_l^T R_l^{-1} (y - b_l)),

and the bridge down to t' takes mean and covariance along. Two approximations can be replaced by
the truth: the kernel (P = tau^2 I, or + c_lo^2 times the covariance of x_0 given x_t) and the
potential (R_l = sigma_y^2 I, or + A S_{0|l} A^T). The distance of the draws D_{t_1}(x) to the
posterior is Wasserstein-2.

References:
    | Variational Diffusion Posterior Sampling with Midpoint Guidance (Janati et al., ICLR 2025),
    | arXiv:2410.09945, Example 3.2 and Appendix B
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from ecgdiff.diffusion.schedule import Schedule

__all__ = [
    "MGPS",
    "VARIANTS",
    "Problem",
    "Setting",
    "chain",
    "distance",
    "figure",
    "midpoint",
    "problem",
    "published_grid",
    "run",
    "simulate",
    "table",
    "wasserstein",
]

VARIANTS = {
    "DDPM kernel, DPS potential": (False, False),
    "DDPM kernel, exact potential": (False, True),
    "exact kernel, DPS potential": (True, False),
    "exact kernel, exact potential": (True, True),
}
"""Which of kernel and potential is exact; the first is MGPS."""

MGPS = "DDPM kernel, DPS potential"
"""The name of MGPS among them."""


@dataclass(frozen=True)
class Problem:
    """A Gaussian prior and one observation, in the eigenbasis of the prior's covariance.

    Attributes:
        mean: The prior's mean, float64, with shape (d,).
        values: The eigenvalues of its covariance, with shape (d,).
        matrix: The operator A, with shape (m, d).
        y: The observation, with shape (m,).
        sigma: The noise's standard deviation.
    """

    mean: Tensor
    values: Tensor
    matrix: Tensor
    y: Tensor
    sigma: float

    def posterior(self) -> tuple[Tensor, Tensor]:
        """The exact posterior's mean (d,) and covariance (d, d)."""
        cross = self.matrix * self.values
        g = cross @ self.matrix.mT + self.sigma**2 * torch.eye(len(self.y), dtype=torch.float64)
        gain = torch.linalg.solve(g, cross).mT
        mean = self.mean + gain @ (self.y - self.matrix @ self.mean)
        return mean, torch.diag(self.values) - gain @ cross


def problem(seed: int, d: int = 100, m: int = 50, sigma: float = 0.1) -> Problem:
    """Draws an instance: S = N N^T + I with unit columns, A standard normal, m standard normal.

    Arguments:
        seed: The same seed gives the same instance.
        d: The dimensions of x.
        m: The dimensions of y.
        sigma: The noise's standard deviation.
    """
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=g, dtype=torch.float64)

    columns = normal(d, d)
    columns = columns / columns.norm(dim=0)
    # The eigenbasis is a rotation; a standard normal A and m are the same in any of them.
    values = torch.linalg.eigvalsh(columns @ columns.mT) + 1
    mean, matrix = normal(d), normal(m, d)
    x = mean + values.sqrt() * normal(d)
    return Problem(mean, values, matrix, matrix @ x + sigma * normal(m), sigma)


@dataclass(frozen=True)
class _Move:
    """One move of the chain: x' = u x + w x_l + tau z with x_l ~ N(M x + c, G)."""

    gain: Tensor
    shift: Tensor
    covariance: Tensor
    u: float
    w: float
    tau: float


def _moves(
    p: Problem,
    schedule: Schedule,
    times: Sequence[int],
    level: Callable[[int, int], int],
    exact: tuple[bool, bool],
) -> list[_Move]:
    """The moves along `times`, with midpoints level(t, t')."""
    moves = []
    for t, below in pairwise(times):
        mid = level(t, below)
        c_lo, c_hi, std = schedule.bridge(mid, 0, t)
        tweedie, jacobian, offset = _denoiser(p, schedule, t)
        kernel = std**2 + (c_lo**2 * tweedie if exact[0] else 0 * tweedie)
        tweedie, at_mid, offset_mid = _denoiser(p, schedule, mid)
        a = p.matrix * at_mid
        noise = p.sigma**2 * torch.eye(len(p.y), dtype=torch.float64)
        if exact[1]:
            noise = noise + (p.matrix * tweedie) @ p.matrix.mT
        lifted = kernel[:, None] * a.mT
        gain = torch.linalg.solve(noise + a @ lifted, lifted.mT).mT
        slope, start = c_hi + c_lo * jacobian, c_lo * offset
        residual = p.y - p.matrix @ offset_mid - a @ start
        moves.append(
            _Move(
                gain=torch.diag(slope) - gain @ (a * slope),
                shift=start + gain @ residual,
                covariance=torch.diag(kernel) - gain @ lifted.mT,
                u=schedule.bridge(below, mid, t).c_hi,
                w=schedule.bridge(below, mid, t).c_lo,
                tau=schedule.bridge(below, mid, t).std,
            )
        )
    return moves


def _denoiser(p: Problem, schedule: Schedule, k: int) -> tuple[Tensor, Tensor, Tensor]:
    """The diagonals of S_{0|k} and of J, and f, of D_k(x) = J x + f."""
    a = float(schedule.alpha_bar[k])
    tweedie = 1 / (a / (1 - a) + 1 / p.values)
    return tweedie, math.sqrt(a) / (1 - a) * tweedie, tweedie / p.values * p.mean


def chain(
    p: Problem,
    schedule: Schedule,
    times: Sequence[int],
    level: Callable[[int, int], int],
    exact: tuple[bool, bool] = (False, False),
) -> tuple[Tensor, Tensor]:
    """The mean (d,) and covariance (d, d) of the draws, by the recursion.

    Arguments:
        p: The problem.
        schedule: The noise levels.
        times: The grid, decreasing, without 0.
        level: The midpoint of a move from t to t'.
        exact: Whether the kernel and the potential are the true ones.
    """
    mean, cov = torch.zeros_like(p.mean), torch.eye(len(p.mean), dtype=torch.float64)
    for move in _moves(p, schedule, times, level, exact):
        mean = move.u * mean + move.w * (move.gain @ mean + move.shift)
        through = move.u * torch.eye(len(mean), dtype=torch.float64) + move.w * move.gain
        cov = through @ cov @ through.mT + move.w**2 * move.covariance
        cov = cov + move.tau**2 * torch.eye(len(mean), dtype=torch.float64)
    _, jacobian, offset = _denoiser(p, schedule, times[-1])
    return jacobian * mean + offset, jacobian[:, None] * cov * jacobian


def simulate(
    p: Problem,
    schedule: Schedule,
    times: Sequence[int],
    level: Callable[[int, int], int],
    count: int,
    seed: int,
) -> Tensor:
    """Draws of the same chain (DDPM kernel, DPS potential), with shape (count, d)."""
    g = torch.Generator().manual_seed(seed)

    def normal() -> Tensor:
        return torch.randn((count, len(p.mean)), generator=g, dtype=torch.float64)

    x = normal()
    for move in _moves(p, schedule, times, level, (False, False)):
        root = _root(move.covariance)
        w = x @ move.gain.mT + move.shift + normal() @ root
        x = move.u * x + move.w * w + move.tau * normal()
    _, jacobian, offset = _denoiser(p, schedule, times[-1])
    return jacobian * x + offset


def wasserstein(m1: Tensor, c1: Tensor, m2: Tensor, c2: Tensor) -> float:
    """Wasserstein-2 between two Gaussians."""
    cross = _root(_root(c1) @ c2 @ _root(c1))
    squared = (m1 - m2).square().sum() + (c1 + c2 - 2 * cross).trace()
    return math.sqrt(max(float(squared), 0.0))


def _root(cov: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh((cov + cov.mT) / 2)
    root: Tensor = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    return root


def published_grid(steps: int) -> list[int]:
    """K equally spaced integer times of 0..999, decreasing, without 0."""
    return [int(t) for t in torch.linspace(0, 999, steps, dtype=torch.float64)][:0:-1]


def midpoint(eta: float) -> Callable[[int, int], int]:
    """The rule l = floor(eta t), at least 1 and at most t'."""
    return lambda t, below: min(max(1, math.floor(eta * t)), below)


def distance(
    p: Problem, schedule: Schedule, times: Sequence[int], eta: float, variant: str = MGPS
) -> float:
    """The distance of a variant's draws to the posterior, for a midpoint fraction.

    Arguments:
        p: The problem.
        schedule: The noise levels.
        times: The grid, decreasing, without 0.
        eta: The fraction.
        variant: One of `VARIANTS`.
    """
    law = chain(p, schedule, times, midpoint(eta), VARIANTS[variant])
    return wasserstein(*law, *p.posterior())


@dataclass(frozen=True)
class Setting:
    """The settings of the experiment.

    Arguments:
        steps: The grid's K, 0 included.
        instances: How many problems.
        etas: How many fractions inside (0, 1).
        draws: Sampled chains per checked fraction, of the first problem.
        seed: The first problem's seed.
    """

    steps: int = 300
    instances: int = 6
    etas: int = 20
    draws: int = 2000
    seed: int = 0


def run(setting: Setting) -> dict[str, Any]:
    """Computes the distance of every variant over the midpoint fraction; checks by sampling."""
    schedule, times, s = Schedule.linear(), published_grid(setting.steps), setting
    grid = torch.linspace(0, 1, s.etas + 2, dtype=torch.float64)[1:-1].tolist()
    problems = [problem(s.seed + k) for k in range(s.instances)]
    distances = {
        name: [[distance(p, schedule, times, eta, name) for eta in grid] for p in problems]
        for name in VARIANTS
    }
    mean = torch.tensor(distances[MGPS]).mean(0)
    best = int(mean.argmin())
    return {
        "setting": {"d": 100, "m": 50, "sigma": 0.1, **asdict(s)},
        "eta": grid,
        "w2": distances,
        "best_eta": grid[best],
        "best_w2": float(mean[best]),
        "sampled": [
            _agreement(problems[0], schedule, times, eta, s.draws, s.seed)
            for eta in (0.3, grid[best], 0.9)
        ],
    }


def _agreement(
    p: Problem, schedule: Schedule, times: Sequence[int], eta: float, draws: int, seed: int
) -> dict[str, float]:
    """Compares sampled chains with the recursion: both numbers are 1 if they agree."""
    mean, cov = chain(p, schedule, times, midpoint(eta))
    x = simulate(p, schedule, times, midpoint(eta), draws, seed)
    z = (x.mean(0) - mean) / (cov.diagonal() / draws).sqrt()
    return {
        "eta": eta,
        "rms_z_of_mean": float(z.square().mean().sqrt()),
        "variance_ratio": float(x.var(0).sum() / cov.trace()),
    }


def figure(result: dict[str, Any]) -> dict[str, Any]:
    """The curves over the midpoint fraction, mean of the instances, as a plotly figure."""
    lines = [
        {
            "type": "scatter",
            "name": name,
            "x": result["eta"],
            "y": torch.tensor(rows).mean(0).tolist(),
        }
        for name, rows in result["w2"].items()
    ]
    return {
        "data": lines,
        "layout": {
            "title": {"text": "Distance to the posterior of a Gaussian prior, d = 100"},
            "xaxis": {"title": {"text": "midpoint fraction"}, "range": [0, 1]},
            "yaxis": {"title": {"text": "Wasserstein-2"}, "rangemode": "tozero"},
            "template": "plotly_white",
        },
    }


def table(result: dict[str, Any]) -> str:
    """The mean distances as Markdown, one row per variant, and the check by sampling."""
    head = "| | " + " | ".join(f"{eta:.3f}" for eta in result["eta"]) + " |"
    rows = [head, "| --- " * (len(result["eta"]) + 1) + "|"]
    for name, values in result["w2"].items():
        cells = [f"{v:.3f}" for v in torch.tensor(values).mean(0).tolist()]
        rows.append(f"| {name} | " + " | ".join(cells) + " |")
    s = result["setting"]
    rows.append(
        f"\nWasserstein-2 against the midpoint fraction, mean of {s['instances']} problems; MGPS "
        f"is the first row, best at {result['best_eta']:.3f} with {result['best_w2']:.3f}. "
        f"{s['draws']} sampled chains against the recursion:\n"
    )
    rows += ["| midpoint | RMS z of the mean | ratio of variances |", "| --- | --- | --- |"]
    for found in result["sampled"]:
        z, ratio = found["rms_z_of_mean"], found["variance_ratio"]
        rows.append(f"| {found['eta']:.3f} | {z:.2f} | {ratio:.3f} |")
    return "\n".join(rows)
