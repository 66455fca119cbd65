"""A trained classifier with everything that its use needs: units, leads, rate, calibration.

It reads a signal in windows as long as its training crops and gives the probability of each
statement that a human reader of PTB-XL would have made. Research use only: a probability is no
diagnosis.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import expit
from torch import nn

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import CheckpointError
from ecgdiff.models.checkpoint import checkpoint_names, find_checkpoint, load_checkpoint
from ecgdiff.models.crops import window_logits
from ecgdiff.models.xresnet1d import XResNet1d

__all__ = ["AGGREGATES", "Classifier", "classifier_folder", "classifier_names", "load_classifier"]

_EMBEDDED = Path(__file__).parent / "classifiers"
_BATCH = 32
AGGREGATES = ("mean", "max")
"""How the logits of windows become one."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """Creates a classifier of ECGs.

    Arguments:
        net: The network, from (batch, leads, crop) in model units to logits (batch, classes).
        leads: Names and order of its channels.
        classes: The codes of its statements.
        sampling_rate: In Hz.
        crop: Length of a window in samples.
        scale: mV per model unit.
        aggregate: One of :data:`AGGREGATES`.
        temperature: Logits are divided by it.
        thresholds: For each rule ("youden", "f1") a probability per class, chosen on validation
            records, at or above which a statement counts as made.
        names: What the codes say.
        name: What to call it in results.
        config: The rest of its configuration: preprocessing, training, figures, checksum.
    """

    net: nn.Module
    leads: tuple[str, ...]
    classes: tuple[str, ...]
    sampling_rate: float
    crop: int
    scale: float
    aggregate: str = "mean"
    temperature: float = 1.0
    thresholds: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)
    name: str = "unnamed"
    config: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATES:
            raise ValueError(
                f"aggregate is {self.aggregate!r}; it must be one of {', '.join(AGGREGATES)}."
            )
        if any(len(at) != len(self.classes) for at in self.thresholds.values()):
            raise ValueError("Every rule needs one threshold per class.")

    def logits(
        self, signal: NDArray[np.floating], leads: Sequence[str] = LEADS_12
    ) -> NDArray[np.float64]:
        """Reads signals, before the temperature.

        Arguments:
            signal: In mV at `sampling_rate`, without baseline
                (:func:`ecgdiff.ecg.preprocess.baseline`), with shape (signals, leads, time).
            leads: The names of its rows; those that the classifier reads are picked by name.

        Returns:
            An array with shape (signals, classes).

        Raises:
            ValueError: If a lead or a sample is missing, or the signal is shorter than a window.
        """
        if absent := [lead for lead in self.leads if lead not in leads]:
            raise ValueError(
                f"The classifier {self.name} reads {', '.join(self.leads)}; {', '.join(absent)} "
                "is missing."
            )
        if not np.isfinite(signal).all():
            raise ValueError(
                "The signal has samples that were not measured; reconstruct it first."
            )
        rows = [list(leads).index(lead) for lead in self.leads]
        parts = [
            self._aggregated(signal[at : at + _BATCH, rows])
            for at in range(0, len(signal), _BATCH)
        ]
        return np.concatenate(parts) if parts else np.empty((0, len(self.classes)))

    def probabilities(
        self, signal: NDArray[np.floating], leads: Sequence[str] = LEADS_12
    ) -> NDArray[np.float64]:
        """Reads signals; the arguments are those of :meth:`logits`.

        Returns:
            The probability of each statement, with shape (signals, classes).
        """
        return np.asarray(expit(self.logits(signal, leads) / self.temperature))

    @torch.inference_mode()
    def _aggregated(self, signal: NDArray[np.floating]) -> NDArray[np.float64]:
        x = torch.from_numpy(np.ascontiguousarray(signal, np.float32) / np.float32(self.scale))
        logits = window_logits(self.net, x, self.crop).double()
        return (logits.amax(1) if self.aggregate == "max" else logits.mean(1)).numpy()


def classifier_names() -> list[str]:
    """Lists the classifiers that come with the package."""
    return checkpoint_names(_EMBEDDED)


def classifier_folder(name: str | Path) -> Path:
    """Finds the folder of a classifier that comes with the package, or of a path.

    Raises:
        CheckpointError: If there is neither.
    """
    return find_checkpoint(_EMBEDDED, name, "classifier")


def load_classifier(name: str | Path = "default") -> Classifier:
    """Loads a classifier that comes with the package, or one from a checkpoint folder.

    Arguments:
        name: A name of :func:`classifier_names`, or the path of a folder.

    Raises:
        CheckpointError: If there is no such classifier, or its folder is damaged.
    """
    folder = classifier_folder(name)
    config, tensors = load_checkpoint(folder)
    try:
        classes, leads = tuple(config["classes"]), tuple(config["leads"])
        net = XResNet1d(len(leads), len(classes))
        net.load_state_dict(tensors)
        return Classifier(
            net=net.eval().requires_grad_(False),
            leads=leads,
            classes=classes,
            sampling_rate=float(config["sampling_rate_hz"]),
            crop=int(config["crop"]),
            scale=float(config["scale_mv"]),
            aggregate=config["aggregate"],
            temperature=float(config["temperature"]),
            thresholds={k: np.array(v, float) for k, v in config["thresholds"].items()},
            names=config["names"],
            name=str(config["name"]),
            config=config,
        )
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder}: the configuration and the weights do not make a classifier: {error}"
        ) from error
