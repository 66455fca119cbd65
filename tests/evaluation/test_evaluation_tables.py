"""Tables and the figure: what they show is what the rows hold."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdiff.errors import DataError
from ecgdiff.evaluation.figures import figure
from ecgdiff.evaluation.first_figures import report
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.scoring import score
from ecgdiff.evaluation.summary import summarize
from ecgdiff.evaluation.tables import CALIBRATION, ERRORS, collect, tables
from ecgdiff.evaluation.tasks import TASKS
from ecgdiff.experiments.figure import write_figure

COUNT, DRAWS = 8, 10


def row(task: str, method: str, ecg_id: int, draws: int) -> Row:
    rng = np.random.default_rng(ecg_id)
    leads = len(TASKS[task].scored_leads)
    truth = rng.normal(size=(leads, 40))
    x = rng.normal(size=(draws, leads, 40))
    return {
        "task": task,
        "method": method,
        "ecg_id": ecg_id,
        "patient_id": ecg_id // 2,
        "seconds": 0.5,
        "device": "cpu",
        "calls": [50, 49],
        "scores": score(x, truth, np.ones((leads, 40), dtype=bool)),
        "weight": 1.0 if ecg_id < 4 else 10.0,
    }


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    made = [
        row(task, method, k, draws)
        for task in ("leads", "precordial")
        for method, draws in (("mgps:steps=50", DRAWS), ("ridge", 1))
        for k in range(COUNT)
    ]
    for k in (2, 5):
        made[k] = {key: v for key, v in made[k].items() if key != "scores"}
        made[k]["error"] = {"type": "EcgDiffError", "message": "diverged"}
    return made[:-1]  # one record of ridge is still to be computed


@pytest.fixture(scope="module")
def header() -> dict[str, Any]:
    inclusion = [1.0] * 4 + [0.1] * 4
    return {
        "settings": {"draws": DRAWS, "seed": 0, "noise": 0.02, "version": "1"},
        "records": {
            "name": "eight",
            "fold": 10,
            "ecg_ids": list(range(COUNT)),
            "inclusion": inclusion,
        },
    }


@pytest.fixture(scope="module")
def found(rows: list[Row]) -> dict[str, Any]:
    return collect(rows, resamples=20)


def test_failed_records_are_counted_and_left_out(rows: list[Row], found: dict[str, Any]) -> None:
    mine = found["leads"]["mgps:steps=50"]
    assert (mine["records"], mine["rows"]) == (6, 8)
    assert mine["failed"] == "2 of 8 failed (2 EcgDiffError: diverged)"
    good = [r for r in rows[:COUNT] if "error" not in r]
    leads = TASKS["leads"].scored_leads
    expected = summarize(good, leads, weights=[r["weight"] for r in good], resamples=20)
    assert mine["scores"] == expected["scores"]
    plain = summarize(good, leads, resamples=20)
    assert mine["scores"]["crps"] != plain["scores"]["crps"]


def test_markdown_tables(found: dict[str, Any], header: dict[str, Any]) -> None:
    made = tables(found, header)
    assert [t.title for t in made] == [
        "Reconstruction errors in mV, task leads",
        "Calibration, task leads",
        "Amplitude variance ratios by lead, task leads",
        "Reconstruction errors in mV, task precordial",
        "Calibration, task precordial",
        "Amplitude variance ratios by lead, task precordial",
    ]
    text = made[0].markdown()
    assert "8 records of fold 10 (`eight`) (4 taken with certainty, 4 drawn), weighted" in text
    assert f"as good as {(4 * 1 + 4 * 10) ** 2 / (4 * 1 + 4 * 100):.0f} records" in text
    assert "`mgps:steps=50`: 2 of 8 failed (2 EcgDiffError: diverged)." in text
    assert "`ridge`: 1 of 8 not computed yet." in made[3].markdown()
    assert "| ridge | 7 |" in made[3].markdown()
    (line,) = [x for x in text.splitlines() if x.startswith("| mgps")]
    e = found["leads"]["mgps:steps=50"]["scores"]["rmse_mean"]
    assert f"{e['value']:.4f} [{e['low']:.4f}, {e['high']:.4f}]" in line
    assert "| 50 + 49 | 0.5 |" in line
    assert all(len(r) == len(t.head) for t in made for r in t.body)
    assert len(made[0].head) == len(ERRORS) + 4
    calibration = made[1].markdown()
    for nominal in ("nominal 50.0", "nominal 80.0", "nominal 81.8"):
        assert calibration.count(nominal) == 1  # not for the point estimate
    assert len(made[1].head) == len(CALIBRATION) + 2


def test_amplitude_ratios_are_shown_for_each_lead(
    found: dict[str, Any], header: dict[str, Any]
) -> None:
    table = tables(found, header)[2]
    leads = TASKS["leads"].scored_leads
    assert table.head == ["method", *leads]
    lines = {line[0]: line[1:] for line in table.body}
    assert list(lines) == ["mgps:steps=50, draws", "mgps:steps=50, mean of draws", "ridge"]
    for label, key in (("draws", "amplitude_ratio"), ("mean of draws", "amplitude_ratio_mean")):
        entries = [found["leads"]["mgps:steps=50"]["per_lead"][lead][key] for lead in leads]
        expected = ["{value:.2f} [{low:.2f}, {high:.2f}]".format(**e) for e in entries]
        assert lines[f"mgps:steps=50, {label}"] == expected
    text = table.markdown()
    assert "Target 1" in text and "2 of 8 failed" in text


def test_comonotone_curves_have_no_amplitude_ratio(header: dict[str, Any]) -> None:
    some = [row("leads", "quantile-unet", k, DRAWS) for k in range(COUNT)]
    found = collect(some, resamples=5)
    errors, calibration, ratios = tables(found, header)
    line = dict(zip(calibration.head, calibration.body[0], strict=True))
    assert line["amplitude var. ratio"] == "-"
    assert line["amplitude var. ratio, mean of draws"] != "-"
    assert "nominal 50.0" in line["50 % band"]
    assert [cells[0] for cells in ratios.body] == ["quantile-unet, mean of draws"]
    said = "`quantile-unet`: no amplitude ratio of draws, because"
    assert [said in t.markdown() for t in (errors, calibration, ratios)] == [False, True, True]
    page = report([TASKS["leads"]], some, COUNT, {}, resamples=2)["leads"]
    assert "amplitude_ratio" not in page["methods"]["quantile-unet"]["scores"]
    assert page["remarks"][0].startswith(said)


def test_latex_tables_escape_what_is_special(
    found: dict[str, Any], header: dict[str, Any]
) -> None:
    header = {**header, "records": {**header["records"], "name": "fold10_440"}}
    text = "\n".join(t.latex() for t in tables(found, header))
    assert r"fold10\_440" in text
    assert not re.search(r"(?<!\\)[_%#$]", text.replace(r"\begin", "").replace(r"\end", ""))
    for line in [x for x in text.splitlines() if x.startswith("mgps")]:
        assert line.endswith(r" \\")
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == 6
    columns = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns[0] == "l" + "r" * (len(ERRORS) + 3)


def test_a_method_that_always_failed_is_shown_without_figures(header: dict[str, Any]) -> None:
    error = {"error": {"type": "E", "message": "m"}, "weight": 1.0}
    lost = [{"task": "noisy", "method": "x", "ecg_id": k, **error} for k in range(COUNT)]
    found = collect(lost)
    text = tables(found, header)[0].markdown()
    assert "| x | 0 | - | - | - | - | - | - | - |" in text
    assert "8 of 8 failed" in text
    bars = [t for t in figure(found)["data"] if t["type"] == "bar"]
    assert all(t["x"] == [] for t in bars)


def test_unknown_tasks_are_refused() -> None:
    with pytest.raises(DataError, match="Unknown tasks"):
        collect([{"task": "x", "method": "m"}])


def test_the_figure_shows_the_scores(found: dict[str, Any], tmp_path: Path) -> None:
    made = figure(found)
    methods = found["leads"]
    first = [t for t in made["data"] if t["xaxis"] == "x1"]
    assert [t["name"] for t in first] == ["mgps:steps=50", "ridge"]
    for trace, figures in zip(first, methods.values(), strict=True):
        entries = [figures["scores"][score] for score in ERRORS]
        assert trace["x"] == list(ERRORS.values())
        assert trace["y"] == [e["value"] for e in entries]
        below = zip(trace["y"], trace["error_y"]["arrayminus"], strict=True)
        assert [y - gap for y, gap in below] == pytest.approx([e["low"] for e in entries])
        above = zip(trace["y"], trace["error_y"]["array"], strict=True)
        assert [y + gap for y, gap in above] == pytest.approx([e["high"] for e in entries])
    bands = [t for t in made["data"] if t["type"] == "bar" and t["x"] == ["mgps:steps=50"]]
    values = [t["y"][0] for t in bands if "error_y" in t]
    scores = methods["mgps:steps=50"]["scores"]
    expected = [scores[f"coverage_{level}"]["value"] for level in (50, 80, 90)]
    assert values[:3] == expected
    ranks = [t for t in made["data"] if t["type"] == "scatter"]
    assert len(ranks) == 2  # one per task; a point estimate has none
    assert np.mean(ranks[0]["y"]) == pytest.approx(1, abs=1e-4)
    assert len(ranks[0]["y"]) == DRAWS + 1
    axes = {t["xaxis"] for t in made["data"]}
    assert len(axes) == 6
    for axis in axes:
        assert f"xaxis{axis[1:]}" in made["layout"]


def test_the_page_needs_no_network(found: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    write_figure(figure(found), tmp_path / "figure.html", offline=True)
    text = (tmp_path / "figure.html").read_text(encoding="utf-8")
    assert not re.search(r"<script[^>]*src=", text)
    assert "mgps:steps=50" in text
