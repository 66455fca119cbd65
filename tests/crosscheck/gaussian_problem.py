"""One Gaussian inverse problem with a known posterior, on which other libraries are compared."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import GaussianPrior, Schedule
from ecgdiff.operators import Dense, LinearOperator, Mask, Observation, observe
from ecgdiff.random import Streams
from ecgdiff.samplers import DPS

SHAPE = (2, 6)
SIZE = 12
BATCH = 3
LEVELS = (5, 100, 400, 900)
OPERATORS = ("mask", "dense")
SCHEDULE = Schedule.linear()


def library(name: str) -> ModuleType:
    """A module, or a skip where its library is not installed; a broken or changed one fails."""
    if find_spec(name.split(".")[0]) is None:
        reason = f"{name} is not installed; `make crosscheck` installs it (extra 'crosscheck')"
        pytest.skip(reason, allow_module_level=True)
    return import_module(name)


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gaussian_prior(schedule: Schedule = SCHEDULE, scale: float = 1.0) -> GaussianPrior:
    """2 x 6, any covariance, a mean that is not zero."""
    b = randn(SIZE, SIZE, seed=1)
    covariance = b @ b.mT / SIZE + 0.1 * torch.eye(SIZE, dtype=torch.float64)
    return GaussianPrior(scale * randn(*SHAPE, seed=2), scale**2 * covariance, schedule)


@dataclass(frozen=True)
class Case:
    """An observation of one item as we keep it, and the matrix that gives its values only."""

    observation: Observation
    matrix: Tensor

    def values(self, y: Tensor) -> Tensor:
        """The observed values (batch, m) of something shaped like the observation."""
        if isinstance(self.observation.operator, Dense):
            return y
        return y.flatten(1) @ self.matrix.mT

    @property
    def y(self) -> Tensor:
        return self.values(self.observation.y)

    @property
    def variance(self) -> Tensor:
        return self.values(self.observation.variance.expand_as(self.observation.y))[0]


def make_case(name: str, sigma: float = 0.25, scale: float = 1.0, own: bool = False) -> Case:
    """7 of 12 samples, or 5 mixtures of them; with `own` every value has its own noise."""
    operator: LinearOperator
    if name == "mask":
        seen = randn(SIZE, seed=3).argsort() < 7
        operator, matrix = Mask(seen.view(SHAPE)), torch.eye(SIZE, dtype=torch.float64)[seen]
    else:
        matrix = randn(5, SIZE, seed=4)
        operator = Dense(matrix, SHAPE)
    shape = SHAPE if name == "mask" else (5,)
    noise = sigma * torch.exp2(randn(*shape, seed=5).round()) if own else sigma
    x = gaussian_prior(scale=scale).sample(1, torch.Generator().manual_seed(6))
    return Case(observe(operator, x, noise, torch.Generator().manual_seed(7)), matrix)


def states(prior: GaussianPrior, t: int, batch: int = BATCH, *, seed: int = 8) -> Tensor:
    """Noisy signals of level t."""
    x = prior.sample(batch, torch.Generator().manual_seed(seed))
    alpha, std = prior.schedule.alpha(t), prior.schedule.std(t)
    return alpha * x + std * randn(*x.shape, seed=seed + 1)


def deviation(found: Tensor, wanted: Tensor) -> float:
    """The largest difference, over the largest value wanted."""
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())


def two_levels(noisy: float, clean: float) -> Schedule:
    """The schedule of two signal fractions: a sampler of two steps goes from one to the other."""
    return Schedule(torch.tensor([1.0, clean, noisy], dtype=torch.float64))


def two_levels_at(t: int) -> Schedule:
    """The levels t - 4 and t alone."""
    return two_levels(float(SCHEDULE.alpha_bar[t]), float(SCHEDULE.alpha_bar[t - 4]))


class Given(Streams):
    """The numbers of another library in the place of random ones."""

    def __init__(self, *numbers: Tensor) -> None:
        self.numbers = list(numbers)

    def normal(
        self,
        shape: Sequence[int],
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Tensor:
        number = self.numbers.pop(0)
        assert number.shape == torch.Size(shape)
        return number.to(device, dtype)


def dps_step(
    prior: GaussianPrior, observation: Observation, x: Tensor, z: Tensor, zeta: float
) -> Tensor:
    """Our DPS step from level 2 to level 1 of a prior of two levels, then its denoiser there."""
    sampler, numbers = DPS(steps=2, zeta=zeta), Given(x, z)
    return sampler(prior, observation, (len(x), *SHAPE), generator=numbers)
