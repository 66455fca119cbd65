"""Nearest neighbors: peaks where they were put, medians by brute force, a record found again."""

import pickle
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.errors import SignalQualityError
from ecgdiff.evaluation.neighbors import (
    AFTER,
    BEFORE,
    Beats,
    Library,
    Neighbors,
    beats,
    paste,
    r_peaks,
)
from ecgdiff.evaluation.tasks import BlockTask, Case, LeadTask, Problem, problem

Floats = NDArray[np.floating]
# P, Q, R, S and T waves: time from the R peak and width, both in samples.
WAVES = ((-16, 2.5), (-3, 0.9), (0, 1.0), (3, 0.9), (28, 5.0))


def ecg(seed: int, rr: float = 80.0, jitter: float = 0.0) -> tuple[NDArray[np.float32], Floats]:
    """Eight leads of 10 s whose waves have random sizes, in mV, and the R peaks."""
    rng = np.random.default_rng(seed)
    size = np.array([0.1, -0.1, 1.0, -0.2, 0.3]) * rng.uniform(0.5, 1.5, (8, 5))
    size[1:] *= rng.choice([-1, 1], (7, 1))
    steps = np.rint(rr * (1 + jitter * rng.uniform(-1, 1, 40)))
    peaks = rng.integers(0, 60) + np.cumsum(steps) - 2 * rr
    t = np.arange(1000) - peaks[:, None]
    x = sum(
        size[:, k, None] * np.exp(-0.5 * ((t - at) / width) ** 2).sum(axis=0)
        for k, (at, width) in enumerate(WAVES)
    )
    return np.asarray(x, np.float32), peaks[(peaks >= 0) & (peaks < 1000)]


@pytest.mark.parametrize("gain", [1.0, 0.25, -1.0])
@pytest.mark.parametrize("rr", [45.0, 80.0, 130.0])
def test_r_peaks_are_found_where_they_are(gain: float, rr: float) -> None:
    x, peaks = ecg(1, rr, jitter=0.15)
    noisy = gain * x[0] + 0.02 * np.random.default_rng(0).normal(size=1000)
    found = r_peaks(noisy)
    inner = peaks[(peaks > 8) & (peaks < 992)]  # cut at the ends, a beat may be missed
    assert max(np.abs(found - p).min() for p in inner) <= 1
    assert max(np.abs(peaks - f).min() for f in found) <= 1
    assert len(r_peaks(np.zeros(1000))) == 0


def test_median_beats_by_brute_force() -> None:
    x, _ = ecg(2, jitter=0.1)
    x = x + 0.05 * np.random.default_rng(1).normal(size=x.shape).astype(np.float32)
    found = beats(x)
    assert found is not None
    peaks = r_peaks(x[0])
    assert found.rr == np.median(np.diff(peaks))
    for offset in (-BEFORE, -30, 0, 17, AFTER):
        inside = [p + offset for p in peaks if 0 <= p + offset < 1000]
        expected = np.median(x[:, inside], axis=1)
        np.testing.assert_allclose(found.median[:, BEFORE + offset], expected, atol=1e-6)
    assert len({len([p for p in peaks if p + o < 1000]) for o in (0, AFTER)}) == 2


@pytest.mark.parametrize("rr", [50.0, 80.0, 120.0])
def test_own_beats_pasted_back_give_the_record(rr: float) -> None:
    x, _ = ecg(3, rr)
    own = beats(x)
    assert own is not None
    again = paste(own, r_peaks(x[0]), 1000)
    # Steady rhythm: equal but for beats cut by the ends of the record.
    np.testing.assert_allclose(again[:, 100:900], x[:, 100:900], atol=0.01)
    assert np.abs(again - x).mean() < 0.005


def test_another_rate_keeps_the_qrs_and_stretches_the_rest() -> None:
    ramp = np.arange(-BEFORE, AFTER + 1, dtype=np.float32)  # its value is the offset it is read at
    neighbor = Beats(ramp[None], rr=70.0)
    peaks = np.array([10, 110, 210])
    out = paste(neighbor, peaks, 300)[0]
    np.testing.assert_allclose(out[104:117], np.arange(-6, 7))
    # 50 % of the way to the next peak only the beat before counts, at 70 % only the one after.
    outside = (70 - 6) / (100 - 6)
    assert out[160] == pytest.approx(6 + (50 - 6) * outside)
    assert out[180] == pytest.approx(-(6 + (30 - 6) * outside), rel=1e-5)
    mid = 0.5 * (6 + 54 * outside) - 0.5 * (6 + 34 * outside)
    assert out[170] == pytest.approx(mid, abs=1e-4)
    # Before the first and after the last peak the rhythm goes on.
    np.testing.assert_allclose(out[0:10], out[100:110])
    np.testing.assert_allclose(out[210:300], out[110:200])


def library(*records: NDArray[np.float32]) -> Library:
    return Library(lambda: [np.stack(records[:3]), np.stack(records[3:])])


def test_a_record_in_the_library_is_its_own_nearest_neighbor() -> None:
    records = [
        ecg(seed, rr)[0] for seed, rr in zip(range(20), np.linspace(60, 100, 20), strict=True)
    ]
    p = problem(LeadTask(), Case(7, 7, records[7]), 0, 0.02)
    out = Neighbors(library(*records), 3)([p])[0]
    assert out.shape == (3, 8, 1000)
    assert (out[:, 0] == p.y[0]).all()
    error = np.abs(out[:, 1:] - records[7][1:]).mean(axis=(1, 2))
    assert 5 * error[0] < 0.01 < error[1:].min()
    np.testing.assert_allclose(out[0, 1:, 100:900], records[7][1:, 100:900], atol=0.2)


def test_neighbors_come_in_the_order_of_their_distance() -> None:
    records = [ecg(seed)[0] for seed in range(12)]
    found = library(*records)
    mine = beats(records[4])
    assert mine is not None
    window = slice(BEFORE - 25, BEFORE + 46)
    distance = [
        np.linalg.norm(b.median[0, window] - mine.median[0, window]) for b in found.members
    ]
    order = np.argsort(distance)
    nearest = found.nearest(mine, 12)
    assert all(a is found.members[k] for a, k in zip(nearest, order, strict=True))
    assert order[0] == 4


def test_the_library_is_made_once_and_leaves_out_what_has_no_beats() -> None:
    calls = []

    def train() -> list[NDArray[np.float32]]:
        calls.append(1)
        return [np.stack([ecg(0)[0], np.zeros((8, 1000), np.float32), ecg(1)[0]])]

    made = Library(train)
    assert len(made.members) == len(made.members) == 2 and len(calls) == 1
    with pytest.raises(ValueError, match="got none"):
        _ = Library(lambda: [np.zeros((2, 8, 1000), np.float32)]).members
    with pytest.raises(ValueError, match="2 records, 3 were asked"):
        made.nearest(made.members[0], 3)


def test_what_neighbors_cannot_answer_is_refused() -> None:
    method = Neighbors(library(*(ecg(seed)[0] for seed in range(6))), 2)
    with pytest.raises(ValueError, match="whole of lead I"):
        method([problem(BlockTask(), Case(1, 1, ecg(1)[0]), 0, 0.02)])
    mask = LeadTask().masks(Case(1, 1, ecg(1)[0]), 0)[0]
    with pytest.raises(SignalQualityError, match="fewer than two R peaks"):
        method([Problem("flat", np.zeros((8, 1000), np.float32), mask, 0.02)])


def test_observed_leads_are_put_back() -> None:
    truth = ecg(3)[0]
    mask = np.ones((8, 1000), dtype=bool)
    mask[2:5] = False
    p = Problem("x", np.where(mask, truth, 0).astype(np.float32), mask, 0.02)
    out = Neighbors(library(*(ecg(seed)[0] for seed in range(6))), 2)([p])[0]
    assert (out[:, mask] == truth[mask]).all()
    assert np.ptp(out[:, 2:5], axis=-1).min() > 0.1


def test_a_library_can_be_copied_to_worker_processes() -> None:
    left = [np.stack([ecg(seed)[0] for seed in range(4)])]
    made = Library(partial(list.copy, left))
    method, p = Neighbors(made, 2), problem(LeadTask(), Case(1, 1, ecg(9)[0]), 0, 0.02)
    out = method([p])[0]
    left.clear()  # what is copied is the finished library, not the records
    assert np.array_equal(pickle.loads(pickle.dumps(method))([p])[0], out)
