import time
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgdiff.ecg import resampling
from ecgdiff.ecg.resampling import resample

RATES = (511.6, 512.844, 130.06, 250.0, 500.0, 1000.0, 360.0)


def sine(rate, frequency, n, slope=0.0):
    t = np.arange(n) / rate
    return np.sin(2 * np.pi * frequency * t + 0.3) + slope * t


@pytest.mark.parametrize("rate_in", RATES)
@pytest.mark.parametrize("rate_out", [100.0, 128.0, 500.0])
@pytest.mark.parametrize("relative", [0.02, 0.4, 0.8])
def test_band_limited_sines_keep_value_and_time(rate_in, rate_out, relative):
    frequency = relative * min(rate_in, rate_out) / 2
    n_in = round(30 * rate_in)
    result = resample(sine(rate_in, frequency, n_in), rate_in, rate_out)
    assert result.size == round(n_in * rate_out / rate_in)
    truth = sine(rate_out, frequency, result.size)
    inner = slice(round(rate_out), -round(rate_out))
    assert np.abs(result - truth)[inner].max() < 1e-3


@pytest.mark.parametrize(("rate_in", "rate_out"), [(512.844, 512), (499.987, 500), (100.001, 100)])
def test_ratios_near_one(rate_in, rate_out):
    n_in = round(60 * rate_in)
    result = resample(sine(rate_in, 20, n_in), rate_in, rate_out)
    truth = sine(rate_out, 20, result.size)
    assert np.abs(result - truth)[rate_out:-rate_out].max() < 1e-3


def test_frequencies_that_do_not_fit_are_removed():
    for frequency in (50.0, 60.0, 150.0, 240.0):
        result = resample(sine(500, frequency, 5000), 500, 100)
        assert np.abs(result[100:-100]).max() < 2e-4


@pytest.mark.parametrize("rate_in", RATES)
def test_ends_that_are_not_zero_do_not_ring(rate_in):
    n = round(10 * rate_in)
    for rate_out in (100.0, 500.0):
        line = 3.0 + 0.5 * np.arange(n) / rate_in
        result = resample(line, rate_in, rate_out)
        np.testing.assert_allclose(
            result, 3.0 + 0.5 * np.arange(result.size) / rate_out, atol=1e-3
        )
        slow = resample(5 + sine(rate_in, 1, n), rate_in, rate_out)
        assert np.abs(slow - 5 - sine(rate_out, 1, slow.size)).max() < 0.03


def test_down_and_up_again_returns_the_signal():
    signal = sum(sine(500, f, 5000) for f in (1, 7, 15, 30))
    again = resample(resample(signal, 500, 100), 100, 500)
    assert np.abs(again - signal)[500:-500].max() < 2e-3


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("shape", [(300,), (2, 300), (2, 3, 300)])
def test_shape_dtype_and_rows(dtype, shape):
    signal = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    result = resample(signal, 300, 100)
    assert result.shape == (*shape[:-1], 100)
    assert result.dtype == dtype
    last = resample(signal.reshape(-1, 300)[-1], 300, 100)
    np.testing.assert_array_equal(result.reshape(-1, 100)[-1], last)


def test_same_rate_is_a_copy():
    signal = np.array([1.0, np.nan])
    same = resample(signal, 100, 100)
    np.testing.assert_array_equal(same, signal)
    assert not np.shares_memory(same, signal)


@pytest.mark.parametrize(
    ("rate_in", "rate_out"), [(500, 100), (511.6, 100), (100, 500), (100, 128)]
)
def test_gaps_stay_where_they_are_and_do_not_bleed(rate_in, rate_out):
    n = round(10 * rate_in)
    signal = sine(rate_in, 2, n)
    t = np.arange(n) / rate_in
    signal[(t >= 3) & (t < 5)] = np.nan
    result = resample(signal, rate_in, rate_out)
    times = np.arange(result.size) / rate_out
    reach = max(1 / rate_in, 1 / rate_out)
    lost = np.isnan(result)
    assert lost[(times > 3) & (times < 5 - 1 / rate_in)].all()
    assert not lost[(times < 3 - reach) | (times > 5 + reach)].any()
    error = np.abs(result - sine(rate_out, 2, result.size))
    assert np.nanmax(error) < 0.05
    assert np.nanmax(error[(times > 1) & (times < 2)]) < 1e-3
    assert np.nanmax(error[(times > 6) & (times < 9)]) < 1e-3


@pytest.mark.parametrize("rate_out", [100, 125, 230, 500, 700])
def test_no_missing_sample_is_filled_silently(rate_out):
    for gap in range(20, 30):
        signal = np.zeros(50)
        signal[gap] = np.nan
        result = resample(signal, 500, rate_out)
        lost = np.flatnonzero(np.isnan(result)) / rate_out * 500
        near = max(1.0, 500 / rate_out)
        assert (np.abs(lost - gap) <= near).all()
        assert lost.size >= 1


def test_gaps_at_the_ends_and_lost_rows():
    signal = np.ones((2, 500))
    signal[0, :100] = signal[0, 450:] = signal[1] = np.nan
    result = resample(signal, 500, 100)
    assert np.isnan(result[1]).all()
    np.testing.assert_allclose(result[0, 21:89], 1, atol=1e-6)
    assert np.isnan(result[0, :20]).all()
    assert np.isnan(result[0, 90:]).all()


@pytest.mark.parametrize("n", [1, 2, 3, 40])
def test_very_short_signals(n):
    np.testing.assert_allclose(resample(np.full(n, 2.0), 100, 250), 2.0, atol=1e-3)
    assert resample(np.full(n, 2.0), 100, 250).size == round(2.5 * n)


def test_refuses_what_it_cannot_do():
    for rates in ((0, 100), (100, -1), (np.nan, 100), (100, np.inf)):
        with pytest.raises(ValueError, match="positive number of Hz"):
            resample(np.zeros(10), *rates)
    with pytest.raises(ValueError, match="less than one sample"):
        resample(np.zeros(2), 500, 100)
    with pytest.raises(ValueError, match="infinite"):
        resample(np.array([0.0, np.inf, 0.0]), 100, 200)


@given(st.floats(100, 700), st.floats(100, 700), st.floats(0.01, 0.8))
def test_any_pair_of_rates(rate_in, rate_out, relative):
    frequency = relative * min(rate_in, rate_out) / 2
    result = resample(sine(rate_in, frequency, round(3 * rate_in)), rate_in, rate_out)
    truth = sine(rate_out, frequency, result.size)
    inner = slice(round(rate_out), -round(rate_out))
    np.testing.assert_allclose(result[inner], truth[inner], atol=3e-4)


@pytest.mark.parametrize(
    ("rate_in", "rate_out"), [(500, 100), (100, 250), (511.6, 100), (360, 500)]
)
def test_both_ways_to_compute_agree(rate_in, rate_out):
    rows = np.random.default_rng(0).standard_normal((2, 900))
    n_out = round(900 * rate_out / rate_in)
    ratio = Fraction(rate_out / rate_in).limit_denominator(resampling.MAX_PHASES)
    one = resampling._polyphase(rows, *ratio.as_integer_ratio(), n_out)
    other = resampling._direct(rows, rate_in / rate_out, n_out)
    np.testing.assert_allclose(one, other, atol=3e-4)


@pytest.mark.parametrize("rate", [500.0, 511.6, 512.844])
def test_a_constant_stays_what_it_is(rate):
    signal = np.full(2000, 40.0)
    for rate_out in (100.0, 700.0):
        np.testing.assert_allclose(resample(signal, rate, rate_out), 40.0, rtol=1e-12)


def test_an_hour_is_lean():
    signal = np.zeros((2, 3600 * 500), dtype=np.float32)
    tracemalloc.start()
    began = time.process_time()
    result = resample(signal, 500, 100)
    seconds = time.process_time() - began
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.shape == (2, 360_000)
    assert peak < 100e6
    assert seconds < 10  # takes 0.2 s; only a change of order of growth should fail
