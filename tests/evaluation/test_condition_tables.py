"""Calibration by condition: each group is its records and no other, all of the same weight."""

from typing import Any

import numpy as np
import pytest

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.evaluation.bootstrap import replicates
from ecgdiff.evaluation.condition_tables import LEAST, NONE, by_condition, condition_tables
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.scoring import score
from ecgdiff.evaluation.tables import collect
from ecgdiff.evaluation.tasks import TASKS

COUNT = 48
LEADS = TASKS["precordial"].scored_leads
HEADER: dict[str, Any] = {"records": {"ecg_ids": list(range(COUNT + 2))}}


def row(k: int, draws: int = 9, method: str = "m") -> Row:
    """One in three CRBBB with draws too narrow; AFIB in one of twelve with it and without."""
    rng = np.random.default_rng(k)
    said = {"CRBBB", "SR"} if k % 3 == 0 else {"NORM"}
    said |= {"AFIB"} if k % 12 < 2 else set()
    spread = 0.2 if k % 3 == 0 else 1.0
    x = spread * rng.normal(size=(draws, len(LEADS), 50))
    truth = rng.normal(size=(len(LEADS), 50))
    return {
        "task": "precordial",
        "method": method,
        "ecg_id": k,
        "patient_id": k // 2,
        "seconds": 1.0,
        "device": "cpu",
        "weight": 1.0 if k % 3 == 0 else 14.0,
        "statements": sorted(said),
        "scores": score(x, truth, np.ones(truth.shape, dtype=bool)),
    }


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [row(k) for k in range(COUNT)]


def test_groups_are_those_of_the_statements(rows: list[Row]) -> None:
    found = by_condition(rows, LEADS, resamples=5)
    assert list(found) == [*CONDITIONS, NONE]
    counts = {name: figures["records"] for name, figures in found.items()}
    assert counts == {"CRBBB": 16, "CLBBB": 0, "AFIB": 8, "SBRAD": 0, NONE: 28}
    assert [name for name, f in found.items() if f["scores"]] == ["CRBBB", NONE]
    error = {k: v for k, v in rows[0].items() if k != "scores"} | {"error": {"type": "E"}}
    assert by_condition([error, *rows[1:]], LEADS, resamples=5)["CRBBB"]["records"] == 15


def test_figures_by_hand_not_weighted(rows: list[Row]) -> None:
    mixed = [{**r, "weight": 1.0 + k} for k, r in enumerate(rows)]
    found = by_condition(mixed, LEADS, resamples=50)
    sick = [r for r in rows if "CRBBB" in r["statements"]]
    resamples = replicates([r["patient_id"] for r in sick], 50)
    for name in ("crps", "coverage_90", "coverage_50"):
        values = np.array([np.mean(r["scores"][name]) for r in sick])
        e = found["CRBBB"]["scores"][name]
        assert e["value"] == pytest.approx(values.mean(), rel=1e-4)
        ends = np.quantile([values[at].mean() for at in resamples], [0.025, 0.975])
        assert (e["low"], e["high"]) == pytest.approx(tuple(ends), rel=1e-4)
        assert e["low"] < e["value"] < e["high"]
    ratio = found["CRBBB"]["scores"]["spread_skill"]["value"]
    variance, error = (np.mean([r["scores"][n] for r in sick]) for n in ("variance", "mse_mean"))
    assert ratio == pytest.approx(np.sqrt(10 / 9 * variance / error), rel=1e-4)
    # Too sure with the condition, right without it: that is what the table is for.
    assert ratio < 0.3
    assert found[NONE]["scores"]["spread_skill"]["value"] == pytest.approx(1, abs=0.05)


def test_the_table(rows: list[Row]) -> None:
    some = [*rows, *(row(k, 1, "point") for k in range(LEAST))]
    found = collect(some, resamples=5)
    (table,) = condition_tables(some, HEADER, found, resamples=5)
    assert table.title == "Calibration by condition, task precordial"
    assert table.task == "precordial"
    assert "90 % band (nominal 80.0)" in table.head and "50 % band (nominal 50.0)" in table.head
    assert all(len(line) == len(table.head) for line in table.body)
    lines = {(line[0], line[1]): line[2:] for line in table.body}
    assert lines["m", "AFIB"] == ["8", "-", "-", "-", "-", "-"]
    assert lines["point", "CRBBB"][0] == "4"
    entry = by_condition(rows, LEADS, resamples=5)["CRBBB"]["scores"]["coverage_90"]
    shown = [f"{100 * entry[end]:.1f}" for end in ("value", "low", "high")]
    assert lines["m", "CRBBB"][2] == "{} [{}, {}]".format(*shown)
    assert "`m`: 2 of 50 not computed yet." in table.remarks
    assert "not weighted" in table.note


def test_comonotone_curves_have_no_amplitude_ratio(rows: list[Row]) -> None:
    curves = [{**r, "method": "quantile-unet"} for r in rows]
    (table,) = condition_tables(curves, HEADER, collect(curves, resamples=5), resamples=5)
    assert {line[-1] for line in table.body} == {"-"}
    assert table.remarks[-1].startswith("`quantile-unet`: no amplitude ratio of draws")


def test_rows_without_statements_make_no_table(rows: list[Row]) -> None:
    bare = [{k: v for k, v in r.items() if k != "statements"} for r in rows]
    assert condition_tables(bare, HEADER, collect(bare, resamples=5), resamples=5) == []
