"""Sums over a fixed order against scikit-learn, with ties, weights and records left out."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from ecgdiff.evaluation.ranking import Ranking

RECORDS, CLASSES = 150, 3


@pytest.mark.parametrize("digits", [1, 2, 12])
@pytest.mark.parametrize("seed", range(4))
def test_scores_are_those_of_scikit_learn(seed: int, digits: int) -> None:
    rng = np.random.default_rng(seed)
    labels = (rng.random((RECORDS, CLASSES)) < [0.05, 0.3, 0.8]).astype(int)
    labels[0], labels[1] = 0, 1
    scores = (rng.random((RECORDS, CLASSES)) / 2 + 0.3 * labels).round(digits)
    weights = rng.choice([1.0, 13.926], RECORDS)
    ranking = Ranking(labels, scores)
    for replicate in range(6):
        at = rng.integers(0, RECORDS, RECORDS) if replicate else np.arange(RECORDS)
        at = np.append(at, [0, 1])  # both labels are there
        found = ranking.scores(np.bincount(at, weights[at], RECORDS))
        for k in range(CLASSES):
            given = labels[at, k], scores[at, k]
            for score, figure in zip((roc_auc_score, average_precision_score), found, strict=True):
                expected = score(*given, sample_weight=weights[at])
                assert figure[k] == pytest.approx(expected, rel=0, abs=1e-12)


def test_one_label_has_no_score() -> None:
    labels = np.array([[1, 0], [0, 0], [1, 0]])
    ranking = Ranking(labels, np.random.default_rng(0).random((3, 2)))
    for figure in ranking.scores(np.ones(3)):
        assert np.isnan(figure).tolist() == [False, True]
    for figure in ranking.scores(np.array([1.0, 0.0, 2.0])):  # the negative was not drawn
        assert np.isnan(figure).all()


def test_perfect_and_reversed_order() -> None:
    labels, scores = np.array([[1], [1], [0], [0]]), np.array([[0.9], [0.8], [0.2], [0.1]])
    auroc, precision = Ranking(labels, scores).scores(np.ones(4))
    assert (auroc.tolist(), precision.tolist()) == ([1.0], [1.0])
    assert Ranking(labels, -scores).scores(np.ones(4))[0].tolist() == [0.0]
    assert Ranking(labels, 0 * scores).scores(np.ones(4))[0].tolist() == [0.5]
