"""What the quality page is made of: draws, losses, and one pass over the training records."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from ecgdiff.diffusion.quality import record_losses, total_variance, unconditional_draws
from ecgdiff.diffusion.sampling import Progress
from ecgdiff.ecg.leads import LEADS_8
from ecgdiff.errors import CheckpointError, DataError
from ecgdiff.evaluation.nearest import Found, Search
from ecgdiff.evaluation.quality_records import TRAIN_FOLDS, VALIDATION_FOLD, FoldRecords, halves
from ecgdiff.prior import Prior

__all__ = ["FEWEST", "Clock", "Measured", "RealRecords", "Settings", "bar", "measure"]

FEWEST = 16
RATE, SAMPLES = 100.0, 1000

Floats = NDArray[np.float32]
Array = NDArray[np.float64]
Pairs = Sequence[tuple[NDArray[np.intp], NDArray[np.intp]]]


@dataclass(frozen=True)
class Settings:
    """What is computed.

    Arguments:
        draws: Unconditional draws; the limits of the acceptance checks are meant for 512.
        steps: Denoiser calls per draw.
        records: Records of fold 9, taken at random; all if None.
        seed: Of draws, noise and random choices.

    Raises:
        DataError: If there are too few draws or records to have distributions, or the steps are
            not in 2..1000.
    """

    draws: int = 512
    steps: int = 32
    records: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.steps <= 1000:
            raise DataError(f"--steps is {self.steps}; a draw takes 2 to 1000 calls.")
        for name, value in (("draws", self.draws), ("records", self.records)):
            if value is not None and value < FEWEST:
                raise DataError(
                    f"--{name} is {value}; fewer than {FEWEST} have no distribution to speak of. "
                    "The acceptance checks are meant for 512 draws and all of fold 9."
                )


class RealRecords(Protocol):
    """Where real records come from; :class:`ecgdiff.evaluation.quality_records.Folds` is one."""

    def read(self, fold: int) -> FoldRecords:
        """Reads one fold."""

    def training(self) -> Iterator[FoldRecords]:
        """Reads the training folds one after the other."""


@dataclass(frozen=True)
class Measured:
    """Draws, records and what the denoiser makes of them.

    Arguments:
        drawn: The draws in mV, with shape (draws, leads, time).
        real: The records of fold 9.
        train: As many training records.
        pairs: Halves of fold 9, see :func:`ecgdiff.evaluation.quality_records.halves`.
        variance: The total-variance check on fold 9.
        losses: On fold 9, with shape (levels, records).
        train_losses: On the training records.
        others: On fold 9, of the prior that is compared, if any.
        nearest: The nearest training records of all draws, then of as many records of fold 9.
        searched: How many training records there are.
    """

    drawn: Floats
    real: FoldRecords
    train: FoldRecords
    pairs: Pairs
    variance: list[dict[str, float]]
    losses: Array
    train_losses: Array
    others: Array | None
    nearest: Found
    searched: int


class Clock:
    """Takes the time of each part, in seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        """Ends a part."""
        now = time.perf_counter()
        self.seconds[name] = round(now - self._last, 1)
        self._last = now


@contextmanager
def bar(text: str) -> Iterator[Progress]:
    """Shows a progress bar while something calls with what is done and how much it is in all."""
    with tqdm(desc=text) as shown:

        def advance(done: int, total: int) -> None:
            shown.total = total
            shown.update(done - shown.n)

        yield advance


def measure(
    prior: Prior,
    folds: RealRecords,
    settings: Settings,
    clock: Clock,
    compare: Prior | None = None,
) -> Measured:
    """Draws, denoises and searches.

    Arguments:
        prior: The prior, of 10 s at 100 Hz, with at least the leads of `LEADS_8`.
        folds: The real records, with the prior's leads.
        settings: How many of everything.
        clock: Takes the time of the parts.
        compare: A prior to compare losses with, if any.

    Raises:
        CheckpointError: If the prior models other windows, or the two priors other units.
    """
    _check(prior, compare)
    real = folds.read(VALIDATION_FOLD)
    if settings.records is not None:
        real = real.pick(_choice(len(real.signal), settings.records, settings.seed))
    clock.lap("reading fold 9")
    drawn = _draw(prior, settings)
    clock.lap("drawing")
    train, found, searched = _search(folds, drawn, real, settings.seed)
    clock.lap("reading and searching the training folds")
    x0 = _units(prior, real.signal)
    with bar("total variance") as advance:
        variance = total_variance(prior.denoiser, x0, seed=settings.seed, progress=advance)
    losses = _losses(prior, x0, settings.seed, "loss on fold 9")
    clock.lap("denoising fold 9")
    others = _losses(compare, x0, settings.seed, f"loss of {compare.name}") if compare else None
    x0 = _units(prior, train.signal)
    train_losses = _losses(prior, x0, settings.seed, "loss on training records")
    clock.lap("denoising training records" + (", and fold 9 by the other prior" * bool(compare)))
    pairs = halves(real.patients, len(drawn), seed=settings.seed)
    return Measured(
        drawn, real, train, pairs, variance, losses, train_losses, others, found, searched
    )


def _check(prior: Prior, compare: Prior | None) -> None:
    if (prior.sampling_rate, prior.n_samples) != (RATE, SAMPLES):
        raise CheckpointError(
            f"The prior {prior.name} models {prior.n_samples} samples at {prior.sampling_rate:g} "
            f"Hz; the page compares with whole records of {SAMPLES} at {RATE:g} Hz."
        )
    if absent := [lead for lead in LEADS_8 if lead not in prior.leads]:
        raise CheckpointError(f"The prior {prior.name} lacks the leads {', '.join(absent)}.")
    if compare is not None:
        mine, other = ((p.leads, p.n_samples, p.sampling_rate, p.scale) for p in (prior, compare))
        if mine != other:
            raise CheckpointError(
                f"Losses of {compare.name} cannot be compared with those of {prior.name}: leads, "
                f"samples, rate and scale are {other}, not {mine}."
            )


def _choice(of: int, count: int, seed: int) -> NDArray[np.intp]:
    chosen = np.random.default_rng(seed).choice(of, min(count, of), replace=False)
    return np.sort(chosen)


def _units(prior: Prior, signal: Floats) -> Tensor:
    return torch.from_numpy(signal) / prior.scale


def _draw(prior: Prior, settings: Settings) -> Floats:
    shape = (len(prior.leads), prior.n_samples)
    with bar("draws") as advance:
        x = unconditional_draws(
            prior.denoiser, shape, settings.draws, settings.steps, settings.seed, advance
        )
    return (x * prior.scale).numpy()


def _losses(prior: Prior, x0: Tensor, seed: int, text: str) -> Array:
    with bar(text) as advance:
        return record_losses(prior.denoiser, x0, seed=seed, progress=advance)


def _search(
    folds: RealRecords, drawn: Floats, real: FoldRecords, seed: int
) -> tuple[FoldRecords, Found, int]:
    """Some training records, as many as of fold 9, and the nearest ones of draws and fold 9."""
    beside = real.signal[_choice(len(real.signal), len(drawn), seed)]
    search = Search(np.concatenate([drawn, beside]))
    share, searched = -(-len(real.signal) // len(TRAIN_FOLDS)), 0
    kept: list[FoldRecords] = []
    for number, fold in enumerate(folds.training(), start=1):
        kept.append(fold.pick(_choice(len(fold.signal), share, seed + number)))
        with bar(f"search in training fold {number} of {len(TRAIN_FOLDS)}") as advance:
            search.add(fold.signal, fold.numbers, advance)
        searched += len(fold.signal)
    parts = zip(*((k.signal, k.numbers, k.patients) for k in kept), strict=True)
    train = FoldRecords(*map(np.concatenate, parts))
    # In random order: some uses take only the first ones, which must not all be of one fold.
    order = np.random.default_rng(seed).permutation(len(train.signal))
    train = train.pick(order[: len(real.signal)])
    return train, search.found(), searched
