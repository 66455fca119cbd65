"""The sampling rate that a column of times gives, once it is sure that they are evenly spaced."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg._wording import capital
from ecgdiff.ecg.io import _border
from ecgdiff.errors import ReadError

__all__ = ["known_time", "rate_of"]

_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6}
_SYMBOLS = {1.0: "s", 1e-3: "ms", 1e-6: "us"}
_TOLERANCE = 1e-3  # between a stated rate and that of the times
_MOST_JUMPS = 0.05  # of all steps; times with more of them are irregular throughout


def known_time(unit: str) -> float | None:
    """Returns how many seconds one of this unit is, or None if it is no time we know."""
    return _SECONDS.get(unit.strip().lower())


def rate_of(
    path: Path,
    called: str,
    time: NDArray[np.float64],
    second: float | None,
    known: float | None,
) -> float:
    """Returns the rate in Hz of evenly spaced times, after checking that they are.

    Arguments:
        path: The file.
        called: What messages call the column.
        time: One time per row.
        second: Their unit in seconds, or None if it is not stated.
        known: The rate if it is stated elsewhere. It must fit the times, in s, ms or us where
            their unit is not stated, and is returned.
    """
    step = _step(path, time, "" if second is None else f" {_SYMBOLS[second]}")
    if second is None:
        return _fitting(path, called, step, known)
    # Decimal times in binary leave noise in the last digits.
    rate = float(f"{1 / (step * second):.9g}")
    if known is not None and not math.isclose(rate, known, rel_tol=_TOLERANCE):
        raise ReadError(
            f"{path} states {known:g} Hz, but its times are {rate:g} Hz apart. Correct one."
        )
    return rate if known is None else known


def _fitting(path: Path, called: str, step: float, known: float | None) -> float:
    """The known rate, if one of the units makes the times fit it."""
    rates = [1 / (step * second) for second in _SYMBOLS]
    if known is None:
        raise ReadError(
            f"{capital(called)} of {path} needs a unit, such as 'time (s)' or "
            f"'time (ms)'. If you do not know it, {_border.PASS_RATE}."
        )
    if not any(math.isclose(rate, known, rel_tol=_TOLERANCE) for rate in rates):
        raise ReadError(
            f"The times in {called} of {path} are {step:.4g} apart, which is {1 / step:.6g} Hz in "
            f"s and {1e3 / step:.6g} Hz in ms, but {known:.6g} Hz was stated. Correct the rate, "
            "or remove the column if it holds no times."
        )
    return known


def _step(path: Path, time: NDArray[np.float64], unit: str) -> float:
    """The step of evenly spaced times."""
    if not np.isfinite(time).all():
        row = int(np.isfinite(time).argmin()) + 1
        raise ReadError(f"Row {row} of {path} has no time. Write one in each row.")
    steps = len(time) - 1
    span = float(time[-1] - time[0])
    if steps < 1 or not span > 0:
        raise ReadError(f"The time column of {path} does not increase. Correct or remove it.")
    late = np.abs((time - time[0]) * (steps / span) - np.arange(len(time)))
    if not late.max() < 0.5:
        raise ReadError(_uneven(path, time, late, unit))
    return span / steps


def _uneven(path: Path, time: NDArray[np.float64], late: NDArray[np.float64], unit: str) -> str:
    """Says where the times jump, or how far they are off if they do not."""
    steps = np.diff(time)
    usual = float(np.median(steps))
    jumps = np.flatnonzero(np.abs(steps - usual) > 0.5 * usual)
    if usual > 0 and 0 < jumps.size <= max(3, _MOST_JUMPS * steps.size):
        return _jump(path, int(jumps[0]), float(steps[jumps[0]]), usual, unit, jumps.size)
    return (
        f"The times in {path} are not evenly spaced: row {int(late.argmax()) + 1} is "
        f"{float(late.max()):.3g} samples off. Correct them; or, if the samples are evenly "
        f"spaced, remove the column and {_border.PASS_RATE}."
    )


def _jump(path: Path, row: int, step: float, usual: float, unit: str, count: int) -> str:
    first = f", the first of {count} such places," if count > 1 else ""
    where = f"Between rows {row + 1} and {row + 2} of {path}{first} the time"
    found = f"{abs(step):.4g}{unit} instead of {usual:.4g}{unit}"
    if step > usual:
        return (
            f"{where} jumps by {found}. Insert the missing rows with their times and empty cells."
        )
    moves = f"goes back by {abs(step):.4g}{unit}" if step < 0 else f"goes on by only {found}"
    return f"{where} {moves}. Correct the times or the order of the rows."
