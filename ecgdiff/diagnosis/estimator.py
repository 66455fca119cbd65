"""The classifier as an estimator of scikit-learn: its tools for scoring and validation apply."""

from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin

from ecgdiff.classifier import Classifier, load_classifier
from ecgdiff.diagnosis.calibration import fit_temperature, thresholds

__all__ = ["StatementEstimator", "loaded"]


class StatementEstimator(ClassifierMixin, BaseEstimator):
    """Creates the estimator; as shipped it is calibrated on the validation fold of PTB-XL.

    `fit` calibrates it on other records: temperature and thresholds, not the network.

    Arguments:
        classifier: A classifier, its name, or a checkpoint folder.
        rule: Which threshold `predict` uses, "youden" or "f1".

    Attributes:
        classes_: The codes of the statements, in the order of the outputs.
        temperature_: The temperature in use.
        thresholds_: By rule, a probability per statement; NaN where a statement was always or
            never present.
    """

    def __init__(
        self, classifier: str | Path | Classifier = "default", rule: str = "youden"
    ) -> None:
        self.classifier = classifier
        self.rule = rule

    def __sklearn_is_fitted__(self) -> bool:
        """Whether it can predict: the shipped calibration is one."""
        return True

    def fit(self, X: NDArray[np.floating], y: NDArray[np.integer]) -> "StatementEstimator":
        """Calibrates on labelled records.

        Arguments:
            X: Signals as :meth:`ecgdiff.classifier.Classifier.logits` takes, shape (records, 12,
                time).
            y: 1 where a statement was made, else 0, shape (records, classes).

        Raises:
            ValueError: If the shapes do not fit.
        """
        wanted = (len(X), len(self._network.classes))
        if np.shape(y) != wanted:
            raise ValueError(f"y has shape {np.shape(y)}; the classifier needs {wanted}.")
        return self.fit_logits(self._network.logits(X), np.asarray(y))

    def fit_logits(
        self, logits: NDArray[np.floating], y: NDArray[np.integer]
    ) -> "StatementEstimator":
        """Calibrates on logits that were computed before, shape (records, classes)."""
        self._temperature = fit_temperature(logits, y)
        scores = expit(np.asarray(logits, float) / self._temperature)
        self._thresholds = thresholds(y, scores)
        return self

    def predict_proba(self, X: NDArray[np.floating]) -> NDArray[np.float64]:
        """The probability of each statement, shape (records, classes)."""
        return self.calibrated().probabilities(X)

    def predict(self, X: NDArray[np.floating]) -> NDArray[np.int64]:
        """1 where the probability is at or above the threshold of `rule`, else 0.

        Always 0 for a statement without threshold.
        """
        return (self.predict_proba(X) >= self.thresholds_[self.rule]).astype(np.int64)

    @property
    def classes_(self) -> NDArray[np.str_]:
        """The codes of the statements."""
        return np.array(self._network.classes)

    @property
    def temperature_(self) -> float:
        """The temperature in use."""
        return float(getattr(self, "_temperature", self._network.temperature))

    @property
    def thresholds_(self) -> dict[str, NDArray[np.float64]]:
        """The thresholds in use, by rule."""
        return dict(getattr(self, "_thresholds", self._network.thresholds))

    def calibrated(self) -> Classifier:
        """The classifier with the calibration in use, as :func:`ecgdiff.diagnose` takes it."""
        return replace(self._network, temperature=self.temperature_, thresholds=self.thresholds_)

    @property
    def _network(self) -> Classifier:
        if isinstance(self.classifier, Classifier):
            return self.classifier
        return loaded(str(self.classifier))


@lru_cache(maxsize=2)
def loaded(name: str) -> Classifier:
    """Loads a classifier once, by name or folder."""
    return load_classifier(name)
