"""From an incomplete ECG to calibrated samples of the complete 12-lead ECG. Research use only.

    recording = ecgdiff.read("watch.csv")
    result = ecgdiff.reconstruct(recording, draws=10, seed=0)
    ecgdiff.diagnose(result)
    ecgdiff.plot.ecg(result).show()

Names are loaded when they are first used, so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecgdiff import plot
    from ecgdiff.classifier import Classifier, load_classifier
    from ecgdiff.diagnosis import Diagnosis, diagnose
    from ecgdiff.ecg.io import read, write
    from ecgdiff.ecg.recording import Recording
    from ecgdiff.pipeline import reconstruct
    from ecgdiff.prior import Prior, load_prior
    from ecgdiff.reconstruction import Reconstruction

__version__ = "0.1.0"

__all__ = [
    "Classifier",
    "Diagnosis",
    "Prior",
    "Reconstruction",
    "Recording",
    "__version__",
    "diagnose",
    "load_classifier",
    "load_prior",
    "plot",
    "read",
    "reconstruct",
    "write",
]

_HOMES = {
    "Classifier": "ecgdiff.classifier",
    "Diagnosis": "ecgdiff.diagnosis",
    "Prior": "ecgdiff.prior",
    "Reconstruction": "ecgdiff.reconstruction",
    "Recording": "ecgdiff.ecg.recording",
    "diagnose": "ecgdiff.diagnosis",
    "load_classifier": "ecgdiff.classifier",
    "load_prior": "ecgdiff.prior",
    "read": "ecgdiff.ecg.io",
    "reconstruct": "ecgdiff.pipeline",
    "write": "ecgdiff.ecg.io",
}


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module("ecgdiff.plot")
    if name not in _HOMES:
        raise AttributeError(f"module 'ecgdiff' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
