r"""Controls: what linear statistics of the training folds can do without a diffusion prior.

**Ridge** (lead task): each other lead from lead I in a window of +-40 samples, no intercept
(preprocessed records have zero mean), zeros beyond the ends of the record,

.. math:: W = (G + \lambda \tfrac{\operatorname{tr} G}{p} I)^{-1} C,

with G and C the sums of outer products over every sample of folds 1-8 and :math:`\lambda` chosen
on fold 9. The noise that is added to the observation enters G in expectation, as :math:`\sigma^2`
times the number of samples per tap. For the lost half-block ridge is not applicable: there is no
fixed window around a lost sample.

**Gaussian** (both tasks): the posterior of a stationary Gaussian process over the 8 leads whose
covariance is the mean (biased, hence positive definite) sample covariance of folds 1-8 at every
lag. It draws by Matheron's rule: a joint sample of signal and observation is corrected by the
regression of the signal on the observation,

.. math:: x = x_s + K A^T (A K A^T + \sigma^2 I)^{-1} (y - A x_s - \sigma z) .

**Mean** (both tasks): the mean of each lead over folds 1-8, close to zero since the baseline is
removed. Linear interpolation is not applicable: the lost half-block has observed signal on one
side only.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from ecgdiff.evaluation.tasks import Problem
from ecgdiff.random import streams

__all__ = [
    "Controls",
    "Gaussian",
    "Mean",
    "Moments",
    "Ridge",
    "RidgeControl",
    "StationaryCovariance",
    "fit_ridge",
    "windows",
]

Array = NDArray[np.float64]
Index = tuple[NDArray[np.intp], ...]
Batches = Callable[[], Iterable[NDArray[np.float32]]]
HALF_WIDTH = 40
PENALTIES = tuple(10.0**k for k in range(-7, 2))


class Moments:
    """Sums for the regression of all other leads on a window of the first.

    Arguments:
        half_width: The window reaches this many samples to each side.

    Attributes:
        gram: Sum of outer products of the windows, with shape (taps, taps), mV².
        cross: Sum of outer products of windows and targets, with shape (taps, targets), mV².
        power: Sum of the squared targets, with shape (targets,), mV².
        windows: The number of windows in which each tap lies inside the record, with shape
            (taps,).
    """

    def __init__(self, half_width: int = HALF_WIDTH) -> None:
        self.half_width = half_width
        taps = 2 * half_width + 1
        self.gram: Array = np.zeros((taps, taps))
        self.cross: Array = np.zeros((taps, 0))
        self.power: Array = np.zeros(0)
        self.windows: Array = np.zeros(taps)

    def add(self, batch: NDArray[np.floating]) -> None:
        """Adds records of shape (records, leads, time) in mV."""
        offsets = np.abs(np.arange(-self.half_width, self.half_width + 1))
        for record in np.asarray(batch, np.float64):
            x, y = windows(record[0], self.half_width), record[1:].T
            if not self.power.size:
                self.cross = np.zeros((len(self.gram), y.shape[1]))
                self.power = np.zeros(y.shape[1])
            self.gram += x.T @ x
            self.cross += x.T @ y
            self.power += np.square(y).sum(axis=0)
            self.windows += len(x) - offsets

    def noisy_gram(self, noise: float) -> Array:
        """The expected `gram` with white noise of this deviation (mV) on the first lead."""
        return self.gram + np.diag(noise**2 * self.windows)


def windows(lead: NDArray[np.floating], half_width: int = HALF_WIDTH) -> Array:
    """Cuts the window around each sample, zeros beyond the ends: (time,) to (time, taps)."""
    padded = np.pad(np.asarray(lead, np.float64), half_width)
    # A copy: products of the overlapping view itself would not run in BLAS.
    return np.ascontiguousarray(
        np.lib.stride_tricks.sliding_window_view(padded, 2 * half_width + 1)
    )


@dataclass(frozen=True)
class Ridge:
    """A fitted ridge regression.

    Arguments:
        weights: With shape (taps, targets).
        penalty: The chosen lambda, relative to the mean diagonal of the Gram matrix.
        validation_rmse: The root mean square error on the validation fold, mV.
    """

    weights: Array
    penalty: float
    validation_rmse: float

    def predict(self, lead: NDArray[np.floating]) -> Array:
        """Predicts the other leads: (time,) to (targets, time), mV."""
        return (windows(lead, len(self.weights) // 2) @ self.weights).T


def fit_ridge(
    train: Moments, valid: Moments, noise: float, penalties: Sequence[float] = PENALTIES
) -> Ridge:
    """Solves the normal equations for each penalty and keeps the best on the validation moments.

    Arguments:
        train: The moments of the training folds.
        valid: The moments of the validation fold.
        noise: The standard deviation of the noise that observations carry, mV.
        penalties: The values of lambda to try.
    """
    values, vectors = np.linalg.eigh(train.noisy_gram(noise))
    rotated, scale = vectors.T @ train.cross, values.mean()
    gram, best = valid.noisy_gram(noise), None
    count = valid.windows.max() * valid.power.size
    for penalty in penalties:
        weights = vectors @ (rotated / (values + penalty * scale)[:, None])
        error = valid.power.sum() + np.sum(weights * (gram @ weights - 2 * valid.cross))
        if best is None or error < best[0]:
            best = (error, penalty, weights)
    if best is None:
        raise ValueError("fit_ridge needs at least one penalty, got none.")
    return Ridge(best[2], best[1], float(np.sqrt(best[0] / count)))


class StationaryCovariance:
    """Creates the mean sample covariance of records as a stationary process.

    Arguments:
        leads: The number of leads.
        length: The number of samples of a record.
    """

    def __init__(self, leads: int, length: int) -> None:
        self.leads, self.length, self.count = leads, length, 0
        # Twice the length keeps all lags apart; the FFT is fast for a power of two.
        self.size = 1 << (2 * length - 1).bit_length()
        self._sum: NDArray[np.complex128] = np.zeros(
            (self.size // 2 + 1, leads, leads), np.complex128
        )

    def add(self, batch: NDArray[np.floating]) -> None:
        """Adds records of shape (records, leads, time) in mV."""
        f = np.fft.rfft(np.asarray(batch, np.float64), self.size).transpose(2, 0, 1)
        self._sum += f.transpose(0, 2, 1) @ f.conj()
        self.count += len(batch)

    @cached_property
    def spectrum(self) -> NDArray[np.complex128]:
        """Cross-spectrum with shape (frequency, leads, leads), Hermitian and non-negative, mV²."""
        return self._sum / (self.count * self.length)

    @cached_property
    def lags(self) -> Array:
        """Covariance of lead a at t + tau and b at t: (tau modulo size, leads, leads), mV²."""
        return np.fft.irfft(self.spectrum, self.size, axis=0)

    def block(self, rows: Index, columns: Index) -> Array:
        """The covariance between samples given as (lead indices, time indices)."""
        lag = (rows[1][:, None] - columns[1][None, :]) % self.size
        return self.lags[lag, rows[0][:, None], columns[0][None, :]]

    def matvec(self, x: Array) -> Array:
        """Multiplies signals of shape (..., leads, time) by the covariance."""
        f = np.fft.rfft(x, self.size)
        return np.fft.irfft(np.einsum("fab,...bf->...af", self.spectrum, f), self.size)[
            ..., : self.length
        ]

    def sample(self, normal: Array) -> Array:
        """Turns standard normals (..., leads, size) into signals (..., leads, time), mV."""
        f = np.fft.rfft(normal)
        shaped = np.einsum("fab,...bf->...af", self._root, f)
        return np.fft.irfft(shaped, self.size)[..., : self.length]

    @cached_property
    def _root(self) -> NDArray[np.complex128]:
        values, vectors = np.linalg.eigh(self.spectrum)
        scaled = vectors * np.sqrt(np.clip(values, 0, None))[:, None, :]
        return scaled @ vectors.conj().transpose(0, 2, 1)


class Controls:
    """Fits the controls once, when the first of them is asked for an answer.

    Arguments:
        train: Gives the training batches (records, leads, time), preprocessed, mV.
        valid: Gives the validation batches.
        noise: The standard deviation of the noise that observations carry, mV.
    """

    def __init__(self, train: Batches, valid: Batches, noise: float) -> None:
        self._train, self._valid, self.noise = train, valid, noise

    @cached_property
    def _fitted(self) -> tuple[Ridge, StationaryCovariance, Array]:
        train, valid = Moments(), Moments()
        covariance: StationaryCovariance | None = None
        total: Array = np.zeros(0)
        for batch in self._train():
            if covariance is None:
                covariance = StationaryCovariance(*batch.shape[1:])
                total = np.zeros(batch.shape[1])
            train.add(batch)
            covariance.add(batch)
            total += batch.mean(axis=2, dtype=np.float64).sum(axis=0)
        if covariance is None:
            raise ValueError("The controls need training records, got none.")
        for batch in self._valid():
            valid.add(batch)
        return fit_ridge(train, valid, self.noise), covariance, total / covariance.count

    @property
    def ridge(self) -> Ridge:
        """The ridge regression."""
        return self._fitted[0]

    @property
    def covariance(self) -> StationaryCovariance:
        """The stationary covariance."""
        return self._fitted[1]

    @property
    def mean(self) -> Array:
        """The mean of each lead, with shape (leads,), mV."""
        return self._fitted[2]


@dataclass(frozen=True)
class RidgeControl:
    """The ridge regression as a method of the benchmark."""

    controls: Controls
    label: str = "ridge"
    arguments: Mapping[str, object] = field(
        default_factory=lambda: {
            "taps": 2 * HALF_WIDTH + 1,
            "penalties": list(PENALTIES),
            "train": "folds 1-8, lambda on fold 9",
        }
    )
    calls: tuple[int, int] = (0, 0)

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        """Estimates each record: one array (1, leads, time) in mV per problem."""
        ridge = self.controls.ridge
        return [np.concatenate([p.y[:1], ridge.predict(p.y[0])])[None] for p in problems]


@dataclass(frozen=True)
class Mean:
    """The training mean as a method of the benchmark."""

    controls: Controls
    label: str = "mean"
    arguments: Mapping[str, object] = field(default_factory=lambda: {"train": "folds 1-8"})
    calls: tuple[int, int] = (0, 0)

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        """Estimates each record: one array (1, leads, time) in mV per problem."""
        mean = self.controls.mean[:, None]
        return [np.broadcast_to(mean, p.y.shape)[None] for p in problems]


@dataclass(frozen=True)
class Gaussian:
    """The stationary Gaussian posterior as a method of the benchmark.

    Arguments:
        controls: The fitted controls.
        draws: How many draws per record.
        seed: The run's seed.
    """

    controls: Controls
    draws: int
    seed: int
    label: str = "gaussian"
    arguments: Mapping[str, object] = field(
        default_factory=lambda: {"train": "folds 1-8", "covariance": "stationary, all lags"}
    )
    calls: tuple[int, int] = (0, 0)
    # The last factor: many tasks observe the same samples of every record.
    _kept: dict[tuple[bytes, float], Any] = field(default_factory=dict, compare=False, repr=False)

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        """Draws for each record: one array (draws, leads, time) in mV per problem."""
        return [self._draw(p) for p in problems]

    def _draw(self, p: Problem) -> NDArray[np.floating]:
        k = self.controls.covariance
        stream = streams(self.seed, p.name, range(self.draws))
        normal = stream.normal((self.draws, k.leads, k.size)).double().numpy()
        noise = p.noise * stream.normal((self.draws, *p.y.shape)).double().numpy()
        prior = k.sample(normal)
        gap = np.where(p.mask, p.y - prior - noise, 0.0)[:, p.mask]
        weights = np.zeros(prior.shape)
        weights[:, p.mask] = cho_solve(self._factor(p), gap.T).T
        return prior + k.matvec(weights)

    def _factor(self, p: Problem) -> Any:
        """The Cholesky factor of the covariance of what was observed."""
        key = p.mask.tobytes(), p.noise
        if key not in self._kept:
            self._kept.clear()
            index = np.nonzero(p.mask)
            system = self.controls.covariance.block(index, index)
            system[np.diag_indices_from(system)] += p.noise**2
            self._kept[key] = cho_factor(system, lower=True, overwrite_a=True)
        return self._kept[key]
