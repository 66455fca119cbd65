"""The figure of what a classifier reads: by task, method and condition.

The axes begin at `LEFT`, so that .95 and .99 can be told apart; what lies left of it is an arrow
at the edge, with its value.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.evaluation.estimates import Estimate
from ecgdiff.evaluation.figures import COLORS, heading
from ecgdiff.evaluation.readings import Figures

__all__ = ["figure"]

SCORES = {"auroc": "AUROC", "youden": "balanced accuracy, Youden"}
COLUMNS = ((0.16, 0.56), (0.6, 1.0))
GAP = 0.06
LEFT, ROOM = 0.8, 0.005
STEP = 0.19  # of a row, from one condition to the next

Plot = dict[str, Any]


def figure(found: Mapping[str, Figures]) -> Plot:
    """Draws a row of two panels per task: one point per method and condition, with its interval.

    What is less than `LEFT` is an arrow with its value, in a trace of its own.

    Arguments:
        found: By task what :func:`ecgdiff.evaluation.readings.figures` gives.

    Returns:
        A plotly figure as `data` and `layout`.
    """
    data: list[Plot] = []
    rows = max(len(methods) for methods in found.values())
    layout: Plot = {
        "height": 200 + len(found) * rows * 68,
        "margin": {"t": 110},
        "title": heading(
            "What a classifier reads; 95 % bootstrap intervals over patients; arrows: "
            f"less than {LEFT:g}"
        ),
        "legend": {"orientation": "h", "x": COLUMNS[0][0], "y": 1, "yanchor": "bottom"},
    }
    for row, (task, methods) in enumerate(found.items()):
        for column, (score, title) in enumerate(SCORES.items()):
            axis = str(2 * row + column + 1)
            first = axis == "1"
            data += [
                {"showlegend": first, **trace, "xaxis": f"x{axis}", "yaxis": f"y{axis}"}
                for trace in (*_points(methods, score), *_arrows(methods, score))
            ]
            top = 1 - row / len(found)
            layout[f"xaxis{axis}"] = {
                "anchor": f"y{axis}",
                "domain": list(COLUMNS[column]),
                "range": [LEFT - ROOM, 1 + ROOM],
                "title": {"text": f"{task}: {title}"},
            }
            layout[f"yaxis{axis}"] = {
                "anchor": f"x{axis}",
                "domain": [top - (1 - GAP * len(found)) / len(found), top],
                "range": [len(methods) - 0.5, -0.5],
                "tickvals": list(range(len(methods))),
                "ticktext": list(methods),
                "showticklabels": column == 0,
            }
    return {"data": data, "layout": layout}


def _points(methods: Figures, score: str) -> list[Plot]:
    """One trace per condition, side by side within each method's row."""
    out = []
    for k, code in enumerate(CONDITIONS):
        known = [
            (place, value, e["low"][k] or 0.0, e["high"][k] or 0.0)
            for place, value, e in _values(methods, score, k)
            if value >= LEFT
        ]
        out.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": code,
                "legendgroup": code,
                "marker": {"color": COLORS[k], "size": 7},
                "x": [value for _, value, _, _ in known],
                "y": [place for place, _, _, _ in known],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "arrayminus": [value - low for _, value, low, _ in known],
                    "array": [high - value for _, value, _, high in known],
                },
            }
        )
    return out


def _arrows(methods: Figures, score: str) -> list[Plot]:
    """The same of what lies left of the axis, without intervals."""
    out = []
    for k, code in enumerate(CONDITIONS):
        known = [(at, value) for at, value, _ in _values(methods, score, k) if value < LEFT]
        if known:
            out.append(
                {
                    "type": "scatter",
                    "mode": "markers+text",
                    "name": code,
                    "legendgroup": code,
                    "showlegend": False,
                    "marker": {"color": COLORS[k], "size": 9, "symbol": "triangle-left"},
                    "x": [LEFT] * len(known),
                    "y": [place for place, _ in known],
                    "text": [f"{value:.2f}" for _, value in known],
                    "textposition": "middle right",
                    "textfont": {"color": COLORS[k], "size": 10},
                    "hoverinfo": "name+text",
                }
            )
    return out


def _values(methods: Figures, score: str, k: int) -> Iterator[tuple[float, float, Estimate]]:
    """Where a condition's mark of each method stands, its value, and all its numbers."""
    for row, entry in enumerate(methods.values()):
        if (value := entry[score]["value"][k]) is not None:
            yield row + STEP * (k - 1.5), value, entry[score]
