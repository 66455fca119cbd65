"""Figures of several conditions at once, with their bootstrap intervals, as plain numbers."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.bootstrap import Statistic, intervals, replicates

__all__ = ["Estimate", "cell", "estimates"]

Estimate = dict[str, list[float | None]]


def estimates(
    statistic: Statistic, patients: Sequence[int], resamples: int
) -> dict[str, Estimate]:
    """Computes figures and their 95 % intervals over patients.

    Arguments:
        statistic: Maps record indices to named figures, one number per condition.
        patients: The patient of each record.
        resamples: Bootstrap replicates.

    Returns:
        By figure the lists `value`, `low`, `high`: six digits, None where there is no number.
    """
    value = statistic(np.arange(len(patients)))
    ends = intervals(statistic, replicates(patients, resamples))
    return {
        name: {"value": _plain(v), "low": _plain(ends[name][0]), "high": _plain(ends[name][1])}
        for name, v in value.items()
    }


def cell(entry: Mapping[str, Sequence[float | None]], k: int, form: str, factor: float = 1) -> str:
    """Writes one figure with its interval.

    Arguments:
        entry: From :func:`estimates`.
        k: Which condition.
        form: The format of each number.
        factor: What numbers are multiplied by, 100 for percent.
    """
    numbers = [factor * v for end in ("value", "low", "high") if (v := entry[end][k]) is not None]
    if len(numbers) < 3:
        return "-"
    value, low, high = (format(v, form) for v in numbers)
    return f"{value} [{low}, {high}]"


def _plain(values: NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(v) else float(f"{v:.6g}") for v in values]
