"""Draws the training curve of a prior from its CSV logs, as one SVG file.

    python training/curve.py OUT.svg LOG.csv [LOG.csv ...] [+ LOG.csv ...]

Several logs of a resumed run are joined: where they overlap, the later file counts. After a plus
comes a run that started from the weights of the one before; its steps are counted on.
"""

import csv
import math
import re
import sys
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, BOTTOM = 760, 420, 60, 30, 50
COLORS = ("#000000", "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#888888")
Curve = list[tuple[int, float]]


def read_logs(paths: list[str]) -> dict[str, dict[int, float]]:
    """Reads columns by name, each a mapping from step to value."""
    columns: dict[str, dict[int, float]] = {}
    for path in paths:
        with open(path, newline="", encoding="utf-8") as file:
            rows = [row for row in csv.DictReader(file) if row.get("step")]
        if not rows:
            continue
        first = min(int(row["step"]) for row in rows)
        for column in columns.values():
            for step in [s for s in column if s >= first]:
                del column[step]
        for row in rows:
            for name, value in row.items():
                if value and name not in ("step", "epoch"):
                    columns.setdefault(name, {})[int(row["step"])] = float(value)
    return columns


def read_runs(arguments: list[str]) -> dict[str, dict[int, float]]:
    """Reads runs that went on from one another, separated by plus signs."""
    whole: dict[str, dict[int, float]] = {}
    runs: list[list[str]] = [[]]
    for argument in arguments:
        if argument == "+":
            runs.append([])
        else:
            runs[-1].append(argument)
    done = 0
    for paths in runs:
        for name, values in read_logs(paths).items():
            whole.setdefault(name, {}).update({done + s: v for s, v in values.items()})
        done = 1 + max(max(values) for values in whole.values())
    return whole


def smooth(values: dict[int, float], width: int) -> Curve:
    """Means over `width` neighbors."""
    items = sorted(values.items())
    out = []
    for k in range(0, len(items) - width + 1, max(1, width // 2)):
        part = items[k : k + width]
        out.append((part[-1][0], sum(v for _, v in part) / width))
    return out


def curves(columns: dict[str, dict[int, float]]) -> dict[str, Curve]:
    """The training loss and the fold-9 loss per noise band, of the average that ends lowest."""
    out = {"training loss, smoothed": smooth(columns["loss"], 25)}
    # Of several window lengths, the longest has no length in its name.
    totals = [name for name in columns if re.fullmatch(r"val_[\d.]+", name)]
    best = min(totals, key=lambda name: columns[name][max(columns[name])])
    out[f"fold 9, EMA {best.removeprefix('val_')}"] = sorted(columns[best].items())
    bands = [name for name in columns if name.startswith(best + "/")]
    for name in sorted(bands, key=lambda name: float(name.split("/")[1])):
        out[f"sigma {name.split('/')[1]}"] = sorted(columns[name].items())
    return out


def svg(found: dict[str, Curve]) -> str:
    """Draws curves on a logarithmic axis."""
    values = [v for curve in found.values() for _, v in curve]
    low, high = math.log(min(values)), math.log(max(values))
    last = max(step for curve in found.values() for step, _ in curve)
    right = WIDTH - 200

    def x(step: float) -> float:
        return LEFT + (right - LEFT) * step / last

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - math.log(value)) / (high - low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
    ]
    for value in (0.1, 0.15, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5):
        if low <= math.log(value) <= high:
            parts.append(_rule(LEFT, y(value), right, y(value)))
            parts.append(_text(LEFT - 8, y(value) + 4, f"{value:g}", "end"))
    for k in range(5):
        step = round(last * k / 4)
        parts.append(_text(x(step), HEIGHT - BOTTOM + 18, f"{step}", "middle"))
    parts.append(_text((LEFT + right) / 2, HEIGHT - 12, "step", "middle"))
    for k, (name, curve) in enumerate(found.items()):
        points = " ".join(f"{x(s):.1f},{y(v):.1f}" for s, v in curve)
        color = COLORS[k % len(COLORS)]
        dash = "" if k < len(COLORS) else ' stroke-dasharray="4 3"'
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}"{dash}/>')
        parts.append(_text(right + 12, TOP + 16 * k + 8, name, "start", color))
    return "\n".join([*parts, "</svg>", ""])


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="#ddd"/>'


def _text(x: float, y: float, text: str, anchor: str, color: str = "#111") -> str:
    place = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{color}"'
    return f"<text {place}>{escape(text)}</text>"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(svg(curves(read_runs(sys.argv[2:]))), encoding="utf-8")
