"""Writes a figure as a document of its own: one HTML file, and true millimeters when printed."""

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from ecgdiff.plot.plotly import NOTICE
from ecgdiff.plot.traces import PX_PER_MM

if TYPE_CHECKING:
    from ecgdiff.plot.plotly import Figure

__all__ = ["write_html"]

# A CSS px is 1/96 inch: this zoom makes 1 mm of a printed page 1 mm.
_TRUE_SIZE = round(96 / 25.4 / PX_PER_MM, 5)
_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 8px; font-family: Helvetica, Arial, sans-serif; color: #111; }}
footer {{ margin: 4px 20px; font-size: 12px; color: #5C3D00; }}
@page {{ size: {width}mm {height}mm; margin: 0; }}
@media print {{
body {{ margin: 0; zoom: {zoom}; }}
footer, .modebar-container, .slider-container {{ display: none; }}
}}
</style>
</head>
<body>
{body}
<footer>ecgdiff: {notice}.</footer>
</body>
</html>
"""


def write_html(figure: "Figure", path: str | Path, *, title: str = "ECG") -> None:
    """Writes a figure as one HTML file that needs no network, with a title and the notice.

    A browser prints it, or saves it as a PDF, on one page in true millimeters.

    Arguments:
        figure: A figure of `ecg`.
        path: The file to write; plotly.js makes it about 5 MB.
        title: The title of the page in a browser.
    """
    config = {"displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d"]}
    body = figure.to_html(full_html=False, include_plotlyjs=True, config=config)
    html = _HTML.format(
        title=escape(title),
        notice=escape(NOTICE),
        body=body,
        zoom=_TRUE_SIZE,
        # The smallest room in which a browser does not begin a second page.
        width=figure.layout.width / PX_PER_MM + 2,
        height=figure.layout.height / PX_PER_MM + 8,
    )
    Path(path).write_text(html, encoding="utf-8")
