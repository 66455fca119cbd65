"""The shape of a record: what is equal measures equal, and what cannot be measured is said."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.evaluation.benchmark import Row, Rows, Settings, run
from ecgdiff.evaluation.parquet import read_rows, write_rows
from ecgdiff.evaluation.shape import (
    LEADS,
    PER_LEAD,
    PER_RECORD,
    has_rhythm_lead,
    measures,
    powers,
    shape,
)
from ecgdiff.evaluation.shape_tables import shape_tables
from ecgdiff.evaluation.tasks import TASKS, Case, Problem, problem

pytest.importorskip("neurokit2")

LEAD = TASKS["leads"]
V3 = LEADS_8.index("V3")
SETTINGS = Settings(draws=2, seed=0, noise=0.01, version="test", morphology=True)
HEADER = {
    "settings": {"draws": 2, "version": "test"},
    "records": {"fold": 9, "name": "made", "ecg_ids": list(range(8))},
}
# Heights in mV of Q, R and S in each of LEADS_8.
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


def ecg() -> NDArray[np.float32]:
    """Beats every 0.8 s, P and T alike in all leads, with shape (8, 1000)."""
    ms = (np.arange(1000) * 10.0 - 500 + 360) % 800 - 360

    def bump(center: float, half: float) -> NDArray[np.float64]:
        return np.asarray(1 + np.cos(np.pi * np.clip((ms - center) / half, -1, 1))) / 2

    qrs = QRS @ np.stack([bump(-26, 20), bump(0, 24), bump(28, 22)])
    return (qrs + 0.12 * bump(-160, 50) + 0.3 * bump(250, 100)).astype(np.float32)


def observed(truth: NDArray[np.float32], task: str = "leads") -> Problem:
    """What is observed of it, without noise."""
    return problem(TASKS[task], Case(1, 1, truth), 0, 0.0)


def patient(rng: np.random.Generator) -> NDArray[np.float32]:
    gains = np.ones((8, 1), dtype=np.float32)
    gains[[0, V3], 0] = rng.uniform(0.6, 1.4, 2)
    return gains * ecg()


def row(k: int, entry: dict[str, object]) -> Row:
    return {
        "task": "leads",
        "method": "m",
        "ecg_id": k,
        "patient_id": k,
        "weight": 1.0,
        "shape": entry,
    }


def test_draws_equal_to_the_truth_have_no_error() -> None:
    truth = ecg()
    entry = shape(np.stack([truth] * 3), truth, observed(truth))
    drawn, true = measures([entry])
    for name in PER_RECORD + PER_LEAD:
        assert np.isfinite(true[name]).all(), name
        np.testing.assert_array_equal(drawn[name], np.stack([true[name]] * 3, axis=1))
    ours, real = powers([entry])
    for band, power in real.items():
        assert power.shape == (1, 7) and (power > 0).all()
        np.testing.assert_array_equal(ours[band], power)
    assert true["qrs_ms"] == pytest.approx(96, abs=8)
    heights = true["r_mv"][0][[LEADS.index(lead) for lead in ("I", "V3", "V6")]]
    assert heights == pytest.approx([0.9, 0.8, 1.0], abs=0.03)


def test_what_was_observed_is_put_back() -> None:
    truth = ecg()
    draws = truth + 0.1 * np.random.default_rng(0).normal(size=(2, 8, 1000))
    for task in ("leads", "precordial", "noisy"):
        hidden = observed(truth, task)
        other = np.where(hidden.mask, 7.0, draws)
        assert shape(other, truth, hidden) == shape(draws, truth, hidden)
        scored = len(TASKS[task].scored_leads)
        assert np.shape(shape(draws, truth, hidden)["power_mv2"]["5-15 Hz"]) == (2, scored)


def test_beats_are_those_of_the_observation_and_of_no_draw() -> None:
    truth = ecg()
    hidden = observed(truth)
    lost = replace(hidden, y=0 * hidden.y)
    assert "failed" not in shape(truth[None], truth, hidden)
    assert "failed" in shape(truth[None], truth, lost)


def test_halved_leads_are_measured_as_halved() -> None:
    truth = ecg()
    drawn = truth.copy()
    drawn[V3] *= 0.5
    entry = shape(drawn[None], truth, observed(truth))
    at = LEADS.index("V3")
    for name in ("r_mv", "s_mv"):
        true, half = (entry[name][k][at] for k in (0, 1))
        assert half == pytest.approx(true / 2, abs=0.002)
    for true, half in entry["power_mv2"].values():
        k = LEAD.scored_leads.index("V3")
        assert half[k] == pytest.approx(true[k] / 4, rel=1e-3)
        assert half[:k] + half[k + 1 :] == true[:k] + true[k + 1 :]


def test_a_flat_lead_is_a_failure_with_its_reason() -> None:
    truth = ecg()
    truth[0] = 0
    entry = shape(np.stack([truth] * 2), truth, observed(truth))
    assert entry["failed"].startswith("No beats in the observed lead I")
    assert entry["qrs_ms"] == [None] * 3
    assert entry["r_mv"] == [[None] * 7] * 3
    json.dumps(entry, allow_nan=False)
    assert np.isnan(measures([entry])[0]["st_mv"]).all()
    assert min(entry["power_mv2"]["15-40 Hz"][0]) > 0  # spectra need no beats


def test_blocks_have_no_lead_to_find_beats_in() -> None:
    truth = ecg()
    hidden = observed(truth, "block")
    assert not has_rhythm_lead(hidden)
    with pytest.raises(ValueError, match="lead I, which is not observed"):
        shape(truth[None], truth, hidden)


def test_entries_are_short() -> None:
    truth = ecg()
    draws = truth * np.random.default_rng(0).uniform(0.5, 1.5, size=(10, 8, 1))
    text = json.dumps(shape(draws, truth, observed(truth)))
    assert len(text) < 3400
    numbers = [n.strip(" []{}") for part in text.split(":")[1:] for n in part.split(",")]
    digits = [n.strip("-").replace(".", "").lstrip("0") for n in numbers if n[-1:].isdigit()]
    assert len(digits) > 250
    assert max(len(d.split("e")[0]) for d in digits) <= 5  # "1234.0" has five


def test_rows_survive_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    truth, flat = ecg(), ecg()
    flat[0] = 0
    noise = 5 * np.random.default_rng(0).normal(size=truth.shape)
    good = row(1, shape(np.stack([truth, noise]), truth, observed(truth)))
    lost = row(2, shape(np.stack([flat] * 2), flat, observed(flat)))
    other = {k: v for k, v in row(3, {}).items() if k != "shape"}
    assert None in good["shape"]["qrs_ms"] and good["shape"]["qrs_ms"][0] is not None
    path = tmp_path / "rows.parquet"
    for rows in ([good, lost, other], [lost], [other, lost, good]):
        write_rows(path, rows, {})
        assert read_rows(path) == rows


def test_amplitudes_halved_toward_the_mean_have_slope_minus_one_half() -> None:
    rng = np.random.default_rng(1)
    truths = [patient(rng) for _ in range(8)]
    mean = np.mean([t[V3] for t in truths], axis=0)
    rows = []
    for k, truth in enumerate(truths):
        drawn = truth.copy()
        drawn[V3] = (drawn[V3] + mean) / 2
        rows.append(row(k, shape(np.stack([drawn] * 2), truth, observed(truth))))
    tables = {t.title: t for t in shape_tables(rows, HEADER, resamples=20)}
    made = tables["Regression to the mean, R amplitudes, task leads"]
    cells = {figure: dict(zip(made.head[2:], rest, strict=True)) for _, figure, *rest in made.body}
    assert cells["slope"]["V3"] == "-0.50 [-0.50, -0.50]"
    assert cells["share"]["V3"] == "1.00"
    assert cells["slope claimed"]["V3"] == "0.00"  # it claims to know everything
    assert cells["R² with lead I, draws"]["V3"] == cells["R² with lead I, truth"]["V3"] != "-"


@dataclass(frozen=True)
class Zero:
    """Two draws of zeros; can be copied to workers."""

    label: str = "zero"
    arguments: Mapping[str, object] = field(default_factory=dict)
    calls: tuple[int, int] = (0, 0)

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        return [np.zeros((2, *p.y.shape)) for p in problems]


def cases(count: int) -> list[Case]:
    rng = np.random.default_rng(2)
    return [Case(k, k, patient(rng)) for k in range(count)]


def test_the_runner_measures_where_lead_I_is_observed_and_resumes(tmp_path: Path) -> None:
    tasks = [TASKS["leads"], TASKS["block"]]
    methods = {task.name: [Zero()] for task in tasks}
    path = tmp_path / "rows.jsonl"
    first = list(run(tasks, methods, cases(2), Rows(path), SETTINGS))
    more = list(run(tasks, methods, cases(3), Rows(path), SETTINGS))
    assert [(r["task"], r["ecg_id"]) for r in more] == [("leads", 2), ("block", 2)]
    for made in first + more:
        assert ("shape" in made) == (made["task"] == "leads")
    entry = first[0]["shape"]
    truth = cases(1)[0]
    draws = Zero()([problem(LEAD, truth, 0, 0.01)])[0]
    assert entry == shape(draws, truth.truth, problem(LEAD, truth, 0, 0.01))
    assert Rows(path).rows == first + more


def test_rows_without_morphology_have_no_shape(tmp_path: Path) -> None:
    plain = replace(SETTINGS, morphology=None)
    rows = list(run([LEAD], {"leads": [Zero()]}, cases(1), Rows(tmp_path / "rows.jsonl"), plain))
    assert "shape" not in rows[0]
    assert shape_tables(rows, HEADER) == []


@pytest.mark.slow
def test_workers_measure_what_one_process_measures(tmp_path: Path) -> None:
    made = []
    for workers in (1, 2):
        rows = Rows(tmp_path / f"{workers}.jsonl")
        found = run([LEAD], {"leads": [Zero()]}, cases(3), rows, SETTINGS, workers=workers)
        made.append({r["ecg_id"]: r["shape"] for r in found})
    assert made[0] == made[1]
    assert len(made[0]) == 3
