"""Draws an ECG page with plotly: fixed millimeters, and a mark on everything synthetic.

The line is one draw, never the mean of the draws: that would blur the QRS complex, and no heart
beats like it. The bands show all draws, and a slider steps through them.
"""

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.plot import traces
from ecgdiff.plot.paper import (
    LARGE_BOX,
    PAGE_SECONDS,
    SMALL_BOX,
    Page,
    Rows,
    Scale,
    Segment,
    choose_rows,
    lay_out,
)
from ecgdiff.plot.sheet import ReconstructionLike, RecordingLike, Sheet, cut

if TYPE_CHECKING:
    from plotly.graph_objects import Figure as Figure

__all__ = ["BANNER", "MAX_STEPS", "NOTICE", "ecg"]

NOTICE = "research use only, not for clinical or diagnostic purposes"
BANNER = f"Reconstructed by ecgdiff - {NOTICE}"
MAX_STEPS = 20

_FONT = "Helvetica, Arial, 'Liberation Sans', sans-serif"
_PAPER = "#FFFBF9"
_MINOR, _MAJOR = "#F8DCDA", "#EBB0AC"
_GRAY = "#6B6B6B"
# Room around the grid, in px: the legend, the title above it and the banner above both.
_LEFT, _RIGHT, _LEGEND, _TITLE, _BANNER, _BOTTOM, _SLIDER = 20, 40, 30, 28, 38, 44, 62


def ecg(
    result_or_recording: ReconstructionLike | RecordingLike,
    *,
    truth: RecordingLike | None = None,
    layout: str = "3x4",
    rhythm: Sequence[str] = ("II",),
    draw: int = 0,
    title: str | None = None,
    speed: float = 25.0,
    gain: float = 10.0,
    start: float = 0.0,
) -> "Figure":
    """Draws 10 s of an ECG on paper as cardiologists expect it.

    Measured samples are black. Synthetic ones are blue, one draw at a time, on the 50 % and 90 %
    bands of all draws, with a hatched ground and the word SYNTHETIC (PARTLY SYNTHETIC where a
    stretch was lost). NaN is a gap. If one lead alone was measured, all or in part, it gets a
    strip (unless `rhythm` is empty).

    Arguments:
        result_or_recording: The reconstruction or recording, in mV.
        truth: The complete recording where it is known; drawn behind, as a thin orange line, and
            beside a reconstruction without baseline, as that is.
        layout: "3x4" (2.5 s each), "6x2" (5 s each) or "12x1" (10 s each).
        rhythm: The leads of the 10 s strips below.
        draw: The draw shown first, counted from 0.
        title: A line above the page.
        speed: Paper speed in mm/s.
        gain: Gain in mm/mV, the same for all leads.
        start: The time at the left end of the page, in s.

    Returns:
        A plotly figure of fixed size in which 1 mm is 4 px. Its slider steps through the draws, at
        most `MAX_STEPS` of them.

    Raises:
        ImportError: If plotly is not installed.
        TypeError: If the first argument is neither a reconstruction nor a recording.
        ValueError: If the layout, draw, start, speed or gain is out of range, or the truth has
            none of the leads.
    """
    sheet = cut(result_or_recording, start)
    count = sheet.draws.shape[0]
    if not 0 <= draw < count:
        raise ValueError(f"draw={draw} does not exist; there are {count} (0 to {count - 1}).")
    compared = isinstance(result_or_recording, ReconstructionLike)
    original = cut(truth, start, leveled=compared) if truth is not None else None
    if original and not set(original.leads) & set(sheet.leads):
        raise ValueError(f"The truth has only {', '.join(original.leads)}: no lead to compare.")
    rows = _rows(sheet, layout, rhythm)
    page = _page(rows, Scale(speed, gain), start, sheet, original)
    data, slider = _data(page, sheet, original, draw)
    annotations = [
        *_labels(page, sheet),
        *_clipped(page, sheet),
        *_margins(page, sheet, title),
    ]
    return _figure(data, _layout(page, annotations, slider))


def _rows(sheet: Sheet, layout: str, rhythm: Sequence[str]) -> Rows:
    """Returns the rows of the page, with a strip for the only lead of which any was measured."""
    there = np.isfinite(sheet.draws).any(axis=0) & ~sheet.synthetic
    measured = [lead for lead, row in zip(sheet.leads, there, strict=True) if row.any()]
    only = measured if sheet.reconstructed and len(measured) == 1 and rhythm else []
    return choose_rows(layout, sheet.present, (*rhythm, *only))


def _page(rows: Rows, scale: Scale, start: float, sheet: Sheet, truth: Sheet | None) -> Page:
    """Returns a page tall enough for the outer rows."""
    high, low = [0.0], [0.0]
    for source in (sheet, truth):
        for segment in lay_out(rows, scale, start=start).segments:
            values = _values(source, segment)
            if segment.row == 0:
                high.append(values.max(initial=0.0))
            if segment.row == len(rows) - 1:
                low.append(values.min(initial=0.0))
    return lay_out(rows, scale, start=start, above=max(high), below=min(low))


def _values(sheet: Sheet | None, segment: Segment) -> NDArray[np.float32]:
    """Returns all finite voltages of a segment in all draws, as one vector."""
    if sheet is None or segment.lead not in sheet.leads:
        return np.empty(0, dtype=np.float32)
    values = sheet.draws[:, sheet.leads.index(segment.lead), sheet.span(segment)]
    return values[np.isfinite(values)]


def _data(
    page: Page, sheet: Sheet, truth: Sheet | None, draw: int
) -> tuple[list[traces.Trace], dict[str, Any] | None]:
    """Returns all traces from the back to the front, and the slider that steps through draws."""
    data: list[traces.Trace] = []
    synthetic = bool(sheet.synthetic.any())
    count = sheet.draws.shape[0]
    if synthetic:
        data.append(traces.ground(page, sheet))
    if synthetic and count > 1:
        data += traces.bands(page, sheet)
    if truth is not None:
        data += traces.line(page, traces.unlike(truth, sheet, draw), "truth")
    steps = sorted({*range(min(count, MAX_STEPS)), draw}) if synthetic else []
    groups = []
    for step in steps:
        name = f"synthetic, draw {step + 1} of {count}" if count > 1 else "synthetic"
        group = traces.line(page, sheet, "synthetic", draw=step, name=name)
        groups.append(list(range(len(data), len(data) + len(group))))
        data += [trace | {"visible": step == draw} for trace in group]
    name = "measured or derived" if "derived" in sheet.provenance else "measured"
    data += traces.line(page, sheet, "measured", draw=draw, name=name)
    data.append(traces.pulses(page))
    slider = _slider(page, steps, groups, draw, count) if len(steps) > 1 else None
    return data, slider


def _slider(
    page: Page, steps: list[int], groups: list[list[int]], draw: int, count: int
) -> dict[str, Any]:
    """Returns the slider; each step shows the traces of one draw and touches nothing else."""
    indices = [index for group in groups for index in group]
    buttons = [
        {
            "label": str(step + 1),
            "method": "restyle",
            "args": [{"visible": [index in group for index in indices]}, indices],
        }
        for step, group in zip(steps, groups, strict=True)
    ]
    height = page.top * traces.PX_PER_MM
    return {
        "active": steps.index(draw),
        "steps": buttons,
        "currentvalue": {
            "prefix": "synthetic samples show draw ",
            "suffix": f" of {count}",
            "font": {"size": 12, "color": traces.SYNTHETIC},
        },
        "x": 0,
        "len": 0.45,
        "xanchor": "left",
        "y": -28 / height,
        "yanchor": "top",
        "pad": {"t": 0, "b": 0, "l": 4, "r": 4},
        "font": {"size": 10, "color": _GRAY},
        "ticklen": 3,
        "minorticklen": 0,
        "bordercolor": _MAJOR,
    }


def _labels(page: Page, sheet: Sheet) -> list[dict[str, Any]]:
    """Returns the lead names at the beginning of the segments, with their marks."""
    labels = []
    for segment in page.segments:
        word = sheet.word(segment)
        synthetic = "SYNTHETIC" in word
        color = traces.SYNTHETIC if synthetic else traces.MEASURED
        small = f" <span style='font-size:10px;color:{color if synthetic else _GRAY}'>"
        mark = f"{small}{f'<b>{word}</b>' if synthetic else word}</span>" if word else ""
        labels.append(
            _text(f"<b>{segment.lead}</b>{mark}", size=14, color=color)
            | {
                "x": segment.left + SMALL_BOX / 2,
                "y": segment.baseline + page.pitch / 2 - SMALL_BOX,
                "xref": "x",
                "yref": "y",
                "xanchor": "left",
                "yanchor": "top",
                "bgcolor": "rgba(255,251,249,0.8)",
                "borderpad": 1,
                "name": f"lead {segment.lead}",
            }
        )
    return labels


def _clipped(page: Page, sheet: Sheet) -> list[dict[str, Any]]:
    """Returns a note for each segment with samples beyond the page, which cannot be seen."""
    notes = []
    for segment in page.segments:
        values = _values(sheet, segment)
        highest = (page.top - segment.baseline) / page.scale.gain
        lowest = -segment.baseline / page.scale.gain
        for beyond, limit, edge, arrow, anchor in (
            (values.max(initial=0.0) > highest, highest, page.top, "▲", "top"),
            (values.min(initial=0.0) < lowest, lowest, 0.0, "▼", "bottom"),
        ):
            if beyond:
                text = f"{arrow} <b>{segment.lead}</b> clipped at {limit:+.1f} mV"
                notes.append(
                    _text(text, size=11, color="#B00020")
                    | {"x": (segment.left + segment.right) / 2, "xref": "x", "xanchor": "center"}
                    | {"y": edge, "yref": "y", "yanchor": anchor, "bgcolor": _PAPER}
                    | {"name": f"clipped {segment.lead}"}
                )
    return notes


def _margins(page: Page, sheet: Sheet, title: str | None) -> list[dict[str, Any]]:
    """Returns the banner, the title and the line below the page."""
    width = (page.right - page.left) * traces.PX_PER_MM
    header = _LEGEND + (_TITLE if title else 0)
    banner = BANNER if sheet.reconstructed else f"ecgdiff - {NOTICE}"
    above = {"xref": "paper", "yref": "paper", "y": 1, "yanchor": "bottom"}
    below = {"xref": "paper", "yref": "paper", "y": 0, "yanchor": "top", "yshift": -6}
    notes = [
        _text(f"<b>{banner}</b>", size=13, color="#5C3D00")
        | above
        | {"x": 0.5, "xanchor": "center", "yshift": header, "width": width - 2, "height": 20}
        | {"bgcolor": "#FFE9B8", "bordercolor": "#E0A82E", "borderpad": 3, "name": "banner"},
        _text(_scales(page, sheet), size=12)
        | below
        | {"x": 0, "xanchor": "left", "name": "scales"},
    ]
    if title:
        text = f"<b>{escape(title)}</b>"
        notes.append(
            _text(text, size=16)
            | above
            | {"x": 0, "xanchor": "left", "yshift": _LEGEND, "name": "title"}
        )
    if origin := _origin(sheet):
        notes.append(
            _text(origin, size=11, color=_GRAY)
            | below
            | {"x": 1, "xanchor": "right", "name": "origin"}
        )
    return notes


def _scales(page: Page, sheet: Sheet) -> str:
    """Returns the line that a cardiologist looks for at the bottom."""
    rate = f"{sheet.sampling_rate:g} Hz"
    if band := sheet.meta.get("band"):
        rate = f"band {escape(str(band))}, {rate}"
    scale = page.scale
    if sheet.total > PAGE_SECONDS:
        first = sheet.first / sheet.sampling_rate
        rate += f"   {first:g}-{min(first + PAGE_SECONDS, sheet.total):g} s of {sheet.total:g} s"
    return f"{scale.speed:g} mm/s   {scale.gain:g} mm/mV   {rate}".replace("   ", "&nbsp;" * 3)


def _origin(sheet: Sheet) -> str:
    """Returns what made the synthetic samples, as far as the source says so."""
    known = ((key, sheet.meta.get(key)) for key in ("sampler", "prior", "seed"))
    # A sampler's name alone: its settings, in parentheses, are in the files.
    words = ((key, str(value).partition("(")[0]) for key, value in known if value is not None)
    return ", ".join(f"{key} {escape(word)}" for key, word in words)


def _text(text: str, *, size: int, color: str = traces.MEASURED) -> dict[str, Any]:
    return {"text": text, "showarrow": False, "font": {"size": size, "color": color}}


def _axis(low: float, high: float) -> dict[str, Any]:
    """Returns an axis in mm that shows nothing but the boxes of ECG paper."""
    return {
        "range": [low, high],
        "tick0": 0,
        "dtick": LARGE_BOX,
        "gridcolor": _MAJOR,
        "gridwidth": 1,
        "showgrid": True,
        "minor": {"tick0": 0, "dtick": SMALL_BOX, "gridcolor": _MINOR, "showgrid": True},
        "showticklabels": False,
        "ticks": "",
        "zeroline": False,
        "showline": True,
        "mirror": True,
        "linecolor": _MAJOR,
    }


def _layout(
    page: Page, annotations: list[dict[str, Any]], slider: dict[str, Any] | None
) -> dict[str, Any]:
    """Returns the layout: a figure of fixed size with one millimeter on both axes."""
    titled = any(note.get("name") == "title" for note in annotations)
    top = _BANNER + _LEGEND + (_TITLE if titled else 0)
    bottom = _BOTTOM + (_SLIDER if slider else 0)
    return {
        "template": "none",
        "width": (page.right - page.left) * traces.PX_PER_MM + _LEFT + _RIGHT,
        "height": page.top * traces.PX_PER_MM + top + bottom,
        "margin": {"l": _LEFT, "r": _RIGHT, "t": top, "b": bottom, "pad": 0},
        "paper_bgcolor": "white",
        "plot_bgcolor": _PAPER,
        "font": {"family": _FONT, "color": traces.MEASURED},
        "xaxis": _axis(page.left, page.right),
        "yaxis": _axis(0.0, page.top) | {"scaleanchor": "x", "scaleratio": 1},
        "annotations": annotations,
        "sliders": [slider] if slider else [],
        "hovermode": "closest",
        "dragmode": "pan",
        # Upright at the right edge, where it hides neither the banner nor a lead.
        "modebar": {"orientation": "v", "bgcolor": "rgba(0,0,0,0)", "color": "#BBBBBB"},
        "hoverlabel": {"bgcolor": "white", "font": {"size": 12}},
        "legend": {
            "orientation": "h",
            "x": 1,
            "xanchor": "right",
            "y": 1,
            "yanchor": "bottom",
            "font": {"size": 12},
            "bgcolor": "rgba(0,0,0,0)",
        },
    }


def _figure(data: list[traces.Trace], layout: dict[str, Any]) -> "Figure":
    """Returns the figure; the only place that imports plotly."""
    try:
        from plotly.graph_objects import Figure as Figure
    except ImportError as error:
        raise ImportError("Plots need plotly: pip install 'ecgdiff[plot]'.") from error
    return Figure(data=data, layout=layout)
