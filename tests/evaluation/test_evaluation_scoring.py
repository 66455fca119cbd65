"""What a row holds: scores and ranks by brute force, and what a classifier is given to read."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.calibration import coverage, nominal_coverage
from ecgdiff.evaluation.scoring import (
    densities,
    has_spectra,
    rank_counts,
    read,
    score,
    spectra,
)
from ecgdiff.evaluation.signal import crps
from ecgdiff.evaluation.spectra import power_spectrum
from ecgdiff.evaluation.tasks import TASKS, Case, problem


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
        "pearson_draw": [np.mean([np.corrcoef(d[k], y[k])[0, 1] for d in x]) for k in range(2)],
        "pearson_mean": [np.corrcoef(x.mean(axis=0)[k], y[k])[0, 1] for k in range(2)],
        "variance_true": y.var(axis=1),
        "variance": x.var(axis=0, ddof=1).mean(axis=1),
        "amplitude_true": y.max(axis=1) - y.min(axis=1),
        "amplitude_draws": x.max(axis=2) - x.min(axis=2),
        "coverage_80": coverage(x, y, 0.8).mean(axis=1),
        "rmse_draw": np.mean([np.sqrt(((d - y) ** 2).mean()) for d in x]),
        "rmse_mean": np.sqrt(((x.mean(axis=0) - y) ** 2).mean()),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(s[name], value, rtol=1e-5)


def test_what_is_flat_correlates_with_nothing() -> None:
    truth = np.sin(np.arange(12.0)).reshape(2, 6)
    truth[1] = 0.3
    draws = np.stack([np.stack([np.full(6, 0.1), np.arange(6.0)]), truth])
    s = score(draws, truth, np.ones((2, 6), dtype=bool))
    assert s["pearson_draw"] == [0.5, 0.0] and s["variance_true"][1] == 0


def test_score_refuses_diverged_draws() -> None:
    with pytest.raises(EcgDiffError, match="not finite"):
        score(np.full((2, 1, 4), np.nan), np.zeros((1, 4)), np.ones((1, 4), dtype=bool))


@pytest.mark.parametrize("value", [100.5, -1e3, 1e10, 1e37])
def test_score_refuses_finite_draws_that_no_ecg_is(value: float) -> None:
    draws, truth, scored = np.zeros((2, 2, 4)), np.zeros((2, 4)), np.zeros((2, 4), dtype=bool)
    scored[1] = True
    draws[1, 0, 2] = value  # where nothing is scored: a classifier would read it
    with pytest.raises(EcgDiffError, match=r"reaches .* mV.*diverged"):
        score(draws, truth, scored)
    draws[1, 0, 2] = 99.0
    assert score(draws, truth, scored)["crps"] == [0.0]


def test_probabilities_that_are_not_finite_are_refused() -> None:
    case = Case(7, 7, np.zeros((8, 1000), dtype=np.float32))
    p = problem(TASKS["leads"], case, 0, 0.02)
    draws = np.zeros((2, 8, 1000))
    draws[1, 1] = np.nan  # becomes the probability of CLBBB, from lead V1, or NORM, from lead II
    with pytest.raises(EcgDiffError, match="probabilities that are not finite"):
        read(Levels(), draws, p, TASKS["leads"].masks(case, 0)[1])


def test_ranks_by_brute_force() -> None:
    rng = np.random.default_rng(2)
    draws, truth = rng.normal(size=(4, 3, 50)), rng.normal(size=(3, 50))
    expected = np.zeros((3, 5), dtype=int)
    for lead in range(3):
        for t in range(50):
            expected[lead, sum(draws[i, lead, t] < truth[lead, t] for i in range(4))] += 1
    assert rank_counts(draws, truth).tolist() == expected.tolist()
    everywhere = np.ones((3, 50), dtype=bool)
    assert score(draws, truth, everywhere)["ranks"] == expected.tolist()


def test_ties_count_as_if_broken_at_random() -> None:
    rng = np.random.default_rng(4)
    draws: NDArray[np.float64] = rng.integers(0, 3, size=(4, 2, 60)).astype(np.float64)
    truth: NDArray[np.float64] = rng.integers(0, 3, size=(2, 60)).astype(np.float64)
    times = 4000
    counts, inside = np.zeros((2, 5)), np.zeros(2)
    for _ in range(times):
        # Less than half the distance of two values: only ties are broken.
        apart, other = draws + rng.uniform(0, 0.4, draws.shape), rng.uniform(0, 0.4, truth.shape)
        ranks = (apart < truth + other).sum(axis=0)
        counts += [[(lead == k).sum() for k in range(5)] for lead in ranks]
        inside += coverage(apart, truth + other, 0.5).mean(axis=-1)
    found = rank_counts(draws, truth)
    np.testing.assert_allclose(found, counts / times, atol=0.25)  # of 60, four deviations
    np.testing.assert_allclose(found.sum(axis=1), 60)
    shares = coverage(draws, truth, 0.5).mean(axis=-1)
    np.testing.assert_allclose(shares, inside / times, atol=4e-3)
    kept = score(draws, truth, np.ones((2, 60), dtype=bool))["ranks"]
    np.testing.assert_allclose(kept, found, atol=5e-4)


def test_a_truth_that_all_draws_equal_has_every_rank_alike() -> None:
    flat = np.zeros((4, 1, 10))
    assert rank_counts(flat, flat[0]).tolist() == [[pytest.approx(2)] * 5]
    for level in (0.9, 0.5):
        expected = nominal_coverage(level, 4)
        np.testing.assert_allclose(coverage(flat, flat[0], level), expected)


def test_without_ties_ranks_are_whole_numbers() -> None:
    rng = np.random.default_rng(2)
    draws, truth = rng.normal(size=(4, 3, 50)), rng.normal(size=(3, 50))
    made = score(draws, truth, np.ones((3, 50), dtype=bool))
    assert {type(count) for lead in made["ranks"] for count in lead} == {int}


def test_a_point_estimate_has_no_ranks() -> None:
    s = score(np.zeros((1, 2, 4)), np.ones((2, 4)), np.ones((2, 4), dtype=bool))
    assert not {"ranks", "variance", "coverage_90"} & set(s)


class Levels:
    """Answers with numbers that tell what it was given."""

    classes: Sequence[str] = ("AFIB", "CLBBB", "CRBBB", "NORM", "SBRAD")

    def __init__(self) -> None:
        self.seen: NDArray[np.floating] = np.empty(0)

    def probabilities(self, signal: NDArray[np.floating], /) -> NDArray[np.floating]:
        self.seen = signal
        leads = [LEADS_12.index(lead) for lead in ("I", "V1", "aVF", "II", "V6")]
        return signal[:, leads].mean(axis=2)


@pytest.mark.parametrize("name", TASKS)
def test_what_was_observed_is_put_back_before_reading(name: str) -> None:
    rng = np.random.default_rng(0)
    case = Case(7, 7, rng.normal(size=(8, 1000)).astype(np.float32))
    p = problem(TASKS[name], case, 0, 0.02)
    mask, scored = TASKS[name].masks(case, 0)
    draws, reader = rng.normal(size=(3, 8, 1000)), Levels()
    found = read(reader, draws, p, scored)
    start, length = (int(np.flatnonzero((mask | scored)[0])[0]), reader.seen.shape[-1])
    assert length == (256 if name == "block" else 1000)
    part = slice(start, start + length)
    whole = np.where(mask, p.y, draws)[..., part]
    assert np.array_equal(reader.seen[:, 0], whole[:, 0])
    np.testing.assert_allclose(reader.seen[:, 5], whole[:, 1] - whole[:, 0] / 2)  # aVF
    assert np.array_equal(reader.seen[:, 6:], whole[:, 2:])
    assert list(found["draws"]) == ["CRBBB", "CLBBB", "AFIB", "SBRAD"]
    assert set(found["mean"]) == set(reader.classes)
    np.testing.assert_allclose(found["draws"]["CLBBB"], whole[:, 2].mean(axis=1), rtol=1e-5)
    np.testing.assert_allclose(found["mean"]["NORM"], whole[:, 1].mean(), rtol=1e-5)


@pytest.mark.parametrize("name", TASKS)
def test_spectra_are_those_of_whole_scored_leads(name: str) -> None:
    rng = np.random.default_rng(3)
    case = Case(7, 7, rng.normal(size=(8, 1000)).astype(np.float32))
    _, scored = TASKS[name].masks(case, 0)
    draws = rng.normal(size=(3, 8, 1000))
    assert has_spectra(scored) == (name != "block")
    if name == "block":
        with pytest.raises(ValueError, match="scored in part"):
            spectra(draws, case.truth, scored)
        return
    entry = spectra(draws, case.truth, scored)
    leads = scored.any(axis=1)
    assert leads.sum() == len(TASKS[name].scored_leads)
    frequencies, true = power_spectrum(case.truth[leads], 100.0)
    kept = (frequencies >= 0.5) & (frequencies < 40)
    found, drawn, below = densities([entry, entry])
    np.testing.assert_allclose(found, frequencies[kept])
    np.testing.assert_allclose(below, [true[:, kept]] * 2, rtol=5.1e-4)
    each = power_spectrum(draws[:, leads], 100.0)[1]
    np.testing.assert_allclose(drawn, [each.mean(axis=0)[:, kept]] * 2, rtol=5.1e-4)
    for value in np.ravel(entry["true_uv2_hz"]):
        assert float(f"{value:.4g}") == value


def test_short_or_missing_leads_have_no_spectra() -> None:
    for shape, expected in (((2, 255), False), ((2, 256), True), ((0, 1000), False)):
        assert has_spectra(np.ones(shape, dtype=bool)) == expected
    assert not has_spectra(np.zeros((2, 1000), dtype=bool))
