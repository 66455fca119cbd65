r"""How well probabilities tell who has a condition: ranking, decisions, calibration.

AUROC and average precision judge the ranking and need no threshold. Balanced accuracy judges the
decisions at a given threshold. The Brier score :math:`\overline{(p - y)^2}` and the expected
calibration error, the mean gap between probability and frequency over 15 equally wide bins of
probability weighted by their records, judge the probabilities themselves.

Weights are inverse inclusion probabilities: a set of records in which some conditions were
preferred then stands for the fold that it was drawn from.

References:
    | On Calibration of Modern Neural Networks (Guo et al., 2017), arXiv:1706.04599
"""

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, roc_auc_score

__all__ = [
    "aurocs",
    "average_precisions",
    "balanced_accuracies",
    "brier_scores",
    "calibration_errors",
]

Array = NDArray[np.float64]
BINS = 15


def aurocs(labels: NDArray[np.integer], scores: Array, weights: Array | None = None) -> Array:
    """Area under the ROC curve of each column.

    Arguments:
        labels: 0 or 1, with shape (records, classes).
        scores: The higher, the likelier, same shape.
        weights: One per record; alike if None.

    Returns:
        One number per class; NaN where all labels are alike.
    """
    return _by_class(roc_auc_score, labels, scores, weights)


def average_precisions(
    labels: NDArray[np.integer], scores: Array, weights: Array | None = None
) -> Array:
    """Average precision of each column; arguments and result as :func:`aurocs`."""
    return _by_class(average_precision_score, labels, scores, weights)


def balanced_accuracies(
    labels: NDArray[np.integer], scores: Array, thresholds: Array, weights: Array | None = None
) -> Array:
    """Mean of sensitivity and specificity of "score at or above threshold".

    Arguments:
        labels: 0 or 1, with shape (records, classes).
        scores: Same shape.
        thresholds: One per class.
        weights: One per record; alike if None.

    Returns:
        One number per class; NaN where all labels are alike or there is no threshold.
    """
    y, w = labels.astype(bool), _weights(weights, len(labels))
    called = scores >= thresholds
    with np.errstate(invalid="ignore"):
        sensitivity = (w * (called & y)).sum(0) / (w * y).sum(0)
        specificity = (w * (~called & ~y)).sum(0) / (w * ~y).sum(0)
    return np.where(np.isnan(thresholds), np.nan, (sensitivity + specificity) / 2)


def brier_scores(
    labels: NDArray[np.integer], scores: Array, weights: Array | None = None
) -> Array:
    """Mean squared difference of probability and label of each column."""
    w = _weights(weights, len(labels))
    return np.asarray((w * (scores - labels) ** 2).sum(0) / w.sum())


def calibration_errors(
    labels: NDArray[np.integer], scores: Array, weights: Array | None = None
) -> Array:
    """Expected calibration error of each column; arguments as :func:`brier_scores`."""
    w = _weights(weights, len(labels))[:, 0]
    bins = np.minimum((scores * BINS).astype(int), BINS - 1)
    out = np.empty(scores.shape[1])
    for k in range(scores.shape[1]):
        gap = w * (scores[:, k] - labels[:, k])
        out[k] = np.abs(np.bincount(bins[:, k], gap, BINS)).sum() / w.sum()
    return out


def _weights(weights: Array | None, count: int) -> Array:
    return (np.ones(count) if weights is None else np.asarray(weights, float))[:, None]


def _by_class(
    score: object, labels: NDArray[np.integer], scores: Array, weights: Array | None
) -> Array:
    out = np.full(scores.shape[1], np.nan)
    for k in range(scores.shape[1]):
        y = labels[:, k]
        if y.min() != y.max():
            out[k] = score(y, scores[:, k], sample_weight=weights)  # type: ignore[operator]
    return out
