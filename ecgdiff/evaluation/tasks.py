"""What is lost: two reconstruction tasks, each a rule that hides part of a preprocessed record.

Truth and observation both come from the whole preprocessed record (preprocess, then mask), as in
the published protocol. The observation is truth plus white noise of a stated standard deviation,
drawn from the record's own
stream: a posterior computed for noisy data is calibrated only on noisy data. All draws and all
methods see the same noisy observation.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.random import streams

__all__ = ["TASKS", "BlockTask", "Case", "LeadTask", "Problem", "Task", "problem"]


@dataclass(frozen=True)
class Case:
    """One record to be reconstructed.

    Arguments:
        ecg_id: The number of the record.
        patient_id: The number of its patient.
        truth: The preprocessed signal in mV, with shape (leads, time).
    """

    ecg_id: int
    patient_id: int
    truth: NDArray[np.float32]

    @property
    def name(self) -> str:
        """The name that seeds the record's random streams."""
        return f"ptbxl-{self.ecg_id}"


@dataclass(frozen=True)
class Problem:
    """What a method is given; the truth is not in it.

    Arguments:
        name: The record's name, which seeds the draws.
        y: The noisy observation in mV, zero where nothing is observed, with shape (leads, time).
        mask: True where observed, same shape.
        noise: The standard deviation of the noise in y, mV.
    """

    name: str
    y: NDArray[np.float32]
    mask: NDArray[np.bool_]
    noise: float


class Task(Protocol):
    """A rule that says what is observed and what is scored."""

    @property
    def name(self) -> str:
        """A word for tables and files."""

    @property
    def scored_leads(self) -> tuple[str, ...]:
        """The leads that are scored: unobserved and independent of each other."""

    def masks(self, case: Case, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Makes the observed and the scored mask, each with shape (leads, time)."""

    def describe(self) -> dict[str, object]:
        """Says in words and numbers what the task is."""


def problem(task: Task, case: Case, seed: int, noise: float) -> Problem:
    """Hides part of a record and adds noise to the rest.

    Arguments:
        task: The rule.
        case: The record.
        seed: The run's seed; geometry and noise depend on it and on the record's name only.
        noise: The standard deviation of the noise in mV.
    """
    mask, _ = task.masks(case, seed)
    stream = streams(seed, f"{case.name}/{task.name}/noise", [0])
    added = stream.normal((1, *case.truth.shape))[0].numpy()
    y = np.where(mask, case.truth + np.float32(noise) * added, np.float32(0))
    return Problem(case.name, y.astype(np.float32), mask, noise)


@dataclass(frozen=True)
class LeadTask:
    """Lead I is observed; II and V1-V6 are scored (the other limb leads follow from I and II)."""

    name: str = "leads"
    scored_leads: tuple[str, ...] = LEADS_8[1:]

    def masks(self, case: Case, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Makes the observed and the scored mask, each with shape (leads, time)."""
        mask = np.zeros(case.truth.shape, dtype=np.bool_)
        mask[0] = True
        return mask, ~mask

    def describe(self) -> dict[str, object]:
        """Says in words and numbers what the task is."""
        return {
            "observed": "lead I, whole record",
            "scored": "II and V1-V6, whole record",
            "scored_leads": list(self.scored_leads),
        }


@dataclass(frozen=True)
class BlockTask:
    """A crop of all leads, one half of which is lost.

    The crop lies at a place drawn by the record's own seed inside the prior's window; everything
    outside the crop is unobserved too, so the lost half has observed signal on one side only.

    Arguments:
        crop: The length of the crop in samples, even.
    """

    crop: int = 256
    name: str = "block"
    scored_leads: tuple[str, ...] = LEADS_8

    def masks(self, case: Case, seed: int) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Makes the observed and the scored mask, each with shape (leads, time)."""
        length = case.truth.shape[-1]
        if self.crop % 2 or not 0 < self.crop <= length:
            raise ValueError(
                f"The crop must be even, at most the record's {length} samples, got {self.crop}."
            )
        stream = streams(seed, f"{case.name}/{self.name}", [0])
        start = int(stream.integers(0, length - self.crop + 1)[0])
        half = self.crop // 2
        lost = start + half * int(stream.integers(0, 2)[0])
        scored = np.zeros(case.truth.shape, dtype=np.bool_)
        scored[:, lost : lost + half] = True
        mask = np.zeros_like(scored)
        mask[:, start : start + self.crop] = True
        return mask & ~scored, scored

    def describe(self) -> dict[str, object]:
        """Says in words and numbers what the task is."""
        return {
            "observed": f"one half of a crop of {self.crop} samples, all leads",
            "scored": "the other half, all 8 independent leads",
            "scored_leads": list(self.scored_leads),
        }


TASKS: dict[str, Task] = {"leads": LeadTask(), "block": BlockTask()}
