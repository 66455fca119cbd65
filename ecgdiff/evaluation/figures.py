"""The figure of an evaluation, in plain dicts: errors, coverage, ranks, spectra by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.spectra import SpectraComparison
from ecgdiff.evaluation.summary import Figures
from ecgdiff.evaluation.tables import ERRORS
from ecgdiff.evaluation.tasks import TASKS

__all__ = ["figure"]

BANDS = {"coverage_50": "#9ecae1", "coverage_80": "#4292c6", "coverage_90": "#08519c"}
WHOLE = (0.0, 1.0)
HALVES = ((0.0, 0.44), (0.56, 1.0))
SPECTRA_LEADS = ("V2", "II")
HEIGHT, GAP = 420, 0.3

Plot = dict[str, Any]
Spectra = Mapping[str, SpectraComparison]


@dataclass(frozen=True)
class _Panel:
    """One pair of axes: what its y axis shows, its traces, where it begins and ends in its row."""

    title: str
    traces: Sequence[Plot]
    domain: tuple[float, float]
    spectral: bool = False


def figure(
    found: Mapping[str, Mapping[str, Figures]], spectra: Mapping[str, Spectra] | None = None
) -> Plot:
    """Draws for each task errors; below them coverage beside nominal values, ranks, spectra.

    Arguments:
        found: The figures by task and method, from :func:`ecgdiff.evaluation.tables.collect`;
            methods without scores are left out.
        spectra: The averaged densities of truth and draws by task and method, from
            :func:`ecgdiff.evaluation.spectra_tables.averaged`; of leads V2 and II those that the
            task scores are shown.

    Returns:
        A plotly figure as `data` and `layout`.
    """
    labels = dict.fromkeys(label for methods in found.values() for label in methods)
    colors = {x: f"hsl({round(360 * k / len(labels))}, 65%, 42%)" for k, x in enumerate(labels)}
    rows: list[list[_Panel]] = []
    for name, methods in found.items():
        scored = {label: figures for label, figures in methods.items() if figures["scores"]}
        bands = _coverage(scored)
        ranks = _ranks(scored, colors)
        rows.append([_Panel(f"{name}: errors, mV", _errors(scored, colors), WHOLE)])
        rows.append(
            [
                _Panel(f"{name}: share inside the band", bands, HALVES[0]),
                _Panel(f"{name}: rank of the truth: share / expected", ranks, HALVES[1]),
            ]
        )
        if compared := (spectra or {}).get(name):
            rows.append(_densities(name, compared, colors))
    return _laid_out(rows)


def _laid_out(rows: Sequence[Sequence[_Panel]]) -> Plot:
    """Gives each panel its axes, row below row; a name stands in the legend once."""
    layout: Plot = {
        "height": HEIGHT * len(rows),
        "barmode": "group",
        "title": {"text": "Errors and calibration; frames: the nominal value of each band"},
    }
    data: list[Plot] = []
    named: set[str] = set()
    panels = [(row, panel) for row, these in enumerate(rows) for panel in these]
    for axis, (row, panel) in enumerate(panels, 1):
        for trace in panel.traces:
            shown = trace.get("showlegend", True) and trace["name"] not in named
            named |= {trace["name"]} if shown else set()
            place = {"xaxis": f"x{axis}", "yaxis": f"y{axis}", "showlegend": shown}
            data.append({**trace, **place})
        top = 1 - row / len(rows)
        x: Plot = {"anchor": f"y{axis}", "domain": list(panel.domain)}
        y: Plot = {"anchor": f"x{axis}", "domain": [top - (1 - GAP) / len(rows), top]}
        y["title"] = {"text": panel.title}
        if panel.spectral:
            x["title"] = {"text": "Hz"}
            y["type"] = "log"
        else:
            y["rangemode"] = "tozero"
        layout |= {f"xaxis{axis}": x, f"yaxis{axis}": y}
    return {"data": data, "layout": layout}


def _densities(task: str, compared: Spectra, colors: Mapping[str, str]) -> list[_Panel]:
    """Densities of truth, dashed, and methods in one panel per lead."""
    # Methods that are not through lack records; the truth is that of the one with the most.
    most = max(compared.values(), key=lambda found: found.records)
    leads = TASKS[task].scored_leads
    out = []
    shown = [lead for lead in SPECTRA_LEADS if lead in leads]
    for lead, domain in zip(shown, HALVES, strict=False):
        k = leads.index(lead)
        traces = [
            _line(label, found.frequencies, found.drawn[k], {"color": colors[label]})
            for label, found in compared.items()
        ]
        black = {"color": "#000", "dash": "dash"}
        traces.append(_line("truth", most.frequencies, most.true[k], black))
        out.append(_Panel(f"{task}: density in {lead}, mV²/Hz", traces, domain, spectral=True))
    return out


def _line(
    label: str, x: NDArray[np.float64], density: NDArray[np.float64], style: Mapping[str, str]
) -> Plot:
    """A density over frequency; a log axis shows no zero, so where it is zero there is no line."""
    return {
        "type": "scatter",
        "mode": "lines",
        "name": label,
        "legendgroup": label,
        "line": dict(style),
        "x": [round(float(v), 4) for v in x],
        "y": [float(f"{v:.4g}") if v > 0 else None for v in density],
    }


def _errors(methods: Mapping[str, Figures], colors: Mapping[str, str]) -> list[Plot]:
    """One trace per method: its errors with their bootstrap intervals."""
    return [
        {
            **_bars(list(ERRORS.values()), [figures["scores"][score] for score in ERRORS]),
            "name": label,
            "legendgroup": label,
            "marker": {"color": colors[label]},
        }
        for label, figures in methods.items()
    ]


def _coverage(methods: Mapping[str, Figures]) -> list[Plot]:
    """Bars of each band, and a line where it would be if calibrated."""
    drawn = {x: f for x, f in methods.items() if all(band in f["scores"] for band in BANDS)}
    out: list[Plot] = []
    for number, (band, color) in enumerate(BANDS.items()):
        name = f"{band.removeprefix('coverage_')} % band"
        common = {"legendgroup": name, "offsetgroup": str(number)}
        bars = {"name": name, "marker": {"color": color}}
        shares = [figures["scores"][band] for figures in drawn.values()]
        out.append({**_bars(list(drawn), shares), **bars, **common})
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


def _ranks(methods: Mapping[str, Figures], colors: Mapping[str, str]) -> list[Plot]:
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
                    "line": {"color": colors[label], "shape": "hvh"},
                    "x": list(range(len(shares))),
                    "y": [share * len(shares) for share in shares],
                }
            )
    return out


def _bars(names: Sequence[str], entries: Sequence[Mapping[str, float]]) -> Plot:
    """Bars with their bootstrap intervals."""
    return {
        "type": "bar",
        "x": list(names),
        "y": [e["value"] for e in entries],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [e["high"] - e["value"] for e in entries],
            "arrayminus": [e["value"] - e["low"] for e in entries],
        },
    }
