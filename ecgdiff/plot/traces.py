"""The curves of a page as plain dictionaries that plotly understands, from the back to the front.

Black is measured (or follows from measured leads), blue on a hatched ground is synthetic, thin
orange is the truth where it is known. The two hues are of the Okabe-Ito palette, which stays apart
under all common kinds of color blindness, and the hatching survives a black-and-white printer.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.plot.paper import SMALL_BOX, STROKE, Page, Segment, calibration_pulse, lead_ticks
from ecgdiff.plot.sheet import Sheet, runs, widen

__all__ = [
    "BANDS",
    "MEASURED",
    "PX_PER_MM",
    "SYNTHETIC",
    "TRUTH",
    "bands",
    "ground",
    "line",
    "pulses",
    "unlike",
]

PX_PER_MM = 4.0
MEASURED = "#111111"
SYNTHETIC = "#0072B2"
TRUTH = "#D55E00"
BANDS = {"90 %": (0.05, 0.95, 0.15), "50 %": (0.25, 0.75, 0.35)}

Trace = dict[str, Any]
Corners = tuple[NDArray[np.float32], NDArray[np.float32]]


def ground(page: Page, sheet: Sheet) -> Trace:
    """Returns the tinted and hatched ground behind all synthetic stretches."""
    polygons = []
    for segment, span, lead in _placed(page, sheet):
        half = page.pitch / 2 - 0.4 * SMALL_BOX
        low, high = segment.baseline - half, segment.baseline + half
        for a, b in runs(sheet.synthetic[lead, span]):
            # A stretch that fills its segment is tinted to the edges, not to its last sample.
            left = segment.left if a == 0 else page.x(segment, sheet.time(span.start + a))
            right = min(segment.right, page.x(segment, sheet.time(span.start + b)))
            polygons.append(_array([left, right, right, left], [low, low, high, high]))
    pattern = {
        "shape": "/",
        "size": 12,
        "solidity": 0.08,
        "fgcolor": "rgba(0,114,178,0.22)",
        "bgcolor": "rgba(0,114,178,0.07)",
    }
    return _filled(polygons, name="synthetic ground", fillpattern=pattern, showlegend=False)


def bands(page: Page, sheet: Sheet) -> list[Trace]:
    """Returns the pointwise 90 % and 50 % bands of the draws where samples are synthetic."""
    traces, widest = [], 1.0
    count = sheet.draws.shape[0]
    for name, (low, high, opacity) in BANDS.items():
        # The extreme draws are the widest band that so few draws can give: of two, the only one.
        reached = min(high - low, (count - 1) / (count + 1))
        if reached >= widest:
            continue
        polygons, widest = [], reached
        for segment, span, lead in _placed(page, sheet):
            for a, b in runs(widen(sheet.synthetic[lead, span])):
                values = sheet.draws[:, lead, span.start + a : span.start + b]
                lower, upper = np.quantile(values, (low, high), axis=0, method="weibull")
                x = page.x(segment, sheet.time(span.start + np.arange(a, b)))
                y = page.y(segment, np.concatenate((lower, upper[::-1])))
                polygons.append(_array(np.concatenate((x, x[::-1])), y))
        color = f"rgba(0,114,178,{opacity})"
        legend = f"{reached:.0%} band of {count} draws".replace("%", " %")
        traces.append(_filled(polygons, name=legend, fillcolor=color, legendrank=_RANK[name]))
    return traces


def line(page: Page, sheet: Sheet, kind: str, *, draw: int = 0, name: str = "") -> list[Trace]:
    """Returns one kind of curve, a trace for each segment that has it.

    Arguments:
        page: The page.
        sheet: The samples.
        kind: "measured" (everything not synthetic), "synthetic" or "truth" (everything).
        draw: Which draw.
        name: The entry in the legend, the kind if not given.

    Returns:
        The traces; only the first stands in the legend.
    """
    color, width = _PENS[kind]
    traces: list[Trace] = []
    for segment, span, lead in _placed(page, sheet):
        values = sheet.draws[draw, lead, span].astype(np.float64)
        if kind != "truth":
            synthetic = sheet.synthetic[lead, span]
            values[~(widen(synthetic) if kind == "synthetic" else ~synthetic)] = np.nan
        if not np.isfinite(values).any():
            continue
        derived = kind == "measured" and sheet.provenance[lead] == "derived"
        traces.append(
            _curve(page, sheet, segment, values)
            | {
                "name": name or kind,
                "meta": {"lead": segment.lead, "kind": kind, "draw": draw},
                "legendgroup": kind,
                "legendrank": _RANK[kind],
                "showlegend": not traces,
                "line": {"color": color, "width": width * PX_PER_MM},
                "hovertemplate": f"<b>{segment.lead}</b> {'derived' if derived else name or kind}"
                "<br>%{customdata[0]:.0f} ms<br>%{customdata[1]:.3f} mV<extra></extra>",
            }
        )
    return traces


def unlike(truth: Sheet, sheet: Sheet, draw: int) -> Sheet:
    """Returns the truth without the samples that lie under a measured line.

    Arguments:
        truth: The truth, at any rate and with any leads.
        sheet: The reconstruction.
        draw: The draw that is shown.

    Returns:
        The truth with NaN wherever the measured line is the same within a tenth of a small box of
        0.1 mV: drawn twice, it would only discolor the black line.
    """
    draws = truth.draws.copy()
    time = truth.time(np.arange(draws.shape[-1]))
    grid = sheet.time(np.arange(sheet.draws.shape[-1]))
    for row, lead in enumerate(truth.leads):
        if lead in sheet.leads:
            known = sheet.draws[draw, sheet.leads.index(lead)].astype(np.float64)
            known[sheet.synthetic[sheet.leads.index(lead)]] = np.nan
            shown = np.interp(time, grid, known, left=np.nan, right=np.nan)
            draws[0, row, np.abs(draws[0, row] - shown) < 0.01] = np.nan
    return replace(truth, draws=draws)


def pulses(page: Page) -> Trace:
    """Returns the calibration pulses of all rows and the ticks between leads as one trace."""
    corners = [calibration_pulse(page, row) for row in range(len(page.baselines))]
    x, y = _joined([_array(*shape) for shape in (*corners, *lead_ticks(page))])
    return {
        "type": "scatter",
        "mode": "lines",
        "x": x,
        "y": y,
        "name": "calibration pulse 1 mV, 200 ms",
        "line": {"color": MEASURED, "width": STROKE * PX_PER_MM},
        "hoverinfo": "skip",
        "showlegend": False,
    }


_PENS = {
    "measured": (MEASURED, STROKE),
    "synthetic": (SYNTHETIC, 1.15 * STROKE),
    "truth": (TRUTH, 0.9 * STROKE),
}
# The legend reads from what is known to what is guessed; drawing goes from back to front.
_RANK = {"measured": 1, "synthetic": 2, "50 %": 3, "90 %": 4, "truth": 5}


def _placed(page: Page, sheet: Sheet) -> Iterator[tuple[Segment, slice, int]]:
    """Yields each segment that the sheet has samples for, with their range and the lead's row."""
    for segment in page.segments:
        if segment.lead in sheet.leads:
            span = sheet.span(segment)
            if span.stop > span.start:
                yield segment, span, sheet.leads.index(segment.lead)


def _curve(page: Page, sheet: Sheet, segment: Segment, values: NDArray[np.float64]) -> Trace:
    """Returns a curve of all mV values of a segment, evenly spaced."""
    start = sheet.span(segment).start
    time = sheet.time(start + np.arange(values.size))
    return {
        "type": "scatter",
        "mode": "lines",
        # Evenly spaced samples need no x of their own, which keeps files small.
        "x0": round(page.x(segment, sheet.time(start)), 6),
        "dx": page.scale.speed / sheet.sampling_rate,
        "y": page.y(segment, values).astype(np.float32),
        "customdata": np.stack((1000 * time, values), axis=-1).astype(np.float32),
        "connectgaps": False,
    }


def _filled(polygons: list[Corners], **style: Any) -> Trace:
    x, y = _joined(polygons)
    return {
        "type": "scatter",
        "mode": "none",
        "x": x,
        "y": y,
        "fill": "toself",
        "hoverinfo": "skip",
    } | style


def _array(x: Any, y: Any) -> Corners:
    return np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)


def _joined(shapes: list[Corners]) -> Corners:
    """Returns many shapes as one, with NaN between them."""
    gap = np.full(1, np.nan, dtype=np.float32)
    x = [part for corners, _ in shapes for part in (gap, corners)]
    y = [part for _, corners in shapes for part in (gap, corners)]
    return np.concatenate(x[1:] or [gap]), np.concatenate(y[1:] or [gap])
