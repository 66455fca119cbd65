"""The figures of the quality page, in plain dicts and lists."""

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from ecgdiff.evaluation.distributions import PERCENT, RATE_EDGES, VARIATION_EDGES
from ecgdiff.evaluation.panels import Panels, Plot
from ecgdiff.evaluation.quality_summary import PAIR_LEADS
from ecgdiff.evaluation.quality_tables import NAMES, verdict

__all__ = ["figure"]

DRAWS, REAL, TRAIN, OTHER, GAUSS = "#0072B2", "#333333", "#D55E00", "#009E73", "#8A8A8A"
FAINT = {DRAWS: "rgba(0,114,178,0.25)", REAL: "rgba(0,0,0,0.16)"}
WITHIN = "rgba(0,158,115,0.13)"
SHADES = ("#7FB8DA", "#2F7FB5", "#0B3C5D")
COLORS = {"fold9": REAL, "draws": DRAWS}
LEFT, RIGHT, WHOLE = (0.05, 0.47), (0.56, 0.98), (0.05, 0.98)
SPECTRA = ("I", "II", "V1", "V5")
BOX = {"lowerfence": 5, "q1": 25, "median": 50, "q3": 75, "upperfence": 95}

Document = Mapping[str, Any]


def figure(document: Document) -> Plot:
    """Draws the page.

    Arguments:
        document: The numbers, see :func:`ecgdiff.evaluation.quality_summary.summarize`.

    Returns:
        A plotly figure as `data` and `layout`.
    """
    pair = document["nearest"].get("pair")
    page = Panels(7 if pair else 6)
    _header(page, document)
    _variance(page, document["acceptance"]["total_variance"]["rows"])
    _spread(page, document["acceptance"]["spread"], document["leads"])
    _losses(page, document)
    _frechet(page, document["frechet"])
    _nearest(page, document["nearest"])
    _rhythm(page, document["rhythm"])
    _amplitudes(page, document)
    _spectra(page, document)
    if pair:
        _pair(page, document["nearest"])
    return page.figure


def _header(page: Panels, document: Document) -> None:
    checks, counts = document["acceptance"], document["records"]
    name = escape(document["prior"]["name"])
    judged = "; ".join(f"{NAMES[k]} {_judged(checks[k])}" for k in NAMES if k in checks)
    keys = {"draws": DRAWS, "fold 9": REAL, "training records": TRAIN}
    if document["compare"]:
        keys[f"the prior {escape(document['compare']['name'])}"] = OTHER
    colors = "   ".join(f"<span style='color:{c}'>■ <b>{k}</b></span>" for k, c in keys.items())
    text = (
        f"<b>Quality of the prior {name}</b>: acceptance {_judged(checks)}"
        f"<br><span style='font-size:13px'>{judged}<br>{document['settings']['draws']} draws "
        f"without any observation, beside {counts['fold9']} records of fold 9, which the prior "
        "was not trained on. Research use only, not for clinical or diagnostic purposes."
        f"<br>{colors}</span>"
    )
    page.note(text, 0.0, 1.0, 82, 19)


def _judged(check: Mapping[str, Any]) -> str:
    color = "#1B7837" if check["passed"] else "#B2182B"
    return f"<b style='color:{color}'>{verdict(check['passed'])}</b>"


def _variance(page: Panels, rows: Sequence[Mapping[str, Any]]) -> None:
    sigma = [r["sigma"] for r in rows]
    half = [r["limits"]["slope"] for r in rows]
    limits = {
        "type": "scatter",
        "mode": "none",
        "x": [*sigma, *sigma[::-1]],
        "y": [1 + h for h in half] + [1 - h for h in half[::-1]],
        "fill": "toself",
        "fillcolor": WITHIN,
        "hoverinfo": "skip",
    }
    ratios = []
    for key, color in (("total", REAL), ("slope", DRAWS)):
        curve = _line(sigma, [r[key] for r in rows], color, "lines+markers")
        curve["error_y"] = {"type": "data", "array": [2 * r[f"{key}_error"] for r in rows]}
        ratios.append(curve)
    title = (
        "Total variance on fold 9",
        "black: (var D + MSE) / var x; blue: cov(D, x) / var D; perfect: 1; green: limits; bars: "
        "±2 SE",
    )
    page.panel(0, LEFT, title, [limits, *ratios], _sigma())


def _spread(page: Panels, found: Mapping[str, Any], leads: Sequence[str]) -> None:
    traces = [
        _rule([-0.5, len(leads) - 0.5], 100 * sign * limit)
        for limit in sorted(set(found["limits"]))
        for sign in (-1, 1)
    ]
    rows = zip(found["limits"], found["ratio"], found["chance"]["standard_error"], strict=True)
    for k, (limit, ratio, error) in enumerate(rows):
        symbols = ["circle" if abs(r - 1) <= limit else "x" for r in ratio]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [n + 0.22 * (k - 1) for n in range(len(leads))],
                "y": [100 * (r - 1) for r in ratio],
                "error_y": {"type": "data", "array": [200 * e for e in error], "width": 2},
                "marker": {"color": SHADES[k], "size": 8, "symbol": symbols},
            }
        )
    quantiles = ", ".join(f"{100 * q:g}" for q in found["quantiles"])
    title = (
        "Spread per record: draws against fold 9, %",
        f"{quantiles} % quantiles, light to dark; dashed: limits; cross: beyond; bars: ±2 SE",
    )
    ticks = {"tickvals": list(range(len(leads))), "ticktext": list(leads)}
    page.panel(0, RIGHT, title, traces, ticks)


def _losses(page: Panels, document: Document) -> None:
    found = document["losses"]
    bands = found["bands"]
    curves = {"training": TRAIN, "fold9": REAL} | ({"compare": OTHER} if found["compare"] else {})
    traces = [_line(bands, found[k], color, "lines+markers") for k, color in curves.items()]
    ticks = {"type": "log", "tickvals": [0.05, 0.1, 0.2, 0.5, 1, 2, 5]}
    title = ("Denoising loss", "(1 + 1/sigma²) MSE in model units")
    page.panel(1, LEFT, title, traces, _sigma(), ticks)
    gap = _line(bands, [100 * g for g in found["gap"]], REAL, "lines+markers")
    errors = [200 * e for e in found["gap_standard_error"]]
    gap["error_y"] = {"type": "data", "array": errors, "width": 3}
    title = (
        "Over-fitting: loss on fold 9 above that on training records, %",
        "bars: ±2 standard errors (SE); over-fitting grows towards small noise",
    )
    page.panel(1, RIGHT, title, [_rule([bands[0], bands[-1]], 0.0), gap], _sigma())


def _frechet(page: Panels, found: Mapping[str, Any]) -> None:
    names = {
        "gaussian": ("Gaussian of the<br>same covariance", GAUSS),
        "draws": ("draws", DRAWS),
        "training": ("training records", TRAIN),
        "other_half": ("other half<br>of fold 9", REAL),
    }
    means = [found[k]["mean"] for k in names]
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [text for text, _ in names.values()],
        "x": means,
        "error_x": {"type": "data", "array": [found[k]["sd"] for k in names], "color": "#000"},
        "marker": {"color": [color for _, color in names.values()]},
        "text": [f"{mean:.4g}" for mean in means],
        "textposition": "inside",
        "insidetextanchor": "start",
    }
    title = (
        "Fréchet distance to one half of fold 9",
        f"on classifier features, {found['records']} records on either side; draws should be near "
        "the black bar",
    )
    page.panel(2, (LEFT[0] + 0.05, LEFT[1]), title, [bars], {"rangemode": "tozero"})


def _nearest(page: Panels, found: Mapping[str, Any]) -> None:
    traces = []
    for name, color in COLORS.items():
        x = found["relative"][name]
        traces.append(_line(x, [100 * (k + 1) / len(x) for k in range(len(x))], color))
    title = (
        "Nearest training record: % of records within a distance",
        "relative to the RMS of the excerpt; copies lie near 0, far left of fold 9",
    )
    page.panel(2, RIGHT, title, traces, {"rangemode": "tozero"}, {"range": [0, 102]})


def _rhythm(page: Panels, found: Mapping[str, Any]) -> None:
    for span, key, edges, title in (
        (LEFT, "rate", RATE_EDGES, ("Heart rate per minute", "% of records; lead II")),
        (
            RIGHT,
            "variation",
            VARIATION_EDGES,
            ("Variation of RR intervals, %", "% of records; regular rhythms lie left"),
        ),
    ):
        width = edges[1] - edges[0]
        x = [edge + width / 2 for edge in edges[:-1]]
        real, drawn = (
            [100 * share for share in found[k][f"{key}_shares"]] for k in ("fold9", "draws")
        )
        bars = {"type": "bar", "x": x, "y": real, "width": width, "marker": {"color": FAINT[REAL]}}
        line = _line(x, drawn, DRAWS)
        line["line"]["shape"] = "hvh"
        page.panel(3, span, title, [bars, line])


def _amplitudes(page: Panels, document: Document) -> None:
    traces = []
    for name, color in COLORS.items():
        columns = dict(zip(PERCENT, document["amplitude_mv"][name], strict=True))
        traces.append(
            {
                "type": "box",
                "x": list(document["leads"]),
                **{key: columns[p] for key, p in BOX.items()},
                "line": {"color": color, "width": 1.5},
                "fillcolor": FAINT[color],
                "offsetgroup": name,
            }
        )
    title = ("Peak-to-peak amplitude in 10 s, mV", "boxes: 25-75 % of records, whiskers: 5-95 %")
    ticks = {"type": "log", "tickvals": [0.2, 0.5, 1, 2, 5, 10]}
    page.panel(4, WHOLE, title, traces, {"type": "category"}, ticks)


def _spectra(page: Panels, document: Document) -> None:
    found, leads = document["spectra"], document["leads"]
    f, shown = found["frequencies"], [leads.index(lead) for lead in SPECTRA]
    densities = [v for name in COLORS for q in (0, 2) for k in shown for v in found[name][q][k]]
    limits = [math.log10(end) for end in (0.8 * min(densities), 1.2 * max(densities))]
    y = {"type": "log", "range": limits, "dtick": 1, "exponentformat": "power"}
    step = (WHOLE[1] - WHOLE[0] + 0.03) / len(shown)
    for n, k in enumerate(shown):
        traces = []
        for name, color in COLORS.items():
            low, middle, high = (found[name][q][k] for q in range(3))
            area: Plot = {"type": "scatter", "mode": "none", "fill": "toself", "hoverinfo": "skip"}
            area |= {"x": [*f, *f[::-1]], "y": [*low, *high[::-1]], "fillcolor": FAINT[color]}
            traces += [area, _line(f, middle, color)]
        title = (
            f"Spectrum of lead {leads[k]}, mV²/Hz",
            f"off by {found['distance_db'][k]:.1f} dB; halves of fold 9: "
            f"{found['half_distance_db'][k]:.1f} dB",
        )
        span = (WHOLE[0] + n * step, WHOLE[0] + (n + 1) * step - 0.03)
        axis = _named("Hz (bands: 10-90 % of records)")
        page.panel(5, span, title, traces, axis, y | {"showticklabels": n == 0})


def _pair(page: Panels, found: Mapping[str, Any]) -> None:
    """The draw that is closest to a training record, and that record."""
    closest = found["closest"][0]
    for lead, span, record, draw in zip(
        PAIR_LEADS, (LEFT, RIGHT), found["pair"]["record"], found["pair"]["draw"], strict=True
    ):
        seconds = [n / 100 for n in range(len(draw))]
        title = (
            f"The closest of all draws and its training record, lead {lead}, mV",
            f"draw {closest['draw']}, record {closest['record']}, relative distance "
            f"{closest['relative']:.2f}",
        )
        traces = [_line(seconds, record, TRAIN), _line(seconds, draw, DRAWS)]
        page.panel(6, span, title, traces, _named("s from the R peak"))


def _line(x: Sequence[float], y: Sequence[float], color: str, mode: str = "lines") -> Plot:
    line = {"color": color, "width": 1.8}
    return {"type": "scatter", "mode": mode, "x": list(x), "y": list(y), "line": line}


def _rule(x: Sequence[float], y: float) -> Plot:
    """A dashed line across a panel."""
    style = {"line": {"color": "#777", "width": 1, "dash": "dash"}, "hoverinfo": "skip"}
    return _line(x, [y, y], REAL) | style


def _sigma() -> Plot:
    return {"type": "log", "dtick": 1, **_named("noise level sigma, model units")}


def _named(title: str) -> Plot:
    return {"title": {"text": title, "standoff": 8}}
