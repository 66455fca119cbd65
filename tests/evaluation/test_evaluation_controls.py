"""The controls against dense linear algebra."""

from collections.abc import Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.evaluation.controls import (
    Controls,
    Gaussian,
    Mean,
    Moments,
    RidgeControl,
    StationaryCovariance,
    fit_ridge,
    windows,
)
from ecgdiff.evaluation.signal import rmse
from ecgdiff.evaluation.tasks import BlockTask, Case, LeadTask, problem

LENGTH = 60


def records(
    count: int, seed: int = 0, leads: int = 3, length: int = LENGTH
) -> NDArray[np.float32]:
    """A stationary process: smoothed noise, mixed over leads with delays."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(count, 2, length + 20))
    kernel = np.hanning(9) / np.hanning(9).sum() * 2
    smooth = np.apply_along_axis(lambda x: np.convolve(x, kernel, "same"), 2, noise)
    rows = [
        smooth[:, 0, 10 - k : 10 - k + length] + 0.3 * k * smooth[:, 1, 10 : 10 + length]
        for k in range(leads)
    ]
    return np.stack(rows, axis=1).astype(np.float32)


def moments(x: NDArray[np.float32], half_width: int = 3) -> Moments:
    out = Moments(half_width)
    out.add(x[: len(x) // 2])
    out.add(x[len(x) // 2 :])
    return out


def test_windows_are_zero_beyond_the_ends() -> None:
    expected = [[0, 1, 2], [1, 2, 3], [2, 3, 0]]
    assert windows(np.array([1.0, 2.0, 3.0]), 1).tolist() == expected


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_ridge_equals_least_squares(penalty: float) -> None:
    x = records(10)
    design = np.concatenate([windows(r[0], 3) for r in x])
    target = np.concatenate([r[1:].T for r in x]).astype(np.float64)
    # Ridge is least squares with extra rows sqrt(lambda) I and zero targets.
    root = np.sqrt(penalty * np.trace(design.T @ design) / 7)
    design = np.concatenate([design, root * np.eye(7)])
    target = np.concatenate([target, np.zeros((7, 2))])
    expected = np.linalg.lstsq(design, target, rcond=None)[0]
    fitted = fit_ridge(moments(x), moments(x), 0.0, [penalty])
    np.testing.assert_allclose(fitted.weights, expected, atol=1e-9)


def test_ridge_reports_its_validation_error_and_picks_the_smallest() -> None:
    train, valid = records(3, seed=1), records(10, seed=2)
    penalties = [1e-6, 1e-2, 1.0, 100.0]
    fits = [fit_ridge(moments(train), moments(valid), 0.0, [p]) for p in penalties]
    for fit in fits:
        errors = [rmse(fit.predict(r[0]), r[1:]) for r in valid]
        assert fit.validation_rmse == pytest.approx(np.sqrt(np.square(errors).mean()), rel=1e-6)
    best = fit_ridge(moments(train), moments(valid), 0.0, penalties)
    assert best.validation_rmse == min(fit.validation_rmse for fit in fits)


def test_noisy_gram_is_the_mean_of_noisy_grams() -> None:
    x, noise = records(1), 0.5
    rng, total = np.random.default_rng(0), np.zeros((7, 7))
    for _ in range(500):
        w = windows(x[0, 0] + noise * rng.normal(size=LENGTH), 3)
        total += w.T @ w / 500
    single = Moments(3)
    single.add(x)
    np.testing.assert_allclose(total, single.noisy_gram(noise), atol=3.0)


@pytest.fixture(scope="module")
def covariance() -> StationaryCovariance:
    out = StationaryCovariance(3, LENGTH)
    for k in range(4):
        out.add(records(50, seed=k))
    return out


def everywhere(leads: int = 3) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    lead, time = np.indices((leads, LENGTH))
    return lead.ravel(), time.ravel()


def test_stationary_covariance_equals_the_mean_of_lagged_products() -> None:
    x = records(5).astype(np.float64)
    k = StationaryCovariance(3, LENGTH)
    k.add(x)
    dense = k.block(everywhere(), everywhere()).reshape(3, LENGTH, 3, LENGTH)
    for a, b, lag in ((0, 0, 0), (0, 2, 5), (2, 1, 7), (1, 1, 59)):
        product = x[:, a, lag:] * x[:, b, : LENGTH - lag]
        assert dense[a, lag, b, 0] == pytest.approx(product.sum() / (5 * LENGTH))
        assert dense[b, 0, a, lag] == pytest.approx(dense[a, lag, b, 0])
    assert np.linalg.eigvalsh(dense.reshape(180, 180)).min() > -1e-10


def test_matvec_and_sample_follow_the_dense_matrix(covariance: StationaryCovariance) -> None:
    dense = covariance.block(everywhere(), everywhere())
    rng = np.random.default_rng(0)
    v = rng.normal(size=(2, 3, LENGTH))
    expected = (v.reshape(2, -1) @ dense).reshape(v.shape)
    np.testing.assert_allclose(covariance.matvec(v), expected, atol=1e-10)
    draws = covariance.sample(rng.normal(size=(4000, 3, covariance.size))).reshape(4000, -1)
    np.testing.assert_allclose(draws.T @ draws / 4000, dense, atol=0.1 * dense.max())


def controls(noise: float = 0.1) -> Controls:
    def batches(seed: int) -> Iterator[NDArray[np.float32]]:
        yield from (records(50, seed=seed + k, leads=8) for k in range(4))

    return Controls(lambda: batches(0), lambda: batches(10), noise)


@pytest.mark.parametrize("task", [LeadTask(), BlockTask(crop=20)], ids=["leads", "block"])
def test_gaussian_draws_from_the_dense_posterior(task: LeadTask | BlockTask) -> None:
    fitted = controls()
    case = Case(1, 1, records(1, seed=99, leads=8)[0])
    p = problem(task, case, 0, 0.1)
    draws = Gaussian(fitted, draws=1000, seed=0)([p])[0].reshape(1000, -1)
    dense = fitted.covariance.block(everywhere(8), everywhere(8))
    seen = p.mask.ravel()
    system = dense[np.ix_(seen, seen)] + 0.01 * np.eye(seen.sum())
    gain = np.linalg.solve(system, dense[seen]).T
    mean, cov = gain @ p.y.ravel()[seen], dense - gain @ dense[seen]
    assert rmse(draws.mean(axis=0), mean) < 3 * np.sqrt(np.trace(cov) / len(cov) / 1000)
    np.testing.assert_allclose(draws.var(axis=0), np.diag(cov), atol=0.2 * np.diag(dense).max())


def test_controls_as_methods() -> None:
    fitted = controls()
    case = Case(1, 1, records(1, seed=99, leads=8)[0])
    p = problem(LeadTask(), case, 0, 0.1)
    ridge, mean = RidgeControl(fitted)([p])[0], Mean(fitted)([p])[0]
    assert ridge.shape == mean.shape == (1, 8, LENGTH)
    assert rmse(ridge[0, 1:], case.truth[1:]).mean() < rmse(mean[0, 1:], case.truth[1:]).mean()
    assert np.ptp(mean[0], axis=1).max() == 0
    a, b = (Gaussian(fitted, 2, 0)([p])[0] for _ in range(2))
    assert np.array_equal(a, b)


def test_controls_need_records() -> None:
    empty = Controls(lambda: [], lambda: [], 0.1)
    with pytest.raises(ValueError, match="got none"):
        _ = empty.mean
