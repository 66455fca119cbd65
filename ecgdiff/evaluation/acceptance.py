r"""Is a prior accepted? The limits on what :mod:`ecgdiff.diffusion.quality` measures.

- total variance: :math:`(\mathrm{var}\,D + \mathrm{MSE}) / \mathrm{var}\,x` and
  :math:`\mathrm{cov}(D, x) / \mathrm{var}\,D` within 3 % of 1 at every noise level; 5 % for the
  second at sigma = 30;
- spread: the 10, 50 and 90 % quantiles of the per-record standard deviation of draws within 5, 5
  and 10 % of those of real records, lead by lead;
- loss, where another prior is given: below its loss at every noise level.

The second is decided by chance, too: quantiles of a few hundred draws are off by several percent.
:func:`spread_by_chance` says how often real records would pass in place of the draws: of 512 taken
from fold 9 of PTB-XL 14 % do, of 2048 74 %.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.diffusion.quality import QUANTILES

__all__ = ["SPREAD_LIMITS", "losses_below", "spread", "spread_by_chance", "variance"]

SPREAD_LIMITS = (0.05, 0.05, 0.10)
_LIMIT, _LIMIT_LOUD, _LOUD = 0.03, 0.05, 20.0

Array = NDArray[np.float64]


def variance(rows: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Judges the total-variance check.

    Arguments:
        rows: What :func:`ecgdiff.diffusion.quality.total_variance` gives.

    Returns:
        The `rows`, each with the `limits` of both ratios and whether it `passed`, and whether all
        did.
    """
    judged = []
    for row in rows:
        limits = {"total": _LIMIT, "slope": _LIMIT_LOUD if row["sigma"] > _LOUD else _LIMIT}
        passed = all(abs(row[name] - 1) <= limit for name, limit in limits.items())
        judged.append({**row, "limits": limits, "passed": passed})
    return {"rows": judged, "passed": all(row["passed"] for row in judged)}


def spread(drawn: Array, real: Array) -> dict[str, Any]:
    """Judges the spread of draws.

    Arguments:
        drawn: Standard deviations of draws in mV, with shape (draws, leads).
        real: Those of real records, with shape (records, leads).

    Returns:
        The quantiles of both in mV, their `ratio`, all (quantiles, leads), and whether they
        `passed`.
    """
    both = [np.quantile(x, QUANTILES, axis=0) for x in (drawn, real)]
    ratio = both[0] / both[1]
    return {
        "quantiles": list(QUANTILES),
        "limits": list(SPREAD_LIMITS),
        "draws_mv": both[0].round(4).tolist(),
        "fold9_mv": both[1].round(4).tolist(),
        "ratio": ratio.round(4).tolist(),
        "passed": bool(_within(ratio).all()),
    }


def spread_by_chance(
    real: Array, draws: int, resamples: int = 200, seed: int = 0
) -> dict[str, Any]:
    """Lets real records, drawn with replacement, take the place of the draws.

    Arguments:
        real: Standard deviations of real records, with shape (records, leads).
        draws: The number of draws.
        resamples: How often.
        seed: Of the resamples.

    Returns:
        The `standard_error` of the ratio, with shape (quantiles, leads), and the share of
        resamples that `passed`.
    """
    rng = np.random.default_rng(seed)
    ratios = np.empty((resamples, len(QUANTILES), real.shape[1]))
    for ratio in ratios:
        drawn, fold = (real[rng.integers(len(real), size=n)] for n in (draws, len(real)))
        ratio[:] = np.quantile(drawn, QUANTILES, axis=0) / np.quantile(fold, QUANTILES, axis=0)
    return {
        "standard_error": ratios.std(axis=0).round(4).tolist(),
        "passed": float(_within(ratios).all(axis=(1, 2)).mean()),
    }


def losses_below(losses: Array, other: Array) -> dict[str, Any]:
    """Judges the losses of one prior against those of another on the same records and noise.

    Arguments:
        losses: With shape (levels, records).
        other: The same of the other prior.

    Returns:
        The `difference` of their means per level, its `standard_error`, and whether it is negative
        everywhere.
    """
    difference = losses - other
    mean = difference.mean(axis=1)
    error = difference.std(axis=1, ddof=1) / np.sqrt(difference.shape[1])
    return {
        "difference": mean.round(5).tolist(),
        "standard_error": error.round(5).tolist(),
        "passed": bool((mean < 0).all()),
    }


def _within(ratio: Array) -> NDArray[np.bool_]:
    return np.abs(ratio - 1) <= np.array(SPREAD_LIMITS)[:, None]
