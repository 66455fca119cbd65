r"""What is chosen on validation records: a temperature for all statements, a threshold for each.

The temperature T minimizes the mean cross-entropy of :math:`1 / (1 + e^{-z/T})` over records and
statements. A threshold is one of the validation scores; a statement counts as made at or above
it. Rules: `youden` maximizes sensitivity + specificity, hence balanced accuracy; `f1` maximizes
the harmonic mean of precision and sensitivity, which favors fewer false alarms on rare statements.

References:
    | On Calibration of Modern Neural Networks (Guo et al., 2017), arXiv:1706.04599
    | Index for rating diagnostic tests (Youden, 1950)
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

__all__ = ["RULES", "fit_temperature", "threshold", "thresholds"]

RULES = ("youden", "f1")


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Finds the temperature.

    Arguments:
        logits: With shape (records, classes).
        labels: 0 or 1, same shape.
    """
    z, y = np.asarray(logits, np.float64), np.asarray(labels, np.float64)

    def cross_entropy(log_temperature: float) -> float:
        scaled = z / np.exp(log_temperature)
        return float((np.logaddexp(0, scaled) - y * scaled).mean())

    found = minimize_scalar(cross_entropy, bounds=(-3.0, 3.0), method="bounded")
    return float(np.exp(found.x))


def threshold(
    rule: str,
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> float:
    """Finds the threshold of one statement.

    Arguments:
        rule: One of :data:`RULES`.
        labels: 0 or 1, with shape (records,).
        scores: The higher, the likelier, same shape.
        weights: How many records each stands for; one if None.

    Returns:
        The highest of the best thresholds.

    Raises:
        ValueError: If the rule is unknown, or there are no positives or no negatives.
    """
    if rule not in RULES:
        raise ValueError(f"There is no rule {rule!r}; the rules are {', '.join(RULES)}.")
    y = np.asarray(labels, bool)
    if y.all() or not y.any():
        raise ValueError(f"A threshold needs records of both kinds, got {y.sum()} of {y.size}.")
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    ranked, positive = np.asarray(scores, np.float64)[order], y[order]
    # Records with equal scores are called alike: only the last of them can be a cut.
    last = np.flatnonzero(np.append(np.diff(ranked) != 0, True))
    w = (np.ones(y.size) if weights is None else np.asarray(weights, np.float64))[order]
    true, called = np.cumsum(w * positive)[last], np.cumsum(w)[last]
    made, all_made = true[-1], called[-1]
    if rule == "f1":
        quality = 2 * true / (called + made)
    else:
        quality = true / made - (called - true) / (all_made - made)
    return float(ranked[last[quality.argmax()]])


def thresholds(
    labels: NDArray[np.integer],
    scores: NDArray[np.floating],
    weights: NDArray[np.floating] | None = None,
) -> dict[str, NDArray[np.float64]]:
    """Finds the thresholds of several statements by every rule.

    Arguments:
        labels: 0 or 1, with shape (records, classes).
        scores: The higher, the likelier, same shape.
        weights: How many records each stands for; one if None.

    Returns:
        By rule one threshold per class; NaN where a statement was always or never made.
    """
    y = np.asarray(labels)
    both = (y.min(0) == 0) & (y.max(0) == 1)
    return {
        rule: np.array(
            [
                threshold(rule, y[:, k], scores[:, k], weights) if both[k] else np.nan
                for k in range(y.shape[1])
            ]
        )
        for rule in RULES
    }
