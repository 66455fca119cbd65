"""The tasks hide what they say they hide."""

import hashlib

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.ecg.preprocess import baseline
from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.disturbance import electrode_noise
from ecgdiff.evaluation.tasks import (
    PAPER_TASKS,
    TASKS,
    BlockTask,
    Case,
    LeadTask,
    NoisyTask,
    PrecordialTask,
    Task,
    problem,
)
from ecgdiff.random import streams


def case(ecg_id: int = 1, length: int = 1000) -> Case:
    x = np.random.default_rng(ecg_id).normal(size=(8, length)).astype(np.float32)
    return Case(ecg_id, 10 * ecg_id, x)


def test_lead_task_observes_lead_i() -> None:
    mask, scored = LeadTask().masks(case(), 0)
    assert mask[0].all()
    assert not mask[1:].any()
    assert np.array_equal(scored, ~mask)
    assert LeadTask().scored_leads == ("II", "V1", "V2", "V3", "V4", "V5", "V6")


def test_block_task_loses_one_half_of_a_crop() -> None:
    starts, sides = set(), set()
    for ecg_id in range(40):
        mask, scored = BlockTask().masks(case(ecg_id), 0)
        assert (mask == mask[0]).all()
        assert (scored == scored[0]).all()
        seen, lost = np.flatnonzero(mask[0]), np.flatnonzero(scored[0])
        assert len(seen) == len(lost) == 128
        assert np.array_equal(np.sort(np.r_[seen, lost]), np.arange(256) + min(seen[0], lost[0]))
        starts.add(int(min(seen[0], lost[0])))
        sides.add(bool(seen[0] < lost[0]))
    assert len(starts) > 30
    assert sides == {True, False}


def test_block_geometry_belongs_to_record_and_seed() -> None:
    same = [BlockTask().masks(case(5), 3)[0] for _ in range(2)]
    assert np.array_equal(*same)
    assert not np.array_equal(same[0], BlockTask().masks(case(5), 4)[0])


@pytest.mark.parametrize("crop", [0, 255, 1002])
def test_block_task_refuses_crops_that_do_not_fit(crop: int) -> None:
    with pytest.raises(ValueError, match="The crop must be"):
        BlockTask(crop).masks(case(), 0)


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_problem_adds_the_stated_noise_and_hides_the_rest(task: Task) -> None:
    c = case()
    p = problem(task, c, 0, 0.02)
    assert (p.y[~p.mask] == 0).all()
    added = (p.y - c.truth)[p.mask]
    assert np.sqrt(np.mean(added**2)) == pytest.approx(p.noise, rel=0.1)
    assert np.array_equal(p.y, problem(task, c, 0, 0.02).y)
    assert not np.array_equal(p.y, problem(task, c, 1, 0.02).y)


GOLDEN = {"leads": "2029efd47a129b19", "block": "a2d584e892fd6327"}


@pytest.mark.parametrize("name", PAPER_TASKS)
def test_published_tasks_never_change(name: str) -> None:
    """The digests are those of the code that made the committed figures."""
    p = problem(TASKS[name], case(), 0, 0.02)
    digest = hashlib.sha256(p.y.tobytes() + p.mask.tobytes()).hexdigest()
    assert digest[:16] == GOLDEN[name]
    assert p.noise == 0.02


def test_precordial_task_loses_v1_to_v3() -> None:
    mask, scored = PrecordialTask().masks(case(), 0)
    lost = np.isin(LEADS_8, ["V1", "V2", "V3"])
    assert np.array_equal(scored, np.repeat(lost[:, None], 1000, axis=1))
    assert np.array_equal(mask, ~scored)
    assert [LEADS_8[k] for k in np.flatnonzero(scored.any(axis=1))] == list(
        PrecordialTask().scored_leads
    )


def test_noisy_task_hides_what_the_lead_task_hides() -> None:
    for a, b in zip(NoisyTask().masks(case(), 0), LeadTask().masks(case(), 0), strict=True):
        assert np.array_equal(a, b)


def electrode(seed: int, lead: NDArray[np.floating], snr_db: float) -> NDArray[np.float64]:
    return electrode_noise(lead, 100.0, snr_db, streams(0, f"record {seed}", [0]))


@pytest.mark.parametrize("snr_db", [12.0, 0.0])
def test_electrode_noise_has_exactly_the_stated_power(snr_db: float) -> None:
    lead = case().truth[0]
    noise = electrode(1, lead, snr_db)
    ratio = np.mean(lead.astype(np.float64) ** 2) / np.mean(noise**2)
    assert 10 * np.log10(ratio) == pytest.approx(snr_db, abs=1e-9)
    assert np.array_equal(noise, electrode(1, lead, snr_db))
    assert not np.array_equal(noise, electrode(2, lead, snr_db))


def test_electrode_noise_is_half_wander_and_half_motion() -> None:
    """Spectrum over 300 records against the formula: wander falls, motion lies in 1-10 Hz."""
    lead = np.sqrt(10**1.2) * np.ones(1000)  # noise of power 1
    spectra = [np.abs(np.fft.rfft(electrode(k, lead, 12.0))) ** 2 for k in range(300)]
    power, f = np.mean(spectra, axis=0), np.fft.rfftfreq(1000, 0.01)
    shape = (f > 0) / (1 + (f / 0.5) ** 4)
    slow = f < 0.8  # no motion but what its envelope, wider than 0.3 s, smears there
    assert power[slow].sum() / power.sum() == pytest.approx(
        0.5 * shape[slow].sum() / shape.sum(), rel=0.05
    )
    assert power[f > 11.5].sum() / power.sum() < 1e-3
    fast = (f >= 1.5) & (f <= 9.5)
    flat = power[fast] - 0.5 * power.sum() * shape[fast] / shape.sum()
    np.testing.assert_allclose(flat / flat.mean(), 1, atol=0.4)


def test_motion_comes_in_bursts() -> None:
    lead = np.ones(6000)
    lengths = []
    for k in range(20):
        fast = np.fft.rfft(electrode(k, lead, 12.0))
        fast[: 60 * 2] = 0  # below 2 Hz there is wander
        power = np.sort(np.fft.irfft(fast) ** 2)[::-1]
        lengths.append(np.searchsorted(np.cumsum(power), 0.9 * power.sum()) / 6000)
    # White noise needs 60 % of the samples for 90 % of its power.
    assert np.mean(lengths) < 0.45


def test_noisy_task_filters_as_the_preprocessing_does() -> None:
    c, task = case(3), NoisyTask()
    noise = electrode_noise(c.truth[0], 100.0, 12.0, streams(5, f"{c.name}/noisy/electrode", [0]))
    with_noise = c.truth[0].astype(np.float64) + noise
    filtered = with_noise - baseline(with_noise, 100.0)
    clean = c.truth[0] - baseline(c.truth[0], 100.0)
    made = task.disturbance(c, 5)
    np.testing.assert_allclose(made[0], filtered - clean, atol=1e-5)
    assert not made[1:].any()
    p = problem(task, c, 5, 0.02)
    assert p.noise**2 == pytest.approx(0.02**2 + np.mean(made[0].astype(np.float64) ** 2))


def test_the_high_pass_takes_two_fifths_of_the_noise() -> None:
    """12 dB before it are 14.3 dB after it, as the readings of the benchmark say."""
    lead = np.sqrt(10**1.2) * np.ones(1000)  # noise of power 1
    noises = [electrode(k, lead, 12.0) for k in range(100)]
    left = np.mean([np.mean((n - baseline(n, 100.0)) ** 2) for n in noises])
    assert left == pytest.approx(0.59, abs=0.02)


@pytest.mark.parametrize("lead", [np.zeros(1000), np.ones(99)])
def test_leads_without_a_signal_have_no_noise_ratio(lead: NDArray[np.float64]) -> None:
    with pytest.raises(EcgDiffError, match="not flat"):
        electrode(0, lead, 12.0)
