"""The gates on amplitude: can these voltages be an ECG's, and in which other unit could they be?

Values that are right but for a wrong unit are off by a thousand or a million. A factor is named
only where it would bring all that was measured within the limits.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg._units import UNIT_FACTORS, known_unit, mistakes
from ecgdiff.ecg.recording import Recording

__all__ = ["MIN_RANGE_MV", "Beyond", "stated_unit", "too_large", "too_small"]

MAX_MEDIAN_MV = 5.0
MAX_MV = 20.0
MIN_RANGE_MV = 0.05  # 1st to 99th percentile of the largest lead

_SUBSAMPLE = 100_000


@dataclass(frozen=True)
class Beyond:
    """A number beyond its limit, in mV; `factor` would bring the values within the limits."""

    value: float
    limit: float
    message: str
    factor: float | None


def stated_unit(recording: Recording) -> float | None:
    """Returns the unit in mV that a file stated for all leads of a recording, or None."""
    said = recording.meta.get("units")
    said = [said] if isinstance(said, str) else said
    if not isinstance(said, Sequence) or not said:
        return None
    units = {known_unit(unit) if isinstance(unit, str) else None for unit in said}
    return units.pop() if len(units) == 1 else None


def too_large(name: str, values: NDArray[np.float32], unit: float | None) -> Beyond | None:
    """Compares the finite values of one lead with the largest that an ECG can have."""
    largest = float(max(values.max(), -values.min()))
    # The median is above the limit if half of the samples are; only then it is worth its cost.
    above = np.count_nonzero(np.abs(values) >= MAX_MEDIAN_MV)
    high = 2 * above > values.size
    if not high and largest < MAX_MV:
        return None
    factor = _fitting([values], [1 / factor for factor in UNIT_FACTORS], unit)
    if high:
        found, limit = float(np.median(np.abs(values))), MAX_MEDIAN_MV
        what = f"The median |value| of lead {name} is {found:.4g} mV, {limit:g} or more."
    else:
        found, limit = largest, MAX_MV
        what = f"The largest |value| of lead {name} is {found:.5g} mV, {limit:g} or more."
    other = "Remove an offset or artefact, or check the gain."
    return Beyond(found, limit, f"{what} {_advice(factor, unit, other)}", factor)


def too_small(recording: Recording) -> Beyond | None:
    """Compares the range of the largest lead with the smallest that an ECG can have."""
    rows = [row[:: max(1, row.size // _SUBSAMPLE)] for row in recording.signal]
    rows = [some for row in rows if (some := row[np.isfinite(row)]).size]
    found = max(map(_range, rows), default=0.0)
    # An exact zero is a flat line, which has a gate of its own.
    if not 0 < found < MIN_RANGE_MV:
        return None
    unit = stated_unit(recording)
    factor = _fitting(rows, UNIT_FACTORS, unit)
    what = (
        f"98 % of the samples of every lead lie within {found:.3g} mV, less than "
        f"{MIN_RANGE_MV:g} mV."
    )
    other = "This may be noise without a patient; check the electrodes and the gain."
    return Beyond(found, MIN_RANGE_MV, f"{what} {_advice(factor, unit, other)}", factor)


def _range(values: NDArray[np.floating]) -> float:
    low, high = np.percentile(values, (1, 99))
    return float(high) - float(low)


def _fitting(
    rows: Sequence[NDArray[np.float32]], factors: Iterable[float], unit: float | None
) -> float | None:
    """The first factor, of those a mistaken unit explains, that makes these leads an ECG's."""
    thinned = [row[:: max(1, row.size // _SUBSAMPLE)].astype(np.float64) for row in rows]
    sizes = [np.abs(row) for row in thinned]
    reach = max(map(_range, thinned))
    median = max(float(np.median(size)) for size in sizes)
    largest = max(float(size.max()) for size in sizes)
    for factor in factors:
        small = factor * median < MAX_MEDIAN_MV and factor * largest < MAX_MV
        if small and factor * reach >= MIN_RANGE_MV and mistakes(factor, unit):
            return factor
    return None


def _advice(factor: float | None, unit: float | None, other: str) -> str:
    """Which unit may be wrong, or the `other` advice if no unit explains the values."""
    if factor is None:
        return other
    times, size = (factor, "small") if factor > 1 else (1 / factor, "large")
    wrong = ", or ".join(mistakes(factor, unit))
    return f"About {times:.0f} times too {size}: were {wrong}? Correct the unit."
