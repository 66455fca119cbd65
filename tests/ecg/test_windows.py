from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecgdiff.ecg.windows import fade_in, plan, weights


@st.composite
def plans(draw):
    window = draw(st.integers(1, 300))
    return draw(st.integers(1, 3000)), window, draw(st.integers(0, window - 1))


@given(plans())
def test_plan_covers_everything_with_enough_overlap(case):
    n_samples, window, overlap = case
    windows = plan(n_samples, window, overlap)
    assert windows[0][0] == 0
    assert windows[-1][1] == n_samples
    if n_samples <= window:
        assert windows == [(0, n_samples)]
        return
    assert all(stop - start == window for start, stop in windows)
    for (start, stop), (following, _) in pairwise(windows):
        assert start < following
        assert stop - following >= overlap
    # One window less could not do it.
    assert (len(windows) - 1) * (window - overlap) + overlap < n_samples


@given(plans())
def test_weights_sum_to_one(case):
    windows = plan(*case)
    total = np.zeros(case[0])
    for (start, stop), weight in zip(windows, weights(windows), strict=True):
        assert weight.shape == (stop - start,)
        assert ((weight >= 0) & (weight <= 1 + 1e-12)).all()
        total[start:stop] += weight
    np.testing.assert_allclose(total, 1, atol=1e-12)


def test_two_windows_cross_by_a_raised_cosine():
    first, second = weights([(0, 100), (80, 180)])
    np.testing.assert_array_equal(first[:80], 1)
    np.testing.assert_allclose(first[80:], fade_in(20)[::-1], atol=1e-12)
    np.testing.assert_allclose(second[:20], fade_in(20), atol=1e-12)
    np.testing.assert_array_equal(second[20:], 1)


@pytest.mark.parametrize("length", [0, 1, 2, 7, 100])
def test_fade_in_rises_and_completes_its_mirror(length):
    ramp = fade_in(length)
    assert ramp.shape == (length,)
    assert (np.diff(ramp) > 0).all()
    np.testing.assert_allclose(ramp + ramp[::-1], 1)


@pytest.mark.parametrize("case", [(0, 10, 1), (10, 0, 0), (10, 5, 5), (10, 5, -1)])
def test_plan_refuses_nonsense(case):
    with pytest.raises(ValueError, match=r"Lengths|overlap"):
        plan(*case)
