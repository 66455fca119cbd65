"""Every score of one method on one task, for many weightings of its records at once.

A bootstrap replicate is a weighting: a record counts as often as its patient was drawn. All scores
follow from weighted means over records, so that a thousand replicates are one matrix product each.
"""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.benchmark import LEVELS, Row
from ecgdiff.evaluation.calibration import spread_skill

__all__ = ["COVERAGES", "PER_LEAD", "score_table", "weighted_mean", "weighted_scores"]

Array = NDArray[np.float64]
PER_LEAD = "lead/"
AVERAGED = ("mae_draw", "mae_mean", "mae_median", "crps", "pearson_draw", "pearson_mean")
COVERAGES = tuple(f"coverage_{100 * level:.0f}" for level in LEVELS)


def score_table(rows: Sequence[Row]) -> dict[str, Array]:
    """Stacks the scores that all rows have: (records, leads), amplitude_draws has draws, too."""
    names = [n for n in rows[0]["scores"] if n != "ranks" and all(n in r["scores"] for r in rows)]
    return {name: np.array([r["scores"][name] for r in rows]) for name in names}


def weighted_scores(table: Mapping[str, Array], w: Array) -> dict[str, Array]:
    """Computes every score over all leads, and of each lead.

    Arguments:
        table: From :func:`score_table`.
        w: The weights of the records, with shape (weightings, records).

    Returns:
        By name an array of shape (weightings,) and, with `lead/` before the name, one of shape
        (weightings, leads). NaN where a score is a ratio to a variance that is none.
    """
    truth, drawn = table["amplitude_true"], table["amplitude_draws"]
    averaged = [name for name in (*AVERAGED, *COVERAGES) if name in table]
    lead: dict[str, Array] = {name: weighted_mean(table[name], w) for name in averaged}
    lead["amplitude_ratio"] = _variance_ratio(drawn, truth, w).mean(axis=1)
    lead["amplitude_ratio_mean"] = _variance_ratio(table["amplitude_mean"], truth, w)
    out: dict[str, Array] = {name: values.mean(axis=-1) for name, values in lead.items()}
    lead["rmse_draw"] = weighted_mean(table["rmse_draw_lead"], w)
    lead["rmse_mean"] = weighted_mean(np.sqrt(table["mse_mean"]), w)
    out |= {name: weighted_mean(table[name], w) for name in ("rmse_draw", "rmse_mean")}
    error = weighted_mean(table["mse_mean"], w)
    if "variance_true" in table:
        power = weighted_mean(table["variance_true"], w)
        lead["explained"] = 1 - error / _or_nan(power)
        out["explained"] = 1 - error.mean(axis=-1) / _or_nan(power.mean(axis=-1))
    if "variance" in table:
        # One weighted record in place of all: spread_skill averages over records.
        variance, m = weighted_mean(table["variance"], w), drawn.shape[1]
        lead["spread_skill"] = spread_skill(variance[None], error[None], m)
        out["spread_skill"] = spread_skill(variance.mean(-1)[None], error.mean(-1)[None], m)
    return out | {f"{PER_LEAD}{name}": values for name, values in lead.items()}


def weighted_mean(values: Array, w: Array) -> Array:
    """The means over records of (records, ...) with the weights (weightings, records)."""
    return np.tensordot(w / w.sum(axis=1, keepdims=True), values, axes=1)


def _or_nan(power: Array) -> Array:
    return np.where(power > 0, power, np.nan)


def _variance_ratio(reconstructed: Array, truth: Array, w: Array) -> Array:
    """The variance of (records, ..., leads) over that of the truth (records, leads)."""
    below, square = _variance(truth, w)
    # All records that count may have one amplitude; rounding leaves a variance all the same.
    below = np.where(below > 1e-12 * square, below, np.nan)
    above, _ = _variance(reconstructed, w)
    return above / below.reshape(len(w), *[1] * (above.ndim - 2), -1)


def _variance(values: Array, w: Array) -> tuple[Array, Array]:
    """The variance over records, and the mean square that it was computed from."""
    # Near the mean, the difference of mean square and squared mean loses no digits.
    centered = values - values.mean(axis=0)
    square = weighted_mean(np.square(centered), w)
    return square - np.square(weighted_mean(centered, w)), square
