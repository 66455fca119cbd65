"""Scores against double loops, and against ensembles whose calibration is known."""

import numpy as np
import pytest

from ecgdiff.evaluation.bootstrap import intervals, replicates
from ecgdiff.evaluation.calibration import (
    coverage,
    nominal_coverage,
    spread_skill,
    variance_ratio,
)
from ecgdiff.evaluation.signal import crps, mae, peak_to_peak, rmse

RNG = np.random.default_rng


def test_errors_by_hand() -> None:
    estimate, truth = np.array([[1.0, 2.0, 3.0]]), np.array([[1.0, 0.0, 6.0]])
    assert mae(estimate, truth) == pytest.approx([5 / 3])
    assert rmse(estimate, truth) == pytest.approx([np.sqrt(13 / 3)])
    assert peak_to_peak(truth) == pytest.approx([6.0])


@pytest.mark.parametrize("m", [2, 3, 10])
def test_crps_equals_the_double_loop(m: int) -> None:
    rng = RNG(m)
    draws, truth = rng.normal(size=(m, 4, 5)), rng.normal(size=(4, 5))
    expected = np.abs(draws - truth).mean(axis=0)
    for i in range(m):
        for j in range(m):
            expected -= np.abs(draws[i] - draws[j]) / (2 * m * (m - 1))
    np.testing.assert_allclose(crps(draws, truth), expected, atol=1e-13)


def test_crps_of_a_point_is_its_absolute_error() -> None:
    draws, truth = RNG(0).normal(size=(1, 7)), RNG(1).normal(size=7)
    np.testing.assert_allclose(crps(draws, truth), np.abs(draws[0] - truth))


def test_fair_crps_does_not_depend_on_the_number_of_draws() -> None:
    # For standard normal draws and truth the expected CRPS is 1 / sqrt(pi).
    for m in (2, 5, 20):
        x = RNG(m).normal(size=(m + 1, 100_000))
        assert crps(x[1:], x[0]).mean() == pytest.approx(1 / np.sqrt(np.pi), abs=0.008)


@pytest.mark.parametrize("level", [0.9, 0.5])
@pytest.mark.parametrize("m", [2, 3, 10, 19])
def test_coverage_of_exact_samples_is_nominal(m: int, level: float) -> None:
    x = RNG(m).standard_t(df=3, size=(m + 1, 20_000))
    expected = nominal_coverage(level, m)
    assert coverage(x[1:], x[0], level).mean() == pytest.approx(expected, abs=0.012)


def test_nominal_coverage_states_the_finite_ensemble() -> None:
    assert nominal_coverage(0.9, 10) == pytest.approx(9 / 11)
    assert nominal_coverage(0.5, 10) == 0.5
    assert nominal_coverage(0.9, 19) == pytest.approx(0.9)


def test_coverage_is_zero_outside_all_draws() -> None:
    draws = np.zeros((10, 2))
    assert coverage(draws, np.array([1.0, -1.0]), 0.9).tolist() == [0.0, 0.0]


@pytest.mark.parametrize(("m", "level"), [(1, 0.9), (10, 0.0), (10, 1.0)])
def test_coverage_refuses_what_has_no_band(m: int, level: float) -> None:
    with pytest.raises(ValueError, match="A band needs"):
        nominal_coverage(level, m)


@pytest.mark.parametrize("spread", [0.5, 1.0, 2.0])
def test_spread_skill_is_the_ratio_of_spreads(spread: float) -> None:
    rng, m = RNG(3), 10
    truth, draws = rng.normal(size=200_000), spread * rng.normal(size=(m, 200_000))
    variance, error = draws.var(axis=0, ddof=1), np.square(draws.mean(axis=0) - truth)
    expected = spread * np.sqrt((1 + 1 / m) / (1 + spread**2 / m))
    assert spread_skill(variance, error, m) == pytest.approx(expected, rel=0.02)


def test_variance_ratio_sees_regression_to_the_mean() -> None:
    truth = RNG(4).normal(size=(50, 3))
    np.testing.assert_allclose(variance_ratio(0.5 * truth + 1, truth), 0.25)
    stacked = np.stack([truth, 2 * truth])
    np.testing.assert_allclose(variance_ratio(stacked, truth), [[1.0] * 3, [4.0] * 3])


def test_replicates_keep_patients_together() -> None:
    patients = [7, 3, 7, 5]
    for rows in replicates(patients, count=50, seed=1):
        counts = np.bincount(rows, minlength=4)
        assert counts[0] == counts[2]
        assert counts[0] + counts[1] + counts[3] == 3
    again = replicates(patients, count=50, seed=1)
    assert all(map(np.array_equal, again, replicates(patients, count=50, seed=1)))


def test_intervals_of_a_mean_match_the_normal_theory() -> None:
    x = RNG(5).normal(size=400)
    resamples = replicates(list(range(400)), count=1000)
    low, high = intervals(lambda rows: {"mean": x[rows].mean()}, resamples)["mean"]
    half = 1.96 * x.std() / np.sqrt(400)
    assert low == pytest.approx(x.mean() - half, abs=0.2 * half)
    assert high == pytest.approx(x.mean() + half, abs=0.2 * half)


def test_degenerate_replicates_do_not_count() -> None:
    truth = np.array([[1.0], [2.0]])
    resamples = replicates([0, 1], count=40)
    ends = intervals(
        lambda rows: {"ratio": variance_ratio(2 * truth[rows], truth[rows])}, resamples
    )
    assert ends["ratio"] == ([4.0], [4.0])


def test_replicates_need_records() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        replicates([])
