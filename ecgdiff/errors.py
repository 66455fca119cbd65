"""Exceptions that ecgdiff raises on purpose: one base, one class per thing that can be wrong."""

__all__ = [
    "CheckpointError",
    "DataError",
    "EcgDiffError",
    "OperatorError",
    "ReadError",
    "SignalQualityError",
]


class EcgDiffError(Exception):
    """Base class: catch it to catch everything ecgdiff refuses."""


class ReadError(EcgDiffError):
    """A file is no readable ECG; the message names the file, what was found and what to do."""


class DataError(EcgDiffError):
    """A data set on disk is incomplete or differs from its manifest."""


class OperatorError(EcgDiffError):
    """An observation or operator cannot serve the method it was given to."""


class CheckpointError(EcgDiffError):
    """A model folder is missing, damaged or of another version."""


class SignalQualityError(EcgDiffError):
    """A recording failed the quality gate.

    Attributes:
        report: The :class:`ecgdiff.ecg.quality.QualityReport` that holds the numbers.
    """

    def __init__(self, message: str, report: object = None) -> None:
        super().__init__(message)
        self.report = report
