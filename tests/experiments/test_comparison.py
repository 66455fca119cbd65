"""The comparison of samplers: pairing, divergence, intervals and tables."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ecgdiff.diffusion import Denoiser
from ecgdiff.errors import EcgDiffError, OperatorError
from ecgdiff.experiments import comparison
from ecgdiff.experiments.comparison import DIVERGED, Problem, compare, interval
from ecgdiff.experiments.mixture import Problems
from ecgdiff.operators import Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers import DDNM, NFE, Progress, Sampler

SMALL = Problems(d=4, draws=50, directions=20)


@dataclass(frozen=True)
class Noise(Sampler):
    """Noise around a point, or around nothing finite."""

    point: float

    def nfe(self) -> NFE:
        return NFE(3, 1)

    def _sample(
        self,
        denoiser: Denoiser,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        return self.point + normal(shape, generator)


def test_methods_meet_the_same_problems_and_noise() -> None:
    found = compare({"one": Noise(0.0), "two": Noise(0.0), "far": Noise(9.0)}, SMALL.problem, 3)
    assert list(found) == ["floor", "one", "two", "far"]
    assert found["one"] == found["two"]
    assert len(set(found["one"]["scores"])) == 3
    assert found["floor"]["mean"] < found["one"]["mean"] < found["far"]["mean"]
    assert (found["floor"]["calls"], found["far"]["calls"]) == ([0, 0], [3, 1])


def test_a_score_is_the_distance_to_the_exact_draws() -> None:
    exact = torch.randn((50, 4), generator=torch.Generator().manual_seed(0)).double()
    given = SMALL.problem(0)
    problem = Problem(given.prior, given.observation, exact, exact, 4000, 0)
    # Sums over draws in another order: some processors round them otherwise.
    assert problem.distance(exact.flip(0)) < 1e-15
    # A shift by 3 along one of 4 axes: the mean of |u_1| on the sphere is 4 / (3 pi).
    shift = torch.tensor([3.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    assert problem.distance(exact + shift) == pytest.approx(3 * 4 / (3 * torch.pi), rel=0.03)


def test_divergence_has_a_score_and_a_refusal_has_none() -> None:
    assert compare({"lost": Noise(float("nan"))}, SMALL.problem, 2)["lost"]["mean"] == DIVERGED
    with pytest.raises(OperatorError, match="RotatedMask"):
        compare({"ddnm": DDNM(2)}, SMALL.problem, 2)


def test_interval_is_student_s() -> None:
    found = interval([1.0, 2.0, 3.0])
    assert found["mean"] == pytest.approx(2)
    assert found["half_width"] == pytest.approx(4.302653 / 3**0.5)  # t of 2 degrees, 97.5 %
    with pytest.raises(EcgDiffError, match="at least 2 replicates, got 1"):
        compare({}, SMALL.problem, 1)


def test_the_table_ranks_and_names_what_is_left_out() -> None:
    methods = {
        "far": {"mean": 3.0, "half_width": 0.5, "calls": [7, 2]},
        "near": {"mean": 1.234, "half_width": 0.1, "calls": [1, 0]},
    }
    setting = {"replicates": 2, "d": 4, "sigma": 0.1, "draws": 5, "directions": 6}
    text = comparison.table(
        {"setting": setting, "methods": methods, "left_out": {"x": "which is y."}}
    )
    rows = text.split("\n")
    assert rows.index("| near | 1.23 ± 0.10 | 1 + 0 |") + 1 == rows.index(
        "| far | 3.00 ± 0.50 | 7 + 2 |"
    )
    assert rows[-1] == "Not run: x, which is y."
