"""Scores of probabilities against definitions, by brute force."""

import numpy as np
import pytest

from ecgdiff.evaluation.diagnosis import (
    aurocs,
    average_precisions,
    balanced_accuracies,
    brier_scores,
    calibration_errors,
)

RNG = np.random.default_rng(0)
LABELS = (RNG.random((80, 2)) < 0.3).astype(int)
SCORES = np.clip(0.4 * RNG.random((80, 2)) + 0.3 * LABELS, 0, 1)
WEIGHTS = RNG.integers(1, 4, 80)


def test_auroc_is_the_chance_that_a_positive_scores_higher() -> None:
    for k in range(2):
        positive, negative = SCORES[LABELS[:, k] == 1, k], SCORES[LABELS[:, k] == 0, k]
        pairs = (positive[:, None] > negative).mean() + (positive[:, None] == negative).mean() / 2
        assert aurocs(LABELS, SCORES)[k] == pytest.approx(pairs)


@pytest.mark.parametrize("score", [aurocs, average_precisions, brier_scores, calibration_errors])
def test_a_weight_counts_a_record_several_times(score: object) -> None:
    repeated = np.repeat(np.arange(80), WEIGHTS)
    np.testing.assert_allclose(
        score(LABELS, SCORES, WEIGHTS),  # type: ignore[operator]
        score(LABELS[repeated], SCORES[repeated]),  # type: ignore[operator]
    )


def test_balanced_accuracy_is_the_mean_of_the_two_rates() -> None:
    at = np.array([0.35, np.nan])
    repeated = np.repeat(np.arange(80), WEIGHTS)
    y, called = LABELS[repeated, 0], SCORES[repeated, 0] >= 0.35
    wanted = (called[y == 1].mean() + (~called)[y == 0].mean()) / 2
    found = balanced_accuracies(LABELS, SCORES, at, WEIGHTS)
    assert found[0] == pytest.approx(wanted)
    assert np.isnan(found[1])


def test_a_class_without_positives_has_no_score() -> None:
    labels = LABELS.copy()
    labels[:, 1] = 0
    assert np.isnan(aurocs(labels, SCORES)).tolist() == [False, True]
    assert np.isnan(average_precisions(labels, SCORES)).tolist() == [False, True]
    assert np.isnan(balanced_accuracies(labels, SCORES, np.full(2, 0.5))).tolist() == [False, True]


def test_calibrated_probabilities_have_little_calibration_error_and_others_their_own() -> None:
    p = RNG.random((200_000, 1))
    labels = (RNG.random(p.shape) < p).astype(int)
    assert calibration_errors(labels, p)[0] < 0.01
    assert calibration_errors(labels, np.ones_like(p))[0] == pytest.approx(0.5, abs=0.01)
    assert brier_scores(labels, p)[0] == pytest.approx(1 / 6, abs=0.01)
