"""The figure of what a classifier reads: by task, method and condition."""

import math
from collections.abc import Mapping
from typing import Any

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.evaluation.readings import Figures

__all__ = ["figure"]

SCORES = {"auroc": "AUROC", "youden": "balanced accuracy, Youden"}
COLUMNS = ((0.16, 0.56), (0.6, 1.0))
GAP = 0.06

Plot = dict[str, Any]


def figure(found: Mapping[str, Figures]) -> Plot:
    """Draws a row of two panels per task: one point per method and condition, with its interval.

    Arguments:
        found: By task what :func:`ecgdiff.evaluation.readings.figures` gives.

    Returns:
        A plotly figure as `data` and `layout`.
    """
    data: list[Plot] = []
    rows = max(len(methods) for methods in found.values())
    layout: Plot = {
        "height": 200 + len(found) * rows * 56,
        "margin": {"t": 110},
        "title": {"text": "What a classifier reads; 95 % bootstrap intervals over patients"},
        "legend": {"orientation": "h", "x": COLUMNS[0][0], "y": 1.02, "yanchor": "bottom"},
    }
    for row, (task, methods) in enumerate(found.items()):
        for column, (score, title) in enumerate(SCORES.items()):
            axis = str(2 * row + column + 1)
            first = axis == "1"
            data += [
                {**trace, "xaxis": f"x{axis}", "yaxis": f"y{axis}", "showlegend": first}
                for trace in _points(methods, score)
            ]
            top = 1 - row / len(found)
            layout[f"xaxis{axis}"] = {
                "anchor": f"y{axis}",
                "domain": list(COLUMNS[column]),
                "range": [_lowest(found), 1.02],
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


def _lowest(found: Mapping[str, Figures]) -> float:
    """A tenth at or below every interval."""
    ends = [
        low
        for methods in found.values()
        for entry in methods.values()
        for score in SCORES
        for low in entry[score]["low"]
        if low is not None
    ]
    return math.floor(10 * min(ends, default=0.4)) / 10 - 0.02


def _points(methods: Figures, score: str) -> list[Plot]:
    """One trace per condition, side by side within each method's row."""
    out = []
    for k, code in enumerate(CONDITIONS):
        known = [
            (place, entry[score])
            for place, entry in enumerate(methods.values())
            if entry[score]["value"][k] is not None
        ]
        values = [[e[end][k] or 0.0 for _, e in known] for end in ("value", "low", "high")]
        out.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": code,
                "legendgroup": code,
                "marker": {"color": f"hsl({90 * k + 10}, 65%, 42%)", "size": 7},
                "x": values[0],
                "y": [place + 0.16 * (k - 1.5) for place, _ in known],
                "error_x": {
                    "type": "data",
                    "symmetric": False,
                    "arrayminus": [v - low for v, low in zip(values[0], values[1], strict=True)],
                    "array": [high - v for v, high in zip(values[0], values[2], strict=True)],
                },
            }
        )
    return out
