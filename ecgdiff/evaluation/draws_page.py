"""Draws on ECG paper, many on one page: SVG in a single HTML file without scripts.

Every sheet has the clinical layout (3 rows of 4 leads, lead II below) and its scale, 25 mm/s and
10 mm/mV, in true millimeters when printed. Everything on it is synthetic, and it says so.
"""

from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.plot.paper import (
    LARGE_BOX,
    SMALL_BOX,
    STROKE,
    Page,
    Scale,
    calibration_pulse,
    choose_rows,
    lay_out,
    lead_ticks,
    sample_range,
)

__all__ = ["draws_page", "sheet"]

NOTICE = "SYNTHETIC: drawn from a prior, no patient's ECG"
_FOOTER = "research use only, not for clinical or diagnostic purposes"
_INK, _PAPER, _MINOR, _MAJOR = "#111111", "#FFFBF9", "#F8DCDA", "#EBB0AC"
_ABOVE, _BELOW = 7.0, 5.0  # mm for the lines of text
_HTML = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>
body {{ margin: 16px; font-family: Helvetica, Arial, sans-serif; color: #111; }}
main {{ display: grid; gap: 18px; grid-template-columns: repeat(auto-fill, minmax(900px, 1fr)); }}
svg {{ width: 100%; height: auto; }}
@page {{ size: 297mm 210mm; margin: 10mm; }}
@media print {{
body {{ margin: 0; }}
header {{ display: none; }}
main {{ display: block; }}
svg {{ width: {width}mm; break-inside: avoid; break-after: page; }}
}}
</style>
</head>
<body>
<svg width="0" height="0" style="position:absolute"><defs>
<pattern id="small" width="1" height="1" patternUnits="userSpaceOnUse">
<path d="M1 0H0V1" fill="none" stroke="{minor}" stroke-width="0.12"/></pattern>
<pattern id="large" width="5" height="5" patternUnits="userSpaceOnUse">
<rect width="5" height="5" fill="url(#small)"/>
<path d="M5 0H0V5" fill="none" stroke="{major}" stroke-width="0.22"/></pattern>
</defs></svg>
<header><h1>{title}</h1><p>{text} {notice}; {footer}.</p></header>
<main>
{sheets}
</main>
</body>
</html>
"""


def draws_page(
    signal: NDArray[np.floating],
    sampling_rate: float,
    captions: Sequence[str],
    path: str | Path,
    *,
    title: str,
    text: str = "",
    band: str = "",
) -> None:
    """Writes a page of sheets.

    Arguments:
        signal: Draws in mV, with shape (draws, 12, time) and the leads of `LEADS_12`, 10 s.
        sampling_rate: In Hz.
        captions: One line per draw.
        path: The HTML file to write.
        title: Its heading.
        text: What stands below it.
        band: The frequencies that the draws have, such as "0.5-42 Hz".
    """
    both = zip(signal, captions, strict=True)
    sheets = [sheet(x, sampling_rate, caption, band) for x, caption in both]
    page = lay_out(choose_rows("3x4", LEADS_12), Scale())
    html = _HTML.format(
        title=escape(title),
        text=escape(text),
        notice=NOTICE,
        footer=_FOOTER,
        minor=_MINOR,
        major=_MAJOR,
        width=page.right - page.left,
        sheets="\n".join(sheets),
    )
    Path(path).write_text(html, encoding="utf-8")


def sheet(signal: NDArray[np.floating], sampling_rate: float, caption: str, band: str = "") -> str:
    """Draws one sheet of ECG paper as an SVG element; its unit is the millimeter.

    Arguments:
        signal: In mV, with shape (12, time) and the leads of `LEADS_12`.
        sampling_rate: In Hz.
        caption: The line above it.
        band: The frequencies that the signal has, for the line below it.
    """
    rows = choose_rows("3x4", LEADS_12)
    first = [LEADS_12.index(lead) for lead in rows[0]]
    last = [LEADS_12.index(lead) for lead in rows[-1]]
    page = lay_out(
        rows, Scale(), above=float(signal[first].max()), below=float(signal[last].min())
    )
    width, height = page.right - page.left, page.top
    lines = [*_traces(page, signal, sampling_rate), *_marks(page)]
    grid = f'x="{page.left:g}" y="0" width="{width:g}" height="{height:g}"'
    rate = f"band {band}, {sampling_rate:g} Hz" if band else f"{sampling_rate:g} Hz"
    scales = f"{page.scale.speed:g} mm/s   {page.scale.gain:g} mm/mV   {rate}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{page.left:g} {-_ABOVE:g} '
            f'{width:g} {height + _ABOVE + _BELOW:g}" font-family="Helvetica, Arial, sans-serif">',
            _text(page.left, -2, caption, 3.6, weight="bold"),
            _text(page.right, -2, NOTICE, 3.2, anchor="end", color="#0072B2"),
            f'<rect {grid} fill="{_PAPER}"/><rect {grid} fill="url(#large)"/>',
            f'<svg {grid} viewBox="{page.left:g} 0 {width:g} {height:g}">',
            *lines,
            "</svg>",
            *_labels(page),
            _text(page.left, height + 3.8, scales, 2.8),
            _text(page.right, height + 3.8, _FOOTER, 2.8, anchor="end"),
            "</svg>",
        ]
    )


def _traces(page: Page, signal: NDArray[np.floating], rate: float) -> list[str]:
    out = []
    for segment in page.segments:
        a, b = sample_range(segment.start, segment.stop, rate)
        values = signal[LEADS_12.index(segment.lead), a:b].astype(np.float64)
        x = page.x(segment, np.arange(a, a + len(values)) / rate)
        out.append(_curve(x, page.top - page.y(segment, values)))
    return out


def _marks(page: Page) -> list[str]:
    """Calibration pulses and the ticks between leads."""
    shapes = [calibration_pulse(page, row) for row in range(len(page.baselines))]
    return [_curve(np.array(x), page.top - np.array(y)) for x, y in [*shapes, *lead_ticks(page)]]


def _curve(x: NDArray[np.float64], y: NDArray[np.float64]) -> str:
    points = " ".join(f"{a:.2f},{b:.2f}" for a, b in zip(x, y, strict=True))
    style = f'fill="none" stroke="{_INK}" stroke-width="{STROKE}" stroke-linejoin="round"'
    return f'<polyline points="{points}" {style}/>'


def _labels(page: Page) -> list[str]:
    size = 3.4
    return [
        _text(
            segment.left + SMALL_BOX,
            page.top - segment.baseline - page.pitch / 2 + LARGE_BOX,
            segment.lead,
            size,
            weight="bold",
        )
        for segment in page.segments
    ]


def _text(
    x: float,
    y: float,
    text: str,
    size: float,
    *,
    weight: str = "normal",
    anchor: str = "start",
    color: str = _INK,
) -> str:
    return (
        f'<text x="{x:g}" y="{y:g}" font-size="{size:g}" font-weight="{weight}" '
        f'text-anchor="{anchor}" fill="{color}" xml:space="preserve">'
        f"{escape(text, quote=False)}</text>"
    )
