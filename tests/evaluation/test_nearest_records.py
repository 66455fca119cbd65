"""The search for copies: planted ones are found, and distances are those of plain loops."""

import numpy as np
import pytest

from ecgdiff.evaluation import nearest
from ecgdiff.evaluation.nearest import GAINS, LENGTH, Search
from ecgdiff.evaluation.neighbors import r_peaks

RNG = np.random.default_rng(0)


def ecgs(count: int, leads: int = 3, time: int = 1000) -> np.ndarray:
    """Records with beats of their own shape and rate, in mV."""
    out = 0.005 * RNG.normal(size=(count, leads, time + 400))
    t = np.arange(time + 400)
    for record in out:
        shape = RNG.normal(size=(leads, 2)) * (0.5, 0.2)
        shape[0, 0] = RNG.uniform(0.5, 1.2)
        width = RNG.uniform(1.5, 3.0)
        for peak in np.cumsum(RNG.normal(RNG.uniform(60, 110), 4.0, size=30)):
            qrs = np.exp(-0.5 * ((t - peak) / width) ** 2)
            wave = np.exp(-0.5 * ((t - peak - 28) / 7.0) ** 2)
            record += shape @ np.stack([qrs, wave])
    return out


@pytest.fixture(scope="module")
def train() -> np.ndarray:
    return ecgs(40)


def test_a_planted_copy_is_found(train: np.ndarray) -> None:
    """Shifted by 37 samples, scaled and with noise, it is far closer than any stranger."""
    strangers = ecgs(20)[..., :1000]
    copy = 1.1 * train[17, :, 37:1037] + 0.01 * RNG.normal(size=(3, 1000))
    search = Search(np.concatenate([strangers, copy[None]]))
    for part in (slice(0, 13), slice(13, 40)):
        search.add(train[part], np.arange(100, 140)[part])
    found = search.found()
    assert found.record[-1] == 117
    assert found.distance[-1] == pytest.approx(0.01, rel=0.1)
    assert found.start[-1] + 37 == found.match[-1]
    assert found.relative[-1] < 0.25 * found.relative[:-1].min()
    assert found.distance[-1] < 0.25 * found.distance[:-1].min()


def test_distances_are_those_of_plain_loops(
    train: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nearest, "_ROWS", 50)
    signals, some = ecgs(4)[..., :1000], train[:6, :, :1000]
    search = Search(signals)
    search.add(some, range(6))
    found = search.found()
    for k, signal in enumerate(signals):
        at = next(p for p in r_peaks(signal[0]) if p <= 1000 - LENGTH)
        q = signal[:, at : at + LENGTH]
        best = (np.inf, -1, -1)
        for number, record in enumerate(some):
            for peak in r_peaks(record[0]):
                for begin in (peak - 1, peak, peak + 1):
                    if not 0 <= begin <= 1000 - LENGTH:
                        continue
                    w = record[:, begin : begin + LENGTH]
                    for g in np.clip([np.sum(q * w) / np.sum(w * w)], *GAINS):
                        best = min(best, (np.sqrt(np.mean((q - g * w) ** 2)), number, begin))
        assert found.distance[k] == pytest.approx(best[0], rel=1e-4)
        assert (found.record[k], found.match[k]) == best[1:]
        apart = found.excerpt[k] - found.counterpart[k]
        assert np.sqrt(np.mean(apart**2)) == pytest.approx(best[0], rel=1e-4)
        assert found.relative[k] == pytest.approx(best[0] / np.sqrt(np.mean(q**2)), rel=1e-4)


def test_a_gain_beyond_the_limits_is_not_taken_for_a_copy(train: np.ndarray) -> None:
    search = Search(np.stack([2.0 * train[3, :, :1000], 1.2 * train[3, :, :1000]]))
    search.add(train[3:4, :, :1000], [3])
    found = search.found()
    assert found.relative[0] == pytest.approx((2 - GAINS[1]) / 2, rel=1e-3)
    assert found.relative[1] == pytest.approx(0.0, abs=2e-3)


def test_a_signal_without_beats_has_no_distance(train: np.ndarray) -> None:
    search = Search(np.stack([np.zeros((3, 1000)), train[0, :, :1000]]))
    search.add(train[:3, :, :1000], range(3))
    found = search.found()
    assert np.isnan(found.distance[0]) and found.record[0] == -1
    assert found.record[1] == 0 and found.distance[1] < 1e-3
