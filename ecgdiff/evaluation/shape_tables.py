"""Tables of the shape of reconstructions from the rows of a run made with `--morphology`.

For each task that observes lead I: intervals and axis, amplitudes lead by lead, regression to the
mean of R and S amplitudes, band powers, and calibration by part of the beat. Records have their
weights, so that the figures are those of the fold. What could not be measured is counted, never
dropped.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.beat_tables import part_table
from ecgdiff.evaluation.bootstrap import Statistic, intervals, replicates
from ecgdiff.evaluation.comonotone import left_out, without
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.morphology import TOLERANCE, Comparison, Measures, compare
from ecgdiff.evaluation.regression_to_mean import fit, regression_to_mean, shared_variance
from ecgdiff.evaluation.shape import LEADS, measures, powers
from ecgdiff.evaluation.spectra import BANDS
from ecgdiff.evaluation.summary import lacking
from ecgdiff.evaluation.tables import Table, listed, unfinished
from ecgdiff.evaluation.tasks import TASKS, Task

__all__ = ["bracketed", "ends", "shape_tables"]

Array = NDArray[np.float64]

_INTERVALS = {
    "qrs_ms": "QRS, ms",
    "pr_ms": "PR, ms",
    "qt_ms": "QT, ms",
    "qtc_ms": "QTc, ms",
    "axis_deg": "axis, degrees",
}
_AMPLITUDES = {"r_mv": "R", "s_mv": "S", "st_mv": "ST"}
_REGRESSED = {"r_mv": "R", "s_mv": "S"}
_HEAD = (
    "method",
    "quantity",
    "records compared",
    "mean error",
    "sd of error",
    "truth not measured, %",
    "draws not measured, %",
    "only draws measured, %",
    "within tolerance",
)


@dataclass(frozen=True)
class _Method:
    """The stacked entries of one method on one task.

    Arguments:
        label: Its name.
        drawn: Its measures of draws, each with shape (records, draws, ...).
        true: Those of the truth, each with shape (records, ...).
        power: The band powers of draws and truth, by band, each with shape (records, leads).
        weights: The weight of each record.
        resamples: The record indices of each bootstrap replicate.
    """

    label: str
    drawn: Measures
    true: Measures
    power: tuple[Measures, Measures]
    weights: Array
    resamples: Sequence[NDArray[np.intp]]


def shape_tables(
    rows: Sequence[Row], header: Mapping[str, Any], *, resamples: int = 1000
) -> list[Table]:
    """Makes the tables of shape, for each task whose rows have it.

    Arguments:
        rows: The rows, each with its `weight`; those without `shape` are left out.
        header: What the run was, from the file of its rows.
        resamples: The number of bootstrap replicates.

    Returns:
        Six tables per task, none if no row has `shape`; five if no row has parts of beats.
    """
    out, every = [], rows
    rows = without(rows)
    for name, task in TASKS.items():
        these = [row for row in rows if row["task"] == name and "shape" in row]
        if not these:
            continue
        found = [
            _method(label, [row for row in these if row["method"] == label], resamples)
            for label in dict.fromkeys(row["method"] for row in these)
        ]
        leads = [lead for lead in LEADS if lead in task.scored_leads]
        beats = _remarks(these)
        made = [
            replace(_interval_table(name, found), remarks=beats),
            replace(_amplitude_table(name, found, leads), remarks=beats),
            *(_regression_table(name, found, leads, kind) for kind in _REGRESSED),
            _power_table(task, found),
        ]
        if (parts := part_table(name, these, resamples)).body:
            made.append(parts)
        of_task = [row for row in rows if row["task"] == name]
        done = Counter(row["method"] for row in of_task)
        lost = [*lacking(of_task, "shape"), *unfinished(done, listed(header))]
        lost += left_out((row["method"] for row in every if row["task"] == name), "not measured")
        out += [replace(t, task=name, remarks=[*t.remarks, *lost]) for t in made]
    return out


def _method(label: str, rows: Sequence[Row], resamples: int) -> _Method:
    shapes = [row["shape"] for row in rows]
    return _Method(
        label,
        *measures(shapes),
        powers(shapes),
        np.array([row["weight"] for row in rows], dtype=np.float64),
        replicates([row["patient_id"] for row in rows], resamples),
    )


def _remarks(rows: Sequence[Row]) -> list[str]:
    """How many records have no beats, and why; the observation is the same for all methods."""
    every = {row["ecg_id"] for row in rows}
    reasons = {row["ecg_id"]: row["shape"]["failed"] for row in rows if "failed" in row["shape"]}
    return [
        f"{list(reasons.values()).count(reason)} of {len(every)} records, counted as not "
        f"measured: {reason}"
        for reason in dict.fromkeys(reasons.values())
    ]


def _weighted(found: Sequence[_Method]) -> str:
    """What a note says of weights, if they differ."""
    weighted = any(np.ptp(method.weights) > 0 for method in found)
    return ", weighted by inverse inclusion probability" if weighted else ""


def _interval_table(name: str, found: Sequence[_Method]) -> Table:
    limits = ", ".join(
        f"{_INTERVALS[key].removesuffix(', ms')} {mean:g}/{sd:g}"
        for key, (mean, sd) in TOLERANCE.items()
    )
    note = (
        "Measured on the median beat over all leads, at the R peaks of the observed "
        "lead I, in truth and draws alike; reconstructed less true, over all draws that could be "
        f"measured{_weighted(found)}. `draws not measured`: share of draws where the "
        "truth could be measured; `only draws measured`: share where it could not, such as a P "
        "wave drawn in atrial fibrillation. "
        f"Tolerance of the mean and the sd of an interval's error, ms: {limits}, commonly "
        "cited as those of IEC 60601-2-51 (that of PR for PQ) and not verified here; keeping it "
        "makes no reconstruction fit for diagnosis."
    )
    body = []
    for method in found:
        compared = compare(method.drawn, method.true, method.weights)
        body += [
            [method.label, title, *_interval_cells(compared[key])]
            for key, title in _INTERVALS.items()
        ]
    return Table(f"Intervals and axis, task {name}", note, _HEAD, body)


def _interval_cells(c: Comparison) -> list[str]:
    within = {None: "-", True: "yes", False: "no"}[c.within if np.isfinite(c.sd) else None]
    shares = (100 * s for s in (c.truth_failed, c.draw_failed, c.invented))
    return [
        str(c.compared),
        _number(c.mean, "+.1f"),
        _number(c.sd, ".1f"),
        *(_number(share, ".1f") for share in shares),
        within,
    ]


def _amplitude_table(name: str, found: Sequence[_Method], leads: Sequence[str]) -> Table:
    note = (
        "Heights of R, depths of S and ST level at J + 60 ms of the median beat above "
        "its PR baseline, mV; reconstructed less true: mean ± sd over all draws in which a QRS "
        f"complex was found{_weighted(found)}."
    )
    body = []
    for method in found:
        compared = compare(method.drawn, method.true, method.weights)
        for key, title in _AMPLITUDES.items():
            mean, sd = _of(compared[key].mean, leads), _of(compared[key].sd, leads)
            cells = [
                f"{_number(a, '+.3f')} ± {_number(b, '.3f')}"
                for a, b in zip(mean, sd, strict=True)
            ]
            body.append([method.label, title, *cells])
    head = ["method", "wave", *leads]
    return Table(f"Errors of amplitudes in mV, task {name}", note, head, body)


def _regression_table(
    name: str, found: Sequence[_Method], leads: Sequence[str], kind: str
) -> Table:
    """Slopes of errors on the truth, and what lead I says of the amplitude."""
    note = (
        "Error of a draw's amplitude regressed on the true amplitude over records"
        f"{_weighted(found)}. A negative slope is no fault: calibrated draws have R² - 1, R² "
        "being what the observation tells of the amplitude. `slope claimed` is the slope that the "
        "draws themselves imply, from how alike two draws of a record are, if all were measured; "
        "both differ where draws are not calibrated. `share` is that of the error's variance on "
        "the line, at most 0.5 for calibrated draws, more for a regression. The last two are the "
        "R² between the amplitude in lead I and in this lead, which a regression raises."
    )
    body = [row for method in found for row in _regression_rows(method, leads, kind)]
    title = f"Regression to the mean, {_REGRESSED[kind]} amplitudes, task {name}"
    return Table(title, note, ["method", "figure", *leads], body)


def _regression_rows(method: _Method, leads: Sequence[str], kind: str) -> Iterator[list[str]]:
    drawn, true = _of(method.drawn[kind], leads), _of(method.true[kind], leads)
    w = method.weights
    whole = regression_to_mean(drawn.swapaxes(0, 1), true, w)

    def statistic(at: NDArray[np.intp]) -> dict[str, Array]:
        return {"slope": _slope(drawn[at], true[at], w[at])}

    low, high = ends(statistic, method.resamples)["slope"]
    yield [method.label, "slope", *map(bracketed, whole.draw.slope, low, high)]
    if drawn.shape[1] > 1:
        yield [method.label, "slope claimed", *(_number(v, ".2f") for v in whole.expected)]
    yield [method.label, "share", *(_number(v, ".2f") for v in whole.draw.r2)]
    for what, source, axes in (("truth", method.true, (0,)), ("draws", method.drawn, (1, 0))):
        first = _of(source[kind], ["I"])[..., 0].transpose(axes)
        others = (_of(source[kind], [lead])[..., 0].transpose(axes) for lead in leads)
        shared = [_number(shared_variance(first, other, w), ".2f") for other in others]
        yield [method.label, f"R² with lead I, {what}", *shared]


def _slope(drawn: Array, true: Array, weights: Array) -> Array:
    """The slope of :func:`regression_to_mean` with all draws in one fit, for the bootstrap.

    Arguments:
        drawn: With shape (records, draws, leads).
        true: With shape (records, leads).
        weights: With shape (records,).
    """
    x = np.broadcast_to(true[:, None], drawn.shape)
    count, draws, leads = drawn.shape
    line = fit(x.reshape(count, -1), (drawn - x).reshape(count, -1), weights)
    return line.slope.reshape(draws, leads).mean(axis=0)


def _power_table(task: Task, found: Sequence[_Method]) -> Table:
    note = (
        "Mean power of the draws in a band over that of the truth, averaged over records"
        f"{_weighted(found)}, before the ratio is taken; `all`: the mean of the ratios of the "
        "leads. Target 1."
    )
    body = []
    for method in found:
        value = _ratios(method, slice(None))
        limits = ends(partial(_ratios, method), method.resamples)
        for band in BANDS:
            cells = map(bracketed, value[band], *limits[band])
            body.append([method.label, band, *cells])
    head = ["method", "band", *task.scored_leads, "all"]
    return Table(f"Power ratios by band, task {task.name}", note, head, body)


def _ratios(method: _Method, at: Any) -> dict[str, Array]:
    """Drawn over true power by band: one number per lead, then their mean."""
    out = {}
    w = method.weights[at]
    for band in BANDS:
        drawn, true = (w @ source[band][at] for source in method.power)
        ratio = drawn / np.where(true > 0, true, np.nan)
        out[band] = np.append(ratio, ratio.mean())
    return out


def ends(
    statistic: Statistic, resamples: Sequence[NDArray[np.intp]]
) -> dict[str, tuple[Array, Array]]:
    """Computes bootstrap intervals; NaN, without a warning, for what no replicate has.

    Arguments:
        statistic: As in :func:`ecgdiff.evaluation.bootstrap.intervals`.
        resamples: The record indices of each replicate.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "All-NaN slice", RuntimeWarning)
        return intervals(statistic, resamples)


def _of(values: Array, leads: Sequence[str]) -> Array:
    """The columns of some leads, last axis."""
    return values[..., [LEADS.index(lead) for lead in leads]]


def _number(value: NDArray[np.float64] | float, form: str) -> str:
    return "-" if np.isnan(value) else format(float(value), form)


def bracketed(value: float, low: float, high: float) -> str:
    """Shows a figure with its interval in two decimals; "-" for NaN."""
    if np.isnan(value):
        return "-"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"
