"""The figure of an evaluation, in plain dicts: errors, coverage, ranks, spectra by task."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecgdiff.evaluation.spectra import FLOOR, SpectraComparison
from ecgdiff.evaluation.summary import Figures
from ecgdiff.evaluation.tables import ERRORS
from ecgdiff.evaluation.tasks import TASKS

__all__ = ["COLORS", "figure", "heading"]

# Okabe and Ito's colors, which color-blind readers can tell apart; black is the truth's.
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#F0E442")
# Dashes of lines and patterns of bars: for each time the colors are used up.
ROUNDS = (("solid", ""), ("dot", "/"), ("dashdot", "."), ("longdash", "x"))
BANDS = {"coverage_50": "#9ecae1", "coverage_80": "#4292c6", "coverage_90": "#08519c"}
WHOLE = (0.0, 1.0)
HALVES = ((0.0, 0.44), (0.56, 1.0))
SPECTRA_LEADS = ("V2", "II")
HEIGHT, GAP, TOP = 420, 0.3, 160
LOG = {"type": "log", "exponentformat": "power"}

Plot = dict[str, Any]
Spectra = Mapping[str, SpectraComparison]


@dataclass(frozen=True)
class _Look:
    """How a method is shown: its name, and what tells it from the others."""

    name: str
    color: str
    dash: str
    pattern: str


@dataclass(frozen=True)
class _Panel:
    """One pair of axes.

    Arguments:
        title: What its y axis shows.
        traces: Its traces.
        domain: Where it begins and ends in its row.
        below: What its x axis shows; may be empty.
        log: Whether its y axis is logarithmic.
    """

    title: str
    traces: Sequence[Plot]
    domain: tuple[float, float]
    below: str = ""
    log: bool = False


def figure(
    found: Mapping[str, Mapping[str, Figures]],
    spectra: Mapping[str, Spectra] | None = None,
    *,
    count: int | None = None,
) -> Plot:
    """Draws for each task errors; below them coverage beside nominal values, ranks, spectra.

    Arguments:
        found: The figures by task and method, from :func:`ecgdiff.evaluation.tables.collect`;
            methods without scores are left out.
        spectra: The averaged densities of truth and draws by task and method, from
            :func:`ecgdiff.evaluation.spectra_tables.averaged`; of leads V2 and II those that the
            task scores are shown.
        count: How many records the list has; a method that has figures of fewer says so in its
            name.

    Returns:
        A plotly figure as `data` and `layout`.
    """
    labels = dict.fromkeys(label for methods in found.values() for label in methods)
    order = {label: k for k, label in enumerate(labels)}
    rows: list[list[_Panel]] = []
    for name, methods in found.items():
        scored = {label: figures for label, figures in methods.items() if figures["scores"]}
        looks = {label: _look(label, order[label], f, count) for label, f in methods.items()}
        bands = _coverage(scored, looks)
        ranks = _ranks(scored, looks)
        rows.append([_Panel(f"{name}: errors, mV", _errors(scored, looks), WHOLE)])
        rows.append(
            [
                _Panel(f"{name}: share inside the band", bands, HALVES[0]),
                _Panel(f"{name}: share / expected", ranks, HALVES[1], "draws below the truth"),
            ]
        )
        if compared := (spectra or {}).get(name):
            rows.append(_densities(name, compared, looks))
    return _laid_out(rows)


def _look(label: str, k: int, figures: Figures, count: int | None) -> _Look:
    """The look of the k-th method."""
    some = count is not None and figures["records"] < count
    name = f"{label} ({figures['records']} of {count})" if some else label
    return _Look(name, COLORS[k % len(COLORS)], *ROUNDS[k // len(COLORS) % len(ROUNDS)])


def heading(text: str) -> Plot:
    """A page's title at its top, clear of the legend however high the page is."""
    return {"text": text, "yref": "container", "y": 1, "yanchor": "top", "pad": {"t": 20}}


def _laid_out(rows: Sequence[Sequence[_Panel]]) -> Plot:
    """Gives each panel its axes, row below row; a name stands in the legend once."""
    title = "Errors and calibration; frames: the nominal value of each band"
    layout: Plot = {
        "height": HEIGHT * len(rows) + TOP,
        "barmode": "group",
        "title": heading(title),
        "margin": {"t": TOP},
        "legend": {"orientation": "h", "y": 1, "yanchor": "bottom"},
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
        if panel.below:
            x["title"] = {"text": panel.below}
        elif panel.traces:
            names = panel.traces[0]["x"]
            x |= {"tickvals": names, "ticktext": [_wrapped(name) for name in names]}
        y |= LOG if panel.log else {"rangemode": "tozero"}
        layout |= {f"xaxis{axis}": x, f"yaxis{axis}": y}
    return {"data": data, "layout": layout}


def _wrapped(name: str) -> str:
    """The name of a method in short lines, so that neighbors do not run into each other."""
    return name.replace(":", ":<br>").replace(",", ",<br>").replace(" (", "<br>(")


def _densities(task: str, compared: Spectra, looks: Mapping[str, _Look]) -> list[_Panel]:
    """Densities of truth, dashed, and methods in one panel per lead."""
    # Methods that are not through lack records; the truth is that of the one with the most.
    most = max(compared.values(), key=lambda found: found.records)
    leads = TASKS[task].scored_leads
    out = []
    shown = [lead for lead in SPECTRA_LEADS if lead in leads]
    for lead, domain in zip(shown, HALVES, strict=False):
        k = leads.index(lead)
        traces = [
            _line(looks[label], found.frequencies, found.drawn[k])
            for label, found in compared.items()
        ]
        black = _Look("truth", "#000", "dash", "")
        traces.append(_line(black, most.frequencies, most.true[k]))
        out.append(_Panel(f"{task}: density in {lead}, mV²/Hz", traces, domain, "Hz", log=True))
    return out


def _line(look: _Look, x: NDArray[np.float64], density: NDArray[np.float64]) -> Plot:
    """A density over frequency, with no line below the noise of the recordings' digits.

    A constant has rounding errors of 1e-75 there, which would leave all else one flat line.
    """
    return {
        "type": "scatter",
        "mode": "lines",
        "name": look.name,
        "legendgroup": look.name,
        "line": {"color": look.color, "dash": look.dash},
        "x": [round(float(v), 4) for v in x],
        "y": [float(f"{v:.4g}") if v >= FLOOR else None for v in density],
    }


def _errors(methods: Mapping[str, Figures], looks: Mapping[str, _Look]) -> list[Plot]:
    """One trace per method: its errors with their bootstrap intervals."""
    return [
        {
            **_bars(list(ERRORS.values()), [figures["scores"][score] for score in ERRORS]),
            "name": looks[label].name,
            "legendgroup": looks[label].name,
            "marker": {
                "color": looks[label].color,
                "pattern": {"shape": looks[label].pattern},
            },
        }
        for label, figures in methods.items()
    ]


def _coverage(methods: Mapping[str, Figures], looks: Mapping[str, _Look]) -> list[Plot]:
    """Bars of each band, and a line where it would be if calibrated."""
    drawn = {
        looks[label].name: figures
        for label, figures in methods.items()
        if all(band in figures["scores"] for band in BANDS)
    }
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


def _ranks(methods: Mapping[str, Figures], looks: Mapping[str, _Look]) -> list[Plot]:
    """One line per method; flat at 1 if calibrated, high at both ends if too sure."""
    out: list[Plot] = []
    for label, figures in methods.items():
        if shares := figures.get("ranks"):
            out.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": looks[label].name,
                    "legendgroup": looks[label].name,
                    "line": {
                        "color": looks[label].color,
                        "dash": looks[label].dash,
                        "shape": "hvh",
                    },
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
