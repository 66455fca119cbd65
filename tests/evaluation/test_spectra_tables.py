"""Spectra of draws whose power is known, from the runner through Parquet to table and figure."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.errors import DataError
from ecgdiff.evaluation.benchmark import Row, Rows, Settings, run
from ecgdiff.evaluation.figures import figure
from ecgdiff.evaluation.parquet import read_rows, write_rows
from ecgdiff.evaluation.spectra import BANDS, power_spectrum
from ecgdiff.evaluation.spectra_tables import absent, averaged, spectra_tables
from ecgdiff.evaluation.tables import collect
from ecgdiff.evaluation.tasks import TASKS, Case, Problem
from ecgdiff.random import streams

COUNT, SIGMA = 30, 0.1
SETTINGS = Settings(draws=2, seed=0, noise=0.01, version="test", spectra=True)
HEADER: dict[str, Any] = {
    "settings": {"draws": 2, "seed": 0, "noise": 0.01, "version": "test"},
    "records": {"name": "noise", "fold": 9, "ecg_ids": list(range(COUNT))},
}
TRUTH = {
    f"ptbxl-{k}": (SIGMA * np.random.default_rng(k).normal(size=(8, 1000))).astype(np.float32)
    for k in range(COUNT)
}
CASES = [Case(k, k // 2, TRUTH[f"ptbxl-{k}"]) for k in range(COUNT)]


def louder(p: Problem) -> NDArray[np.float64]:
    """White noise of twice the standard deviation of the truth."""
    return 2 * SIGMA * streams(1, p.name, range(2)).normal((2, 8, 1000)).numpy().astype(np.float64)


def low_passed(p: Problem) -> NDArray[np.float64]:
    """The truth without what lies above 15 Hz."""
    spectrum = np.fft.rfft(TRUTH[p.name])
    spectrum[..., np.fft.rfftfreq(1000, 0.01) > 15] = 0
    return np.repeat(np.fft.irfft(spectrum)[None], 2, axis=0)


def exact(p: Problem) -> NDArray[np.float64]:
    """The truth."""
    return np.repeat(TRUTH[p.name][None].astype(np.float64), 2, axis=0)


@dataclass
class Known:
    """Draws what its function draws; can be killed."""

    draw: Callable[[Problem], NDArray[np.float64]]
    limit: int = 10**9
    seen: list[str] = field(default_factory=list)
    arguments: Mapping[str, object] = field(default_factory=dict)
    calls: tuple[int, int] = (0, 0)

    @property
    def label(self) -> str:
        return self.draw.__name__

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        if len(self.seen) >= self.limit:
            raise KeyboardInterrupt
        self.seen += [p.name for p in problems]
        return [self.draw(p) for p in problems]


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> list[Row]:
    """Those of three methods on two tasks, as they come back from Parquet."""
    folder = tmp_path_factory.mktemp("rows")
    tasks = [TASKS["leads"], TASKS["block"]]
    methods = {
        "leads": [Known(louder), Known(low_passed), Known(exact)],
        "block": [Known(louder)],
    }
    made = list(run(tasks, methods, CASES, Rows(folder / "rows.jsonl"), SETTINGS))
    made = [{**row, "weight": 1.0} for row in made]
    write_rows(folder / "rows.parquet", made, HEADER)
    assert read_rows(folder / "rows.parquet") == made
    return made


def shown(rows: Sequence[Row], resamples: int = 20) -> dict[str, dict[str, list[float]]]:
    """The table of task leads: by method and column the value and the ends of its interval."""
    (table,) = spectra_tables(rows, HEADER, resamples=resamples)
    number = r"-?[\d.]+"
    return {
        line[0]: {
            name: [float(v) for v in re.findall(number, text)]
            for name, text in zip(table.head[2:], line[2:], strict=True)
        }
        for line in table.body
    }


def test_white_noise_has_the_distance_and_the_power_of_its_variance(rows: list[Row]) -> None:
    found = shown(rows)["louder"]
    distance, low, high = found.pop("distance, dB")
    assert distance == pytest.approx(20 * np.log10(2), abs=0.15)
    assert low <= high
    for band in BANDS:
        ratio, low, high = found[f"power ratio, {band}"]
        assert ratio == pytest.approx(4, abs=0.25)
        assert low < ratio < high


def test_the_truth_itself_has_no_distance(rows: list[Row]) -> None:
    found = shown(rows)["exact"]
    assert found.pop("distance, dB") == [0, 0, 0]
    assert list(found.values()) == [[1, 1, 1]] * 3


def test_a_low_passed_truth_lacks_the_power_above(rows: list[Row]) -> None:
    found = shown(rows)["low_passed"]
    assert found["power ratio, 0.5-5 Hz"][0] == pytest.approx(1, abs=0.01)
    assert found["power ratio, 5-15 Hz"][0] == pytest.approx(1, abs=0.05)
    assert max(found["power ratio, 15-40 Hz"]) < 0.1
    assert found["distance, dB"][0] > 20


def test_values_are_those_of_the_signals(rows: list[Row]) -> None:
    """From the signals, without rows: Welch, mean over draws and records, then the ratio."""
    frequencies, true = power_spectrum(np.stack([c.truth[1:] for c in CASES]), 100.0)
    drawn = np.mean(
        [
            power_spectrum(louder(Problem(c.name, c.truth, c.truth > 0, 0))[:, 1:], 100.0)[1]
            for c in CASES
        ],
        axis=(0, 1),
    )
    inside = (frequencies >= 0.5) & (frequencies < 40)
    compared = averaged(rows)["leads"]["louder"]
    np.testing.assert_allclose(compared.frequencies, frequencies[inside])
    np.testing.assert_allclose(compared.true, true.mean(axis=0)[:, inside], rtol=5e-4)
    np.testing.assert_allclose(compared.drawn, drawn[:, inside], rtol=5e-4)
    assert compared.records == COUNT


def test_weights_count_records_as_often(rows: list[Row]) -> None:
    some = [row for row in rows if row["method"] == "louder" and row["task"] == "leads"][:4]
    weights = [1.0, 3.0, 2.0, 5.0]
    weighted = [{**row, "weight": w} for row, w in zip(some, weights, strict=True)]
    repeated = [row for row, w in zip(some, weights, strict=True) for _ in range(int(w))]
    (a, b, plain) = (averaged(r)["leads"]["louder"] for r in (weighted, repeated, some))
    np.testing.assert_allclose(a.distance_db, b.distance_db, rtol=1e-10)
    for band in BANDS:
        np.testing.assert_allclose(a.power_ratio[band], b.power_ratio[band], rtol=1e-10)
    assert not np.allclose(a.distance_db, plain.distance_db, rtol=1e-3)
    firsts = ([v[0] for v in shown(r)["louder"].values()] for r in (weighted, repeated))
    assert next(firsts) == next(firsts)


def test_replicates_draw_patients_with_the_weights_of_their_records(rows: list[Row]) -> None:
    """Two patients, a loud one of nine in ten records: a replicate has either or both."""
    some = [row for row in rows if row["method"] == "exact" and row["task"] == "leads"][:2]
    loud = {**some[1]["spectra"], "drawn_uv2_hz": (4 * density(some[1])).tolist()}
    some = [
        {**some[0], "patient_id": 1, "weight": 1.0},
        {**some[1], "patient_id": 2, "weight": 9.0, "spectra": loud},
    ]
    value, low, high = shown(some, 100)["exact"]["power ratio, 15-40 Hz"]
    assert (low, high) == (1, 4)
    powers = [density(row)[:, 37:].sum(axis=1) for row in some]  # from 15.2 Hz on
    expected = np.mean((powers[0] + 36 * powers[1]) / (powers[0] + 9 * powers[1]))
    assert value == pytest.approx(expected, abs=0.005)


def density(row: Row) -> NDArray[np.float64]:
    return np.array(row["spectra"]["true_uv2_hz"])


def test_only_whole_leads_have_spectra(rows: list[Row]) -> None:
    assert {row["task"] for row in rows if "spectra" in row} == {"leads"}
    assert all("failed_parts" not in row for row in rows)
    assert absent(rows) is None  # a block has none, and that is no news
    entry = rows[0]["spectra"]
    assert np.shape(entry["true_uv2_hz"]) == np.shape(entry["drawn_uv2_hz"]) == (7, 101)


def test_a_resumed_run_neither_loses_nor_repeats(tmp_path: Path) -> None:
    path, tasks = tmp_path / "rows.jsonl", [TASKS["leads"]]
    killed = Known(louder, limit=2)
    with pytest.raises(KeyboardInterrupt):
        list(run(tasks, {"leads": [killed]}, CASES[:5], Rows(path), SETTINGS))
    with path.open("a", encoding="utf-8") as file:
        file.write('{"task": "leads", "spectra": {"first_hz": 0.')  # cut by the kill
    resumed = Known(louder)
    list(run(tasks, {"leads": [resumed]}, CASES[:5], Rows(path), SETTINGS))
    assert killed.seen + resumed.seen == [case.name for case in CASES[:5]]
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [row["ecg_id"] for row in lines] == list(range(5))
    whole = run(tasks, {"leads": [Known(louder)]}, CASES[:5], Rows(tmp_path / "w"), SETTINGS)
    assert [row["spectra"] for row in lines] == [row["spectra"] for row in whole]


def test_rows_without_spectra_are_of_other_settings(tmp_path: Path) -> None:
    path, tasks = tmp_path / "rows.jsonl", [TASKS["leads"]]
    plain = replace(SETTINGS, spectra=None)
    (row,) = run(tasks, {"leads": [Known(louder)]}, CASES[:1], Rows(path), plain)
    assert "spectra" not in row
    with pytest.raises(DataError, match=r"other settings .*morphology, spectra, .*another --out"):
        list(run(tasks, {"leads": [Known(louder)]}, CASES, Rows(path), SETTINGS))


def test_rows_without_spectra_are_counted_with_their_reason(rows: list[Row]) -> None:
    bare = [{k: v for k, v in row.items() if k != "spectra"} for row in rows]
    assert spectra_tables(bare, HEADER) == []
    said = str(absent(bare))
    assert "No spectra of task leads. `louder`: 30 of 30 made by a run without spectra." in said
    assert "run again with another --out" in said
    reason = {"type": "ValueError", "message": "no power"}
    mixed = rows.copy()
    mixed[0] = bare[0]
    mixed[1] = {**bare[1], "failed_parts": {"spectra": reason}}
    mixed[2] = {k: v for k, v in bare[2].items() if k != "scores"} | {"error": reason}
    (table,) = spectra_tables(mixed, HEADER, resamples=5)
    counts = {line[0]: line[1] for line in table.body}
    assert counts == {"louder": "27", "low_passed": "30", "exact": "30"}
    assert table.remarks[-1] == (
        "`louder`: 1 of 30 failed (1 ValueError: no power); 1 of 30 without spectra (1 "
        "ValueError: no power); 1 of 30 made by a run without spectra."
    )
    assert absent(mixed) is None
    slow = [{**row, "method": "slow"} for row in rows[:4]]
    (table,) = spectra_tables([*rows, *slow], HEADER, resamples=5)
    assert table.remarks[-1] == "`slow`: 26 of 30 not computed yet."


def test_the_table_is_defined_below(rows: list[Row]) -> None:
    (table,) = spectra_tables(rows, HEADER, resamples=5)
    assert table.title == "Spectra, task leads"
    text = table.markdown()
    below = text[text.rindex("| exact |") :]
    for name in ("distance, dB", "power ratio"):
        assert f"`{name}`: " in below
    latex = table.latex()
    assert r"low\_passed & 30 & " in latex
    assert latex.count(r"\begin{tabular}{lrrrrr}") == 1


def test_the_figure_shows_the_averaged_densities(rows: list[Row]) -> None:
    rows = [row for row in rows if row["method"] != "exact"]  # it has no spread/skill
    compared = averaged(rows)
    found = collect(rows, resamples=5)
    made, plain = figure(found, compared), figure(found)
    panels = {
        axis["title"]["text"]: name for name, axis in made["layout"].items() if "yax" in name
    }
    assert list(panels)[3:5] == ["leads: density in V2, mV²/Hz", "leads: density in II, mV²/Hz"]
    assert len(panels) == 8  # three of the block, which has no spectra
    for lead, k in (("V2", 2), ("II", 0)):
        axis = panels[f"leads: density in {lead}, mV²/Hz"]
        assert made["layout"][axis]["type"] == "log"
        lines = {t["name"]: t for t in made["data"] if f"yaxis{t['yaxis'][1:]}" == axis}
        assert list(lines) == ["louder", "low_passed", "truth"]
        for name, comparison in compared["leads"].items():
            seen = np.array(lines[name]["y"], np.float64)  # NaN where there is no line
            expected = np.where(comparison.drawn[k] < 1e-6 / 12 / 50, np.nan, comparison.drawn[k])
            np.testing.assert_allclose(seen, expected, rtol=5e-4)
            np.testing.assert_allclose(lines["truth"]["y"], comparison.true[k], rtol=5e-4)
    named = [t["name"] for t in made["data"] if t["showlegend"]]
    assert len(named) == len(set(named))
    assert {"louder", "low_passed", "truth"} <= set(named)
    assert [t["y"] for t in plain["data"]] == [
        t["y"] for t in made["data"] if t["yaxis"] not in ("y4", "y5")
    ]


def test_a_constant_does_not_stretch_the_axis_of_densities(rows: list[Row]) -> None:
    flat = np.full_like(density(rows[0]), 1e-69).tolist()  # µV²/Hz: what rounding leaves of zero
    constants = [
        {**row, "method": "mean", "spectra": {**row["spectra"], "drawn_uv2_hz": flat}}
        for row in rows
        if row["task"] == "leads" and row["method"] == "louder"
    ]
    rows = [row for row in rows if row["method"] != "exact"]
    made = figure(collect([*rows, *constants], resamples=5), averaged([*rows, *constants]))
    drawn = {t["name"]: t["y"] for t in made["data"] if t["yaxis"] == "y4"}
    assert set(drawn["mean"]) == {None}
    assert min(v for y in drawn.values() for v in y if v is not None) >= 1e-6 / 12 / 50


def test_comonotone_curves_have_no_spectra(rows: list[Row]) -> None:
    curves = [
        {**row, "method": "quantile-unet"}
        for row in rows
        if row["task"] == "leads" and row["method"] == "louder"
    ]
    (table,) = spectra_tables([*rows, *curves], HEADER, resamples=2)
    assert "quantile-unet" not in [line[0] for line in table.body]
    assert table.remarks[-1].startswith("`quantile-unet`: no spectra, because its draws")
    assert "quantile-unet" not in averaged([*rows, *curves])["leads"]
    assert spectra_tables(curves, HEADER) == []
    assert absent(curves) is None
