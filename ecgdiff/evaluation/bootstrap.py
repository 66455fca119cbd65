"""Bootstrap intervals over patients: records of one patient are drawn together."""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["counts", "intervals", "percentiles", "replicates"]

Statistic = Callable[[NDArray[np.intp]], Mapping[str, NDArray[np.float64]]]


def replicates(
    patients: Sequence[int], count: int = 1000, seed: int = 0
) -> list[NDArray[np.intp]]:
    """Draws patients with replacement.

    Arguments:
        patients: The patient of each record.
        count: How many replicates.
        seed: The same seed gives the same replicates, so differences of methods are paired.

    Returns:
        The record indices of each replicate: all records of a patient as often as the patient was
        drawn.
    """
    if not patients:
        raise ValueError("A bootstrap needs at least one record, got none.")
    _, group = np.unique(np.asarray(patients), return_inverse=True)
    members = [np.flatnonzero(group == k) for k in range(group.max() + 1)]
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, len(members), size=(count, len(members)))
    return [np.concatenate([members[k] for k in row]) for row in drawn]


def intervals(
    statistic: Statistic, resamples: Sequence[NDArray[np.intp]], level: float = 0.95
) -> dict[str, tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Computes percentile intervals.

    Arguments:
        statistic: Maps record indices to named figures (scalars or arrays).
        resamples: The record indices of each replicate, from :func:`replicates`.
        level: The level of the interval.

    Returns:
        The lower and upper end of each named figure, as :func:`percentiles` says.
    """
    values = [statistic(rows) for rows in resamples]
    return {name: percentiles(np.stack([v[name] for v in values]), level) for name in values[0]}


def counts(resamples: Sequence[NDArray[np.intp]], records: int) -> NDArray[np.intp]:
    """Counts how often each replicate has each record.

    Arguments:
        resamples: From :func:`replicates`.
        records: The number of records.

    Returns:
        The counts, with shape (replicates, records).
    """
    return np.stack([np.bincount(rows, minlength=records) for rows in resamples])


def percentiles(
    values: NDArray[np.float64], level: float = 0.95
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Computes the ends of an interval from a figure's values in all replicates.

    Arguments:
        values: The figure, with shape (replicates, ...).
        level: The level of the interval.

    Returns:
        The lower and upper end, with shape (...). Replicates in which a figure is NaN, as a
        variance over a single patient drawn again and again, do not count for it; where it always
        is, so are the ends.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice encountered")
        low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return low, high
