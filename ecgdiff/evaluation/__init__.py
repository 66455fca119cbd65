"""Numbers for reconstructions; `python -m ecgdiff.evaluation` prints them for fixed records."""

from ecgdiff.evaluation.calibration import (
    coverage,
    nominal_coverage,
    spread_skill,
    variance_ratio,
)
from ecgdiff.evaluation.signal import crps, mae, peak_to_peak, rmse

__all__ = [
    "coverage",
    "crps",
    "mae",
    "nominal_coverage",
    "peak_to_peak",
    "rmse",
    "spread_skill",
    "variance_ratio",
]
