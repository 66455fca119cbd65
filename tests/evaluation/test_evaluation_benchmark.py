"""The runner on a Gaussian prior: exact draws are calibrated, and no row is lost or doubled."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.diffusion.gaussian import GaussianPrior
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import DataError, EcgDiffError
from ecgdiff.evaluation.benchmark import Rows, SamplerMethod, Settings, run, score
from ecgdiff.evaluation.signal import crps
from ecgdiff.evaluation.summary import DEFINITIONS, markdown, report, summarize
from ecgdiff.evaluation.tasks import BlockTask, Case, LeadTask, Problem, Task
from ecgdiff.operators import Observation
from ecgdiff.random import Generator, normal
from ecgdiff.samplers.base import NFE, Progress, Sampler

LENGTH, SCALE, DRAWS = 8, 0.5, 10
SETTINGS = Settings(draws=DRAWS, seed=0, noise=0.1, version="test")
TASKS: list[Task] = [LeadTask(), BlockTask(crop=6)]


@dataclass(frozen=True)
class FakePrior:
    denoiser: GaussianPrior
    scale: float = SCALE
    name: str = "fake"
    config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Exact(Sampler):
    """Draws from the exact posterior of a Gaussian prior with a mask, widened on request."""

    spread: float = 1.0

    def nfe(self) -> NFE:
        return NFE(3, 2)

    def _sample(
        self,
        denoiser: Any,
        observation: Observation,
        shape: tuple[int, int, int],
        generator: Generator,
        progress: Progress,
    ) -> Tensor:
        prior, y = denoiser.dense_covariance.numpy(), observation.y.flatten(1).numpy()
        seen = observation.operator.mask.flatten(1).numpy()  # type: ignore[attr-defined]
        noise = normal(shape, generator, torch.float64).flatten(1).numpy()
        out = np.empty_like(y)
        for mask in np.unique(seen, axis=0):  # one factorization for all items that share a mask
            items, k = (seen == mask).all(axis=1), prior[:, mask]
            system = k[mask] + float(observation.variance) * np.eye(mask.sum())
            gain = np.linalg.solve(system, k.T).T
            root = np.linalg.cholesky(prior - gain @ k.T + 1e-9 * np.eye(len(k)))
            out[items] = y[items][:, mask] @ gain.T + self.spread * noise[items] @ root.T
        return torch.from_numpy(out).reshape(shape)


def dense_covariance() -> NDArray[np.float64]:
    lead = 0.3 + 0.7 * np.eye(8)
    time = np.exp(-np.abs(np.subtract.outer(np.arange(LENGTH), np.arange(LENGTH))) / 3)
    return np.kron(lead, time)


@pytest.fixture(scope="module")
def prior() -> FakePrior:
    k = torch.from_numpy(dense_covariance())
    denoiser = GaussianPrior(torch.zeros(8, LENGTH).double(), k, Schedule.linear())
    return FakePrior(denoiser)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(120, 8 * LENGTH)) @ np.linalg.cholesky(dense_covariance()).T * SCALE
    truth = x.reshape(-1, 8, LENGTH).astype(np.float32)
    return [Case(k, k // 2, t) for k, t in enumerate(truth)]


def method(prior: FakePrior, label: str = "exact", spread: float = 1.0) -> SamplerMethod:
    facts = {"spread": spread}
    return SamplerMethod(label, Exact(spread), prior, DRAWS, 0, facts, dtype=torch.float64)


def every(*methods: Any) -> dict[str, list[Any]]:
    return {task.name: list(methods) for task in TASKS}


@dataclass
class Counting:
    """A point estimate that counts the problems it was given and can be killed."""

    limit: int = 10**9
    label: str = "zero"
    arguments: Mapping[str, object] = field(default_factory=dict)
    calls: tuple[int, int] = (0, 0)
    seen: list[str] = field(default_factory=list)

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        if len(self.seen) + len(problems) > self.limit:
            raise KeyboardInterrupt
        self.seen += [p.name for p in problems]
        return [np.zeros((1, *p.y.shape)) for p in problems]


def test_exact_draws_are_calibrated(prior: FakePrior, cases: list[Case], tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    methods = every(method(prior), method(prior, "narrow", 0.5))
    assert len(list(run(TASKS, methods, cases, rows, SETTINGS, batch=60))) == 480
    figures = report(TASKS, methods, cases, rows, SETTINGS, resamples=50)
    for task in TASKS:
        good, narrow = (figures[task.name]["methods"][m] for m in ("exact", "narrow"))
        assert good["nominal_coverage"] == {"coverage_90": 0.818182, "coverage_50": 0.5}
        for name, expected in (("coverage_90", 9 / 11), ("coverage_50", 0.5), ("spread_skill", 1)):
            assert good["scores"][name]["value"] == pytest.approx(expected, abs=0.05)
            assert narrow["scores"][name]["value"] < expected - 0.15
        assert good["scores"]["amplitude_ratio"]["value"] == pytest.approx(1, abs=0.2)
        assert good["scores"]["amplitude_ratio_mean"]["value"] < 0.8
        assert good["scores"]["crps"]["value"] < narrow["scores"]["crps"]["value"]
        assert good["calls"] == {"forward": 3, "vjp": 2}
        assert list(good["per_lead"]) == list(task.scored_leads)
        assert all(e["low"] <= e["value"] <= e["high"] for e in good["scores"].values())


def test_draws_do_not_depend_on_the_batch(
    prior: FakePrior, cases: list[Case], tmp_path: Path
) -> None:
    scores = []
    for size in (1, 7):
        rows = Rows(tmp_path / f"{size}.jsonl")
        made = run(TASKS, every(method(prior)), cases[:10], rows, SETTINGS, batch=size)
        scores.append([r["scores"] for r in made])
    for a, b in zip(*scores, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_allclose(a[name], b[name], rtol=1e-5)


def test_killed_run_resumes_without_loss_or_double(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "out" / "rows.jsonl"
    killed = Counting(limit=31)
    with pytest.raises(KeyboardInterrupt):
        list(run(TASKS, every(killed), cases[:20], Rows(path), SETTINGS))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"task": "block", "method": "ze')  # the kill came while a line was written
    resumed = Counting()
    list(run(TASKS, every(resumed), cases[:20], Rows(path), SETTINGS))
    assert len(killed.seen) == 31
    assert len(resumed.seen) == 40 - 31
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    keys = [(r["task"], r["ecg_id"]) for r in lines]
    assert len(keys) == len(set(keys)) == 40
    again = Counting()
    assert list(run(TASKS, every(again), cases[:20], Rows(path), SETTINGS)) == []
    assert again.seen == []


def test_other_settings_are_refused(cases: list[Case], tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    list(run(TASKS, every(Counting()), cases[:2], Rows(path), SETTINGS))
    other = Settings(DRAWS, seed=1, noise=0.1, version="test")
    with pytest.raises(DataError, match="other settings"):
        list(run(TASKS, every(Counting()), cases, Rows(path), other))
    with pytest.raises(DataError, match="other settings"):
        list(run(TASKS, every(Counting(arguments={"steps": 2})), cases, Rows(path), SETTINGS))
    assert len(Rows(path).rows) == 4


def test_damaged_line_in_the_middle_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\nnonsense\n{"a": 2}\n', encoding="utf-8")
    with pytest.raises(DataError, match="line 2"):
        Rows(path)


def test_report_names_missing_rows(cases: list[Case], tmp_path: Path) -> None:
    rows, methods = Rows(tmp_path / "rows.jsonl"), every(Counting())
    list(run(TASKS, methods, cases[:3], rows, SETTINGS))
    with pytest.raises(DataError, match="117 records of task leads"):
        report(TASKS, methods, cases, rows, SETTINGS)


def test_score_by_brute_force() -> None:
    rng = np.random.default_rng(1)
    draws, truth = rng.normal(size=(5, 3, 20)), rng.normal(size=(3, 20))
    scored = np.zeros((3, 20), dtype=bool)
    scored[1:, 4:9] = True
    s = score(draws, truth, scored)
    x, y = draws[:, 1:, 4:9], truth[1:, 4:9]
    expected = {
        "mae_draw": np.abs(x - y).mean(axis=(0, 2)),
        "mae_mean": np.abs(x.mean(axis=0) - y).mean(axis=1),
        "mae_median": np.abs(np.median(x, axis=0) - y).mean(axis=1),
        "mse_mean": ((x.mean(axis=0) - y) ** 2).mean(axis=1),
        "crps": crps(x, y).mean(axis=1),
        "variance": x.var(axis=0, ddof=1).mean(axis=1),
        "amplitude_true": y.max(axis=1) - y.min(axis=1),
        "amplitude_draws": x.max(axis=2) - x.min(axis=2),
        "rmse_draw": np.mean([np.sqrt(((d - y) ** 2).mean()) for d in x]),
        "rmse_mean": np.sqrt(((x.mean(axis=0) - y) ** 2).mean()),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(s[name], value, rtol=1e-5)


def test_score_refuses_diverged_draws() -> None:
    with pytest.raises(EcgDiffError, match="not finite"):
        score(np.full((2, 1, 4), np.nan), np.zeros((1, 4)), np.ones((1, 4), dtype=bool))


def test_summary_needs_two_records() -> None:
    with pytest.raises(DataError, match="at least 2"):
        summarize([], ("I",))


def test_markdown_shows_every_method(prior: FakePrior, cases: list[Case], tmp_path: Path) -> None:
    rows, methods = Rows(tmp_path / "rows.jsonl"), every(method(prior), Counting())
    list(run(TASKS, methods, cases[:6], rows, SETTINGS))
    tasks = report(TASKS, methods, cases[:6], rows, SETTINGS, resamples=20)
    document = {
        "command": "python -m ecgdiff.evaluation",
        "settings": {"draws": DRAWS, "seed": 0, "noise": 0.1, "version": "test"},
        "priors": {"fake": "none"},
        "records": {"name": "six", "ecg_ids": list(range(6))},
        "definitions": DEFINITIONS,
        "tasks": tasks,
    }
    text = markdown(json.loads(json.dumps(document, allow_nan=False)))
    lines = text.splitlines()
    assert sum(line.startswith("| exact |") for line in lines) == 2
    assert sum(line.startswith("| zero |") for line in lines) == 4  # scores and amplitudes
    assert "(nominal 81.8)" in text
    assert "| 3 + 2 |" in text
