"""Regression to the mean on Gaussian posteriors, where every slope has a closed form."""

import numpy as np
import pytest

from ecgdiff.evaluation.regression_to_mean import fit, regression_to_mean, shared_variance

RECORDS = 20_000


def gaussian(
    r2: float, draws: int, *, spread: float = 1.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Truth x ~ N(1, 4) seen through noise, and draws of its posterior times `spread`.

    With the share r2 of the variance explained, E[x|y] = 1 + r2 (y - 1) and the posterior
    variance is 4 (1 - r2).
    """
    rng = np.random.default_rng(seed)
    x = 1 + 2 * rng.normal(size=(RECORDS, 1))
    y = x + 2 * np.sqrt(1 / r2 - 1) * rng.normal(size=x.shape)
    mean, sd = 1 + r2 * (y - 1), 2 * np.sqrt(1 - r2)
    return mean + spread * sd * rng.normal(size=(draws, *x.shape)), x


@pytest.mark.parametrize("r2", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("draws", [2, 10])
def test_calibrated_draws_have_the_stated_slopes(r2: float, draws: int) -> None:
    found = regression_to_mean(*gaussian(r2, draws))
    assert found.draw.slope == pytest.approx(r2 - 1, abs=0.02)
    assert found.mean.slope == pytest.approx(r2 - 1, abs=0.02)
    assert found.expected == pytest.approx(r2 - 1, abs=0.02)
    assert found.draw.r2 == pytest.approx((1 - r2) / 2, abs=0.02)
    assert found.mean.r2 == pytest.approx((1 - r2) * draws / (draws + 1), abs=0.02)
    # Errors have mean 0 at the mean of the truth, 1 mV.
    assert found.draw.slope + found.draw.intercept == pytest.approx(0.0, abs=0.05)


def test_a_regression_is_told_from_a_draw() -> None:
    drawn, true = gaussian(0.1, 10, spread=0.0)
    found = regression_to_mean(drawn, true)
    assert found.draw.slope == pytest.approx(-0.9, abs=0.02)
    assert found.draw.r2 == pytest.approx(0.9, abs=0.02)
    assert found.expected == pytest.approx(0.0, abs=1e-9)  # it claims to know everything


def test_one_draw_claims_nothing() -> None:
    drawn, true = gaussian(0.5, 1)
    found = regression_to_mean(drawn, true)
    assert np.isnan(found.expected).all()
    np.testing.assert_allclose(found.mean.slope, found.draw.slope)


def test_fit_is_least_squares_on_what_is_there() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(30, 2)), rng.normal(size=(30, 2))
    x[4, 0], y[9, 0] = np.nan, np.nan
    keep = np.ones(30, dtype=bool)
    keep[[4, 9]] = False
    line = fit(x, y)
    for k, rows in enumerate((keep, np.ones(30, dtype=bool))):
        slope, intercept = np.polyfit(x[rows, k], y[rows, k], 1)
        assert (line.slope[k], line.intercept[k]) == pytest.approx((slope, intercept))
        assert line.r2[k] == pytest.approx(np.corrcoef(x[rows, k], y[rows, k])[0, 1] ** 2)
    assert line.records.tolist() == [28, 30]


def test_what_cannot_be_fitted_is_nan() -> None:
    x = np.array([[1.0, 1.0], [2.0, 1.0], [np.nan, 1.0]])
    line = fit(x, np.array([[1.0, 1.0], [2.0, 2.0], [3.0, 3.0]]))
    assert np.isnan(line.slope).all() and np.isnan(line.r2).all()


def test_missing_measurements_do_not_move_the_slopes() -> None:
    drawn, true = gaussian(0.5, 4)
    lost = np.random.default_rng(1).random(drawn.shape) < 0.1
    found = regression_to_mean(np.where(lost, np.nan, drawn), true)
    assert found.draw.slope == pytest.approx(-0.5, abs=0.03)
    assert found.expected == pytest.approx(-0.5, abs=0.03)
    whole = (~lost).all(axis=0).sum()
    assert found.mean.records == whole
    assert 0.6 * RECORDS < whole < 0.7 * RECORDS  # 0.9 ** 4


def test_leads_share_in_draws_what_they_share_in_truth() -> None:
    rng = np.random.default_rng(5)
    first = rng.normal(size=RECORDS)
    other = 0.2 * first + np.sqrt(1 - 0.04) * rng.normal(size=RECORDS)
    drawn = 0.2 * first + np.sqrt(1 - 0.04) * rng.normal(size=(6, RECORDS))
    assert shared_variance(first, other) == pytest.approx(0.04, abs=0.01)
    given = np.broadcast_to(first, drawn.shape)
    assert shared_variance(given, drawn) == pytest.approx(0.04, abs=0.01)
    assert shared_variance(first, 0.2 * first) == pytest.approx(1.0)  # the posterior mean


def test_a_weight_counts_a_record_that_often() -> None:
    rng = np.random.default_rng(5)
    true, drawn = rng.normal(size=(30, 2)), rng.normal(size=(4, 30, 2))
    true[3], drawn[1, 7, 0] = np.nan, np.nan
    counts = rng.integers(1, 4, 30)
    weighted = regression_to_mean(drawn, true, counts.astype(float))
    repeated = regression_to_mean(drawn.repeat(counts, axis=1), true.repeat(counts, axis=0))
    np.testing.assert_allclose(weighted.draw.slope, repeated.draw.slope)
    np.testing.assert_allclose(weighted.draw.r2, repeated.draw.r2)
    np.testing.assert_allclose(weighted.mean.intercept, repeated.mean.intercept)
    np.testing.assert_array_less(weighted.draw.records, repeated.draw.records)
    x, y = true[:, 0], drawn[0, :, 0]
    assert shared_variance(x, y, counts.astype(float)) == pytest.approx(
        shared_variance(x.repeat(counts), y.repeat(counts))
    )


def test_what_draws_claim_is_that_of_the_fold_and_not_of_the_list() -> None:
    rng = np.random.default_rng(6)
    # Of half of the fold the observation tells everything, of the other half little; the list has
    # one of ten of the former.
    told, untold = (rng.normal(size=(n, 1)) for n in (4_000, 40_000))
    draws = np.concatenate(
        [told + np.zeros((5, 1, 1)), np.sqrt(0.1) * untold + rng.normal(size=(5, 40_000, 1))],
        axis=1,
    )
    weights = np.concatenate([np.full(4_000, 10.0), np.ones(40_000)])
    claimed = regression_to_mean(draws, np.zeros(draws.shape[1:]), weights).expected
    # Variance between records over all variance, both averaged over the halves.
    assert claimed[0] + 1 == pytest.approx((1 + 0.1) / (1 + 1.1), abs=0.02)


def test_equal_weights_of_any_size_change_nothing() -> None:
    rng = np.random.default_rng(7)
    true, drawn = rng.normal(size=(12, 3)), rng.normal(size=(4, 12, 3))
    plain, seven = (regression_to_mean(drawn, true, w) for w in (None, np.full(12, 7.0)))
    np.testing.assert_allclose(plain.expected, seven.expected)
    np.testing.assert_allclose(plain.draw.slope, seven.draw.slope)
