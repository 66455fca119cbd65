"""The figure of an evaluation, in plain dicts and lists: CRPS, coverage and ranks of each task."""

from collections.abc import Mapping, Sequence
from typing import Any

from ecgdiff.evaluation.summary import Figures

__all__ = ["figure"]

BANDS = {"coverage_50": "#9ecae1", "coverage_80": "#4292c6", "coverage_90": "#08519c"}
COLUMNS = ((0.0, 0.27), (0.36, 0.63), (0.72, 1.0))
HEIGHT, GAP = 420, 0.3

Plot = dict[str, Any]


def figure(found: Mapping[str, Mapping[str, Figures]]) -> Plot:
    """Draws one row of panels per task: CRPS, coverage beside its nominal value, ranks.

    Arguments:
        found: The figures by task and method, from :func:`ecgdiff.evaluation.tables.collect`;
            methods without scores are left out.

    Returns:
        A plotly figure as `data` and `layout`.
    """
    labels = dict.fromkeys(label for methods in found.values() for label in methods)
    colors = {x: f"hsl({round(360 * k / len(labels))}, 65%, 42%)" for k, x in enumerate(labels)}
    data: list[Plot] = []
    layout: Plot = {
        "height": HEIGHT * len(found),
        "barmode": "group",
        "title": {"text": "Errors and calibration; frames: the nominal value of each band"},
    }
    for row, (name, methods) in enumerate(found.items()):
        scored = {label: figures for label, figures in methods.items() if figures["scores"]}
        panels = (
            ("CRPS, mV", _crps(scored, colors)),
            ("share inside the band", _coverage(scored, row == 0)),
            ("rank of the truth: share / expected", _ranks(scored, colors, row == 0)),
        )
        for column, (title, traces) in enumerate(panels):
            axis = str(3 * row + column + 1)
            data += [{**trace, "xaxis": f"x{axis}", "yaxis": f"y{axis}"} for trace in traces]
            top = 1 - row / len(found)
            y = [top - (1 - GAP) / len(found), top]
            layout[f"xaxis{axis}"] = {"anchor": f"y{axis}", "domain": list(COLUMNS[column])}
            layout[f"yaxis{axis}"] = {
                "anchor": f"x{axis}",
                "domain": y,
                "rangemode": "tozero",
                "title": {"text": f"{name}: {title}"},
            }
    return {"data": data, "layout": layout}


def _crps(methods: Mapping[str, Figures], colors: Mapping[str, str]) -> list[Plot]:
    bars = _bars(methods, "crps")
    return [{**bars, "marker": {"color": [colors[x] for x in bars["x"]]}, "showlegend": False}]


def _coverage(methods: Mapping[str, Figures], legend: bool) -> list[Plot]:
    """Bars of each band, and a line where it would be if calibrated."""
    drawn = {x: f for x, f in methods.items() if all(band in f["scores"] for band in BANDS)}
    out: list[Plot] = []
    for number, (band, color) in enumerate(BANDS.items()):
        name = f"{band.removeprefix('coverage_')} % band"
        common = {"legendgroup": name, "offsetgroup": str(number)}
        bars = {"name": name, "marker": {"color": color}, "showlegend": legend}
        out.append({**_bars(drawn, band), **bars, **common})
        nominal = {
            "type": "bar",
            "name": f"{name}, nominal",
            "x": list(drawn),
            "y": [f["nominal_coverage"][band] for f in drawn.values()],
            "marker": {"color": "rgba(0,0,0,0)", "line": {"color": "#000", "width": 1.5}},
            "showlegend": False,
        }
        out.append({**nominal, **common})
    return out


def _ranks(methods: Mapping[str, Figures], colors: Mapping[str, str], legend: bool) -> list[Plot]:
    """One line per method; flat at 1 if calibrated, high at both ends if too sure."""
    out: list[Plot] = []
    for label, figures in methods.items():
        if shares := figures.get("ranks"):
            out.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": label,
                    "legendgroup": label,
                    "showlegend": legend,
                    "line": {"color": colors[label], "shape": "hvh"},
                    "x": list(range(len(shares))),
                    "y": [share * len(shares) for share in shares],
                }
            )
    return out


def _bars(methods: Mapping[str, Figures], score: str) -> Plot:
    """Bars with their bootstrap intervals."""
    entries: Sequence[Mapping[str, float]] = [f["scores"][score] for f in methods.values()]
    return {
        "type": "bar",
        "x": list(methods),
        "y": [e["value"] for e in entries],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [e["high"] - e["value"] for e in entries],
            "arrayminus": [e["value"] - e["low"] for e in entries],
        },
    }
