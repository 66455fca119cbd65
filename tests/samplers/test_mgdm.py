"""MGDM against an affine recursion of its own approximations, and its bias against exact
posteriors."""

import math
from itertools import pairwise

import pytest
import torch
from affine import denoiser_map
from ecg_like import law, sampled_accuracy
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule, time_grid
from ecgdiff.operators import Mask, Observation
from ecgdiff.samplers import MGDM, NFE
from ecgdiff.samplers._fit import Kernel, Pull
from ecgdiff.testing import CountingDenoiser

SCHEDULE = Schedule.linear()


def eye(n: int) -> Tensor:
    return torch.eye(n, dtype=torch.float64)


class Joint:
    """Jointly Gaussian vectors of n numbers, each an affine map of earlier ones plus noise."""

    def __init__(self, n: int) -> None:
        self.n, self.mean, self.cov = n, torch.zeros(n, dtype=torch.float64), eye(n)

    def add(self, maps: dict[int, Tensor], offset: Tensor | float, noise: Tensor) -> int:
        """A vector sum_i maps[i] v_i + offset + N(0, noise); its number."""
        count = len(self.mean) // self.n
        zero = torch.zeros(self.n, self.n, dtype=torch.float64)
        row = torch.cat([maps.get(i, zero) for i in range(count)], 1)
        cross = row @ self.cov
        corner = cross @ row.mT + noise
        self.mean = torch.cat([self.mean, row @ self.mean + offset])
        self.cov = torch.cat([torch.cat([self.cov, cross.mT], 1), torch.cat([cross, corner], 1)])
        return count

    def keep(self, *numbers: int) -> None:
        """Forgets the other vectors; these become the numbers 0, 1, ..."""
        chosen = torch.cat([torch.arange(self.n) + i * self.n for i in numbers])
        self.mean, self.cov = self.mean[chosen], self.cov[chosen][:, chosen]


def converged(
    sampler: MGDM, prior: GaussianPrior, a: Tensor, y: Tensor, sigma: float
) -> tuple[Tensor, Tensor]:
    """Mean and covariance of MGDM whose fits have converged, with diagonal covariances."""
    n, times = len(a.mT), time_grid(SCHEDULE, sampler.steps, sampler.grid)
    joint, above = Joint(n), times[0]
    none = torch.zeros(n, n, dtype=torch.float64)
    jacobian, f = denoiser_map(prior, above)
    joint.add({0: jacobian}, f.flatten(), none)  # 0 is x_{t+}, 1 is x_0
    for move, (t, below) in enumerate(pairwise(times)):
        s, x0 = sampler._level(move, below), 1
        jacobian, f = denoiser_map(prior, s)
        a_s, b_s = a @ jacobian, a @ f.flatten()
        down = SCHEDULE.bridge(t, 0, above)
        x = joint.add({0: down.c_hi * eye(n), 1: down.c_lo * eye(n)}, 0.0, down.std**2 * eye(n))
        for _ in range(sampler.repetitions):
            c_lo, c_hi, std = SCHEDULE.bridge(s, 0, t)
            precision = eye(n) / std**2 + a_s.mT @ a_s / sigma**2
            g = torch.linalg.inv(precision)
            x_s = joint.add(
                {x0: c_lo * g / std**2, x: c_hi * g / std**2},
                g @ a_s.mT @ (y - b_s) / sigma**2,
                torch.diag(1 / precision.diagonal()),
            )
            x0, count = x_s, sampler.denoising_steps
            levels = sorted({math.ceil(s * i / count) for i in range(count + 1)}, reverse=True)
            for k, l in pairwise(levels):
                jacobian, f = denoiser_map(prior, k)
                step = SCHEDULE.bridge(l, 0, k)
                x0 = joint.add(
                    {x0: step.c_lo * jacobian + step.c_hi * eye(n)},
                    step.c_lo * f.flatten(),
                    step.std**2 * eye(n),
                )
            up = SCHEDULE.bridge(t, s, above)
            x = joint.add({0: up.c_hi * eye(n), x_s: up.c_lo * eye(n)}, 0.0, up.std**2 * eye(n))
        joint.keep(x, x0)
        above = t
    return joint.mean[n:], joint.cov[n:, n:]


def best_fit(pull: Pull, kernel: Kernel, *settings: object) -> tuple[Tensor, Tensor]:
    """What `fit` converges to if the pull is affine."""
    mean, std = kernel.mean, kernel.std
    n, shape = mean[0].numel(), mean.shape[1:]
    points = torch.cat([eye(n), torch.zeros(1, n).double()]).view(n + 1, *shape)
    values = pull(points).flatten(1)
    precision = (values[:-1] - values[-1]).mT + eye(n) / std**2
    mu = mean - torch.linalg.solve(precision, pull(mean).flatten(1).mT).mT.view(mean.shape)
    return mu, (1 / precision.diagonal().sqrt()).view(1, *shape)


@pytest.mark.parametrize("repetitions", [1, 2])
@pytest.mark.parametrize("name", ["leads", "block"])
def test_with_perfect_fits_draws_follow_the_recursion(
    name: str, repetitions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    k = torch.arange(4, dtype=torch.float64)
    time = 0.9 * torch.exp(-((k[:, None] - k) ** 2) / 8) + 0.1 * eye(4)
    channels = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    prior = GaussianPrior(torch.full((2, 4), 0.5), torch.kron(channels, time), SCHEDULE)
    mask = torch.ones(2, 4, dtype=torch.bool)
    if name == "leads":
        mask[1] = False
    else:
        mask[:, 1:3] = False
    y = torch.tensor([[1.2, -0.3, 0.8, 0.1], [1.0, -0.5, 0.4, 0.9]], dtype=torch.float64) * mask
    sampler = MGDM(steps=5, repetitions=repetitions, denoising_steps=4)
    monkeypatch.setattr("ecgdiff.samplers.mgdm.fit", best_fit)
    observation = Observation(y[None], Mask(mask), 0.2)
    mean, cov = law(sampler, prior, observation, calls=1 + 4 * (1 + repetitions * (2 + 4)))
    seen = mask.flatten()
    wanted, wanted_cov = converged(sampler, prior, eye(8)[seen], y.flatten()[seen], 0.2)
    torch.testing.assert_close(mean, wanted)
    torch.testing.assert_close(cov, wanted_cov)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(
    ("sampler", "name", "error", "spread"),
    [
        (MGDM(), "leads", 0.30, 1.0),
        (MGDM(), "block", 0.36, 0.82),
        (MGDM(steps=25), "leads", 0.30, 0.96),
        (MGDM(steps=25), "block", 0.32, 0.82),
    ],
)
def test_stated_bias(
    sampler: MGDM,
    name: str,
    error: float,
    spread: float,
    stationary: GaussianPrior,
    masks: dict[str, Tensor],
) -> None:
    """On lost samples of an ECG-like Gaussian prior, RMS over records, in the prior's standard
    deviations. The values are those of 200 records, the bounds three standard errors of 20."""
    found, ratio, _ = sampled_accuracy(sampler, stationary, masks[name][0], count=20)
    found /= float(stationary.dense_covariance.diagonal()[~masks[name].flatten()].mean().sqrt())
    assert abs(found - error) < (0.05 if name == "leads" else 0.09)
    assert abs(ratio - spread) < (0.1 if name == "leads" else 0.15)


def test_guided_levels() -> None:
    sampler = MGDM(steps=101)  # 100 moves, 70 of them to a random level
    below = 510
    levels = [sampler._level(move, below) for move in range(100)]
    assert levels[70:] == [below] * 30
    assert min(levels[:70]) >= 10
    assert max(levels[:70]) < below
    tenths = [sum((s - 10) // 50 == i for s in levels[:70]) for i in range(10)]
    assert all(6 <= count <= 8 for count in tenths)
    for low in (1, 2, 10):
        assert sampler._level(0, low) == low
    assert sampler._level(0, 11) == 10
    assert all(MGDM(random_share=0)._level(move, 300) == 300 for move in range(99))


def test_descents_below_their_number_of_steps(stationary: GaussianPrior) -> None:
    """Repeated calls change nothing, and from level 1 a descent is the denoiser."""
    x = stationary.sample(2, torch.Generator().manual_seed(1))
    counted = CountingDenoiser(stationary)
    quiet = torch.zeros_like
    wanted = MGDM(denoising_steps=3)._descend(stationary, x, 3, lambda: quiet(x))
    found = MGDM(denoising_steps=20)._descend(counted, x, 3, lambda: quiet(x))
    assert torch.equal(found, wanted)
    assert counted.forward == 20
    found = MGDM(denoising_steps=5)._descend(stationary, x, 1, lambda: torch.ones_like(x))
    torch.testing.assert_close(found, stationary(x, 1))


def rising(move: int, moves: int) -> int:
    return 2 if move < moves - 1 else 7


@pytest.mark.parametrize(
    ("sampler", "cost"),
    [
        (MGDM(), NFE(1 + 930 + 99 * 20, 70 * 5 + 29 * 20)),
        (MGDM(4, repetitions=2, gradient_steps=rising), NFE(1 + 22 + 120, 22)),
        (MGDM(2, gradient_steps=0, denoising_steps=1, grid="rho"), NFE(2, 0)),
    ],
)
def test_cost_is_what_it_says(sampler: MGDM, cost: NFE) -> None:
    assert sampler.nfe() == cost
    if sampler.steps < 10:
        counted = CountingDenoiser(GaussianPrior(torch.zeros(1, 2), eye(2), SCHEDULE))
        observation = Observation(torch.zeros(1, 1, 2), Mask(torch.ones(1, 2)), 0.1)
        sampler(counted, observation, (2, 1, 2), generator=torch.Generator().manual_seed(0))
        assert NFE(counted.forward, counted.vjp) == cost


def test_published_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step size of its own for each move, and the published numbers."""
    settings: list[tuple[int, float, float]] = []

    def recorded(
        pull: Pull, kernel: Kernel, steps: int, lr: float, unit: float, noise: object
    ) -> tuple[Tensor, Tensor]:
        settings.append((steps, lr, unit))
        return kernel.mean, torch.full_like(kernel.mean, kernel.std)

    monkeypatch.setattr("ecgdiff.samplers.mgdm.fit", recorded)
    prior = GaussianPrior(torch.zeros(1, 2), eye(2), SCHEDULE)
    observation = Observation(torch.zeros(1, 1, 2), Mask(torch.ones(1, 2)), 0.1)
    sampler = MGDM.images(steps=101)  # 100 moves
    sampler(prior, observation, (1, 1, 2))
    rates = [0.01] * 11 + [0.03] * 89
    assert settings == [(5 if i < 70 else 20, rates[i], 1.0) for i in range(100)]
    assert sampler.nfe() == NFE(1 + 950 + 100 * 19, 950)


@pytest.mark.parametrize(
    "wrong",
    [
        {"steps": 1},
        {"repetitions": 0},
        {"gradient_steps": -1},
        {"lr": 0.0},
        {"denoising_steps": 0},
        {"random_share": 1.5},
    ],
)
def test_refusals(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MGDM(**wrong)  # type: ignore[arg-type]
