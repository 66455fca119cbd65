"""AUROC and average precision of the same scores under many weights, for a bootstrap.

A replicate changes how often a record counts and never its score, so the order of the scores is
found once. What remains of both figures are sums over that order; records with equal scores are
passed together, as one threshold cannot part them. The figures are those of
:func:`ecgdiff.evaluation.diagnosis.aurocs` and
:func:`~ecgdiff.evaluation.diagnosis.average_precisions`.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ["Ranking"]

Array = NDArray[np.float64]


class Ranking:
    """Sorts the scores of each class.

    Arguments:
        labels: 0 or 1, with shape (records, classes).
        scores: The higher, the likelier, same shape.
    """

    def __init__(self, labels: NDArray[np.integer], scores: Array) -> None:
        self._columns = [
            _sorted(y.astype(bool), s) for y, s in zip(labels.T, scores.T, strict=True)
        ]

    def scores(self, weights: Array) -> tuple[Array, Array]:
        """Computes both figures.

        Arguments:
            weights: One per record, 0 or more; a record that was drawn twice has twice its weight.

        Returns:
            AUROC and average precision, one number per class each; NaN where all records that
            count have the same label.
        """
        found = [_scores(*column, weights) for column in self._columns]
        first, second = np.array(found, dtype=np.float64).reshape(-1, 2).T
        return first, second


def _sorted(
    y: NDArray[np.bool_], scores: Array
) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.intp]]:
    """Records from the highest score down, their labels, and the last one of each equal score."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    return order, y[order], ends


def _scores(
    order: NDArray[np.intp], y: NDArray[np.bool_], ends: NDArray[np.intp], weights: Array
) -> tuple[float, float]:
    w = weights[order]
    called = np.cumsum(w)[ends]
    true = np.cumsum(np.where(y, w, 0.0))[ends]
    false = np.cumsum(np.where(y, 0.0, w))[ends]
    if true[-1] <= 0 or false[-1] <= 0:
        return np.nan, np.nan
    gained = np.diff(true, prepend=0.0)
    # Positives beat the negatives called after them, and half of those called with them.
    area = gained @ (false[-1] - false + np.diff(false, prepend=0.0) / 2)
    # Nobody is gained where nobody is called.
    precision = true / np.where(called > 0, called, 1.0)
    return area / (true[-1] * false[-1]), gained @ precision / true[-1]
