"""The runner: every method on every task and record, one row for each, resumable.

A finished row is kept at once (:mod:`ecgdiff.evaluation.journal`) and is never computed again by a
run with the same settings. Settings are compared by a fingerprint over everything that decides the
numbers of a row (task, method and its arguments, model hash, classifier, morphology, spectra,
draws, seed, noise, package version); a file that holds a row of the same task and method with
another fingerprint is refused. A record that fails gives a row too, with the reason; where only a
part fails (what a classifier reads, the shape, the spectra), the row keeps all the rest.

`seconds` of a row are those of the method alone, `job_seconds` those of the whole record, with
what is measured on its draws.
"""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import chain
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.evaluation.journal import Row, Rows, incomplete
from ecgdiff.evaluation.parallel import in_processes
from ecgdiff.evaluation.scoring import LEVELS, Reader, has_spectra, read, score, spectra
from ecgdiff.evaluation.shape import has_rhythm_lead, shape
from ecgdiff.evaluation.tasks import Case, Problem, Task, problem
from ecgdiff.operators import Mask, Observation
from ecgdiff.random import Streams, streams
from ecgdiff.samplers.base import Sampler

__all__ = [
    "LEVELS",
    "Method",
    "Prior",
    "Row",
    "Rows",
    "SamplerMethod",
    "Settings",
    "finished",
    "run",
    "score",
]


class Prior(Protocol):
    """What the benchmark needs of a prior."""

    @property
    def denoiser(self) -> Denoiser:
        """The denoiser, in model units."""

    @property
    def scale(self) -> float:
        """Millivolts per model unit."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def config(self) -> Mapping[str, Any]:
        """Where it comes from; `sha256` is that of its weights."""


class Method(Protocol):
    """Anything that reconstructs problems."""

    @property
    def label(self) -> str:
        """Its name in tables."""

    @property
    def arguments(self) -> Mapping[str, object]:
        """What decides its output beside the common settings; goes into the fingerprint."""

    @property
    def calls(self) -> tuple[int, int]:
        """Network evaluations and vector-Jacobian products per draw."""

    def __call__(self, problems: Sequence[Problem]) -> Sequence[NDArray[np.floating]]:
        """Gives one array (draws, leads, time) in mV per problem; one draw is a point estimate."""


@dataclass(frozen=True)
class Settings:
    """What all methods of a run share.

    Arguments:
        draws: Draws per record.
        seed: The run's seed.
        noise: The standard deviation of the white noise added to observations and told to the
            methods, mV.
        version: The version of the package.
        reader: What identifies the classifier that reads the draws, if one does.
        morphology: True if the shape of truth and draws is measured, too, where lead I is observed
            (:mod:`ecgdiff.evaluation.shape`); else None.
        spectra: True if the spectra of truth and draws are measured, too, where whole leads are
            scored (:func:`ecgdiff.evaluation.scoring.spectra`); else None.
    """

    draws: int
    seed: int
    noise: float
    version: str
    reader: str | None = None
    morphology: bool | None = None
    spectra: bool | None = None

    def fingerprint(self, task: Task, method: Method) -> str:
        """Hashes everything that decides a row of this task and method."""
        facts = {
            "settings": {k: v for k, v in asdict(self).items() if v is not None},
            "task": [task.name, task.describe()],
            "method": [method.label, dict(method.arguments)],
        }
        text = json.dumps(facts, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class SamplerMethod:
    """A posterior sampler with a diffusion prior.

    Arguments:
        label: Its name in tables.
        sampler: The sampler.
        prior: The prior.
        draws: Draws per record.
        seed: The run's seed.
        arguments: The sampler's arguments and the model's hash, for the fingerprint.
        device: Where to compute.
        dtype: In which precision.
    """

    label: str
    sampler: Sampler
    prior: Prior
    draws: int
    seed: int
    arguments: Mapping[str, object]
    device: str = "cpu"
    dtype: torch.dtype = torch.float32

    @property
    def calls(self) -> tuple[int, int]:
        """Network evaluations and vector-Jacobian products per draw."""
        nfe = self.sampler.nfe()
        return nfe.forward, nfe.vjp

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        """Draws for all problems in one batch: an array (draws, leads, time) in mV for each."""
        y = self._batch([p.y for p in problems]) / self.prior.scale
        mask = self._batch([p.mask for p in problems]).bool()
        observation = Observation(y, Mask(mask), sigma=self._sigma(problems))
        x = self.sampler(
            self.prior.denoiser,
            observation,
            (y.shape[0], y.shape[1], y.shape[2]),
            generator=self._streams(problems),
        )
        out = x.cpu().numpy() * self.prior.scale
        return list(out.reshape(len(problems), self.draws, *out.shape[1:]))

    def _batch(self, arrays: Sequence[NDArray[Any]]) -> Tensor:
        stacked = torch.from_numpy(np.stack(arrays)).to(self.device, self.dtype)
        return stacked.repeat_interleave(self.draws, dim=0)

    def _sigma(self, problems: Sequence[Problem]) -> float | Tensor:
        """The noise in model units: one number, or (items, 1, 1) where records differ."""
        levels = [p.noise / self.prior.scale for p in problems]
        if len(set(levels)) == 1:
            return levels[0]
        each = torch.tensor(levels, dtype=self.dtype, device=self.device)
        return each.repeat_interleave(self.draws)[:, None, None]

    def _streams(self, problems: Sequence[Problem]) -> Streams:
        first, *others = (streams(self.seed, p.name, range(self.draws)) for p in problems)
        for other in others:
            first.generators.extend(other.generators)
        return first


def finished(
    rows: Rows, task: Task, method: Method, settings: Settings, *, retry_failed: bool = False
) -> dict[int, Row]:
    """Finds the rows that need not be computed, by record number.

    Arguments:
        rows: The file of finished rows.
        task: The task.
        method: The method.
        settings: What all methods share.
        retry_failed: Whether rows that failed, or a part of which did, are to be computed again.

    Raises:
        DataError: If some were made with other settings.
    """
    found = rows.of(task, method, settings)
    return {i: row for i, row in found.items() if not (retry_failed and incomplete(row))}


def run(
    tasks: Sequence[Task],
    methods: Mapping[str, Sequence[Method]],
    cases: Sequence[Case],
    rows: Rows,
    settings: Settings,
    *,
    batch: int = 1,
    device: str = "cpu",
    reader: Reader | None = None,
    workers: int = 1,
    keep_errors: bool = False,
    retry_failed: bool = False,
) -> Iterator[Row]:
    """Computes the rows that are missing and yields each once it is saved.

    Arguments:
        tasks: What to hide.
        methods: The methods of each task, by the task's name.
        cases: The records.
        rows: The file of finished rows.
        settings: What all methods share.
        batch: How many records a method is given at once.
        device: A word on the machine, kept beside the seconds.
        reader: A classifier that reads every draw; `settings.reader` must name it.
        workers: How many processes compute; the methods are copied to them.
        keep_errors: Whether a record that fails becomes a row with its `error`, and one of which a
            part fails a row with `failed_parts`; otherwise the exception is raised.
        retry_failed: Whether to compute rows again that failed, or a part of which did.
    """
    if (reader is None) != (settings.reader is None):
        raise ValueError("Give a reader and its name in the settings, or neither.")
    pairs = [(task, method) for task in tasks for method in methods[task.name]]
    jobs = []
    for number, (task, method) in enumerate(pairs):
        done = finished(rows, task, method, settings, retry_failed=retry_failed)
        todo = [case for case in cases if case.ecg_id not in done]
        jobs += [(number, todo[start : start + batch]) for start in range(0, len(todo), batch)]
    work = _Work(pairs, settings, device, reader, keep_errors)
    made = map(work, jobs) if workers == 1 else in_processes(work, jobs, workers)
    for row in chain.from_iterable(made):
        rows.append(row)
        yield row


@dataclass(frozen=True)
class _Work:
    """Computes the rows of some records."""

    pairs: Sequence[tuple[Task, Method]]
    settings: Settings
    device: str
    reader: Reader | None
    keep_errors: bool

    def __call__(self, job: tuple[int, Sequence[Case]]) -> list[Row]:
        number, cases = job
        task, method = self.pairs[number]
        begin = time.perf_counter()
        try:
            rows = self._rows(task, method, cases)
            each = (time.perf_counter() - begin) / len(cases)
            return [row | {"job_seconds": _seconds(each)} for row in rows]
        except Exception as error:
            if not self.keep_errors:
                raise
            if len(cases) > 1:  # the others of its batch need not suffer
                return [row for case in cases for row in self((number, [case]))]
            seconds = time.perf_counter() - begin
            return [{**self._head(task, method, cases[0], seconds), "error": _reason(error)}]

    def _rows(self, task: Task, method: Method, cases: Sequence[Case]) -> list[Row]:
        seed, noise = self.settings.seed, self.settings.noise
        problems = [problem(task, case, seed, noise) for case in cases]
        begin = time.perf_counter()
        draws = method(problems)
        seconds = (time.perf_counter() - begin) / len(cases)
        out = []
        for case, hidden, x in zip(cases, problems, draws, strict=True):
            _, scored = task.masks(case, seed)
            row = self._head(task, method, case, seconds)
            row["scores"] = score(x, case.truth, scored)
            out.append(row | self._measured(self._parts(x, case, hidden, scored)))
        return out

    def _parts(
        self,
        x: NDArray[np.floating],
        case: Case,
        hidden: Problem,
        scored: NDArray[np.bool_],
    ) -> dict[str, Callable[[], Row]]:
        """What is measured on a record beside its scores, by the name of the entry."""
        parts: dict[str, Callable[[], Row]] = {}
        if self.reader is not None:
            parts["probabilities"] = partial(read, self.reader, x, hidden, scored)
        if self.settings.morphology and has_rhythm_lead(hidden):
            parts["shape"] = partial(shape, x, case.truth, hidden)
        if self.settings.spectra and has_spectra(scored):
            parts["spectra"] = partial(spectra, x, case.truth, scored)
        return parts

    def _measured(self, parts: Mapping[str, Callable[[], Row]]) -> Row:
        """Measures each; one that fails costs neither the scores nor the others."""
        out: Row = {}
        for name, part in parts.items():
            try:
                out[name] = part()
            except Exception as error:
                if not self.keep_errors:
                    raise
                out.setdefault("failed_parts", {})[name] = _reason(error)
        return out

    def _head(self, task: Task, method: Method, case: Case, seconds: float) -> Row:
        return {
            "task": task.name,
            "method": method.label,
            "ecg_id": case.ecg_id,
            "patient_id": case.patient_id,
            "fingerprint": self.settings.fingerprint(task, method),
            "seconds": _seconds(seconds),
            "device": self.device,
            "calls": list(method.calls),
        }


def _seconds(value: float) -> float:
    return float(f"{value:.4g}")


def _reason(error: Exception) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}
