"""Parts of the beat: laid where the waves were made, scored by brute force, tabulated."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.evaluation.beat_parts import PARTS, by_part, label
from ecgdiff.evaluation.beat_tables import part_table
from ecgdiff.evaluation.benchmark import Row
from ecgdiff.evaluation.calibration import coverage
from ecgdiff.evaluation.delineation import find_beats
from ecgdiff.evaluation.signal import crps

pytest.importorskip("neurokit2")

NAMES = list(PARTS)


def made(p: float = 0.15) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Beats every 0.8 s on eight leads, and the time in ms from the R peak next to each sample."""
    ms = (np.arange(1000) * 10.0 - 500 + 360) % 800 - 360

    def bump(center: float, half: float) -> NDArray[np.float64]:
        return np.asarray(1 + np.cos(np.pi * np.clip((ms - center) / half, -1, 1))) / 2

    qrs = bump(0, 24) - 0.2 * bump(-26, 20) - 0.3 * bump(28, 22)
    wave = qrs + p * bump(-160, 50) + 0.3 * bump(250, 100)
    return wave * np.linspace(0.7, 1.4, 8)[:, None], ms


def test_parts_lie_where_the_waves_were_made() -> None:
    truth, ms = made()
    labels = label(truth, find_beats(truth[0], 100.0), 100.0)
    assert labels is not None
    # Bounds are found within 30 ms; well inside of them there is no doubt, but at the ends.
    middle = slice(100, 900)
    inside = {"p": (-170, -70), "qrs": (-20, 20), "st_t": (90, 300), "rest": (400, 440)}
    for name, (low, high) in inside.items():
        here = labels[middle][(ms[middle] >= low) & (ms[middle] <= high)]
        assert len(here) > 20 and set(here.tolist()) == {NAMES.index(name)}, name
    # Before the first and after the last beat nothing is known.
    assert labels[0] == -1 or ms[0] > -360
    assert 0.1 < (labels == NAMES.index("qrs")).mean() < 0.2


def test_without_a_p_wave_there_is_no_such_part() -> None:
    truth, _ = made(p=0.0)
    labels = label(truth, find_beats(truth[0], 100.0), 100.0)
    assert labels is not None
    assert NAMES.index("p") not in labels and NAMES.index("qrs") in labels


def test_noise_has_no_parts() -> None:
    noise = np.random.default_rng(0).normal(size=(8, 1000))
    assert label(noise, find_beats(noise[0], 100.0), 100.0) is None


def test_scores_of_a_part_are_those_of_its_samples() -> None:
    rng = np.random.default_rng(1)
    draws, truth = rng.normal(size=(5, 3, 60)), rng.normal(size=(3, 60))
    labels = rng.integers(-1, 3, 60)
    found = by_part(draws, truth, labels)
    assert list(found) == NAMES[:3]
    for place, name in enumerate(found):
        x, y = draws[..., labels == place], truth[:, labels == place]
        expected = {
            "samples": y.shape[1],
            "crps": crps(x, y).mean(),
            "mse_mean": ((x.mean(0) - y) ** 2).mean(),
            "variance": x.var(0, ddof=1).mean(),
            "coverage_50": coverage(x, y, 0.5).mean(),
            "coverage_90": coverage(x, y, 0.9).mean(),
        }
        assert found[name] == pytest.approx(expected, rel=1e-3)
    assert set(by_part(draws[:1], truth, labels)["p"]) == {"samples", "crps", "mse_mean"}


def rows() -> list[Row]:
    """Calibrated draws in QRS, draws half as wide as their errors after it; a point estimate."""
    rng, out = np.random.default_rng(2), []
    labels = np.repeat([1, 2], 500)
    for k in range(12):
        truth = rng.normal(size=(2, 1000))
        draws = rng.normal(size=(10, 2, 1000)) * np.where(labels == 1, 1.0, 0.5)
        for method, x in (("m", draws), ("point", draws[:1])):
            shape = {"qrs_ms": [1.0] * (1 + len(x)), "parts": by_part(x, truth, labels)}
            row = {"task": "leads", "method": method, "patient_id": k, "weight": 1.0 + k % 2}
            out.append({**row, "shape": shape})
    return [*out, {**out[0], "shape": {"qrs_ms": [None] * 11, "parts": None}}]


def test_the_table_tells_where_draws_are_too_sure() -> None:
    table = part_table("leads", rows(), resamples=50)
    lines = {(line[0], line[1]): line for line in table.body}
    assert set(lines) == {(m, PARTS[p]) for m in ("m", "point") for p in ("qrs", "st_t")}
    good, sure = lines["m", "QRS"], lines["m", PARTS["st_t"]]
    assert good[2] == sure[2] == "12"  # the record without parts is not among them
    assert good[5].endswith("(nominal 81.8)")
    assert float(good[5].split()[0]) == pytest.approx(81.8, abs=1.5)
    assert float(sure[5].split()[0]) < 60
    assert float(good[6].split()[0]) == pytest.approx(1, abs=0.03)
    # Errors of the mean have variance 1 + 1/40, draws 1/4.
    assert float(sure[6].split()[0]) == pytest.approx((1.1 * 0.25 / 1.025) ** 0.5, abs=0.02)
    assert lines["point", "QRS"][4:] == ["-", "-", "-"]
    assert lines["point", "QRS"][3] != "-"
