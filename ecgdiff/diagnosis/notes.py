"""What is known of a reading's limits, each said only where it applies.

The figures are those of the benchmark (`results/benchmark/README.md`): 440 records of the test
fold of PTB-XL, ten draws of the default sampler, read by the classifier `default`.
"""

from collections.abc import Sequence

import numpy as np

from ecgdiff.classifier import Classifier
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.ecg.recording import Recording
from ecgdiff.models.crops import starts
from ecgdiff.reconstruction import Reconstruction

__all__ = ["notes"]

SECONDS = 10.0
"""How long the recordings were on which shipped thresholds were chosen."""

_EXTREME = (
    'rule="f1" (--rule f1): its thresholds were chosen on real ECGs, and averages over draws are '
    "less extreme. In the benchmark balanced accuracy for AFIB from lead I was .57, and .79 with "
    'thresholds chosen on reconstructions; rule="youden" hardly cares.'
)


def notes(
    subject: Recording | Reconstruction, classifier: Classifier, rule: str, codes: Sequence[str]
) -> list[str]:
    """Says what is known to limit a reading.

    Arguments:
        subject: What was read.
        classifier: What read it.
        rule: Which thresholds it was held to.
        codes: The statements that were asked for.

    Returns:
        One line each; none where nothing applies.
    """
    found = []
    if _as_shipped(classifier, rule):
        if rule == "f1" and _averages(subject):
            found.append(_EXTREME)
        if subject.duration < SECONDS:
            found.append(_short(subject.duration, classifier))
    asked = [code for code in codes if code in CONDITIONS]
    if asked and classifier.name == "default" and _only_lead_I(subject):
        found.append(
            'Lead I was measured, the other leads are drawn: classifier="lead_I" '
            f"(--classifier lead_I) reads lead I itself and in the benchmark ranked "
            f"{', '.join(asked)} at least as well."
        )
    return found


def _as_shipped(classifier: Classifier, rule: str) -> bool:
    """Whether the thresholds are those of its folder, not chosen since on other records."""
    shipped = classifier.config.get("thresholds", {}).get(rule)
    return shipped is not None and np.array_equal(
        np.array(shipped, float), classifier.thresholds[rule], equal_nan=True
    )


def _averages(subject: Recording | Reconstruction) -> bool:
    """Whether probabilities are averages over draws that differ."""
    return (
        isinstance(subject, Reconstruction)
        and len(subject.draws) > 1
        and "synthetic" in subject.provenance
    )


def _only_lead_I(subject: Recording | Reconstruction) -> bool:
    """Whether all of lead I was measured and nothing else, as in the benchmark."""
    if not isinstance(subject, Reconstruction):
        return False
    row = LEADS_12.index("I")
    others = np.delete(subject.measured, row, axis=0)
    return bool(subject.measured[row].all() and not others.any())


def _short(duration: float, classifier: Classifier) -> str:
    # What was read has a window at least, however its length is rounded.
    here, there = (
        len(
            starts(
                max(round(seconds * classifier.sampling_rate), classifier.crop), classifier.crop
            )
        )
        for seconds in (duration, SECONDS)
    )
    return (
        f"The ECG lasts {duration:.4g} s; thresholds were chosen on {SECONDS:g} s "
        f"({there} window{'s' if there > 1 else ''}, here {here})."
    )
