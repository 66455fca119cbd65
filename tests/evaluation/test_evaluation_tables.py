"""Tables and the figure: what they show is what the rows hold."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdiff.errors import DataError
from ecgdiff.evaluation.figures import COLORS, figure
from ecgdiff.evaluation.first_figures import report
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.scoring import score
from ecgdiff.evaluation.summary import summarize
from ecgdiff.evaluation.tables import AGREEMENT, CALIBRATION, ERRORS, collect, page, tables
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
        f"{title}, task {task}"
        for task in ("leads", "precordial")
        for title in (
            "Reconstruction errors in mV",
            "Calibration",
            "Errors and coverage by lead",
            "Amplitude variance ratios by lead",
        )
    ]
    text = made[0].markdown()
    assert "`mgps:steps=50`: 2 of 8 failed (2 EcgDiffError: diverged)." in text
    assert all("`ridge`: 1 of 8 not computed yet." in t.markdown() for t in made[4:])
    assert "| ridge | 7 |" in made[4].markdown()
    (line,) = [x for x in text.splitlines() if x.startswith("| mgps")]
    e = found["leads"]["mgps:steps=50"]["scores"]["rmse_mean"]
    assert f"{e['value']:.4f} [{e['low']:.4f}, {e['high']:.4f}]" in line
    assert "| 50 + 49 | 0.5 |" in line
    e = found["leads"]["mgps:steps=50"]["scores"]["explained"]
    assert f"| {e['value']:.2f} [{e['low']:.2f}, {e['high']:.2f}] |" in line
    assert all(len(r) == len(t.head) for t in made for r in t.body)
    assert len(made[0].head) == len(ERRORS) + len(AGREEMENT) + 4
    calibration = made[1].markdown()
    for nominal in ("nominal 50.0", "nominal 80.0", "nominal 81.8"):
        assert calibration.count(nominal) == 1  # not for the point estimate
    assert len(made[1].head) == len(CALIBRATION) + 2


def test_a_page_says_once_for_each_task_what_it_is_made_of(
    found: dict[str, Any], header: dict[str, Any]
) -> None:
    made = tables(found, header)
    for latex in (False, True):
        text = page([*made[4:], *made[:4]], header, latex=latex)  # in the order of the tasks
        for name in ("leads", "precordial"):
            assert text.count(f"Observed: {TASKS[name].describe()['observed']}.") == 1
        assert text.count("(4 taken with certainty, 4 drawn), weighted") == 2
        assert text.count(f"as good as {(4 * 1 + 4 * 10) ** 2 / (4 * 1 + 4 * 100):.0f} rec") == 2
        places = [text.index(table.title) for table in made]
        assert places == sorted(places)
    assert page(made, header).startswith("# Task leads\n\nObserved: lead I")


def test_errors_and_coverage_are_shown_for_each_lead(
    found: dict[str, Any], header: dict[str, Any]
) -> None:
    table = tables(found, header)[2]
    leads = TASKS["leads"].scored_leads
    assert table.head == ["method", "figure", *leads]
    lines = {(first, second): rest for first, second, *rest in table.body}
    mgps, ridge = "mgps:steps=50", "ridge"
    assert list(lines) == [
        (mgps, "CRPS, mV"),
        (mgps, "MAE mean, mV"),
        (mgps, "90 % band (nominal 81.8)"),
        (ridge, "CRPS, mV"),
        (ridge, "MAE mean, mV"),
    ]
    for k, lead in enumerate(leads):
        scores = found["leads"][mgps]["per_lead"][lead]
        for name, title, form, scale in (
            ("crps", "CRPS, mV", ".4f", 1),
            ("mae_mean", "MAE mean, mV", ".4f", 1),
            ("coverage_90", "90 % band (nominal 81.8)", ".1f", 100),
        ):
            value, low, high = (
                format(scale * scores[name][end], form) for end in ("value", "low", "high")
            )
            assert lines[mgps, title][k] == f"{value} [{low}, {high}]"


def test_amplitude_ratios_are_shown_for_each_lead(
    found: dict[str, Any], header: dict[str, Any]
) -> None:
    table = tables(found, header)[3]
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
    errors, calibration, _, ratios = tables(found, header)
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
    text = page(tables(found, header), header, latex=True)
    assert r"fold10\_440" in text
    needs = r"^% Needs the packages booktabs and graphicx\.$"
    text, comments = re.subn(needs, "", text, flags=re.M)
    assert not re.search(r"(?<!\\)[_%#$]", text)
    for line in [x for x in text.splitlines() if x.startswith("mgps")]:
        assert line.endswith(r" \\")
    for name in ("table", "tabular"):
        assert text.count(rf"\begin{{{name}}}") == text.count(rf"\end{{{name}}}") == comments == 8
    assert text.count("{") == text.count("}")
    columns = re.findall(r"\\begin\{tabular\}\{(\w+)\}", text)
    assert columns[0] == "l" + "r" * (len(ERRORS) + len(AGREEMENT) + 3)


def test_latex_tables_fit_the_page_and_have_their_note_below(
    found: dict[str, Any], header: dict[str, Any]
) -> None:
    text = tables(found, header)[3].latex()
    assert r"\caption{Amplitude variance ratios by lead, task leads.}" in text
    above, below = text.split(r"\end{tabular}}")
    assert r"\resizebox{\textwidth}{!}{\begin{tabular}{lrrrrrrr}" in above
    assert "Target 1" in below and "2 of 8 failed" in below


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


def test_the_figure_tells_methods_apart_and_names_those_with_fewer_records(
    found: dict[str, Any],
) -> None:
    made = figure(found, count=COUNT)
    names = {t["name"] for t in made["data"]}
    assert {"mgps:steps=50 (6 of 8)", "mgps:steps=50", "ridge", "ridge (7 of 8)"} <= names
    (bands,) = (t["x"] for t in made["data"] if (t["xaxis"], t["name"]) == ("x2", "90 % band"))
    assert bands == ["mgps:steps=50 (6 of 8)"]
    assert made["layout"]["xaxis2"]["ticktext"] == ["mgps:<br>steps=50<br>(6 of 8)"]
    assert not any(" of 8" in t["name"] for t in figure(found)["data"])
    many = {f"m{k}": found["leads"]["ridge"] for k in range(2 * len(COLORS))}
    looks = [
        (t["marker"]["color"], t["marker"]["pattern"]["shape"])
        for t in figure({"leads": many})["data"]
        if t["xaxis"] == "x1"
    ]
    assert len(set(looks)) == len(looks) == 14
    assert "#000" not in {color for color, _ in looks}  # that of the truth


def test_the_page_needs_no_network_or_is_small(found: dict[str, Any], tmp_path: Path) -> None:
    pytest.importorskip("plotly")
    write_figure(figure(found), tmp_path / "figure.html", offline=True)
    text = (tmp_path / "figure.html").read_text(encoding="utf-8")
    assert not re.search(r"<script[^>]*src=", text)
    assert "mgps:steps=50" in text
    write_figure(figure(found), tmp_path / "small.html")
    assert (tmp_path / "small.html").stat().st_size < 40_000
