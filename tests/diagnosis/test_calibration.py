"""Temperature and thresholds against closed forms and brute force."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score

from ecgdiff.diagnosis.calibration import fit_temperature, threshold


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_the_temperature_of_overconfident_logits_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(-1, 2, (40_000, 3))
    labels = (rng.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(int)
    assert fit_temperature(temperature * logits, labels) == pytest.approx(temperature, rel=0.03)


@pytest.mark.parametrize(
    ("rule", "score"), [("youden", balanced_accuracy_score), ("f1", f1_score)]
)
def test_a_threshold_is_the_best_of_all(rule: str, score: object) -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        labels = (rng.random(60) < 0.2).astype(int)
        labels[:2] = [0, 1]
        scores = np.round(rng.random(60) + 0.3 * labels, 1)  # with ties
        reached = score(labels, scores >= threshold(rule, labels, scores))  # type: ignore[operator]
        best = max(score(labels, scores >= at) for at in np.unique(scores))  # type: ignore[operator]
        assert reached == pytest.approx(best)


def test_a_threshold_separates_what_can_be_separated() -> None:
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.7, 0.9])
    assert threshold("youden", labels, scores) == 0.7
    assert threshold("f1", labels, scores) == 0.7


def test_one_kind_of_records_has_no_threshold() -> None:
    with pytest.raises(ValueError, match="both kinds"):
        threshold("youden", np.ones(3, int), np.arange(3.0))
    with pytest.raises(ValueError, match="no rule 'half'"):
        threshold("half", np.array([0, 1]), np.arange(2.0))
