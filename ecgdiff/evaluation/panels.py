"""A page of many panels as a plotly figure, in plain dicts and lists: who stands where."""

from collections.abc import Sequence
from typing import Any

__all__ = ["Panels", "Plot"]

WIDTH, ROW, GAP, TOP, FOOT = 1180, 290, 125, 220, 60
_GRID = {"gridcolor": "#E5E5E5", "zeroline": False, "showline": True, "linecolor": "#999"}

Plot = dict[str, Any]


class Panels:
    """Creates an empty page; panels are placed on it row by row.

    Arguments:
        rows: How many rows of panels there are.
    """

    def __init__(self, rows: int) -> None:
        self.data: list[Plot] = []
        self.inner = rows * (ROW + GAP) - GAP
        self.layout: Plot = {
            "width": WIDTH,
            "height": self.inner + TOP + FOOT,
            "margin": {"t": TOP, "b": FOOT, "l": 30, "r": 20},
            "template": "none",
            "font": {"family": "Helvetica, Arial, sans-serif", "size": 12},
            "barmode": "overlay",
            "boxmode": "group",
            "showlegend": False,
            "annotations": [],
        }
        self._count = 0

    @property
    def figure(self) -> Plot:
        """The plotly figure as `data` and `layout`."""
        return {"data": self.data, "layout": self.layout}

    def panel(
        self,
        row: int,
        span: Sequence[float],
        title: Sequence[str],
        traces: Sequence[Plot],
        x: Plot | None = None,
        y: Plot | None = None,
    ) -> None:
        """Adds a panel.

        Arguments:
            row: Its row from the top.
            span: Its left and right end, as shares of the width.
            title: What it shows, and how to read it.
            traces: Its curves.
            x: Settings of its horizontal axis.
            y: Settings of its vertical axis.
        """
        self._count += 1
        axis = str(self._count)
        top = 1 - row * (ROW + GAP) / self.inner
        below = {"anchor": f"y{axis}", "domain": list(span), **_GRID}
        beside = {"anchor": f"x{axis}", "domain": [top - ROW / self.inner, top], **_GRID}
        self.layout[f"xaxis{axis}"] = below | (x or {})
        self.layout[f"yaxis{axis}"] = beside | (y or {})
        self.data += [{**trace, "xaxis": f"x{axis}", "yaxis": f"y{axis}"} for trace in traces]
        small = f"<br><span style='font-size:11.5px;color:#666'>{title[1]}</span>"
        self.note(f"<b>{title[0]}</b>{small}", span[0], top, 8, 14)

    def note(self, text: str, x: float, y: float, shift: float, size: int) -> None:
        """Writes text at a place of the page, `shift` px above it."""
        self.layout["annotations"].append(
            {
                "text": text,
                "xref": "paper",
                "yref": "paper",
                "x": x,
                "y": y,
                "yshift": shift,
                "xanchor": "left",
                "yanchor": "bottom",
                "align": "left",
                "showarrow": False,
                "font": {"size": size},
            }
        )
