"""The runner: every method on every task and record, one line of JSON for each, resumable.

A finished line is appended and flushed at once and is never computed again by a run with the same
settings. Settings are compared by a fingerprint over everything that decides the numbers of a
line (task, method and its arguments, model hash, draws, seed, noise, package version); a file
that holds a line of the same task and method with another fingerprint is refused.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecgdiff.diffusion.denoiser import Denoiser
from ecgdiff.errors import DataError, EcgDiffError
from ecgdiff.evaluation.calibration import coverage
from ecgdiff.evaluation.signal import crps, mae, peak_to_peak, rmse
from ecgdiff.evaluation.tasks import Case, Problem, Task, problem
from ecgdiff.operators import Mask, Observation
from ecgdiff.random import Streams, streams
from ecgdiff.samplers.base import Sampler

__all__ = ["LEVELS", "Method", "Prior", "Row", "Rows", "SamplerMethod", "Settings", "run", "score"]

LEVELS = (0.9, 0.5)
Row = dict[str, Any]


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
        noise: The standard deviation of the noise added to observations and told to the methods,
            mV.
        version: The version of the package.
    """

    draws: int
    seed: int
    noise: float
    version: str

    def fingerprint(self, task: Task, method: Method) -> str:
        """Hashes everything that decides a row of this task and method."""
        facts = {
            "settings": asdict(self),
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
        if len({p.noise for p in problems}) != 1:
            raise ValueError("The problems of a batch must have one noise level.")
        y = self._batch([p.y for p in problems]) / self.prior.scale
        mask = self._batch([p.mask for p in problems]).bool()
        observation = Observation(y, Mask(mask), sigma=problems[0].noise / self.prior.scale)
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

    def _streams(self, problems: Sequence[Problem]) -> Streams:
        first, *others = (streams(self.seed, p.name, range(self.draws)) for p in problems)
        for other in others:
            first.generators.extend(other.generators)
        return first


class Rows:
    """Opens the file of finished rows, creating it if it does not exist.

    A last line cut short by a kill is dropped; its record is computed again.

    Arguments:
        path: The JSONL file.

    Raises:
        DataError: If another line cannot be read.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[Row] = []
        if self.path.exists():
            self._load()

    def _load(self) -> None:
        raw = self.path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), 1):
            try:
                self.rows.append(json.loads(line))
            except ValueError as error:
                raise DataError(
                    f"{self.path}, line {number}: not JSON ({error}). Delete the line to compute "
                    "it again."
                ) from error
        if len(whole) < len(raw):
            os.truncate(self.path, len(whole))

    def append(self, row: Row) -> None:
        """Adds one row and hands it to the operating system, so that a kill cannot lose it."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
        self.rows.append(row)

    def of(self, task: Task, method: Method, settings: Settings) -> dict[int, Row]:
        """Finds the rows of a task and method by record number.

        Raises:
            DataError: If some were made with other settings.
        """
        now = settings.fingerprint(task, method)
        found = [r for r in self.rows if (r["task"], r["method"]) == (task.name, method.label)]
        other = next((r["fingerprint"] for r in found if r["fingerprint"] != now), None)
        if other is not None:
            raise DataError(
                f"{self.path} holds rows of task {task.name}, method {method.label} made with "
                f"other settings (fingerprint {other}, now {now}): another model, seed, number of "
                "draws, noise, sampler argument or package version. Choose another --out, or "
                "delete the file."
            )
        return {r["ecg_id"]: r for r in found}


def run(
    tasks: Sequence[Task],
    methods: Mapping[str, Sequence[Method]],
    cases: Sequence[Case],
    rows: Rows,
    settings: Settings,
    *,
    batch: int = 1,
    device: str = "cpu",
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
    """
    plan = [(t, m, rows.of(t, m, settings)) for t in tasks for m in methods[t.name]]
    for task, method, done in plan:
        fingerprint = settings.fingerprint(task, method)
        todo = [case for case in cases if case.ecg_id not in done]
        for start in range(0, len(todo), batch):
            part = todo[start : start + batch]
            problems = [problem(task, c, settings.seed, settings.noise) for c in part]
            begin = time.perf_counter()
            draws = method(problems)
            seconds = (time.perf_counter() - begin) / len(part)
            for case, x in zip(part, draws, strict=True):
                row: Row = {
                    "task": task.name,
                    "method": method.label,
                    "ecg_id": case.ecg_id,
                    "patient_id": case.patient_id,
                    "fingerprint": fingerprint,
                    "seconds": float(f"{seconds:.4g}"),
                    "device": device,
                    "scores": score(x, case.truth, task.masks(case, settings.seed)[1]),
                }
                rows.append(row)
                yield row


def score(
    draws: NDArray[np.floating], truth: NDArray[np.floating], scored: NDArray[np.bool_]
) -> dict[str, Any]:
    """Scores one record.

    Arguments:
        draws: With shape (draws, leads, time), mV; one draw is a point estimate.
        truth: With shape (leads, time), mV.
        scored: True where scored, same shape; the same number of samples in each lead that is
            scored at all.

    Returns:
        Lists with one number per scored lead, or one row of them per draw, in mV and mV²; spread
        and coverage only for two draws or more. `rmse_draw` and `rmse_mean` are single numbers
        over all scored samples.
    """
    if not np.isfinite(draws).all():
        raise EcgDiffError("A reconstruction holds values that are not finite; nothing to score.")
    leads = np.flatnonzero(scored.any(axis=1))
    y = np.stack([truth[k, scored[k]] for k in leads]).astype(np.float64)
    x = np.stack([draws[:, k, scored[k]] for k in leads], axis=1).astype(np.float64)
    mean = x.mean(axis=0)
    out: dict[str, Any] = {
        "mae_draw": mae(x, y).mean(axis=0),
        "mae_mean": mae(mean, y),
        "mae_median": mae(np.median(x, axis=0), y),
        "rmse_draw_lead": rmse(x, y).mean(axis=0),
        "mse_mean": np.square(rmse(mean, y)),
        "crps": crps(x, y).mean(axis=-1),
        "amplitude_true": peak_to_peak(y),
        "amplitude_draws": peak_to_peak(x),
        "amplitude_mean": peak_to_peak(mean),
        "rmse_draw": rmse(x.reshape(len(x), -1), y.reshape(-1)).mean(),
        "rmse_mean": rmse(mean.reshape(-1), y.reshape(-1)),
    }
    if len(x) > 1:
        out["variance"] = x.var(axis=0, ddof=1).mean(axis=-1)
        for level in LEVELS:
            out[f"coverage_{100 * level:.0f}"] = coverage(x, y, level).mean(axis=-1)
    return {name: _rounded(np.asarray(value)) for name, value in out.items()}


def _rounded(values: NDArray[np.floating]) -> Any:
    """Six significant digits as plain numbers, so that a row stays readable."""
    return np.vectorize(lambda v: float(f"{v:.6g}"), otypes=[float])(values).tolist()
