"""What is lost: reconstruction tasks, each a rule that hides part of a preprocessed record.

Truth and observation both come from the whole preprocessed record (preprocess, then mask), as in
the published protocol. The observation is truth plus white noise of a stated standard deviation,
drawn from the record's own stream: a posterior computed for noisy data is calibrated only on noisy
data. All draws and all methods see the same noisy observation.

Two tasks are those of the published protocol (:data:`PAPER_TASKS`), two are of everyday life:
precordial electrodes that came off, and a lead I recorded while moving.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.ecg.preprocess import baseline
from ecgdiff.evaluation.disturbance import electrode_noise
from ecgdiff.random import streams

__all__ = [
    "PAPER_TASKS",
    "SAMPLING_RATE",
    "TASKS",
    "BlockTask",
    "Case",
    "LeadTask",
    "NoisyTask",
    "PrecordialTask",
    "Problem",
    "Task",
    "problem",
]

SAMPLING_RATE = 100.0

Masks = tuple[NDArray[np.bool_], NDArray[np.bool_]]


@dataclass(frozen=True)
class Case:
    """One record to be reconstructed.

    Arguments:
        ecg_id: The number of the record.
        patient_id: The number of its patient.
        truth: The preprocessed signal in mV, with shape (leads, time).
        statements: The SCP codes that are present, at any likelihood.
    """

    ecg_id: int
    patient_id: int
    truth: NDArray[np.float32]
    statements: frozenset[str] = frozenset()

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
        noise: The root mean square of the noise in y, mV.
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

    def masks(self, case: Case, seed: int) -> Masks:
        """Makes the observed and the scored mask, each with shape (leads, time)."""

    def disturbance(self, case: Case, seed: int) -> NDArray[np.float32]:
        """Makes what disturbs the record beside white noise: mV, with shape (leads, time)."""

    def describe(self) -> dict[str, object]:
        """Says in words and numbers what the task is."""


def problem(task: Task, case: Case, seed: int, noise: float) -> Problem:
    """Hides part of a record and adds noise to the rest.

    Arguments:
        task: The rule.
        case: The record.
        seed: The run's seed; geometry and noise depend on it and on the record's name only.
        noise: The standard deviation of the white noise in mV; methods are told the root mean
            square of all noise, which is larger if the task disturbs the record.
    """
    mask, _ = task.masks(case, seed)
    stream = streams(seed, f"{case.name}/{task.name}/noise", [0])
    added = stream.normal((1, *case.truth.shape))[0].numpy()
    extra = task.disturbance(case, seed)
    y = np.where(mask, case.truth + np.float32(noise) * added + extra, np.float32(0))
    told = math.hypot(noise, float(np.sqrt(np.mean(np.square(extra[mask], dtype=np.float64)))))
    return Problem(case.name, y.astype(np.float32), mask, told)


@dataclass(frozen=True)
class LeadTask:
    """Lead I is observed; II and V1-V6 are scored (the other limb leads follow from I and II)."""

    name: str = "leads"
    scored_leads: tuple[str, ...] = LEADS_8[1:]

    def masks(self, case: Case, seed: int) -> Masks:
        """Makes the observed and the scored mask, each with shape (leads, time)."""
        return _only(case, ("I",))

    def disturbance(self, case: Case, seed: int) -> NDArray[np.float32]:
        """Makes what disturbs the record beside white noise: nothing, with shape (leads, time)."""
        return np.zeros_like(case.truth)

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

    def masks(self, case: Case, seed: int) -> Masks:
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

    def disturbance(self, case: Case, seed: int) -> NDArray[np.float32]:
        """Makes what disturbs the record beside white noise: nothing, with shape (leads, time)."""
        return np.zeros_like(case.truth)

    def describe(self) -> dict[str, object]:
        """Says in words and numbers what the task is."""
        return {
            "observed": f"one half of a crop of {self.crop} samples, all leads",
            "scored": "the other half, all 8 independent leads",
            "scored_leads": list(self.scored_leads),
        }


@dataclass(frozen=True)
class PrecordialTask:
    """The electrodes of V1-V3 came off; all other leads are observed."""

    name: str = "precordial"
    scored_leads: tuple[str, ...] = ("V1", "V2", "V3")

    def masks(self, case: Case, seed: int) -> Masks:
        """Makes the observed and the scored mask, each with shape (leads, time)."""
        return _only(case, [lead for lead in LEADS_8 if lead not in self.scored_leads])

    def disturbance(self, case: Case, seed: int) -> NDArray[np.float32]:
        """Makes what disturbs the record beside white noise: nothing, with shape (leads, time)."""
        return np.zeros_like(case.truth)

    def describe(self) -> dict[str, object]:
        """Says in words and numbers what the task is."""
        return {
            "observed": "I, II (hence all limb leads) and V4-V6, whole record",
            "scored": "V1-V3, whole record",
            "scored_leads": list(self.scored_leads),
        }


@dataclass(frozen=True)
class NoisyTask:
    """Lead I was recorded while the patient moved; scored as :class:`LeadTask`.

    The noise (:func:`ecgdiff.evaluation.disturbance.electrode_noise`) is scaled to `snr_db` below
    the preprocessed lead I and then goes through the high-pass of the preprocessing, which is
    linear: the observation is what preprocessing makes of a noisy record, but for clipping.

    Arguments:
        snr_db: The signal-to-noise ratio before the high-pass, in dB.
    """

    snr_db: float = 12.0
    name: str = "noisy"
    scored_leads: tuple[str, ...] = LEADS_8[1:]

    def masks(self, case: Case, seed: int) -> Masks:
        """Makes the observed and the scored mask, each with shape (leads, time)."""
        return _only(case, ("I",))

    def disturbance(self, case: Case, seed: int) -> NDArray[np.float32]:
        """Makes the filtered noise of lead I: mV, with shape (leads, time)."""
        stream = streams(seed, f"{case.name}/{self.name}/electrode", [0])
        noise = electrode_noise(case.truth[0], SAMPLING_RATE, self.snr_db, stream)
        out = np.zeros_like(case.truth)
        out[0] = noise - baseline(noise, SAMPLING_RATE)
        return out

    def describe(self) -> dict[str, object]:
        """Says in words and numbers what the task is."""
        return {
            "observed": f"lead I, whole record, with baseline wander and motion noise at "
            f"{self.snr_db:g} dB before the high-pass",
            "scored": "II and V1-V6, whole record",
            "scored_leads": list(self.scored_leads),
        }


def _only(case: Case, leads: Sequence[str]) -> Masks:
    """Observes some leads and scores the others, over the whole record."""
    mask = np.zeros(case.truth.shape, dtype=np.bool_)
    mask[[LEADS_8.index(lead) for lead in leads]] = True
    return mask, ~mask


PAPER_TASKS: dict[str, Task] = {"leads": LeadTask(), "block": BlockTask()}
TASKS: dict[str, Task] = {**PAPER_TASKS, "precordial": PrecordialTask(), "noisy": NoisyTask()}
