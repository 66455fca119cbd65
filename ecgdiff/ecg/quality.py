"""Says whether a recording can be trusted, in numbers.

Every gate compares one number with one limit; a `Finding` holds both. "refuse" findings stop a
reconstruction unless the user allows them by name, "warn" findings only inform. NaN is no fault:
it says that nothing was measured, and a lost lead or stretch is what reconstruction is for.
Infinite values, and recordings in which nothing was measured, cannot be allowed.

The limits come from what ECGs can physically be, tightened or loosened on the validation fold of
PTB-XL so that nearly all of its records pass.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg._amplitude import MIN_RANGE_MV, stated_unit, too_large, too_small
from ecgdiff.ecg._wording import argument
from ecgdiff.ecg.leads import limb_contradiction
from ecgdiff.ecg.recording import Recording
from ecgdiff.errors import SignalQualityError

__all__ = ["NAMES", "Finding", "QualityReport", "check"]

NAMES = (
    "non-finite",
    "too-short",
    "sampling-rate",
    "amplitude",
    "flat",
    "clipped",
    "step",
    "limb-leads",
    "heart-rate",
    "reversed-lead-I",
)

MIN_FINITE = 0.99  # of a lead that is not lost altogether
MIN_SECONDS = 2.5  # measured on the best lead
RATE_HZ = (100.0, 2000.0)
# A lead is flat where its standard deviation in mV stays below the limit for longer than so many
# seconds. Quiet TP segments stay below 5 uV for half a second in a tenth of all good records, but
# neither below 2 uV nor for a whole second.
FLAT = ((0.5, 0.002), (1.0, 0.005))
MAX_FLAT = 0.1  # of a lead
CLIPPED_RUN = (10, 0.02)  # samples, seconds: the longer of the two
MAX_AT_RAIL = 0.01
MAX_STEP_MV = 5.0
MAX_LIMB_MV = 0.05  # root mean square by which limb leads may contradict each other
BEATS_PER_MINUTE = (25.0, 240.0)
MIN_POLARITY = -0.1

_BLOCK_S = 0.05


@dataclass(frozen=True)
class Finding:
    """Creates the record of one number that is beyond its limit.

    Arguments:
        name: Which gate, one of `NAMES`.
        lead: The lead, or None if it concerns the recording.
        value: The number found.
        limit: What it was compared with, in the same unit.
        message: Both in words, with the unit, and what to do.
        severity: "refuse" stops a reconstruction, "warn" does not.
    """

    name: str
    lead: str | None
    value: float
    limit: float
    message: str
    severity: Literal["refuse", "warn"] = "refuse"


@dataclass(frozen=True)
class QualityReport:
    """Creates the outcome of all gates for one recording.

    Arguments:
        findings: What was found; empty for a good recording.
    """

    findings: tuple[Finding, ...] = ()

    def refusals(self, allow: Iterable[str] = ()) -> tuple[Finding, ...]:
        """Returns the findings that stop a reconstruction.

        Arguments:
            allow: Names of findings to pass over. "non-finite" stays: no method can use infinity.

        Raises:
            ValueError: If a name is not in `NAMES`.
        """
        allowed = {allow} if isinstance(allow, str) else set(allow)
        if unknown := sorted(allowed - set(NAMES)):
            raise ValueError(
                f"Cannot allow {', '.join(unknown)}; findings are {', '.join(NAMES)}."
            )
        allowed -= {"non-finite"}
        return tuple(f for f in self.findings if f.severity == "refuse" and f.name not in allowed)

    def refused(self, allow: Iterable[str] = ()) -> bool:
        """Says whether something that is not allowed stops a reconstruction."""
        return bool(self.refusals(allow))

    def raise_for(self, allow: Iterable[str] = ()) -> None:
        """Raises SignalQualityError, with all the numbers, if the recording is refused."""
        if refusals := self.refusals(allow):
            lines = [finding.message for finding in refusals]
            raise SignalQualityError("\n".join(["The signal is not usable:", *lines]), self)


def check(recording: Recording) -> QualityReport:
    """Runs all gates on a recording.

    Arguments:
        recording: Any recording; NaN means not measured. The cost is linear in its length.

    Returns:
        The report; `report.raise_for(allow)` refuses what must not be reconstructed.
    """
    findings = [*_extent(recording)]
    small, unit = too_small(recording), stated_unit(recording)
    if small:
        message = small.message + _hint("amplitude")
        findings.append(Finding("amplitude", None, small.value, small.limit, message))
    # In a unit a thousand times too small every lead looks flat.
    factor = (small and small.factor) or 1.0
    good = []
    for name, row in zip(recording.leads, recording.signal, strict=True):
        found = [*_lead(name, row, recording.sampling_rate, unit, factor)]
        findings += found
        if not any(f.severity == "refuse" for f in found) and np.isfinite(row).any():
            good.append(name)
    findings += _limb_leads(recording)
    unclear = small or any(f.name in ("sampling-rate", "too-short") for f in findings)
    if good and not unclear:
        findings += _rhythm(recording.select(good))
    return QualityReport(tuple(findings))


def _hint(name: str) -> str:
    return f" Pass {argument('allow', (name,))} to go on all the same."


def _extent(recording: Recording) -> Iterator[Finding]:
    """Enough measured, at a rate that makes sense."""
    rate = recording.sampling_rate
    seconds = float(recording.measured.sum(axis=1).max()) / rate
    if seconds == 0:
        yield Finding("non-finite", None, 0.0, MIN_FINITE, "Nothing was measured on any lead.")
    elif seconds < MIN_SECONDS:
        message = (
            f"The longest lead has {seconds:.3g} s of measured signal, at least {MIN_SECONDS:g} s "
            "are needed."
        )
        message += _hint("too-short")
        yield Finding("too-short", None, seconds, MIN_SECONDS, message)
    low, high = RATE_HZ
    if not low <= rate <= high:
        message = (
            f"The sampling rate is {rate:g} Hz, outside {low:g} to {high:g} Hz. Check the unit "
            "and the file's header."
        )
        message += _hint("sampling-rate")
        yield Finding("sampling-rate", None, rate, low if rate < low else high, message)


def _lead(
    name: str, row: NDArray[np.float32], rate: float, unit: float | None, factor: float
) -> Iterator[Finding]:
    """All gates on one lead; `factor` corrects its unit where that is known to be wrong."""
    if np.isinf(row).any():
        bad = int(np.isinf(row).sum())
        message = f"Lead {name} has {bad} infinite samples. Mark missing samples as NaN."
        yield Finding("non-finite", name, float(bad), 0.0, message)
        return
    measured = ~np.isnan(row)
    fraction = float(measured.mean())
    if fraction == 0:
        return
    if fraction < MIN_FINITE:
        message = f"Lead {name} was measured for only {100 * fraction:.4g} % of the time."
        yield Finding("non-finite", name, fraction, MIN_FINITE, message, "warn")
    values = row if fraction == 1 else row[measured]
    yield from _large(name, values, unit)
    yield from _flat(name, row if factor == 1 else row * np.float32(factor), rate)
    yield from _clipped(name, row, values, rate)
    yield from _step(name, row)


def _large(name: str, values: NDArray[np.float32], unit: float | None) -> Iterator[Finding]:
    if found := too_large(name, values, unit):
        message = found.message + _hint("amplitude")
        yield Finding("amplitude", name, found.value, found.limit, message)


def _flat(name: str, row: NDArray[np.float32], rate: float) -> Iterator[Finding]:
    block = max(1, round(_BLOCK_S * rate))
    blocks = row[: row.size // block * block].reshape(-1, block)
    if not blocks.size:
        return
    # Without an offset the differences of sums below keep their digits.
    centered = blocks.astype(np.float64) - float(row[np.isfinite(row).argmax()])
    sums = centered.sum(axis=1)
    squares = np.einsum("ij,ij->i", centered, centered)
    flat = np.zeros(len(blocks), dtype=bool)
    for seconds, limit in FLAT:
        width = int(seconds * rate / block) + 1
        flat |= _low_variance(sums, squares, block, width, limit)
    if not flat.any():
        return
    found = float(flat.sum()) * block / rate
    allowed = MAX_FLAT * float(np.isfinite(sums).sum()) * block / rate
    message = f"Lead {name} is flat for {found:.3g} s; "
    if found > allowed:
        message += f"the limit is {allowed:.3g} s, a tenth of it. Mark it as lost." + _hint("flat")
        yield Finding("flat", name, found, allowed, message)
    else:
        message += f"it is used as it is, below the limit of {allowed:.3g} s."
        yield Finding("flat", name, found, allowed, message, "warn")


def _low_variance(
    sums: NDArray[np.float64], squares: NDArray[np.float64], block: int, width: int, limit: float
) -> NDArray[np.bool_]:
    """True for blocks in a run of `width` blocks with a standard deviation below the limit."""
    low = np.zeros(sums.size, dtype=bool)
    if sums.size < width:
        return low
    missing = np.isnan(sums)
    total, square, gaps = (
        np.convolve(a, np.ones(width), "valid")
        for a in (np.where(missing, 0, sums), np.where(missing, 0, squares), missing)
    )
    n = block * width
    variance = square / n - (total / n) ** 2
    starts = np.flatnonzero((variance < limit**2) & (gaps < 0.5))
    edges = np.zeros(sums.size + 1)
    edges[starts] += 1
    edges[starts + width] -= 1
    covered: NDArray[np.bool_] = np.cumsum(edges)[:-1] > 0.5
    return covered


def _clipped(
    name: str, row: NDArray[np.float32], values: NDArray[np.float32], rate: float
) -> Iterator[Finding]:
    rails = float(values.min()), float(values.max())
    if rails[1] - rails[0] < MIN_RANGE_MV:
        return
    shortest = max(CLIPPED_RUN[0], round(CLIPPED_RUN[1] * rate))
    for rail in rails:
        there = np.flatnonzero(row == np.float32(rail))
        runs = np.diff(np.flatnonzero(np.diff(there, prepend=-2, append=row.size + 1) != 1))
        run, share = int(runs.max()), there.size / values.size
        what = f"Lead {name} is clipped at {rail:.4g} mV: "
        if run >= shortest:
            what += f"{run} equal samples in a row, {shortest} or more." + _hint("clipped")
            yield Finding("clipped", name, float(run), float(shortest), what)
        elif share > MAX_AT_RAIL:
            what += f"{100 * share:.3g} % of the samples, more than {100 * MAX_AT_RAIL:g} %."
            yield Finding("clipped", name, share, MAX_AT_RAIL, what + _hint("clipped"))


def _step(name: str, row: NDArray[np.float32]) -> Iterator[Finding]:
    steps = np.abs(np.diff(row))
    largest = float(np.fmax.reduce(steps, initial=0.0))
    if largest > MAX_STEP_MV:
        at = int(np.nanargmax(steps))
        message = (
            f"Lead {name} jumps by {largest:.4g} mV after sample {at}, more than {MAX_STEP_MV:g} "
            "mV: an electrode came off or the unit is wrong."
        )
        yield Finding("step", name, largest, MAX_STEP_MV, message + _hint("step"))


def _limb_leads(recording: Recording) -> Iterator[Finding]:
    """Whether three or more limb leads obey Einthoven's law."""
    contradiction, lead = limb_contradiction(recording.signal, recording.leads)
    if contradiction > MAX_LIMB_MV:
        message = (
            f"The limb leads contradict each other by {contradiction:.3g} mV (root mean square), "
            f"more than {MAX_LIMB_MV:g} mV; without {lead} they fit best. Is {lead} negated (as "
            "-aVR), or are names swapped? Correct it, or leave the lead out."
        )
        yield Finding(
            "limb-leads",
            lead,
            contradiction,
            MAX_LIMB_MV,
            message + _hint("limb-leads"),
            "refuse",
        )


def _rhythm(recording: Recording) -> Iterator[Finding]:
    """Heart rate from all leads that are good, and the polarity of lead I."""
    signal, rate = _thinned(recording)
    beats = _beats(signal, rate)
    gaps = np.diff(beats)
    bpm = 60 * rate / float(np.median(gaps)) if gaps.size else 0.0
    enough = gaps.size or recording.duration >= 2 * MIN_SECONDS
    low, high = BEATS_PER_MINUTE
    if enough and not low <= bpm <= high:
        what = f"The heart rate is {bpm:.3g} bpm" if bpm else "No two beats were found"
        message = f"{what}, outside {low:g} to {high:g} bpm."
        limit = low if bpm < low else high
        yield Finding("heart-rate", None, bpm, limit, message, "warn")
    if "I" in recording.leads:
        polarity = _polarity(signal[recording.leads.index("I")], beats, rate)
        if polarity < MIN_POLARITY:
            message = (
                f"P, QRS and T in lead I point down: polarity {polarity:.2g}, below "
                f"{MIN_POLARITY:g}. Is the watch on the other wrist, or were the arm electrodes "
                "swapped?"
            )
            yield Finding("reversed-lead-I", "I", polarity, MIN_POLARITY, message, "warn")


def _thinned(recording: Recording) -> tuple[NDArray[np.float32], float]:
    """Block means at 100 to 200 Hz, which is all that beats need."""
    step = max(1, int(recording.sampling_rate / 100))
    n = recording.n_samples // step
    blocks = recording.signal[:, : n * step].reshape(recording.n_leads, n, step)
    return blocks.mean(axis=2), recording.sampling_rate / step


def _beats(signal: NDArray[np.float32], rate: float) -> NDArray[np.int64]:
    """Sample numbers of the peaks of the slope's energy over all leads."""
    from scipy.ndimage import maximum_filter1d, uniform_filter1d

    slope = np.nan_to_num(np.diff(signal, axis=1, prepend=signal[:, :1]))
    energy = uniform_filter1d(np.einsum("lt,lt->t", slope, slope), max(1, round(0.1 * rate)))
    highest = maximum_filter1d(energy, 2 * round(0.2 * rate) + 1)
    threshold = 0.25 * np.percentile(energy, 98)
    return np.flatnonzero((energy == highest) & (energy > threshold))


def _polarity(lead: NDArray[np.float32], beats: NDArray[np.int64], rate: float) -> float:
    """Direction of P, QRS and T of the median beat, up > 0 > down; 0 with fewer than 3 beats."""
    before, after = round(0.3 * rate), round(0.45 * rate)
    beats = beats[(beats >= before) & (beats < lead.size - after)]
    each = lead[beats[:, None] + np.arange(-before, after)]
    each = each[np.isfinite(each).all(axis=1)]
    if len(each) < 3:
        return 0.0
    beat = np.median(each, axis=0)
    beat -= np.median(beat)
    # Where the wave lies in seconds from the steepest slope, and its weight: P is the surest sign,
    # but small, and an offset weighs little when all are measured against the size of QRS.
    waves = ((-0.08, 0.08, 0.25), (-0.24, -0.08, 0.5), (0.14, 0.45, 0.25))
    score, size = 0.0, 0.0
    for start, stop, weight in waves:
        wave = beat[before + round(start * rate) : before + round(stop * rate)]
        size = size or float(np.ptp(wave))
        if size == 0:
            return 0.0
        score += weight * float(wave.max() + wave.min()) / size
    return score
