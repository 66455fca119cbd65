"""The budget experiment: what a budget buys, how settings are chosen, and that rows are kept."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from ecgdiff.diffusion import GaussianPrior, LeadFrequencyCovariance, Schedule
from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.benchmark import SamplerMethod
from ecgdiff.evaluation.records import RecordList
from ecgdiff.evaluation.tasks import BlockTask, Case, LeadTask
from ecgdiff.experiments import ecg_budget
from ecgdiff.samplers import named_sampler

LEAD = 0.2 + 0.8 * torch.eye(8).double()
PRIOR = GaussianPrior.from_covariance(
    LeadFrequencyCovariance(LEAD.expand(48, 8, 8).contiguous()), Schedule.linear()
)


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ecg_budget.Setting:
    prior = SimpleNamespace(denoiser=PRIOR, scale=0.25, name="p", config={"sha256": "abc"})

    def cases(data: object, records: RecordList) -> list[Case]:
        signals = PRIOR.sample(6, torch.Generator().manual_seed(0)).numpy() * prior.scale
        part = slice(0, 2) if records.name == "fold9_24" else slice(2, 6)
        return [Case(i, i, signals[i].astype(np.float32)) for i in range(6)[part]]

    monkeypatch.setattr(ecg_budget, "PTBXL", lambda root: None)
    monkeypatch.setattr(ecg_budget, "load_prior", lambda name: prior)
    monkeypatch.setattr(ecg_budget, "cases", cases)
    monkeypatch.setattr(ecg_budget, "TASKS", {"leads": LeadTask(), "block": BlockTask(crop=32)})
    return ecg_budget.Setting(
        root="somewhere",
        methods="surrogate,ddnm,cadps",
        budgets="2,8",
        draws=3,
        rows=str(tmp_path / "rows"),
    )


@pytest.mark.parametrize("name", sorted(ecg_budget.VARIANTS))
def test_a_budget_buys_as_many_steps_as_it_can(name: str) -> None:
    for variant in ecg_budget.VARIANTS[name]:
        for budget in (3, 10, 37, 200):
            text = ecg_budget.spec(name, variant, budget)
            steps = 1 if text is None else int(text.split("steps=")[1].split(",")[0])
            suffix = f",{variant}" if variant else ""
            if text is not None:
                assert sum(named_sampler(text).nfe()) <= budget
            assert sum(named_sampler(f"{name}:steps={steps + 1}{suffix}").nfe()) > budget


def test_settings_are_chosen_on_other_records_and_the_exact_method_wins(
    setting: ecg_budget.Setting,
) -> None:
    result = ecg_budget.run(setting)
    assert not set(result["tuned_on"]) & set(result["scored_on"])
    # Two calls are two steps of all but CA-DPS, which needs four for each.
    found = {(r["task"], r["method"], r["budget"]): r for r in result["results"]}
    assert {key[1:] for key in found} == {
        ("surrogate", 2),
        ("ddnm", 2),
        ("surrogate", 8),
        ("ddnm", 8),
        ("cadps", 8),
    }
    for row in found.values():
        assert row["tried"][row["sampler"]] == min(row["tried"].values())
    # The prior is what the surrogate takes it for: with all of the spread it is exact.
    best = found["leads", "surrogate", 8]
    assert "spread=1.0" in best["sampler"]
    crps = {m: found["leads", m, 8]["scores"]["crps"]["value"] for m in ("surrogate", "ddnm")}
    assert crps["surrogate"] < crps["ddnm"]
    text = ecg_budget.table(result)
    assert text.index("`surrogate:steps=8") < text.index("`ddnm:steps=8")
    lines = ecg_budget.figure(result)["data"]
    assert [line["x"] for line in lines if line["name"] == "surrogate"] == [[2, 8]] * 4


def test_ratios_are_those_of_the_same_records(setting: ecg_budget.Setting) -> None:
    result = ecg_budget.run(setting)
    for task in ("leads", "block"):
        scores = [row["scores"] for row in result["results"] if row["task"] == task]
        best = min(scores, key=lambda s: s["crps"]["value"])
        assert best["ratio"] == {"value": 1, "low": 1, "high": 1}
        for score in (s for s in scores if s is not best):
            ratio = score["ratio"]
            expected = score["crps"]["value"] / best["crps"]["value"]
            assert ratio["value"] == pytest.approx(expected, rel=1e-3)  # of rounded scores
            assert 0 < ratio["low"] <= ratio["value"] <= ratio["high"]
    assert not any("each" in row for row in result["results"])
    assert "| 1.00 [1.00, 1.00] |" in ecg_budget.table(result)


def test_ratios_are_paired() -> None:
    # Twice as much on every record: the records differ by far, their ratio does not.
    easy_to_hard = [(patient, 0.01 * 1.3**patient) for patient in range(12)]
    rows: list[dict[str, Any]] = [
        {
            "task": "leads",
            "scores": {"crps": {}},
            "each": [(p, times * crps) for p, crps in easy_to_hard],
        }
        for times in (2.0, 1.0)
    ]
    ecg_budget._add_ratios(rows)
    assert [row["scores"]["ratio"] for row in rows] == [
        {"value": times, "low": times, "high": times} for times in (2.0, 1.0)
    ]


def test_finished_records_are_not_computed_again(
    setting: ecg_budget.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    setting = replace(setting, methods="ddnm", budgets="2")
    first = ecg_budget.run(setting)

    def refuse(self: object, problems: Sequence[Any]) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(SamplerMethod, "__call__", refuse)
    assert ecg_budget.run(setting) == first


def test_a_variant_that_diverges_is_not_chosen(
    setting: ecg_budget.Setting, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = SamplerMethod.__call__

    def diverge(self: SamplerMethod, problems: Sequence[Any]) -> Any:
        if "spread=1.0" in self.label or self.label.startswith("ddnm"):
            raise EcgDiffError("diverged")
        return call(self, problems)

    monkeypatch.setattr(SamplerMethod, "__call__", diverge)
    result = ecg_budget.run(replace(setting, methods="ddnm,surrogate", budgets="2"))
    assert not any("spread=1.0" in row["sampler"] for row in result["results"])
    (lost,) = {row["scores"] is None for row in result["results"] if row["method"] == "ddnm"}
    assert lost
    assert "diverged" in ecg_budget.table(result)


def test_methods_far_behind_when_tuned_are_named_but_not_scored(
    setting: ecg_budget.Setting,
) -> None:
    setting = replace(setting, methods="ddnm,surrogate", budgets="8")
    tuned: dict[str, dict[str, float]] = {}
    for row in ecg_budget.run(setting)["results"]:
        assert row["scores"] is not None
        tuned.setdefault(row["task"], {})[row["method"]] = row["tuned_crps"]
    ratios = [max(t.values()) / min(t.values()) for t in tuned.values()]
    between = (1 + min(ratios)) / 2
    result = ecg_budget.run(replace(setting, within=between))
    text = ecg_budget.table(result)
    for row in result["results"]:
        behind = row["tuned_crps"] == max(tuned[row["task"]].values())
        assert (row["scores"] is None) == behind
        assert (f"not scored ({row['tuned_crps']:.3f} when tuned)" in text) or not behind
    assert result["settings"]["within"] == between
    # Not scored, but shown among the tuned.
    lines = ecg_budget.figure(result)["data"]
    worse = {task: max(t, key=lambda m: t[m]) for task, t in tuned.items()}
    for column, task in enumerate(("leads", "block")):
        drawn = {line["xaxis"]: bool(line["x"]) for line in lines if line["name"] == worse[task]}
        assert (drawn[f"x{2 * column + 1}"], drawn[f"x{2 * column + 2}"]) == (False, True)


def test_halving_tries_the_better_half_of_what_the_budget_below_tried(
    setting: ecg_budget.Setting,
) -> None:
    # At 2 calls CA-DPS can do nothing, so nothing of it was beaten there.
    setting = replace(setting, methods="surrogate,ddnm,cadps", budgets="20,2,8")
    all_of_them = _variants(ecg_budget.run(setting))
    result = ecg_budget.run(replace(setting, halve=True))
    assert "others of fold 9 among the better half of those of the" in ecg_budget.table(result)
    halved = _variants(result)
    order = [variant for variant, _ in all_of_them["leads", "surrogate", 2]]
    assert len(order) == 3
    kept = {key[1:]: [variant for variant, _ in halved[key]] for key in halved if "leads" in key}
    assert sorted(kept["surrogate", 2]) == sorted(order)
    assert sorted(kept["surrogate", 8]) == sorted(order[:2])
    at_8 = [variant for variant, _ in halved["leads", "surrogate", 8]]
    assert kept["surrogate", 20] == at_8[:1]
    assert ("cadps", 2) not in kept
    counts = [len(kept["cadps", budget]) for budget in (8, 20)]
    affordable = [ecg_budget.spec("cadps", v, 8) for v in ecg_budget.VARIANTS["cadps"]]
    assert counts == [len([text for text in affordable if text]), 2]


def _variants(result: dict[str, Any]) -> dict[tuple[str, str, int], list[tuple[str, float]]]:
    """What was tried for each task, method and budget, best first, without the steps."""
    return {
        (row["task"], row["method"], row["budget"]): sorted(
            ((text.split(",", 1)[1], crps) for text, crps in row["tried"].items()),
            key=lambda pair: pair[1],
        )
        for row in result["results"]
    }


def test_the_data_set_must_be_named() -> None:
    with pytest.raises(EcgDiffError, match="--root"):
        ecg_budget.run(ecg_budget.Setting())


@pytest.mark.parametrize("wrong", [{"tasks": "leads,legs"}, {"methods": "legs"}])
def test_unknown_names_are_refused(setting: ecg_budget.Setting, wrong: dict[str, str]) -> None:
    with pytest.raises(EcgDiffError, match=r"no 'legs'; there are \w+"):
        ecg_budget.run(replace(setting, **wrong))  # type: ignore[arg-type]
