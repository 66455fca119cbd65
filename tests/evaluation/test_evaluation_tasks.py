"""The tasks hide what they say they hide."""

import numpy as np
import pytest

from ecgdiff.evaluation.tasks import TASKS, BlockTask, Case, LeadTask, problem


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
def test_problem_adds_the_stated_noise_and_hides_the_rest(task: LeadTask | BlockTask) -> None:
    c = case()
    p = problem(task, c, 0, 0.02)
    assert (p.y[~p.mask] == 0).all()
    assert np.std((p.y - c.truth)[p.mask]) == pytest.approx(0.02, rel=0.1)
    assert np.array_equal(p.y, problem(task, c, 0, 0.02).y)
    assert not np.array_equal(p.y, problem(task, c, 1, 0.02).y)
