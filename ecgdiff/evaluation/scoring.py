"""What a row holds of one reconstructed record: errors, ranks, spectra, what a classifier reads.

The entry `spectra` of a row, for tasks that score whole leads:

==============================  ============================================  ===================
key                             quantity                                      shape
==============================  ============================================  ===================
`first_hz`, `step_hz`           the first frequency and the distance of two   numbers
`true_uv2_hz`, `drawn_uv2_hz`   one-sided densities of truth and draws, the   (scored leads,
                                latter averaged over draws, in µV²/Hz         frequencies)
==============================  ============================================  ===================
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.ecg.leads import derive_12
from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.calibration import coverage, ranks
from ecgdiff.evaluation.signal import correlation, crps, mae, peak_to_peak, rmse
from ecgdiff.evaluation.spectra import RANGE, SEGMENT, power_spectrum
from ecgdiff.evaluation.tasks import SAMPLING_RATE, Problem

__all__ = [
    "LEVELS",
    "Reader",
    "densities",
    "has_spectra",
    "rank_counts",
    "read",
    "score",
    "spectra",
]

Array = NDArray[np.float64]

LEVELS = (0.9, 0.8, 0.5)
LIMIT = 100.0  # mV; recordings are clipped at 5, so what lies beyond is no reconstruction


class Reader(Protocol):
    """Reads ECGs: :class:`ecgdiff.classifier.Classifier` is one."""

    @property
    def classes(self) -> Sequence[str]:
        """The SCP codes it knows."""

    def probabilities(self, signal: NDArray[np.floating], /) -> NDArray[np.floating]:
        """Gives probabilities (n, classes) of ECGs (n, 12, time) in mV at 100 Hz."""


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
        Lists with one number per scored lead, or one row of them per draw, in mV and mV²; spread,
        coverage and ranks (m + 1 counts per lead; whole numbers, unless the truth equals a draw
        somewhere) only for m >= 2 draws. `rmse_draw` and
        `rmse_mean` are single numbers over all scored samples.

    Raises:
        EcgDiffError: If a draw has diverged: it is not finite, or beyond 100 mV anywhere.
    """
    if not np.isfinite(draws).all():
        raise EcgDiffError("A reconstruction holds values that are not finite; nothing to score.")
    if (largest := float(np.abs(draws).max())) > LIMIT:
        raise EcgDiffError(
            f"A reconstruction reaches {largest:.2g} mV, which no ECG does (limit {LIMIT:g} mV): "
            "the method diverged. Give it more steps or smaller ones."
        )
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
        "pearson_draw": correlation(x, y).mean(axis=0),
        "pearson_mean": correlation(mean, y),
        "variance_true": y.var(axis=-1),
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
    rounded = {name: _rounded(np.asarray(value)) for name, value in out.items()}
    return rounded | ({"ranks": _plain_counts(rank_counts(x, y))} if len(x) > 1 else {})


def _plain_counts(counts: Array) -> Any:
    whole = np.rint(counts)
    return (whole.astype(int) if np.array_equal(whole, counts) else counts.round(3)).tolist()


def rank_counts(draws: NDArray[np.floating], truth: NDArray[np.floating]) -> Array:
    """Counts how often the truth has each rank among the draws.

    Arguments:
        draws: The m draws, with shape (m, leads, time).
        truth: The true signal, with shape (leads, time).

    Returns:
        For each lead the number of samples with 0, 1, ... m draws below the truth, with shape
        (leads, m + 1); a sample that equals t draws counts as 1 / (t + 1) for each rank that it
        may have. Equal numbers are expected of calibrated draws.
    """
    first, ties = ranks(draws, truth)
    among = ((first <= k) & (k <= first + ties) for k in range(len(draws) + 1))
    return np.stack([(here / (ties + 1)).sum(axis=-1) for here in among], axis=-1)


def read(
    reader: Reader, draws: NDArray[np.floating], problem: Problem, scored: NDArray[np.bool_]
) -> dict[str, Any]:
    """Lets a classifier read each draw, with what was observed put back as it was observed.

    It reads the shortest stretch that holds all that is observed or scored, that is, the whole
    record or the crop of the block task, on 12 leads.

    Arguments:
        reader: The classifier.
        draws: With shape (draws, 8, time), mV.
        problem: What was observed.
        scored: True where scored, with shape (8, time).

    Returns:
        `draws`: the probabilities of `CONDITIONS` in each draw; `mean`: those of all classes,
        averaged over draws.

    Raises:
        EcgDiffError: If a probability is not finite.
    """
    whole = np.where(problem.mask, problem.y, draws)
    at = np.flatnonzero((problem.mask | scored).any(axis=0))
    found = np.asarray(reader.probabilities(derive_12(whole[..., at[0] : at[-1] + 1])))
    if not np.isfinite(found).all():
        raise EcgDiffError(
            "The classifier gives probabilities that are not finite. Check its weights, or use "
            "another one."
        )
    by_class = dict(zip(reader.classes, found.T, strict=True))
    return {
        "draws": {code: _rounded(by_class[code]) for code in CONDITIONS if code in by_class},
        "mean": {code: _rounded(values.mean()) for code, values in by_class.items()},
    }


def has_spectra(scored: NDArray[np.bool_]) -> bool:
    """Whether leads are scored as a whole and are long enough to have a spectrum.

    Arguments:
        scored: True where scored, with shape (leads, time).
    """
    leads = scored[scored.any(axis=1)]
    return leads.size > 0 and bool(leads.all()) and scored.shape[1] >= SEGMENT * SAMPLING_RATE


def spectra(
    draws: NDArray[np.floating], truth: NDArray[np.floating], scored: NDArray[np.bool_]
) -> dict[str, Any]:
    """Estimates the power spectral densities of one record's scored leads.

    Arguments:
        draws: With shape (draws, leads, time), mV; one draw is a point estimate.
        truth: With shape (leads, time), mV.
        scored: True where scored, same shape.

    Returns:
        The entry of the table above, from 0.5 to 40 Hz, in four significant digits.

    Raises:
        ValueError: If there are no whole scored leads, or shorter ones than a segment.
    """
    if not has_spectra(scored):
        raise ValueError(
            f"Spectra are those of whole leads of at least {SEGMENT} s; these are scored in part, "
            "or shorter. Measure only tasks that score whole leads."
        )
    leads = scored.any(axis=1)
    both = np.concatenate([truth[None, leads], draws[:, leads]])
    frequencies, density = power_spectrum(both, SAMPLING_RATE)
    kept = (frequencies >= RANGE[0]) & (frequencies < RANGE[1])
    density = 1e6 * density[..., kept]  # without exponents a number is half as long in a row
    return {
        "first_hz": float(frequencies[kept][0]),
        "step_hz": float(frequencies[1] - frequencies[0]),
        "true_uv2_hz": _rounded(density[0], 4),
        "drawn_uv2_hz": _rounded(density[1:].mean(axis=0), 4),
    }


def densities(entries: Sequence[Mapping[str, Any]]) -> tuple[Array, Array, Array]:
    """Stacks the spectra of many records.

    Arguments:
        entries: The entries of :func:`spectra` for one task.

    Returns:
        The frequencies in Hz, shape (frequencies,), and the densities of draws and truth in
        mV²/Hz, each with shape (records, leads, frequencies).
    """
    drawn, true = (
        1e-6 * np.array([entry[key] for entry in entries], dtype=np.float64)
        for key in ("drawn_uv2_hz", "true_uv2_hz")
    )
    first, step = (entries[0][key] for key in ("first_hz", "step_hz"))
    return first + step * np.arange(true.shape[-1]), drawn, true


def _rounded(values: NDArray[np.floating], digits: int = 6) -> Any:
    """Some significant digits as plain numbers, so that a row stays readable."""
    return np.vectorize(lambda v: float(f"{v:.{digits}g}"), otypes=[float])(values).tolist()
