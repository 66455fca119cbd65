"""The runner on a Gaussian prior: exact draws are calibrated, and no row is lost or doubled."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.diffusion.gaussian import GaussianPrior
from ecgdiff.diffusion.schedule import Schedule
from ecgdiff.errors import DataError
from ecgdiff.evaluation import benchmark
from ecgdiff.evaluation.benchmark import Row, Rows, SamplerMethod, Settings, run
from ecgdiff.evaluation.first_figures import markdown, report
from ecgdiff.evaluation.journal import failed, incomplete, latest
from ecgdiff.evaluation.summary import DEFINITIONS, Figures, lacking, summarize
from ecgdiff.evaluation.tables import collect
from ecgdiff.evaluation.tasks import (
    PAPER_TASKS,
    BlockTask,
    Case,
    LeadTask,
    Problem,
    Task,
    problem,
)
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
        levels = observation.variance.expand(len(y), 1, 1).flatten().numpy()
        for mask in np.unique(seen, axis=0):  # one factorization for all items that share a mask
            items, k = (seen == mask).all(axis=1), prior[:, mask]
            for level in np.unique(levels[items]):
                part = items & (levels == level)
                system = k[mask] + level * np.eye(mask.sum())
                gain = np.linalg.solve(system, k.T).T
                root = np.linalg.cholesky(prior - gain @ k.T + 1e-9 * np.eye(len(k)))
                out[part] = y[part][:, mask] @ gain.T + self.spread * noise[part] @ root.T
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


def reported(
    tasks: Sequence[Task], methods: Mapping[str, Any], count: int, rows: Rows, resamples: int = 5
) -> Figures:
    """The figures of what the journal holds, all records alike."""
    found = [{**row, "weight": 1.0} for row in latest(rows.rows)]
    arguments = {name: {m.label: m.arguments for m in these} for name, these in methods.items()}
    return report(tasks, found, count, arguments, resamples=resamples)


def test_exact_draws_are_calibrated(prior: FakePrior, cases: list[Case], tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.jsonl")
    methods = every(method(prior), method(prior, "narrow", 0.5))
    assert len(list(run(TASKS, methods, cases, rows, SETTINGS, batch=60))) == 480
    figures = reported(TASKS, methods, 120, rows, 50)
    for task in TASKS:
        good, narrow = (figures[task.name]["methods"][m] for m in ("exact", "narrow"))
        nominal = {"coverage_90": 9 / 11, "coverage_80": 0.8, "coverage_50": 0.5}
        assert good["nominal_coverage"] == pytest.approx(nominal, abs=1e-6)
        for name, expected in {**nominal, "spread_skill": 1}.items():
            assert good["scores"][name]["value"] == pytest.approx(expected, abs=0.05)
            assert narrow["scores"][name]["value"] < expected - 0.15
        np.testing.assert_allclose(good["ranks"], 1 / 11, atol=0.02)
        assert min(narrow["ranks"][0], narrow["ranks"][-1]) > 2 / 11
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
    rows, methods = Rows(tmp_path / "rows.jsonl"), every(Counting(), Counting(label="one"))
    list(run(TASKS, every(Counting()), cases[:3], rows, SETTINGS))
    list(run(TASKS, every(Counting(label="one")), cases[:1], rows, SETTINGS))
    found = reported(TASKS, methods, 120, rows)["leads"]
    assert found["remarks"] == [
        "`zero`: 117 of 120 not computed yet.",
        "`one`: 119 of 120 not computed yet.",
    ]
    assert list(found["methods"]) == ["zero"]  # one record has no figures
    assert found["methods"]["zero"]["records"] == 3


FAILING = "ptbxl-3"


@dataclass
class Broken:
    """Fails on one record, alone or in a batch; on all if asked."""

    all: bool = False
    label: str = "broken"
    arguments: Mapping[str, object] = field(default_factory=dict)
    calls: tuple[int, int] = (0, 0)

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        if self.all or any(p.name == FAILING for p in problems):
            raise RuntimeError("no electricity")
        return [np.zeros((1, *p.y.shape)) for p in problems]


@pytest.mark.parametrize("batch", [1, 4])
def test_failed_records_are_rows_with_their_reason(
    batch: int, cases: list[Case], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    keep = {"batch": batch, "keep_errors": True}
    rows = list(run(TASKS, every(Broken()), cases[:8], Rows(path), SETTINGS, **keep))
    assert len(rows) == 16
    lost = [row for row in rows if "error" in row]
    assert [(r["task"], r["ecg_id"]) for r in lost] == [("leads", 3), ("block", 3)]
    assert lost[0]["error"] == {"type": "RuntimeError", "message": "no electricity"}
    assert "scores" not in lost[0]
    figures = reported(TASKS, every(Broken()), 8, Rows(path))
    assert figures["leads"]["methods"]["broken"]["records"] == 7
    assert figures["leads"]["remarks"] == [
        "`broken`: 1 of 8 failed (1 RuntimeError: no electricity)."
    ]


def test_failed_records_are_computed_again_only_on_request(
    cases: list[Case], tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    list(run(TASKS, every(Broken()), cases[:5], Rows(path), SETTINGS, keep_errors=True))
    healed = Counting(label="broken")
    assert list(run(TASKS, every(healed), cases[:5], Rows(path), SETTINGS)) == []
    again = list(run(TASKS, every(healed), cases[:5], Rows(path), SETTINGS, retry_failed=True))
    assert [row["ecg_id"] for row in again] == [3, 3]
    assert healed.seen == [FAILING, FAILING]
    assert len(Rows(path).rows) == 12  # nothing is rewritten
    assert sum("error" in row for row in latest(Rows(path).rows)) == 0
    assert len(latest(Rows(path).rows)) == 10


def test_errors_are_raised_unless_they_are_to_be_kept(cases: list[Case], tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="no electricity"):
        list(run(TASKS, every(Broken()), cases[:5], Rows(tmp_path / "rows.jsonl"), SETTINGS))
    assert [r["ecg_id"] for r in Rows(tmp_path / "rows.jsonl").rows] == [0, 1, 2]


def test_a_reader_and_its_name_go_together(cases: list[Case], tmp_path: Path) -> None:
    rows, named = Rows(tmp_path / "rows.jsonl"), replace(SETTINGS, reader="someone")
    with pytest.raises(ValueError, match="Give a reader and its name"):
        next(run(TASKS, every(Counting()), cases, rows, named))


def test_a_method_that_always_fails_has_no_figures_but_is_named(
    cases: list[Case], tmp_path: Path
) -> None:
    rows, methods = Rows(tmp_path / "rows.jsonl"), every(Broken(all=True), Counting())
    list(run(TASKS, methods, cases[:4], rows, SETTINGS, keep_errors=True))
    figures = reported(TASKS, methods, 4, rows)
    assert list(figures["leads"]["methods"]) == ["zero"]
    assert figures["leads"]["remarks"][0].startswith("`broken`: 4 of 4 failed")


class Blind:
    """A classifier that cannot read one record, whose lead II begins with 9 mV."""

    classes = ("CRBBB",)

    def __init__(self, healed: bool = False) -> None:
        self.healed = healed

    def probabilities(self, signal: NDArray[np.floating], /) -> NDArray[np.floating]:
        if not self.healed and signal[0, 1, 0] == 9:
            raise RuntimeError("cannot read")
        return np.full((len(signal), 1), 0.5)


@dataclass
class Marked(Counting):
    """Draws 9 mV at the begin of lead II of one record."""

    label: str = "marked"

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        out = super().__call__(problems)
        for x, p in zip(out, problems, strict=True):
            x[0, 1, 0] = 9 if p.name == FAILING else 0
        return out


LEADS = PAPER_TASKS["leads"]
PARTS = replace(SETTINGS, reader="blind", morphology=True, spectra=True)


def ten_seconds(count: int) -> list[Case]:
    rng = np.random.default_rng(0)
    return [Case(k, k, rng.normal(size=(8, 1000)).astype(np.float32)) for k in range(count)]


@pytest.fixture
def fragile(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shape of one record cannot be measured."""

    def measured(draws: NDArray[np.floating], truth: Any, hidden: Problem) -> dict[str, Any]:
        if hidden.name in (FAILING, "ptbxl-1"):
            raise ValueError("no shape")
        return {"qrs_ms": [90.0]}

    monkeypatch.setattr(benchmark, "shape", measured)


@pytest.mark.usefixtures("fragile")
@pytest.mark.parametrize("batch", [1, 4])
def test_a_part_that_fails_costs_neither_scores_nor_the_other_parts(
    batch: int, tmp_path: Path
) -> None:
    path, records, methods = tmp_path / "rows.jsonl", ten_seconds(5), {"leads": [Marked()]}
    keep: dict[str, Any] = {"batch": batch, "keep_errors": True}
    rows = list(run([LEADS], methods, records, Rows(path), PARTS, reader=Blind(), **keep))
    parts = ("scores", "probabilities", "shape", "spectra")
    assert {r["ecg_id"]: [part in r for part in parts] for r in rows} == {
        0: [True] * 4,
        1: [True, True, False, True],
        2: [True] * 4,
        3: [True, False, False, True],
        4: [True] * 4,
    }
    no_shape = {"type": "ValueError", "message": "no shape"}
    unread = {"type": "RuntimeError", "message": "cannot read"}
    assert {r["ecg_id"]: r["failed_parts"] for r in rows if "failed_parts" in r} == {
        1: {"shape": no_shape},
        3: {"probabilities": unread, "shape": no_shape},
    }
    assert [failed(r) for r in rows] == [False] * 5
    assert [incomplete(r) for r in rows] == [False, True, False, True, False]
    plain = run([LEADS], methods, records, Rows(tmp_path / "plain"), SETTINGS)
    assert [r["scores"] for r in rows] == [r["scores"] for r in plain]
    assert Rows(path).rows == rows  # what the journal holds

    expected = (
        "0 of 5 failed; 2 of 5 without shape (2 ValueError: no shape); 1 of 5 without "
        "probabilities (1 RuntimeError: cannot read)"
    )
    figures = reported([LEADS], methods, 5, Rows(path))["leads"]
    assert figures["methods"]["marked"]["records"] == 5
    assert figures["remarks"] == [f"`marked`: {expected}."]
    found = collect([{**r, "weight": 1.0} for r in rows], resamples=5)["leads"]["marked"]
    assert (found["records"], found["rows"], found["failed"]) == (5, 5, expected)
    assert lacking(rows, "spectra") == []
    assert lacking(rows, "shape") == ["`marked`: 2 of 5 without shape (2 ValueError: no shape)."]


@pytest.mark.usefixtures("fragile")
def test_rows_that_failed_in_part_are_computed_again_only_on_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, records = tmp_path / "rows.jsonl", ten_seconds(4)

    def again(reader: Blind, **options: bool) -> list[Row]:
        methods, rows = {"leads": [Marked()]}, Rows(path)
        return list(run([LEADS], methods, records, rows, PARTS, reader=reader, **options))

    with pytest.raises(ValueError, match="no shape"):  # of record 1: not kept unless asked for
        again(Blind())
    assert [r["ecg_id"] for r in Rows(path).rows] == [0]
    assert len(again(Blind(), keep_errors=True)) == 3
    assert again(Blind(), keep_errors=True) == []
    monkeypatch.setattr(benchmark, "shape", lambda *of: {"qrs_ms": [90.0]})
    healed = again(Blind(healed=True), retry_failed=True)
    assert [r["ecg_id"] for r in healed] == [1, 3]
    assert not any(map(incomplete, latest(Rows(path).rows)))
    assert len(latest(Rows(path).rows)) == 4


class Slow(Blind):
    """A classifier that takes its time."""

    def probabilities(self, signal: NDArray[np.floating], /) -> NDArray[np.floating]:
        time.sleep(0.05)
        return super().probabilities(signal)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_row_tells_the_time_of_the_method_and_of_all(batch: int, tmp_path: Path) -> None:
    settings, methods = replace(SETTINGS, reader="slow"), {"leads": [Counting()]}
    rows = Rows(tmp_path / "rows.jsonl")
    for row in run([LEADS], methods, ten_seconds(3), rows, settings, batch=batch, reader=Slow()):
        assert row["seconds"] < 0.05 <= row["job_seconds"]


@dataclass
class Diverging(Counting):
    """Ends beyond all bounds on two records, in numbers that are finite."""

    label: str = "diverging"

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        out = super().__call__(problems)
        for x, p in zip(out, problems, strict=True):
            x += {"ptbxl-1": 1e37, "ptbxl-2": 1e10}.get(p.name, 0.0)
        return [x.astype(np.float32) for x in out]


class Confused:
    """A classifier that answers with no number."""

    classes = ("CRBBB",)

    def probabilities(self, signal: NDArray[np.floating], /) -> NDArray[np.floating]:
        return np.full((len(signal), 1), np.nan)


@pytest.mark.parametrize("batch", [1, 4])
def test_draws_that_diverged_are_failed_rows_and_stop_no_run(batch: int, tmp_path: Path) -> None:
    path, settings = tmp_path / "rows.jsonl", replace(SETTINGS, reader="confused", spectra=True)
    methods, records = {"leads": [Diverging()]}, ten_seconds(4)
    keep: dict[str, Any] = {"batch": batch, "keep_errors": True, "reader": Confused()}
    rows = list(run([LEADS], methods, records, Rows(path), settings, **keep))
    assert [failed(row) for row in rows] == [False, True, True, False]
    assert "1e+37 mV" in rows[1]["error"]["message"]
    assert "1e+10 mV" in rows[2]["error"]["message"]
    for row in (rows[0], rows[3]):
        assert {"scores", "spectra"} < set(row)
        assert "not finite" in row["failed_parts"]["probabilities"]["message"]
    assert list(run([LEADS], methods, records, Rows(path), settings, **keep)) == []


GOLDEN = {"leads": "62ba2e5e4cd22b39", "block": "baaefc2d3a5822e2"}


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_rows_of_the_first_figures_are_still_those_of_the_same_settings(name: str) -> None:
    """The fingerprints are those of the committed rows."""
    mean = Counting(label="mean", arguments={"train": "folds 1-8"})
    settings = Settings(10, 0, 0.02, "0.1.0")
    assert settings.fingerprint(PAPER_TASKS[name], mean) == GOLDEN[name]
    assert replace(settings, reader="c").fingerprint(PAPER_TASKS[name], mean) != GOLDEN[name]
    measured = replace(settings, morphology=True)
    assert measured.fingerprint(PAPER_TASKS[name], mean) != GOLDEN[name]
    with_spectra = replace(settings, spectra=True)
    assert with_spectra.fingerprint(PAPER_TASKS[name], mean) != GOLDEN[name]


def test_noise_may_differ_in_a_batch(prior: FakePrior, cases: list[Case]) -> None:
    """A batch of records with noise of their own gives what each gives alone."""
    problems = [
        replace(problem(TASKS[0], case, 0, 0.1), noise=noise)
        for case, noise in zip(cases, (0.05, 0.1, 0.4), strict=False)
    ]
    exact = method(prior)
    for p, together in zip(problems, exact(problems), strict=True):
        np.testing.assert_allclose(together, exact([p])[0], rtol=1e-9)
    assert not np.allclose(exact(problems[:1])[0], exact([replace(problems[0], noise=0.4)])[0])


def test_summary_needs_two_records() -> None:
    with pytest.raises(DataError, match="at least 2"):
        summarize([], ("I",))


def test_markdown_shows_every_method(prior: FakePrior, cases: list[Case], tmp_path: Path) -> None:
    rows, methods = Rows(tmp_path / "rows.jsonl"), every(method(prior), Counting(), Broken())
    list(run(TASKS, methods, cases[:6], rows, SETTINGS, keep_errors=True))
    tasks = reported(TASKS, methods, 6, rows, 20)
    document = {
        "commands": ["python -m ecgdiff.evaluation"],
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
    assert text.count("`broken`: 1 of 6 failed (1 RuntimeError: no electricity).") == 2
