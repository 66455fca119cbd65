"""What every sampler promises, whatever its accuracy."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import Denoiser, GaussianPrior, LeadFrequencyCovariance, Schedule, time_grid
from ecgdiff.diffusion.denoiser import LinearObservation
from ecgdiff.errors import EcgDiffError, OperatorError
from ecgdiff.operators import Dense, Mask, Observation, RotatedMask
from ecgdiff.random import Streams
from ecgdiff.samplers import SAMPLERS, Sampler
from ecgdiff.testing import check_sampler

Kind = Callable[..., Sampler]
SHAPE = (3, 2, 6)


@pytest.fixture(params=sorted(SAMPLERS))
def key(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def kind(key: str) -> Kind:
    return SAMPLERS[key]


@pytest.fixture(scope="module")
def prior() -> GaussianPrior:
    power = 4.0 / (1 + torch.arange(6, dtype=torch.float64) ** 2)
    channels = torch.tensor([[1.0, 0.8], [0.8, 1.0]], dtype=torch.float64)
    covariance = LeadFrequencyCovariance(power[:, None, None] * channels)
    return GaussianPrior.from_covariance(covariance, Schedule.linear(), 0.2)


def per_item(dtype: torch.dtype) -> tuple[Observation, list[Observation]]:
    """Three items with masks and noise of their own: a lead, a block, and single samples."""
    mask = torch.zeros(SHAPE, dtype=torch.bool)
    mask[0, 0] = True
    mask[1, :, :4] = True
    mask[2, 0, ::2] = True
    mask[2, 1, 1] = True
    y = Streams([7, 8, 9]).normal(SHAPE, dtype) * mask
    sigma = torch.tensor([0.05, 0.2, 0.1], dtype=dtype)[:, None, None]
    whole = Observation(y, Mask(mask), sigma)
    items = [
        Observation(y[i : i + 1], Mask(mask[i : i + 1]), sigma[i : i + 1]) for i in range(SHAPE[0])
    ]
    return whole, items


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_contract_with_masks_and_noise_per_item(
    kind: Kind, prior: GaussianPrior, dtype: torch.dtype
) -> None:
    observation, items = per_item(dtype)
    check_sampler(kind(steps=5), prior, observation, SHAPE, items)


def test_contract_with_one_observation_for_all_draws_and_noise_per_channel(
    kind: Kind, prior: GaussianPrior
) -> None:
    y = torch.tensor([[0.5], [0.0]]).expand(2, 6).unsqueeze(0)
    sigma = torch.tensor([[0.1], [0.2]])
    check_sampler(kind(steps=4), prior, Observation(y, Mask(y != 0), sigma), SHAPE)


@pytest.mark.parametrize("steps", [2, 3, 10, 37])
@pytest.mark.parametrize("grid", ["uniform", "rho", "log-snr"])
def test_any_grid(kind: Kind, prior: GaussianPrior, steps: int, grid: str) -> None:
    observation, _ = per_item(torch.float32)
    draws = kind(steps=steps, grid=grid)(
        prior, observation, SHAPE, generator=torch.Generator().manual_seed(0)
    )
    assert draws.shape == SHAPE


class Recorded(Denoiser):
    """A prior that keeps the levels it was called at."""

    def __init__(self, prior: Denoiser, levels: list[int]) -> None:
        self.prior, self.levels = prior, levels
        self.schedule, self.covariance = prior.schedule, prior.covariance

    def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
        self.levels.append(int(t))
        return self.prior(x_t, t)

    def condition(self, observation: LinearObservation) -> Denoiser:
        return Recorded(self.prior.condition(observation), self.levels)


def test_the_limits_of_a_grid_are_those_of_the_chain(kind: Kind, prior: GaussianPrior) -> None:
    levels: list[int] = []
    limits = {"sigma_min": 0.3, "sigma_max": 7.0}
    sampler = kind(steps=6, grid="rho", **limits)
    sampler(Recorded(prior, levels), per_item(torch.float32)[0], SHAPE)
    wanted = time_grid(prior.schedule, 6, "rho", **limits)
    # Some methods go below the grid too, for midpoints and flows; none goes above it.
    assert max(levels) == wanted[0]
    assert wanted[-1] in levels
    assert wanted[-1] != time_grid(prior.schedule, 6, "rho")[-1]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"steps": 1}, "at least 2 steps, got 1"),
        ({"steps": 10.5}, r"steps must be a whole number, got 10\.5"),
        ({"grid": "Uniform"}, "Unknown grid 'Uniform'; choose 'uniform'"),
        ({"sigma_min": 0.0}, "got 0.0 and None"),
        ({"sigma_min": 2.0, "sigma_max": 1.0}, "got 2.0 and 1.0"),
    ],
)
def test_grids_that_do_not_exist_are_refused_at_once(
    kind: Kind, wrong: dict[str, object], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        kind(**wrong)


def test_as_many_steps_as_the_schedule_has_levels(kind: Kind, prior: GaussianPrior) -> None:
    # A hundred levels that end as the thousand do: the number counts, and the cost per step.
    schedule = Schedule.linear(100, 1e-3, 0.2)
    short = GaussianPrior(prior.mean, prior.covariance, schedule)  # type: ignore[arg-type]
    y = torch.tensor([[0.5], [0.0]]).expand(2, 6).unsqueeze(0)
    calls: list[tuple[int, int]] = []
    draws = kind(steps=100)(
        short,
        Observation(y, Mask(y != 0), 0.1),
        (1, 2, 6),
        generator=Streams([1]),
        progress=lambda done, total: calls.append((done, total)),
    )
    assert bool(torch.isfinite(draws).all())
    assert calls[-1] == (100, 100)
    with pytest.raises(ValueError, match=r"allows 2\.\.100"):
        kind(steps=101)(short, Observation(y, Mask(y != 0), 0.1), (1, 2, 6))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", [(2, 1, 2), (3, 8, 100)])
def test_a_stream_gives_what_its_generator_gives(
    shape: tuple[int, int, int], dtype: torch.dtype
) -> None:
    """Draws of a seed must stay what they were."""
    seeds, found = range(shape[0]), Streams(range(shape[0]))
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    for _ in range(2):
        rows = [torch.randn(shape[1:], generator=g, dtype=dtype) for g in generators]
        assert torch.equal(found.normal(shape, dtype), torch.stack(rows))


# How far draws may be from values measured with a noise of 1e-3. A sampler whose last step draws
# from p(x_0 | x_t, y) is off by the noise; the limit is in its standard deviations.
OFF_BY_NOISE = {"surrogate": 2.0}
# Others end on the prior's denoiser, which takes what it did not expect for noise of the last
# level of the grid; the limit is in that level's sigma, by default 2. Measured at 50 steps: MGPS
# 1.2, of which its few gradient steps are as much as its end; DPS 3.4, since its steps down the
# residual's norm have a length that does not shrink with it.
OFF_BY_LEVEL = {"dps": 4.0}


@pytest.mark.parametrize("whole_channel", [True, False])
def test_little_noise_reproduces_what_was_measured(
    key: str, prior: GaussianPrior, whole_channel: bool
) -> None:
    mask = torch.zeros(1, 2, 6, dtype=torch.bool)
    mask[:, 0, : 6 if whole_channel else 4] = True
    y = prior.sample(1, torch.Generator().manual_seed(3)) * mask
    draws = SAMPLERS[key](steps=50)(
        prior, Observation(y, Mask(mask), 1e-3), (50, 2, 6), generator=Streams(range(50))
    )
    off = (draws - y)[mask.expand_as(draws)].square().mean().sqrt()
    last = float(prior.schedule.sigma(time_grid(prior.schedule, 50)[-1]))
    limit = OFF_BY_NOISE[key] * 1e-3 if key in OFF_BY_NOISE else OFF_BY_LEVEL.get(key, 2.0) * last
    assert off < limit


# Those that need the singular vectors or the observed samples themselves; all others must run.
MASKS_ONLY = {"surrogate", "ddnm", "ding"}


def test_operators_with_another_output_shape(key: str, prior: GaussianPrior) -> None:
    matrix = torch.randn(3, 12, generator=torch.Generator().manual_seed(0))
    observation = Observation(torch.zeros(1, 3), Dense(matrix, (2, 6)), 0.1)
    sampler = SAMPLERS[key](steps=3)
    if key not in MASKS_ONLY:
        check_sampler(sampler, prior, observation, SHAPE)
        return
    with pytest.raises(OperatorError) as refusal:
        sampler(prior, observation, SHAPE)
    # Says what it was given, and what to use in its place.
    words = set(re.findall(r"\w+", str(refusal.value)))
    assert "Dense" in words
    assert words & {other.__name__ for name, other in SAMPLERS.items() if name not in MASKS_ONLY}


def test_rotated_masks(kind: Kind, prior: GaussianPrior) -> None:
    rotation = torch.tensor([[0.6, 0.8], [-0.8, 0.6]])
    mask = torch.tensor([[True], [False]]).expand(2, 6)
    y = torch.ones(1, 2, 6) * mask
    check_sampler(kind(steps=4), prior, Observation(y, RotatedMask(mask, rotation), 0.1), SHAPE)


def test_refusals(kind: Kind, prior: GaussianPrior) -> None:
    sampler = kind(steps=3)
    mask = Mask(torch.ones(2, 6))
    observation = Observation(torch.zeros(2, 2, 6), mask, 0.1)
    with pytest.raises(OperatorError, match="3 draws"):
        sampler(prior, observation, SHAPE)
    with pytest.raises(ValueError, match="shape must be"):
        sampler(prior, observation, (2, 12))
    with pytest.raises(OperatorError, match="does not take a signal"):
        sampler(prior, observation, (2, 2, 7))
    with pytest.raises(OperatorError, match="output shape"):
        sampler(prior, Observation(torch.zeros(2, 2, 6), mask, 0.1), (2, 1, 6))
    with pytest.raises(OperatorError, match="float32"):
        sampler(prior, Observation(torch.zeros(1, 2, 6, dtype=torch.long), mask, 0.1), SHAPE)


def test_a_draw_that_is_not_finite_is_an_error(kind: Kind, prior: GaussianPrior) -> None:
    class Broken(Denoiser):
        schedule, covariance = prior.schedule, prior.covariance

        def __call__(self, x_t: Tensor, t: int | Tensor) -> Tensor:
            return x_t * float("nan")

        def condition(self, observation: LinearObservation) -> Denoiser:
            return self

    with pytest.raises(EcgDiffError, match="diverged: 3 of 3"):
        kind(steps=3)(Broken(), per_item(torch.float32)[0], SHAPE)
