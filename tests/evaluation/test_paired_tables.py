"""Paired differences by brute force, on the records that two methods share."""

import re
from typing import Any

import numpy as np
import pytest

from ecgdiff.evaluation.bootstrap import replicates
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.paired_tables import SCORES, differences, paired_tables
from ecgdiff.evaluation.scoring import score
from ecgdiff.evaluation.tables import Table, collect
from ecgdiff.evaluation.tasks import TASKS

COUNT = 20
LEADS = len(TASKS["precordial"].scored_leads)
HEADER: dict[str, Any] = {"records": {"ecg_ids": list(range(COUNT))}}


def row(k: int, method: str, worse: float = 0.0) -> Row:
    """Records differ by far more than methods do."""
    rng = np.random.default_rng(k)
    size = float(rng.uniform(0.1, 3))
    x, truth = size * rng.normal(size=(4, LEADS, 30)), size * rng.normal(size=(LEADS, 30))
    return {
        "task": "precordial",
        "method": method,
        "ecg_id": k,
        "patient_id": k // 2,
        "seconds": 1.0,
        "device": "cpu",
        "weight": 1.0 if k < 12 else 8.0,
        "scores": score(x + worse * rng.normal(size=truth.shape), truth, truth < np.inf),
    }


def shown(rows: list[Row], resamples: int = 100) -> Table:
    found = collect(rows, resamples=5)
    (table,) = paired_tables(rows, HEADER, found, resamples=resamples)
    return table


def test_differences_by_brute_force() -> None:
    a = [row(k, "a", 0.3) for k in range(COUNT)]
    b = [row(k, "b") for k in range(COUNT)]
    found = differences(a, b, resamples=100)
    w = np.array([r["weight"] for r in a])
    assert list(found) == list(SCORES)
    for name, (value, low, high) in found.items():
        gaps = np.array(
            [
                np.mean(x["scores"][name]) - np.mean(y["scores"][name])
                for x, y in zip(a, b, strict=True)
            ]
        )
        assert value == pytest.approx((w * gaps).sum() / w.sum())
        drawn = [
            (w[at] * gaps[at]).sum() / w[at].sum()
            for at in replicates([r["patient_id"] for r in a], 100)
        ]
        assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])))
        assert low < value < high
        assert value != pytest.approx(gaps.mean())  # the weights count


def test_pairs_tell_apart_what_separate_intervals_do_not() -> None:
    rows = [row(k, "a", 0.3) for k in range(COUNT)] + [row(k, "b") for k in range(COUNT)]
    found = collect(rows, resamples=100)["precordial"]
    a, b = (found[label]["scores"]["crps"] for label in "ab")
    assert b["high"] > a["low"]
    assert differences(rows[:COUNT], rows[COUNT:], resamples=100)["crps"][1] > 0


def test_the_table_compares_the_records_that_both_have() -> None:
    first = [row(k, "first") for k in range(COUNT)]
    later = [row(k, "later", 0.3) for k in reversed(range(5, 15))]
    later[0] = {k: v for k, v in later[0].items() if k != "scores"}
    later[0]["error"] = {"type": "E", "message": "m"}
    table = shown([*first, *later])
    assert table.title == "Differences from first, task precordial"
    ((label, count, *cells),) = table.body
    assert (label, count) == ("later", "9")  # of records 5 to 13
    both = sorted(later[1:], key=lambda r: int(r["ecg_id"]))
    expected = differences(both, first[5:14], resamples=100)
    for text, name in zip(cells, SCORES, strict=True):
        assert re.fullmatch(r"[+-][\d.]+ \[[+-][\d.]+, [+-][\d.]+\]", text)
        values = [float(v) for v in re.findall(r"[+-][\d.]+", text)]
        assert values == pytest.approx(expected[name], abs=5.1e-5)
    assert "`later`: 1 of 10 failed (1 E: m)." in table.remarks
    assert "`later`: 10 of 20 not computed yet." in table.remarks


def test_the_default_sampler_is_the_reference_where_it_is_there() -> None:
    rows = [row(k, m) for m in ("ridge", "conditional", "mean") for k in range(COUNT)]
    table = shown(rows, 10)
    assert table.title == "Differences from conditional, task precordial"
    assert [line[0] for line in table.body] == ["ridge", "mean"]
    assert table.body[0][2] == "+0.0000 [+0.0000, +0.0000]"


def test_too_few_records_or_methods() -> None:
    rows = [row(k, "a") for k in range(4)]
    assert paired_tables(rows, HEADER, collect(rows, resamples=5), resamples=5) == []
    table = shown([*rows, row(3, "b"), row(7, "b")], 5)
    assert table.body == [["b", "1", "-", "-", "-"]]
