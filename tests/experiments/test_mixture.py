"""The mixture experiment: its prior and posterior, its score, and its bookkeeping."""

import json
from pathlib import Path

import pytest
import torch

from ecgdiff.diffusion import GaussianMixturePrior, Schedule
from ecgdiff.errors import OperatorError
from ecgdiff.experiments import __main__ as command
from ecgdiff.experiments import mixture
from ecgdiff.experiments.mixture import Problems
from ecgdiff.experiments.sliced import sliced_wasserstein
from ecgdiff.experiments.unit_mixture import UnitMixture
from ecgdiff.operators import Dense, Observation
from ecgdiff.samplers import SAMPLERS

SCHEDULE = Schedule.linear()


def pair() -> tuple[UnitMixture, GaussianMixturePrior]:
    g = torch.Generator().manual_seed(0)
    means = 3 * torch.randn((4, 6), generator=g, dtype=torch.float64)
    weights = torch.rand(4, generator=g, dtype=torch.float64)
    eyes = torch.eye(6, dtype=torch.float64).expand(4, 6, 6)
    dense = GaussianMixturePrior(weights, means, eyes, SCHEDULE, (1, 6))
    return UnitMixture(weights, means, SCHEDULE), dense


@pytest.mark.parametrize("t", [1, 400, 1000])
def test_the_denoiser_equals_the_dense_one(t: int) -> None:
    fast, dense = pair()
    x = 2 * torch.randn((5, 1, 6), generator=torch.Generator().manual_seed(1)).double()
    torch.testing.assert_close(fast(x, t), dense(x, t))
    times = torch.full((5,), t)
    torch.testing.assert_close(fast(x, times), dense(x, times))


def test_posterior_draws_have_the_posterior_s_moments() -> None:
    fast, dense = pair()
    matrix = torch.randn((2, 6), generator=torch.Generator().manual_seed(2)).double()
    y = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    posterior = dense.posterior(Observation(y, Dense(matrix, (1, 6)), 0.5))
    draws = fast.posterior_sample(matrix, y[0], 0.5, 20_000, torch.Generator().manual_seed(3))
    mean = (posterior.weights[:, None] * posterior.means).sum(0)
    gap = posterior.means - mean
    spread = torch.einsum("k,ki,kj->ij", posterior.weights, gap, gap)
    cov = (posterior.weights[:, None, None] * posterior.covariances).sum(0) + spread
    error = (draws.mean(0) - mean) / (cov.diagonal() / 20_000).sqrt()
    assert float(error.abs().max()) < 4
    assert float((torch.cov(draws.mT) - cov).norm() / cov.norm()) < 0.05


def test_sliced_wasserstein() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn((500, 3), generator=g, dtype=torch.float64)
    shift = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    assert sliced_wasserstein(x, x.flip(0), 10, g) == 0
    # A shift moves every projection by its share: the mean of |u_3| on the sphere is 1/2.
    found = sliced_wasserstein(x, x + shift, 4000, g)
    assert found == pytest.approx(2 / 2, rel=0.03)
    with pytest.raises(ValueError, match="as many draws"):
        sliced_wasserstein(x, x[1:], 10, g)


def test_observations_come_from_the_prior() -> None:
    """y = A x + noise for a draw x: its square has the mean that prior and noise give."""
    problems = Problems(d=4, sigma=3.0, draws=2, directions=1)
    ratios = []
    for k in range(300):
        found = problems.problem(k)
        prior, operator = found.prior, found.observation.operator
        assert isinstance(prior, UnitMixture)
        assert isinstance(operator, Dense)
        row = operator.matrix.double()[0]
        square = float((prior.weights * (prior.means @ row) ** 2).sum() + row @ row) + 9
        ratios.append(float(found.observation.y) ** 2 / square)
    mean = torch.tensor(ratios)
    assert abs(float(mean.mean()) - 1) < 3 * float(mean.std()) / 300**0.5


def test_every_sampler_runs_or_says_why_it_cannot() -> None:
    problem = Problems(d=4, draws=3, directions=5).problem(0)
    compared = {type(sampler) for sampler in mixture.methods(6).values()}
    for name, sampler in SAMPLERS.items():
        assert (name in mixture.LEFT_OUT) != (sampler in compared), name
        if name in mixture.LEFT_OUT:
            with pytest.raises(OperatorError):
                sampler()(problem.prior, problem.observation, (3, 1, 4))


def test_the_command_compares_every_method(tmp_path: Path) -> None:
    given = ["--steps", "6", "--replicates", "2", "--draws", "20", "--directions", "20"]
    assert command.main(["mixture", *given, "--d", "4", "--out", str(tmp_path)]) == 0
    document = json.loads((tmp_path / "mixture.json").read_text(encoding="utf-8"))
    assert set(document["methods"]) == {"floor", *mixture.methods(6)}
    assert all(len(m["scores"]) == 2 for m in document["methods"].values())
    assert document["setting"]["steps"] == 6
    assert document["command"].startswith("python -m ecgdiff.experiments mixture --d 4")
    best = min(document["methods"].values(), key=lambda m: m["mean"])
    assert best["mean"] == document["methods"]["floor"]["mean"]
    assert "plotly" in (tmp_path / "mixture.html").read_text(encoding="utf-8")
    text = (tmp_path / "mixture.md").read_text(encoding="utf-8")
    assert text.count("\n| ") == 2 + len(document["methods"])
    assert text.count("Not run: ") == len(mixture.LEFT_OUT)


def test_one_replicate_has_no_interval(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["mixture", "--replicates", "1"]) == 1
    assert "at least 2 replicates" in capsys.readouterr().err
