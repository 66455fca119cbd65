"""Windows cover everything, advance, and leave gaps to the window that sees both sides."""

from itertools import pairwise

import numpy as np
import pytest

from ecgdiff.ecg.windows import Window, fade_in, plan

SIZES = {"carry": 175, "edge": 25, "sight": 150}


def check_cover(windows: list[Window], total: int, window: int) -> None:
    assert windows[0].start == 0 and windows[-1].stop == windows[-1].keep == total
    assert all(w.stop - w.start == min(window, total) for w in windows)
    for a, b in pairwise(windows):
        assert b.start > a.start and b.stop > a.stop
        assert b.start <= a.keep - SIZES["carry"] and a.keep <= a.stop - SIZES["edge"]


@pytest.mark.parametrize("total", [1, 250, 999, 1000, 1001, 1800, 3000, 36_000])
def test_without_gaps(total: int) -> None:
    windows = plan(np.ones((8, total), bool), 1000, **SIZES)
    check_cover(windows, total, 1000)
    assert len(windows) == 1 + max(0, int(np.ceil((total - 1000) / 800)))


def test_leads_lost_throughout_change_nothing() -> None:
    mask = np.zeros((8, 3000), bool)
    mask[0] = True
    assert plan(mask, 1000, **SIZES) == plan(np.ones((8, 3000), bool), 1000, **SIZES)


@pytest.mark.parametrize(("start", "stop"), [(700, 990), (700, 900), (850, 1200), (960, 1010)])
@pytest.mark.parametrize("rows", [slice(None), slice(3, 4)])
def test_a_gap_near_the_end_is_left_to_the_next_window(start: int, stop: int, rows: slice) -> None:
    mask = np.ones((8, 3000), bool)
    mask[rows, start:stop] = False
    windows = plan(mask, 1000, **SIZES)
    check_cover(windows, 3000, 1000)
    # The window that hands the gap on sees measured samples on both sides of it.
    final = next(w for w in windows if w.keep >= stop)
    assert final.start < start and final.stop >= stop + SIZES["edge"]
    assert windows[0].keep == start


def test_a_gap_far_from_the_end_stays_in_its_window() -> None:
    mask = np.ones((8, 3000), bool)
    mask[:, 300:700] = False
    assert plan(mask, 1000, **SIZES)[0] == Window(0, 1000, 975)


def test_a_gap_longer_than_a_window_is_drawn_from_the_left() -> None:
    mask = np.ones((8, 5000), bool)
    mask[1, 500:2600] = False
    check_cover(plan(mask, 1000, **SIZES), 5000, 1000)


def test_random_masks_always_advance() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        mask = rng.random((8, 4000)) < rng.random()
        for _ in range(rng.integers(6)):
            a = rng.integers(3900)
            mask[rng.integers(8), a : a + rng.integers(1, 1200)] = False
        check_cover(plan(mask, 1000, **SIZES), 4000, 1000)


def test_what_cannot_advance_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be in 1\.\.50"):
        plan(np.ones((1, 500), bool), 100, carry=60, edge=10, sight=20)


@pytest.mark.parametrize("length", [1, 2, 7, 175])
def test_fades_sum_to_one(length: int) -> None:
    ramp = fade_in(length)
    np.testing.assert_allclose(ramp + ramp[::-1], 1)
    assert (np.diff(ramp) > 0).all() and ramp.min() > 0 and ramp.max() < 1
