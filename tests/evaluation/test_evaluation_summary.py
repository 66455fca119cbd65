"""Weighted figures against brute force: a record of weight three is three records."""

from typing import Any

import numpy as np
import pytest

from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.scoring import score
from ecgdiff.evaluation.summary import failures, summarize

LEADS = ("II", "V1")


def rows(count: int, draws: int = 4, seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    made = []
    for k in range(count):
        truth = rng.normal(size=(2, 30)) * rng.uniform(0.5, 2)
        x = truth + rng.normal(size=(draws, 2, 30)) * rng.uniform(0.2, 1)
        scores = score(x, truth, np.ones((2, 30), dtype=bool))
        made.append({"patient_id": k, "seconds": 1.0, "device": "cpu", "scores": scores})
    return made


def values(figures: dict[str, Any]) -> dict[str, float]:
    found = {name: e["value"] for name, e in figures["scores"].items()}
    for lead, entries in figures["per_lead"].items():
        found |= {f"{lead} {name}": e["value"] for name, e in entries.items()}
    return found | {f"rank {k}": share for k, share in enumerate(figures["ranks"])}


def test_weights_count_records_as_often() -> None:
    some, weights = rows(6), [1, 3, 2, 1, 1, 4]
    repeated = [row for row, w in zip(some, weights, strict=True) for _ in range(w)]
    weighted = summarize(some, LEADS, weights=weights, resamples=2)
    expected = summarize(repeated, LEADS, resamples=2)
    assert weighted["records"] == 6
    # Both ratios of the amplitudes are of variances with the same divisor, which cancels.
    assert values(weighted) == pytest.approx(values(expected), rel=2e-5)
    assert values(weighted) != pytest.approx(values(summarize(some, LEADS, resamples=2)), rel=0.01)


def test_the_variance_explained_by_hand() -> None:
    """A mean a quarter too small explains 15/16, one with noise of the size of truth nothing."""
    truth = np.tile(np.sin(2 * np.pi * np.arange(30) / 30), (2, 1))
    truth[1] *= 2
    noise = np.random.default_rng(0).normal(size=(4, 30))
    noise *= np.sqrt(2 / np.square(noise).mean(axis=1, keepdims=True))  # lead 1 has variance 2
    some = []
    for k in range(4):
        draw = np.stack([0.75 * truth[0], truth[1] + noise[k]])[None]
        scores = score(draw, truth, np.ones((2, 30), dtype=bool))
        some.append({"patient_id": k, "seconds": 1.0, "device": "cpu", "scores": scores})
    found = values(summarize(some, LEADS, resamples=2) | {"ranks": []})
    first, second = (f"{lead} explained" for lead in LEADS)
    assert (found[first], found[second]) == pytest.approx((15 / 16, 0), abs=1e-5)
    assert found["explained"] == pytest.approx(1 - (0.5 / 16 + 2) / (0.5 + 2), abs=1e-5)
    assert found[f"{LEADS[0]} pearson_mean"] == pytest.approx(1)
    bare = [{**row, "scores": {**row["scores"]}} for row in some]
    del bare[0]["scores"]["variance_true"]
    assert "explained" not in summarize(bare, LEADS, resamples=2)["scores"]


def test_weighted_mean_by_hand() -> None:
    some, weights = rows(5), [0.5, 2.0, 1.0, 7.0, 0.1]
    figures = summarize(some, LEADS, weights=weights, resamples=2)
    crps = [np.mean(row["scores"]["crps"]) for row in some]
    expected = sum(w * c for w, c in zip(weights, crps, strict=True)) / sum(weights)
    assert figures["scores"]["crps"]["value"] == pytest.approx(expected, rel=1e-4)
    low = [row["scores"]["mae_mean"][1] for row in some]
    expected = sum(w * c for w, c in zip(weights, low, strict=True)) / sum(weights)
    assert figures["per_lead"]["V1"]["mae_mean"]["value"] == pytest.approx(expected, rel=1e-4)


def test_weights_undo_an_unequal_draw() -> None:
    """Half of the population is hard and taken whole, of the other half a fifth is drawn."""
    rng = np.random.default_rng(1)
    population = rows(200, seed=3)
    for row in population[:100]:
        row["scores"]["crps"] = [10 * c for c in row["scores"]["crps"]]
    truth = summarize(population, LEADS, resamples=2)["scores"]["crps"]["value"]
    drawn = [population[100 + k] for k in rng.choice(100, 20, replace=False)]
    taken, weights = population[:100] + drawn, [1.0] * 100 + [5.0] * 20
    weighted = summarize(taken, LEADS, weights=weights, resamples=50)["scores"]["crps"]
    naive = summarize(taken, LEADS, resamples=50)["scores"]["crps"]
    assert weighted["low"] < truth < weighted["high"]
    assert weighted["value"] == pytest.approx(truth, rel=0.05)
    assert naive["value"] > 1.4 * truth


def test_scores_that_some_rows_lack_are_left_out() -> None:
    some = rows(4)
    del some[1]["scores"]["coverage_80"], some[2]["scores"]["ranks"]
    figures = summarize(some, LEADS, resamples=2)
    assert "coverage_80" not in figures["scores"]
    assert "coverage_90" in figures["scores"]
    assert list(figures["nominal_coverage"]) == ["coverage_90", "coverage_50"]
    assert "ranks" not in figures


def test_failures_are_counted_by_reason() -> None:
    bad = [{"error": {"type": "A", "message": m}} for m in "xxyzw"]
    text = failures([{}, *bad])
    assert text == "5 of 6 failed (2 A: x; 1 A: y; 1 A: z; 1 more)"
