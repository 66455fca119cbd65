"""Morphology of ECGs built from bumps of known begin, end and height."""

import importlib
from typing import Any

import numpy as np
import pytest

from ecgdiff.ecg.leads import LEADS_8, LEADS_12
from ecgdiff.evaluation import delineation
from ecgdiff.evaluation.delineation import Beats
from ecgdiff.evaluation.morphology import compare, errors, find_beats, measure

pytest.importorskip("neurokit2")

RATE = 100
# Heights in mV of three bumps of the QRS complex in each of LEADS_8.
QRS = np.array(
    [
        [-0.10, 0.90, -0.15],
        [-0.05, 1.00, -0.15],
        [0.25, 0.10, -1.00],
        [0.35, 0.30, -1.20],
        [0.20, 0.80, -0.80],
        [-0.05, 1.20, -0.50],
        [-0.15, 1.20, -0.20],
        [-0.20, 1.00, -0.05],
    ]
)


def bump(t: np.ndarray, center: float, half: float) -> np.ndarray:
    """A raised cosine: exactly zero from `half` on, 1 at its center."""
    z = np.clip((t - center) / half, -1, 1)
    return (1 + np.cos(np.pi * z)) / 2


def beat_of(
    t: np.ndarray, *, wide: float = 1.0, p: float = -160.0, late: float = 250.0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """P (time,), QRS (8, time) and T (time,) of one beat; t in ms from the R peak."""
    pieces = [bump(t, c * wide, half * wide) for c, half in ((-26, 20), (0, 24), (28, 22))]
    return 0.12 * bump(t, p, 50.0), QRS @ np.stack(pieces), 0.3 * bump(t, late, 100.0)


def known(*, wide: float = 1.0, p: float = -160.0, late: float = 250.0) -> dict[str, float]:
    onset, offset = -46.0 * wide, 50.0 * wide
    return {
        "qrs_ms": offset - onset,
        "pr_ms": onset - (p - 50.0),
        "qt_ms": late + 100.0 - onset,
    }


def clock(rr: float = 0.8) -> np.ndarray:
    """Ms since the R peak each sample belongs to, 10 s at 100 Hz, with peaks from 0.5 s on."""
    ms = np.arange(10 * RATE) * 10.0 - 500.0
    return (ms + 0.45 * 1e3 * rr) % (1e3 * rr) - 0.45 * 1e3 * rr


def ecg(rr: float = 0.8, **shape: float) -> np.ndarray:
    p, qrs, t = beat_of(clock(rr), **shape)
    return qrs + p + t


def ideal(rr: float = 0.8) -> Beats:
    return Beats(np.round(500 * np.arange(0.5, 10, rr)).astype(np.int64), rr)


def record(measures: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.asarray(x)[None] for name, x in measures.items()}


@pytest.mark.parametrize("rr", [0.6, 0.8, 1.2])
def test_beats_are_found_where_they_are(rr: float) -> None:
    beats = find_beats(ecg(rr)[0], RATE)
    assert beats.interval == pytest.approx(rr, abs=0.002)
    whole = ideal(rr).peaks[1:-1]  # the first and the last beat may be cut
    nearest = np.abs(whole[:, None] - beats.peaks).min(axis=1)
    assert nearest.max() <= 1  # 2 ms


@pytest.mark.parametrize(
    "shape",
    [{}, {"wide": 1.5}, {"p": -230.0}, {"late": 310.0}, {"wide": 1.3, "p": -200.0, "late": 290.0}],
)
def test_intervals_are_the_known_ones(shape: dict[str, float]) -> None:
    x = ecg(**shape)
    found = measure(x, find_beats(x[0], RATE), RATE)
    for name, value in known(**shape).items():
        assert found[name] == pytest.approx(value, abs=8), name
    assert found["qtc_ms"] == pytest.approx(found["qt_ms"] / 0.8 ** (1 / 3), rel=1e-3)


def test_intervals_survive_noise_in_single_beats() -> None:
    x = ecg() + 0.02 * np.random.default_rng(0).normal(size=(8, 10 * RATE))
    found = measure(x, find_beats(x[0], RATE), RATE)
    for name, value in known().items():
        assert found[name] == pytest.approx(value, abs=15), name


@pytest.mark.parametrize("degrees", [-150.0, -60.0, 0.0, 45.0, 100.0, 180.0])
def test_the_axis_is_that_of_a_dipole(degrees: float) -> None:
    angle = np.radians(degrees)
    dipole = ecg()[1]
    x = ecg()
    x[0], x[1] = np.cos(angle) * dipole, np.cos(angle - np.pi / 3) * dipole
    turned = measure(x, ideal(), RATE)["axis_deg"] - degrees
    assert (turned + 180) % 360 - 180 == pytest.approx(0.0, abs=1e-6)


def test_amplitudes_are_those_of_the_waveform() -> None:
    fine = np.arange(-60.0, 65.0, 0.1)
    found = measure(ecg(), ideal(), RATE)
    qrs = beat_of(fine)[1]
    for k, lead in enumerate(LEADS_8):
        at = LEADS_12.index(lead)
        assert found["r_mv"][at] == pytest.approx(max(qrs[k].max(), 0), abs=0.03), lead
        assert found["s_mv"][at] == pytest.approx(max(-qrs[k].min(), 0), abs=0.03), lead


def test_st_level_and_t_polarity() -> None:
    t = clock()
    p, qrs, wave = beat_of(t)
    x = qrs + p + wave
    elevated = 0.2 * (1 / (1 + np.exp(-(t - 45) / 8)) - 1 / (1 + np.exp(-(t - 330) / 15)))
    x[LEADS_8.index("V2")] += elevated
    x[LEADS_8.index("V1")] -= 2 * wave
    x[LEADS_8.index("V6")] -= 0.95 * wave
    found = measure(x, ideal(), RATE)
    st = dict(zip(LEADS_12, found["st_mv"], strict=True))
    assert st["V2"] == pytest.approx(0.2, abs=0.02)
    assert st["V4"] == pytest.approx(0.0, abs=0.02)
    sign = dict(zip(LEADS_12, found["t_sign"], strict=True))
    assert (sign["V1"], sign["V2"], sign["V6"], sign["aVR"]) == (-1, 1, 0, -1)


def test_a_stack_is_measured_signal_by_signal() -> None:
    stack = np.stack([ecg(), ecg(wide=1.4), 0.5 * ecg()])
    together = measure(stack, ideal(), RATE)
    assert together["st_mv"].shape == (3, 12)
    for k, x in enumerate(stack):
        for name, value in measure(x, ideal(), RATE).items():
            np.testing.assert_array_equal(together[name][k], value)


def test_flat_noise_and_short_leads_have_no_beats() -> None:
    rng = np.random.default_rng(0)
    lead = ecg()[0]
    for bad in (
        0 * lead,
        1e-6 * rng.normal(size=1000),
        np.full(1000, np.nan),
        lead[:50],
        lead[:120],
    ):
        assert len(find_beats(bad, RATE).peaks) == 0
    noise = [find_beats(0.3 * rng.normal(size=1000), RATE) for _ in range(10)]
    assert sum(len(beats.peaks) > 0 for beats in noise) == 0


@pytest.mark.parametrize("error", [ValueError, IndexError, TypeError, ZeroDivisionError])
def test_failures_of_the_library_are_failures_not_crashes(
    monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    neurokit = importlib.import_module("neurokit2")

    def fails(*_: Any, **__: Any) -> None:
        raise error("bad input")

    monkeypatch.setattr(neurokit, "ecg_delineate", fails)
    found = measure(ecg(), ideal(), RATE)
    assert np.isnan(found["pr_ms"]) and np.isnan(found["qt_ms"])
    assert found["qrs_ms"] == pytest.approx(96.0, abs=10)
    monkeypatch.setattr(neurokit, "ecg_peaks", fails)
    assert len(find_beats(ecg()[0], RATE).peaks) == 0


def test_failures_are_counted() -> None:
    rng = np.random.default_rng(1)
    p, qrs, t = beat_of(clock())
    good, no_p = qrs + p + t, qrs + t
    noise = 0.3 * rng.normal(size=good.shape)
    true = [measure(x, ideal(), RATE) for x in (good, no_p, 0 * good)]
    drawn = [
        measure(np.stack(xs), ideal(), RATE) for xs in ((good, noise), (good, no_p), (good, good))
    ]
    found = compare(
        {name: np.stack([d[name] for d in drawn]) for name in drawn[0]},
        {name: np.stack([y[name] for y in true]) for name in true[0]},
    )
    qrs_ms, pr_ms = found["qrs_ms"], found["pr_ms"]
    assert (qrs_ms.truth_failed, qrs_ms.draw_failed, qrs_ms.invented) == pytest.approx(
        (1 / 3, 1 / 4, 1)
    )
    assert (pr_ms.truth_failed, pr_ms.draw_failed, pr_ms.invented) == pytest.approx(
        (2 / 3, 1 / 2, 3 / 4)
    )
    assert (qrs_ms.compared, pr_ms.compared) == (2, 1)
    assert pr_ms.mean == 0.0
    assert found["r_mv"].mean.shape == (12,)


def test_comparison_by_hand() -> None:
    drawn = {
        "qrs_ms": np.array([[100.0, 104.0], [120.0, np.nan]]),
        "qt_ms": np.array([[400.0, 470.0], [380.0, 330.0]]),
        "axis_deg": np.array([[-170.0, 170.0], [10.0, 50.0]]),
        "t_sign": np.array([[1.0, -1.0], [0.0, -1.0]]),
    }
    true = {
        "qrs_ms": np.array([98.0, 112.0]),
        "qt_ms": np.array([400.0, 350.0]),
        "axis_deg": np.array([170.0, 30.0]),
        "t_sign": np.array([1.0, 1.0]),
    }
    np.testing.assert_allclose(errors(drawn, true)["axis_deg"], [[20, 0], [-20, 20]])
    found = compare(drawn, true)
    assert found["qrs_ms"].mean == pytest.approx(16 / 3)
    assert found["qrs_ms"].sd == pytest.approx(np.std([2, 6, 8], ddof=1))
    assert found["qrs_ms"].draw_failed == pytest.approx(1 / 4)
    assert found["qrs_ms"].within is True
    assert np.isnan(found["qrs_ms"].invented)
    assert found["qt_ms"].mean == pytest.approx(20.0)
    assert found["qt_ms"].within is False  # the spread
    assert found["t_sign"].mean == pytest.approx(1 / 2)
    assert found["axis_deg"].within is None


def test_a_weight_counts_a_record_that_often() -> None:
    rng = np.random.default_rng(0)
    drawn, true = rng.normal(size=(20, 3)), rng.normal(size=20)
    drawn[2, 1], drawn[4], true[5:8] = np.nan, np.nan, np.nan
    counts = rng.integers(1, 4, 20)
    of = {"qrs_ms": drawn}, {"qrs_ms": true}
    weighted = compare(*of, counts.astype(float))["qrs_ms"]
    repeated = compare({"qrs_ms": drawn.repeat(counts, axis=0)}, {"qrs_ms": true.repeat(counts)})[
        "qrs_ms"
    ]
    for name in ("mean", "truth_failed", "draw_failed", "invented"):
        np.testing.assert_allclose(getattr(weighted, name), getattr(repeated, name))
    # The records are as many as there are, so that the spread is corrected for fewer of them.
    few, many = (
        np.isfinite(drawn - true[:, None]).sum(axis=1) @ c for c in (0 * counts + 1, counts)
    )
    ratio = np.sqrt(few / (few - 1) * (many - 1) / many)
    np.testing.assert_allclose(weighted.sd, repeated.sd * ratio)
    assert weighted.compared == 16


def test_the_same_signal_has_no_error() -> None:
    y = measure(ecg(), ideal(), RATE)
    found = compare(record(measure(ecg()[None], ideal(), RATE)), record(y))
    assert all(np.all(c.mean == 0) and np.all(c.draw_failed == 0) for c in found.values())


def test_wrong_leads_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(\.\.\., 8, time\)"):
        measure(np.zeros((12, 1000)), ideal(), RATE)


def test_the_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(delineation.importlib, "import_module", missing)
    with pytest.raises(ImportError, match=r"pip install 'ecgdiff\[ecg\]'"):
        find_beats(ecg()[0], RATE)
