import numpy as np
import pytest

from ecgdiff.ecg.preprocess import CLIP_MV, CUTOFF_HZ, baseline, clip


def response(frequency, rate, cutoff=CUTOFF_HZ):
    """Share of a sine that the baseline takes: 1 / (1 + 0.01 r^2 + r^4), r the ratio of sines."""
    ratio = np.sin(np.pi * frequency / rate) / np.sin(np.pi * cutoff / rate)
    return 1 / (1 + 0.01 * ratio**2 + ratio**4)


def dense(row, rate, cutoff=CUTOFF_HZ):
    measured = np.isfinite(row)
    second = np.diff(np.eye(row.size), 2, axis=0)
    strength = (2 * np.sin(np.pi * cutoff / rate)) ** -4
    first = np.diff(np.eye(row.size), 1, axis=0)
    system = np.diag(measured.astype(float)) + strength * second.T @ second
    system += 0.01 * np.sqrt(strength) * first.T @ first
    return np.linalg.solve(system, np.where(measured, row, 0))


@pytest.mark.parametrize("rate", [100.0, 250.0])
@pytest.mark.parametrize("frequency", [0.1, 0.3, 0.5, 0.67, 1.0, 3.0, 20.0])
def test_frequency_response(rate, frequency):
    t = np.arange(round(60 * rate)) / rate
    sine = np.sin(2 * np.pi * frequency * t + 0.4)
    inner = slice(round(20 * rate), round(40 * rate))
    found = baseline(sine[None], rate)[0, inner]
    np.testing.assert_allclose(found, response(frequency, rate) * sine[inner], atol=1e-4)


def test_half_of_the_cutoff_frequency_passes():
    for cutoff in (0.5, 1.0):
        assert abs(response(cutoff, 100, cutoff) - 0.5) < 0.003
        t = np.arange(6000) / 100
        sine = np.sin(2 * np.pi * cutoff * t)
        found = baseline(sine, 100, cutoff)[2000:4000]
        np.testing.assert_allclose(found, sine[2000:4000] / 2, atol=3e-3)


@pytest.mark.parametrize("shape", [(400,), (3, 400), (2, 3, 400)])
def test_agrees_with_a_dense_solve_across_gaps_and_edges(shape):
    rng = np.random.default_rng(0)
    signal = np.cumsum(0.05 * rng.standard_normal(shape), axis=-1)
    rows = signal.reshape(-1, 400)
    rows[0, 100:250] = np.nan
    rows[-1, :30] = np.nan
    rows[-1, 350:] = np.nan
    found = baseline(signal, 100)
    assert found.shape == shape
    assert found.dtype == np.float32
    expected = np.stack([dense(row, 100) for row in rows]).reshape(shape)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_constant_is_baseline_altogether():
    np.testing.assert_allclose(baseline(np.full((2, 1000), 0.3), 100), 0.3, atol=1e-6)


def test_where_nothing_is_measured_for_long_the_baseline_levels_off():
    rng = np.random.default_rng(0)
    signal = np.full((2, 60_000), np.nan)
    signal[0, 30_000:30_005] = 0.3 * rng.standard_normal(5)
    signal[1, :500] = 0.3 * rng.standard_normal(500) + np.linspace(0, 1, 500)
    found = baseline(signal, 100)
    assert np.isfinite(found).all()
    assert np.abs(found).max() < 3
    assert np.abs(np.diff(found[:, 40_000:])).max() < 1e-4


def test_rows_with_little_or_nothing_measured_are_zero():
    signal = np.full((3, 50), np.nan)
    signal[1, 7] = 2.0
    signal[2, :2] = 1.0
    found = baseline(signal, 100)
    assert not found[:2].any()
    np.testing.assert_allclose(found[2], 1.0, atol=1e-3)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_short_rows(n):
    np.testing.assert_allclose(baseline(np.ones(n), 100), 1.0 if n > 1 else 0.0, atol=1e-4)


def test_clip_counts_what_it_changes():
    signal = np.array([[0.0, CLIP_MV, -CLIP_MV, 5.1, -7.0, np.nan]])
    clipped, count = clip(signal)
    assert count == 2
    np.testing.assert_array_equal(clipped, [[0, 5, -5, 5, -5, np.nan]])
    same, none = clip(signal[:, :3])
    assert none == 0
    np.testing.assert_array_equal(same, signal[:, :3])
    assert clip(signal, 1.0)[1] == 4
