"""Writes a figure given in plain dicts and lists as a small HTML page."""

from pathlib import Path
from typing import Any

__all__ = ["write_figure"]


def write_figure(figure: dict[str, Any], path: str | Path, *, offline: bool = False) -> None:
    """Writes a plotly figure; the page loads plotly.js from its public address when opened.

    Arguments:
        figure: `data` and `layout` as plotly names them; unknown keys are an error.
        path: The file to write.
        offline: Whether the page holds plotly.js itself (5 MB) and needs no network.

    Raises:
        ImportError: If plotly is not installed.
    """
    from plotly.graph_objects import Figure

    html = Figure(figure).to_html(include_plotlyjs=offline or "cdn", div_id=Path(path).stem)
    Path(path).write_text(html, encoding="utf-8")
