"""Tables of shape from rows whose numbers are made up, so that every figure is known."""

import re
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.evaluation.bootstrap import replicates
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.regression_to_mean import regression_to_mean
from ecgdiff.evaluation.shape import LEADS, PER_LEAD, PER_RECORD
from ecgdiff.evaluation.shape_tables import _slope, shape_tables
from ecgdiff.evaluation.spectra import BANDS, compare_spectra, power_spectrum
from ecgdiff.evaluation.tables import Table
from ecgdiff.evaluation.tasks import TASKS

COUNT, DRAWS = 8, 3
HEADER = {
    "settings": {"draws": DRAWS, "version": "1"},
    "records": {"name": "eight", "fold": 9, "ecg_ids": list(range(COUNT))},
}
V3 = LEADS.index("V3")


def entry(rng: np.random.Generator, leads: int = 7) -> dict[str, Any]:
    """Draws equal to a truth drawn at random."""
    out: dict[str, Any] = {}
    for name in PER_RECORD:
        out[name] = [float(rng.uniform(80, 170))] * (1 + DRAWS)
    for name in PER_LEAD:
        out[name] = [rng.uniform(0.1, 2, 7).tolist()] * (1 + DRAWS)
    power = rng.uniform(1, 2, leads).tolist()
    return out | {"power_mv2": {band: [power, power] for band in BANDS}}


def rows(task: str = "leads", method: str = "same", seed: int = 0) -> list[Row]:
    rng = np.random.default_rng(seed)
    return [
        {
            "task": task,
            "method": method,
            "ecg_id": k,
            "patient_id": k // 2,
            "weight": 1.0 if k < 4 else 10.0,
            "shape": entry(rng, len(TASKS[task].scored_leads)),
        }
        for k in range(COUNT)
    ]


def lost(row: Row) -> Row:
    """The same record without beats."""
    nothing: dict[str, Any] = {name: [None] * (1 + DRAWS) for name in PER_RECORD}
    nothing |= {name: [[None] * 7] * (1 + DRAWS) for name in PER_LEAD}
    power = row["shape"]["power_mv2"]
    return row | {"shape": nothing | {"power_mv2": power, "failed": "No beats."}}


def made(of: list[Row], resamples: int = 10) -> dict[str, Table]:
    return {t.title: t for t in shape_tables(of, HEADER, resamples=resamples)}


def cells(table: Table, method: str = "same") -> dict[str, dict[str, str]]:
    return {
        second: dict(zip(table.head[2:], rest, strict=True))
        for first, second, *rest in table.body
        if first == method
    }


def intervals_of(of: list[Row], method: str = "same") -> dict[str, dict[str, str]]:
    return cells(made(of)["Intervals and axis, task leads"], method)


def test_the_truth_itself_has_no_error() -> None:
    tables = made(rows())
    for name, line in cells(tables["Intervals and axis, task leads"]).items():
        assert line["records compared"] == "8"
        assert (line["mean error"], line["sd of error"]) == ("+0.0", "0.0")
        assert line["truth not measured, %"] == line["draws not measured, %"] == "0.0"
        assert line["only draws measured, %"] == "-"
        tolerated = name.startswith(("QRS", "PR", "QT,"))
        assert line["within tolerance"] == ("yes" if tolerated else "-")
    for line in cells(tables["Errors of amplitudes in mV, task leads"]).values():
        assert set(line.values()) == {"+0.000 ± 0.000"}
        assert list(line) == ["V1", "V2", "V3", "V4", "V5", "V6"]
    for wave in "RS":
        found = cells(tables[f"Regression to the mean, {wave} amplitudes, task leads"])
        assert set(found["slope"].values()) == {"0.00 [0.00, 0.00]"}
        assert found["R² with lead I, truth"] == found["R² with lead I, draws"]
    for line in cells(tables["Power ratios by band, task leads"]).values():
        assert set(line.values()) == {"1.00 [1.00, 1.00]"}
        assert list(line) == [*TASKS["leads"].scored_leads, "all"]


def test_errors_by_hand() -> None:
    wrong = rows()
    for k, row in enumerate(wrong):
        for draw, error in enumerate((4.0, 8.0, 12.0), 1):
            row["shape"]["qrs_ms"] = list(row["shape"]["qrs_ms"])
            row["shape"]["qrs_ms"][draw] += error
            row["shape"]["pr_ms"] = list(row["shape"]["pr_ms"])
            row["shape"]["pr_ms"][draw] += 15 * (-1) ** k
    found = intervals_of(wrong)
    assert found["QRS, ms"]["mean error"] == "+8.0"
    assert found["QRS, ms"]["sd of error"] == f"{np.std([4, 8, 12] * COUNT, ddof=1):.1f}"
    assert found["QRS, ms"]["within tolerance"] == "yes"
    assert found["PR, ms"]["mean error"] == "+0.0"
    assert found["PR, ms"]["within tolerance"] == "no"  # the spread


def test_failures_are_counted_and_named() -> None:
    some = rows()
    some[2] = lost(some[2])
    some[5]["shape"]["qt_ms"] = [400.0, None, 400.0, 400.0]
    some[6]["shape"]["pr_ms"] = [None, None, 160.0, 160.0]
    tables = made(some)
    found = cells(tables["Intervals and axis, task leads"])
    qrs, qt, pr = found["QRS, ms"], found["QT, ms"], found["PR, ms"]
    assert (qrs["records compared"], qrs["truth not measured, %"]) == ("7", "2.3")  # 1 of 44
    assert (qrs["draws not measured, %"], qrs["only draws measured, %"]) == ("0.0", "0.0")
    assert (qt["records compared"], qt["draws not measured, %"]) == ("7", "7.8")  # 10 of 3 * 43
    assert (pr["records compared"], pr["truth not measured, %"]) == ("6", "25.0")
    assert pr["only draws measured, %"] == "60.6"  # 20 of 3 * 11
    text = tables["Intervals and axis, task leads"].markdown()
    assert "1 of 8 records, counted as not measured: No beats." in text


def test_nothing_measured_is_shown_as_nothing() -> None:
    tables = made([lost(row) for row in rows()])
    line = cells(tables["Intervals and axis, task leads"])["QRS, ms"]
    assert list(line.values()) == ["0", "-", "-", "100.0", "-", "0.0", "-"]
    slopes = cells(tables["Regression to the mean, S amplitudes, task leads"])["slope"]
    assert set(slopes.values()) == {"-"}


def test_one_draw_alone_keeps_no_tolerance() -> None:
    some = [lost(row) for row in rows()]
    some[0]["shape"]["qrs_ms"] = [100.0, 101.0, None, None]
    line = intervals_of(some)["QRS, ms"]
    assert (line["records compared"], line["mean error"]) == ("1", "+1.0")
    assert (line["sd of error"], line["within tolerance"]) == ("-", "-")


def test_the_slope_is_that_of_the_formula_whatever_is_missing() -> None:
    rng = np.random.default_rng(3)
    true = rng.normal(size=(40, 6))
    drawn = 0.3 * true[:, None] + rng.normal(size=(40, DRAWS, 6))
    drawn[rng.uniform(size=drawn.shape) < 0.1] = np.nan
    true[3, 2] = np.nan
    weights = rng.uniform(1, 10, 40)
    whole = regression_to_mean(drawn.swapaxes(0, 1), true, weights)
    np.testing.assert_allclose(_slope(drawn, true, weights), whole.draw.slope)


def test_the_interval_of_the_slope_is_that_of_resampled_patients() -> None:
    rng = np.random.default_rng(6)
    some = rows()
    for row in some:
        true = row["shape"]["r_mv"][0]
        row["shape"]["r_mv"] = [true, *(true + rng.normal(size=(DRAWS, 7))).tolist()]
    table = made(some, 200)["Regression to the mean, R amplitudes, task leads"]
    shown = cells(table)["slope"]["V3"]
    value, low, high = map(float, re.findall(r"-?[\d.]+", shown))
    assert low < value < high
    both = np.array([row["shape"]["r_mv"] for row in some])[..., V3]
    roots = np.sqrt([row["weight"] for row in some])  # polyfit weighs before it squares

    def slope(at: NDArray[np.intp]) -> float:
        true, *drawn = both[at].T
        return float(np.mean([np.polyfit(true, x - true, 1, w=roots[at])[0] for x in drawn]))

    resamples = replicates([row["patient_id"] for row in some], 200)
    ends = np.quantile([slope(at) for at in resamples if np.ptp(both[at, 0])], [0.025, 0.975])
    assert value == pytest.approx(slope(np.arange(COUNT)), abs=0.0051)
    assert (low, high) == pytest.approx(tuple(ends), abs=0.0051)


def shrunk(keep: float) -> list[Row]:
    """R of V3 drawn nearer to its mean."""
    out = rows()
    mean = np.mean([row["shape"]["r_mv"][0][V3] for row in out])
    for row in out:
        true = row["shape"]["r_mv"][0]
        drawn = list(true)
        drawn[V3] = float(mean + keep * (true[V3] - mean))
        row["shape"]["r_mv"] = [true] + [drawn] * DRAWS
    return out


@pytest.mark.parametrize("keep", [0.5, 0.25])
def test_shrunk_amplitudes_have_the_slope_that_follows(keep: float) -> None:
    tables = made(shrunk(keep))
    found = cells(tables["Regression to the mean, R amplitudes, task leads"])
    value = f"{keep - 1:.2f}"
    assert found["slope"]["V3"] == f"{value} [{value}, {value}]"
    assert found["slope"]["V4"] == "0.00 [0.00, 0.00]"
    assert (found["share"]["V3"], found["slope claimed"]["V3"]) == ("1.00", "0.00")
    assert found["R² with lead I, truth"] == found["R² with lead I, draws"]


def test_a_point_estimate_claims_nothing() -> None:
    some = rows(method="ridge")
    for row in some:
        short = {name: row["shape"][name][:2] for name in PER_RECORD + PER_LEAD}
        row["shape"] = row["shape"] | short
    title = "Regression to the mean, R amplitudes, task leads"
    found = made(rows() + some)[title]
    assert "slope claimed" in cells(found)
    assert "slope claimed" not in cells(found, "ridge")
    assert "slope" in cells(found, "ridge")


def test_band_powers_are_weighted_as_records_are() -> None:
    some = rows()
    for k, row in enumerate(some):
        true = row["shape"]["power_mv2"]["5-15 Hz"][0]
        row["shape"]["power_mv2"]["5-15 Hz"] = [true, [v * (2.0 if k < 4 else 0.5) for v in true]]
    found = cells(made(some)["Power ratios by band, task leads"])
    assert set(found["15-40 Hz"].values()) == {"1.00 [1.00, 1.00]"}
    true, drawn = (
        np.array([row["shape"]["power_mv2"]["5-15 Hz"][j] for row in some]) for j in (0, 1)
    )
    w = np.array([row["weight"] for row in some])
    expected = (w @ drawn) / (w @ true)
    shown = [float(text.split()[0]) for text in found["5-15 Hz"].values()]
    assert shown == pytest.approx([*expected, expected.mean()], abs=0.005)
    assert not np.allclose(expected, drawn.sum(axis=0) / true.sum(axis=0), atol=0.2)
    note = made(some)["Power ratios by band, task leads"].note
    assert "weighted by inverse inclusion probability" in note
    for row in some:
        row["weight"] = 1.0
    assert "weighted" not in made(some)["Power ratios by band, task leads"].note


def test_band_powers_are_those_of_the_averaged_spectra() -> None:
    rng = np.random.default_rng(5)
    true: NDArray[np.float64] = rng.normal(size=(COUNT, 7, 1000))
    drawn = np.cumsum(rng.normal(size=(COUNT, DRAWS, 7, 1000)), axis=-1) / 5
    frequencies, below = power_spectrum(true, 100.0)
    _, above = power_spectrum(drawn, 100.0)
    some = rows()
    for k, row in enumerate(some):
        row["weight"] = 1.0
        for band, (low, high) in BANDS.items():
            inside = (frequencies >= low) & (frequencies < high)
            pair = [below[k], above[k].mean(axis=0)]
            row["shape"]["power_mv2"][band] = [v[:, inside].sum(axis=-1).tolist() for v in pair]
    found = cells(made(some)["Power ratios by band, task leads"])
    for band, ratio in compare_spectra(frequencies, above, below).power_ratio.items():
        shown = [float(text.split()[0]) for text in list(found[band].values())[:-1]]
        assert shown == pytest.approx(list(ratio), abs=0.0051)


def test_only_hidden_leads_are_shown() -> None:
    tables = made(rows("precordial"))
    assert list(tables) == [
        "Intervals and axis, task precordial",
        "Errors of amplitudes in mV, task precordial",
        "Regression to the mean, R amplitudes, task precordial",
        "Regression to the mean, S amplitudes, task precordial",
        "Power ratios by band, task precordial",
    ]
    for table in list(tables.values())[1:]:
        assert [lead for lead in table.head[2:] if lead != "all"] == ["V1", "V2", "V3"]
        assert all(len(row) == len(table.head) for row in table.body)


def test_rows_without_shape_make_no_tables() -> None:
    bare = [{k: v for k, v in row.items() if k != "shape"} for row in rows()]
    assert shape_tables(bare, HEADER) == []
    both = shape_tables(bare[:3] + rows()[3:], HEADER, resamples=5)
    lost = "`same`: 3 of 8 made by a run without shape."
    assert [lost in table.remarks for table in both] == [True] * 5


def test_records_whose_shape_failed_are_counted_with_their_reason() -> None:
    some = rows()
    error = {"type": "ValueError", "message": "no beat"}
    some[3] = {k: v for k, v in some[3].items() if k != "shape"} | {
        "failed_parts": {"shape": error, "probabilities": error}
    }
    tables = made(some)
    text = tables["Intervals and axis, task leads"].markdown()
    assert "`same`: 1 of 8 without shape (1 ValueError: no beat)." in text
    assert "probabilities" not in text
    assert intervals_of(some)["QRS, ms"]["records compared"] == "7"


def test_methods_that_are_not_through_are_named_below_every_table() -> None:
    tables = shape_tables(rows() + rows(method="slow")[:3], HEADER, resamples=5)
    for table in tables:
        assert "`slow`: 5 of 8 not computed yet." in table.remarks
        assert not any("`same`" in remark for remark in table.remarks)
        assert table.task == "leads"


def test_tolerances_are_not_stated_as_verified() -> None:
    note = made(rows())["Intervals and axis, task leads"].note
    assert "QRS 10/10, PR 10/10, QT 25/30, commonly cited as" in note
    assert "not verified here" in note


def test_latex_escapes_what_is_special() -> None:
    text = "\n".join(t.latex() for t in made(rows(method="a_b")).values())
    assert text.count(r"\begin{tabular}") == 5
    assert r"a\_b & QRS, ms & 8" in text
    text = re.sub("^% Needs the packages.*$", "", text, flags=re.M)
    assert not re.search(r"(?<!\\)[_%#$]", text)


def test_comonotone_curves_are_not_measured() -> None:
    tables = made(rows() + rows(method="quantile-unet"))
    assert len(tables) == 5
    for table in tables.values():
        assert {line[0] for line in table.body} == {"same"}
        assert "`quantile-unet`: not measured, because its draws" in table.markdown()
    assert "quantile" not in "".join(table.markdown() for table in made(rows()).values())
    assert made(rows(method="quantile-unet")) == {}


def copies(of: list[Row], counts: dict[int, int]) -> list[Row]:
    """A list in which a record is there as often as it weighs."""
    return [row | {"weight": 1.0} for row in of for _ in range(counts[row["ecg_id"]])]


def test_weights_count_a_record_as_often_as_it_weighs() -> None:
    of, rng = rows(), np.random.default_rng(8)
    for row in of:
        for name in PER_RECORD + PER_LEAD:
            true, *others = np.array(row["shape"][name])
            row["shape"][name] = [true.tolist(), *(x * rng.uniform(0.8, 1.2) for x in others)]
    counts = {row["ecg_id"]: 1 + row["ecg_id"] % 3 for row in of}
    weighted = made([row | {"weight": float(counts[row["ecg_id"]])} for row in of])
    repeated = made(copies(of, counts))
    slopes = "Regression to the mean, R amplitudes, task leads"
    for name in ("slope", "share", "R² with lead I, truth", "R² with lead I, draws"):
        a, b = (cells(t[slopes])[name] for t in (weighted, repeated))
        # Patients are drawn in other numbers, so that the intervals differ.
        assert [v.split(" ")[0] for v in a.values()] == [v.split(" ")[0] for v in b.values()]
    title = "Intervals and axis, task leads"
    for name, cell in cells(weighted[title]).items():
        other = cells(repeated[title])[name]
        assert cell["mean error"] == other["mean error"]
        assert cell["truth not measured, %"] == other["truth not measured, %"]
        assert cell["draws not measured, %"] == other["draws not measured, %"]
    even = cells(made([row | {"weight": 1.0} for row in of])[title])
    assert cells(weighted[title])["QRS, ms"]["mean error"] != even["QRS, ms"]["mean error"]


def test_captions_say_whether_figures_are_weighted() -> None:
    saying = [t for t, table in made(rows()).items() if "inverse inclusion" in table.note]
    assert len(saying) == 5
    even = made([row | {"weight": 1.0} for row in rows()])
    assert not any("inverse inclusion" in table.note for table in even.values())
