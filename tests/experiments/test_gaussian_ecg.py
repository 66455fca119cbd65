"""The Gaussian with the ECGs' covariance: its posterior, what is measured, and the command."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ecgdiff.experiments import __main__ as command
from ecgdiff.experiments import gaussian_ecg
from ecgdiff.experiments.gaussian_ecg import Problem, ecg_covariance, measure, problems
from ecgdiff.operators import LinearOperator, Observation, observe
from ecgdiff.random import Generator, normal
from ecgdiff.samplers import DDNM, NFE, Sampler, Surrogate

pytestmark = pytest.mark.usefixtures("one_thread")

KINDS = ["lead", "half", "random", "dense", "noise"]


@pytest.fixture(scope="module")
def cells() -> dict[str, Problem]:
    return problems(ecg_covariance(16))


class Known(Sampler):
    """Draws the posterior itself, moved by a number of units and spread by a factor."""

    def __init__(self, off: float = 0.0, wider: float = 1.0) -> None:
        self.off, self.wider = off, wider

    def nfe(self) -> NFE:
        return NFE(0, 0)

    def _sample(
        self,
        denoiser: object,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: object,
    ) -> Tensor:
        assert isinstance(denoiser, Problem)
        values, vectors = torch.linalg.eigh(denoiser.posterior)
        z = normal(shape, generator, torch.float64).flatten(1)
        noise = (z * values.clamp(min=0).sqrt()) @ vectors.mT
        draws: Tensor = denoiser.mean(observation.y) + self.off + self.wider * noise.view(shape)
        return draws


@pytest.mark.parametrize("kind", KINDS)
def test_the_posterior_is_that_of_the_prior(kind: str, cells: dict[str, Problem]) -> None:
    problem, g = cells[kind], torch.Generator().manual_seed(0)
    observation = observe(problem.operator, problem.prior.sample(2, g), problem.sigma, g)
    mean, covariance = problem.prior.posterior(observation)
    torch.testing.assert_close(problem.mean(observation.y), mean)
    torch.testing.assert_close(problem.posterior, covariance[1])
    x = torch.randn(2, 8, 16, generator=g, dtype=torch.float64)
    for t in (3, 500):
        wanted = problem.prior.condition(observation)(x, t)
        torch.testing.assert_close(problem.condition(observation)(x, t), wanted)


def test_the_five_observations(cells: dict[str, Problem]) -> None:
    share = {kind: float(problem.lost.double().mean()) for kind, problem in cells.items()}
    assert share["lead"] == share["noise"] == 7 / 8
    assert (share["half"], share["dense"]) == (0.5, 1.0)
    assert share["random"] == pytest.approx(0.5, abs=0.15)
    rising = torch.as_tensor(cells["noise"].sigma)
    assert (float(rising.min()), float(rising.max())) == pytest.approx((0.05, 0.5))


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_measured_of_known_draws(kind: str, cells: dict[str, Problem]) -> None:
    problem = cells[kind]
    std = float(problem.prior.dense_covariance.diagonal()[problem.lost].mean().sqrt())
    for off, wider in ((0.0, 1.0), (0.3, 1.2)):
        found = measure(Known(off * std, wider), problem, 200)
        assert found["error"] == pytest.approx(off, abs=1e-4)
        assert found["spread"] == pytest.approx(wider, abs=4 * found["spread_se"])
        covariance, se = found["covariance"], found["covariance_se"]
        assert covariance**2 == pytest.approx(
            (wider**2 - 1) ** 2, abs=4 * ((covariance + se) ** 2 - covariance**2)
        )
        assert found["spread_se"] < 0.05


def test_an_exact_sampler_has_no_error(cells: dict[str, Problem]) -> None:
    found = measure(Surrogate(steps=3), cells["half"], 100)
    assert found["error"] < 1e-3
    assert found["seen_error"] < 1e-3
    assert found["spread"] == pytest.approx(1.0, abs=3 * found["spread_se"])


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def few(operator: LinearOperator) -> dict[str, Sampler]:
        return {"ddnm": DDNM(steps=5), "surrogate": Surrogate(steps=2)}

    monkeypatch.setattr(gaussian_ecg, "methods", few)
    sizes = ["--n-samples", "8", "--records", "3", "--exact-records", "4"]
    folders = ["--rows", str(tmp_path / "rows"), "--out", str(tmp_path)]
    assert command.main(["gaussian-ecg", *sizes, *folders]) == 0
    document = json.loads((tmp_path / "gaussian-ecg.json").read_text(encoding="utf-8"))
    assert "rows" not in document["setting"]
    found = document["methods"]
    assert {name: list(row) for name, row in found.items()} == {"ddnm": KINDS, "surrogate": KINDS}
    assert found["ddnm"]["dense"]["refused"] == "OperatorError"
    assert found["surrogate"]["lead"]["error"] < 2e-3
    assert (found["ddnm"]["lead"]["records"], found["surrogate"]["lead"]["records"]) == (3, 4)
    assert found["ddnm"]["lead"]["error_se"] > 0
    text = (tmp_path / "gaussian-ecg.md").read_text(encoding="utf-8")
    assert "refused (OperatorError)" in text
    assert "| surrogate | 0.000 ± 0.000 |" in text
    page = (tmp_path / "gaussian-ecg.html").read_text(encoding="utf-8")
    assert "half of the time" in page

    def never(*_: object) -> dict[str, float]:
        raise AssertionError("computed again")

    # The same command takes what is finished; another setting does not.
    monkeypatch.setattr(gaussian_ecg, "measure", never)
    assert command.main(["gaussian-ecg", *sizes, *folders]) == 0
    again = json.loads((tmp_path / "gaussian-ecg.json").read_text(encoding="utf-8"))
    assert again["methods"] == found
    with pytest.raises(AssertionError, match="computed again"):
        command.main(["gaussian-ecg", *sizes, *folders, "--seed", "1"])
