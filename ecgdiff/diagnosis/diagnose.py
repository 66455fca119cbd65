"""Reading a measured 12-lead ECG, or every draw of a reconstruction, with the classifier."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ecgdiff.classifier import Classifier
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.diagnosis.codes import asked_codes
from ecgdiff.diagnosis.estimator import StatementEstimator, loaded
from ecgdiff.diagnosis.notes import notes
from ecgdiff.diagnosis.result import Diagnosis
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.ecg.preprocess import baseline, clip
from ecgdiff.ecg.quality import check
from ecgdiff.ecg.recording import Recording
from ecgdiff.ecg.resampling import resample
from ecgdiff.errors import OperatorError
from ecgdiff.reconstruction import Reconstruction

__all__ = ["diagnose"]

# What of a reconstruction a reading can be traced back by.
_ORIGIN = ("sampler", "prior", "model_sha256", "seed", "noise_mv")


def diagnose(
    subject: Recording | Reconstruction,
    *,
    conditions: Iterable[str] | Literal["all"] = CONDITIONS,
    classifier: str | Path | Classifier = "default",
    rule: Literal["youden", "f1"] = "youden",
    level: float = 0.9,
    allow: Iterable[str] = (),
) -> Diagnosis:
    """Gives the probability of conditions and, over draws, how sure it is. Research use only.

    The classifier was trained on records of 10 s. A longer ECG gets one probability for the whole,
    in which a short episode is lost; ask about a part of it with `recording.crop(...)`. What is
    known to limit a reading stands in `meta["warnings"]`.

    Arguments:
        subject: A reconstruction, each draw of which is read, or a recording with all the leads
            that the classifier reads.
        conditions: SCP codes, or "all" that the classifier knows.
        classifier: A classifier, its name, or a checkpoint folder.
        rule: Which validation threshold, see :mod:`ecgdiff.diagnosis.calibration`.
        level: The level of the interval over draws.
        allow: Quality findings of a recording to override, by name.

    Raises:
        OperatorError: If a lead or a sample that the classifier reads is missing or synthetic.
        SignalQualityError: If a recording fails the quality gate.
        TypeError: If the subject is neither.
        ValueError: If a condition, a rule or the level makes no sense.
    """
    if not isinstance(subject, Recording | Reconstruction):
        raise TypeError(
            f"diagnose takes a Recording or a Reconstruction, got a {type(subject).__name__}; "
            "read a file with ecgdiff.read first."
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, got {level!r}.")
    chosen = classifier if isinstance(classifier, Classifier) else loaded(str(classifier))
    if rule not in chosen.thresholds:
        raise ValueError(f"There is no rule {rule!r}; use {' or '.join(chosen.thresholds)}.")
    codes = asked_codes(conditions, chosen)
    columns = [chosen.classes.index(code) for code in codes]
    estimator = StatementEstimator(chosen, rule)
    signals, about = _shown(subject, chosen, allow)
    found = np.concatenate([estimator.predict_proba(signal[None]) for signal in signals])
    return Diagnosis(
        conditions=codes,
        names=tuple(chosen.names.get(code, code) for code in codes),
        probability=found[:, columns],
        thresholds=chosen.thresholds[rule][columns],
        level=level,
        meta={
            "rule": rule,
            "classifier": chosen.name,
            "classifier_sha256": chosen.config.get("sha256", ""),
            **about,
            "warnings": [*about["warnings"], *notes(subject, chosen, rule, codes)],
        },
    )


def _shown(
    subject: Recording | Reconstruction, classifier: Classifier, allow: Iterable[str]
) -> tuple[Iterator[NDArray[np.float32]], dict[str, Any]]:
    """The signals to read, and what there is to say about them."""
    if isinstance(subject, Reconstruction):
        count = len(subject.draws)
        return _drawn(subject, classifier.sampling_rate), {
            "read": f"{count} draw{'s' if count > 1 else ''} of a reconstruction",
            **{key: subject.meta[key] for key in _ORIGIN if key in subject.meta},
            "warnings": list(subject.meta.get("warnings", ())),
        }
    if made := [lead for lead in subject.synthetic if lead in classifier.leads]:
        raise OperatorError(
            f"Leads {', '.join(made)} are synthetic: a model drew them, and one draw, or the "
            "median of several, is no evidence. Give diagnose the reconstruction, every draw of "
            "which is read, or a recording that was measured."
        )
    report = check(subject)
    report.raise_for([allow] if isinstance(allow, str) else allow)
    return iter([_measured(subject, classifier)]), {
        "read": "a recording",
        "warnings": [finding.message for finding in report.findings],
    }


def _drawn(result: Reconstruction, rate: float) -> Iterator[NDArray[np.float32]]:
    """The draws without baseline at the classifier's rate, one by one: hours may be on disk."""
    for draw in result.draws:
        filtered = resample(draw - result.baseline, result.sampling_rate, rate)
        yield clip(filtered)[0].astype(np.float32)


def _measured(recording: Recording, classifier: Classifier) -> NDArray[np.float32]:
    """A recording as the classifier was trained to see it, in rows of the twelve leads."""
    complete = recording.resample(classifier.sampling_rate).complete_limb_leads()
    lacking = [
        lead
        for lead in classifier.leads
        if lead not in complete.leads or not np.isfinite(complete.lead(lead)).all()
    ]
    if lacking:
        raise OperatorError(
            f"The classifier {classifier.name} reads {', '.join(classifier.leads)}; of "
            f"{', '.join(lacking)} not every sample was measured. Reconstruct the recording "
            "first: ecgdiff.diagnose(ecgdiff.reconstruct(recording))."
        )
    rows = np.zeros((len(LEADS_12), complete.n_samples), np.float32)
    for row, lead in enumerate(LEADS_12):
        if lead in classifier.leads:
            rows[row] = complete.lead(lead)
    return clip(rows - baseline(rows, classifier.sampling_rate))[0].astype(np.float32)
