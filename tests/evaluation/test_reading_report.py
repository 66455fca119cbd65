"""From the rows of a run to Table 5: the right records, thresholds and refusals."""

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from ecgdiff.classifier import Classifier
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import DataError
from ecgdiff.evaluation import __main__ as command
from ecgdiff.evaluation import reading_report
from ecgdiff.evaluation.parquet import read_header, read_rows, write_rows
from ecgdiff.evaluation.reading_figure import LEFT, figure
from ecgdiff.evaluation.reading_report import Report, report
from ecgdiff.evaluation.tasks import Case
from ecgdiff.evaluation.words import WORDS
from ecgdiff.experiments.figure import write_figure

RNG = np.random.default_rng(0)
IDS = tuple(range(1, 41))
MADE = {k: frozenset({CONDITIONS[k % 4]} if k % 3 else set()) for k in IDS}


class Amplitude(nn.Module):
    """Reads a condition where its lead (I, III, aVL or V1) is strong."""

    def forward(self, x: Tensor) -> Tensor:
        return 20 * (x[:, [0, 0, 0, 0] if x.shape[1] == 1 else [0, 2, 4, 6]].abs().mean(-1) - 1)


def classifier(name: str) -> Classifier:
    return Classifier(
        Amplitude(),
        LEADS_12 if name == "default" else ("I",),
        CONDITIONS,
        100.0,
        50,
        1.0,
        thresholds={rule: np.full(4, 0.5) for rule in ("youden", "f1")},
        name=name,
        config={"sha256": f"sum-of-{name}"},
    )


def records(data: object, chosen: Any) -> list[Case]:
    """Records whose lead I tells the first condition, and nothing else."""
    out = []
    for k in chosen.ecg_ids:
        signal = RNG.choice([-1.0, 1.0], (8, 100)) * 0.1
        signal[0] *= 15 if CONDITIONS[0] in MADE[k] else 1
        out.append(Case(k, k, signal.astype(np.float32), MADE[k]))
    return out


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_report, "load_classifier", classifier)
    monkeypatch.setattr(reading_report, "PTBXL", lambda root: None)
    monkeypatch.setattr(reading_report, "cases", records)


def run(
    path: Path,
    methods: dict[str, Any],
    /,
    *,
    fold: int = 10,
    reader: str = "default",
    lost: int = 0,
    unread: Sequence[int] = (),
    tasks: Sequence[str] = ("leads",),
    missing: Sequence[tuple[str, str, int]] = (),
    **changed: Any,
) -> Path:
    """The rows of a run in which a method gives each record the probability of its function."""
    rows: list[dict[str, Any]] = []
    for task, (name, probability) in product(tasks, methods.items()):
        for k in IDS:
            if (task, name, k) in missing:
                continue
            row: dict[str, Any] = {"task": task, "method": name, "ecg_id": k, "patient_id": k}
            row |= {"weight": 2.0, "statements": sorted(MADE[k])}
            if k == lost and name == "conditional":
                row["error"] = {"type": "ValueError", "message": "failed"}
            elif k in unread and name == "conditional":
                reason = {"type": "ValueError", "message": "blind"}
                row["failed_parts"] = {"probabilities": reason}
            else:
                mean = {code: probability(code in MADE[k]) for code in CONDITIONS}
                row["probabilities"] = {"mean": mean}
            rows.append(row)
    header = {
        "settings": {
            "seed": 0,
            "noise": 0.001,
            "draws": 3,
            "reader": f"{reader} sum-of-{reader}",
            **{k: v for k, v in changed.items() if k in ("draws", "noise")},
        },
        **{k: v for k, v in changed.items() if k in ("priors", "methods")},
        "records": {"name": "some", "fold": fold, "seed": 0, "rule": "r", "ecg_ids": list(IDS)},
    }
    write_rows(path, rows, header)
    return path


def judged(*given: Any, **options: Any) -> tuple[dict[str, Any], Report]:
    made = report(*given, **options)
    return made.figures, made


def sure(made: bool) -> float:
    return 0.8 if made else 0.3


def timid(made: bool) -> float:
    return 0.2 if made else 0.1


def test_words_are_counted_where_draws_were_read(tmp_path: Path) -> None:
    path = run(tmp_path / "r.parquet", {"conditional": sure, "timid": timid}, lost=3)
    rows, header = read_rows(path), read_header(path)
    for row in rows:
        if row["method"] == "conditional" and "probabilities" in row:
            mean = row["probabilities"]["mean"]
            draws = {code: [mean[code], mean[code], 0.6] for code in CONDITIONS}
            row["probabilities"]["draws"] = draws
    write_rows(path, rows, header)
    made = report(path, "", resamples=5)
    assert list(made.words["leads"]) == ["conditional"]
    with_it, without = (
        [made.words["leads"]["conditional"][f"{word}, {truth}"]["value"][0] for word in WORDS]
        for truth in ("with it", "without")
    )
    assert with_it == [1.0, 0.0, 0.0]  # all draws above one half
    assert without == [0.0, 1.0, 0.0]  # .3, .3 and .6
    assert made.tables[-1].title == "Words and votes, task leads"


def test_methods_and_controls_are_judged_on_the_same_records(tmp_path: Path) -> None:
    rows = run(tmp_path / "r.parquet", {"conditional": sure, "timid": timid}, lost=3)
    found, made = judged(rows, "", resamples=10)
    assert list(found) == ["leads"]
    methods = found["leads"]
    assert list(methods) == [
        "real ECG",
        "observed, else zero",
        "lead-I classifier",
        "conditional",
        "timid",
    ]
    for name in ("conditional", "timid"):
        assert methods[name]["auroc"]["value"] == [1.0] * 4
    assert methods["conditional"]["youden"]["value"] == [1.0] * 4
    assert methods["timid"]["youden"]["value"] == [0.5] * 4
    # Lead I tells the first condition, and only that.
    assert methods["lead-I classifier"]["auroc"]["value"][0] == 1.0
    assert methods["lead-I classifier"]["auroc"]["value"][1] < 0.9
    note = made.about["leads"]
    assert "39 records of fold 10" in note and "1 records on which a method failed" in note
    count = sum(CONDITIONS[0] in MADE[k] for k in IDS if k != 3)
    assert f"{count} CRBBB" in note
    assert [t.title for t in made.tables] == [
        *(f"{code}, task leads" for code in CONDITIONS),
        "Differences from `real ECG`, task leads",
        "Differences from `conditional`, task leads",
    ]


def test_records_that_could_not_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    methods = {"conditional": sure, "timid": timid}
    rows = run(tmp_path / "r.parquet", methods, lost=3, unread=(5, 6))
    own = run(tmp_path / "9.parquet", methods, fold=9, unread=IDS)
    found, made = judged(rows, "", own=own, resamples=5)
    note = made.about["leads"]
    assert "37 records of fold 10" in note
    assert "1 records on which a method failed are left out" in note
    assert "2 records that could not be read for every method are left out for all" in note
    assert "`conditional`: 1 of 40 failed (1 ValueError: failed); 2 of 40 without" in note
    assert found["leads"]["conditional"]["auroc"]["value"] == [1.0] * 4
    assert "own youden" in found["leads"]["timid"]
    assert "own youden" not in found["leads"]["conditional"]  # nothing of it was read there
    none = run(tmp_path / "none.parquet", methods, unread=IDS)
    with pytest.raises(DataError, match=r"No record of task leads was read.*40 of 40 without"):
        report(none, "")


def test_the_figure_has_a_point_for_every_figure(tmp_path: Path) -> None:
    rows = run(tmp_path / "r.parquet", {"conditional": sure, "timid": timid})
    found = report(rows, "", resamples=10).figures
    made = figure(found)
    seen = 0
    for trace in made["data"]:
        k = CONDITIONS.index(trace["name"])
        score = "auroc" if trace["xaxis"] == "x1" else "youden"
        entries = [entry[score] for entry in found["leads"].values()]
        shown = trace["mode"] == "markers"
        known = [
            (row, entry)
            for row, entry in enumerate(entries)
            if (entry["value"][k] >= LEFT) == shown
        ]
        assert np.round(trace["y"]).tolist() == [row for row, _ in known]
        seen += len(known)
        if shown:
            assert trace["x"] == [entry["value"][k] for _, entry in known]
            ends = np.subtract(trace["x"], trace["error_x"]["arrayminus"])
            np.testing.assert_allclose(ends, [entry["low"][k] for _, entry in known])
        else:  # an arrow at the edge, with the value
            assert trace["x"] == [LEFT] * len(known)
            assert trace["text"] == [f"{entry['value'][k]:.2f}" for _, entry in known]
    assert seen == 2 * len(CONDITIONS) * len(found["leads"])
    assert sum(trace.get("showlegend", True) for trace in made["data"]) == len(CONDITIONS)
    assert all(made["layout"][f"xaxis{k}"]["range"][0] < LEFT for k in (1, 2))
    write_figure(made, tmp_path / "f.html")
    assert "lead-I classifier" in (tmp_path / "f.html").read_text(encoding="utf-8")


def test_thresholds_may_be_chosen_on_reconstructions_of_fold_nine(tmp_path: Path) -> None:
    rows = run(tmp_path / "10.parquet", {"conditional": sure, "timid": timid})
    own = run(tmp_path / "9.parquet", {"timid": timid}, fold=9)
    found, made = judged(rows, "", own=own, resamples=5)
    assert found["leads"]["timid"]["own youden"]["value"] == [1.0] * 4
    assert "own youden" not in found["leads"]["conditional"]
    assert "own Youden" in made.tables[0].markdown()
    with pytest.raises(DataError, match="on fold 9; this is a run on fold 10"):
        report(rows, "", own=rows)


def test_runs_that_cannot_be_judged_are_refused(tmp_path: Path) -> None:
    other = run(tmp_path / "o.parquet", {"conditional": sure}, reader="mine")
    with pytest.raises(DataError, match="mine sum-of-mine read these draws, not default"):
        report(other, "")
    rows = run(tmp_path / "r.parquet", {"timid": timid})
    with pytest.raises(DataError, match="no method 'conditional' on task leads"):
        report(rows, "")


PRIORS = {"inpainting": "abc", "default": "def"}
STEPS = {"leads": {"timid": {"steps": 2}, "conditional": {"model": "abc"}}}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"draws": 5}, "draws: 5 there, 3 here"),
        ({"noise": 0.1}, "noise: 0.1 there, 0.001 here"),
        ({"priors": {**PRIORS, "inpainting": "other"}}, "prior inpainting: other there, abc here"),
        ({"methods": {"leads": {"conditional": {"model": "x"}}}}, "model: x there, abc here"),
    ],
)
def test_thresholds_are_those_of_the_same_method(
    tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    given: dict[str, Any] = {"priors": PRIORS, "methods": STEPS}
    both = {"conditional": sure, "timid": timid}
    rows = run(tmp_path / "10.parquet", both, **given)
    own = run(tmp_path / "9.parquet", {"conditional": sure}, fold=9, **{**given, **changed})
    with pytest.raises(DataError, match=f"`conditional` on task leads is not .*{said}"):
        report(rows, "", own=own)
    # What is not used may differ.
    priors = {**PRIORS, "default": "other"}
    methods = {"leads": {**STEPS["leads"], "else": {"steps": 3}}}
    elsewhere = {**both, "else": sure}
    alike = run(tmp_path / "9.parquet", elsewhere, fold=9, priors=priors, methods=methods)
    found, _ = judged(rows, "", own=alike, resamples=2)
    assert "own youden" in found["leads"]["conditional"]


def test_the_prior_of_a_method_in_bfloat16_is_compared_too(tmp_path: Path) -> None:
    both = {"conditional": sure, "conditional, bfloat16": timid}
    rows = run(tmp_path / "10.parquet", both, priors=PRIORS)
    priors = {**PRIORS, "inpainting": "other"}
    own = run(tmp_path / "9.parquet", {"conditional, bfloat16": timid}, fold=9, priors=priors)
    said = r"`conditional, bfloat16` .*prior inpainting: other there"
    with pytest.raises(DataError, match=said):
        report(rows, "", own=own)


def test_a_method_that_is_not_through_blocks_no_other(tmp_path: Path) -> None:
    tasks, methods = ("leads", "precordial"), {"conditional": sure, "timid": timid}
    missing = [("leads", "timid", 4), ("leads", "timid", 9), ("precordial", "conditional", 7)]
    rows = run(tmp_path / "r.parquet", methods, tasks=tasks, missing=missing)
    made = report(rows, "", resamples=2)
    assert list(made.figures) == ["leads"]
    assert "timid" not in made.figures["leads"]
    assert "40 records of fold 10" in made.about["leads"]
    assert made.notes[:2] == [
        "Task leads: `timid` is left out, 2 of 40 records are not computed yet.",
        "Task precordial: `conditional` is left out, 1 of 40 records are not computed yet.",
    ]
    assert "Task precordial is skipped: no method 'conditional'" in made.notes[2]
    made = report(rows, "", task="precordial", reference="timid", resamples=2)
    assert list(made.figures) == ["precordial"]
    with pytest.raises(DataError, match=r"nothing to judge\. There are no rows of task noisy"):
        report(rows, "", task="noisy")


def test_the_command_says_what_it_leaves_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tasks, methods = ("leads", "precordial"), {"conditional": sure, "timid": timid}
    run(tmp_path / "rows.parquet", methods, tasks=tasks, missing=[("leads", "timid", 4)])
    given = ["readings", str(tmp_path), "--root", "x", "--resamples", "2"]
    assert command.main([*given, "--task", "leads"]) == 0
    shown = capsys.readouterr()
    assert shown.err == (
        "note: Task leads: `timid` is left out, 1 of 40 records are not computed yet.\n"
    )
    assert "task leads" in shown.out and "task precordial" not in shown.out


@pytest.mark.parametrize(("form", "ending"), [("markdown", "md"), ("latex", "tex")])
def test_the_files_say_what_is_left_out_and_what_the_figures_were_made_of(
    tmp_path: Path, form: str, ending: str
) -> None:
    tasks, methods = ("leads", "precordial"), {"conditional": sure, "half_way": timid}
    run(tmp_path / "rows.parquet", methods, tasks=tasks, missing=[("leads", "half_way", 4)])
    given = ["readings", str(tmp_path), "--root", "x", "--resamples", "2", "--format", form]
    assert command.main([*given, "--out", str(tmp_path)]) == 0
    text = (tmp_path / f"readings.{ending}").read_text(encoding="utf-8")
    name = "`half_way`" if form == "markdown" else r"half\_way"
    assert text.count(f"Task leads: {name} is left out, 1 of 40 records are not computed") == 1
    assert text.count("40 records of fold 10") == 2  # once for each task, above its tables
    for task in tasks:
        assert text.index(f"Task {task}") < text.index(f"CRBBB, task {task}")
    written = json.loads((tmp_path / "readings.json").read_text(encoding="utf-8"))
    assert written["notes"] == [
        "Task leads: `half_way` is left out, 1 of 40 records are not computed yet."
    ]
    assert written["reference"] == "conditional"
    assert "40 records of fold 10" in written["about"]["precordial"]
    entry = written["tasks"]["precordial"]["half_way"]
    assert len(entry["f1 less real ECG"]["value"]) == len(written["conditions"])
    # The page needs no network, or holds no plotly.js.
    page = tmp_path / "readings.html"
    whole = page.read_text(encoding="utf-8")
    assert "<script src=" not in whole and "<script charset" not in whole
    assert command.main([*given, "--out", str(tmp_path), "--small"]) == 0
    assert page.stat().st_size < 40_000 < len(whole)
    assert "lead-I classifier" in page.read_text(encoding="utf-8")


def test_the_command_writes_the_thresholds_it_chose(tmp_path: Path) -> None:
    rows = run(tmp_path / "10.parquet", {"conditional": sure, "timid": timid})
    own = run(tmp_path / "9.parquet", {"timid": timid}, fold=9)
    asked = ["readings", str(rows), "--root", "", "--own", str(own), "--resamples", "2"]
    assert command.main([*asked, "--out", str(tmp_path)]) == 0
    written = json.loads((tmp_path / "readings.json").read_text(encoding="utf-8"))
    assert list(written["own_thresholds"]["leads"]) == ["timid"]
    chosen = written["own_thresholds"]["leads"]["timid"]
    # Between what `timid` says with and without the condition.
    assert set(chosen) == {"youden", "f1"}
    levels = sorted({timid(True), timid(False)})
    assert all(levels[0] < t <= levels[1] for rule in chosen.values() for t in rule)


def test_a_run_on_the_first_records_is_judged_on_them(tmp_path: Path) -> None:
    methods = {"conditional": sure, "timid": timid}
    missing = [("leads", name, k) for name in methods for k in IDS[30:]]
    made = report(run(tmp_path / "r.parquet", methods, missing=missing), "", resamples=2)
    assert "30 records of fold 10" in made.about["leads"]
    assert made.notes == []


def test_comonotone_curves_are_not_read(tmp_path: Path) -> None:
    methods = {"conditional": sure, "quantile-unet": sure}
    made = report(run(tmp_path / "r.parquet", methods), "", resamples=2)
    assert "quantile-unet" not in made.figures["leads"]
    assert "`quantile-unet`: not read, because its draws" in made.about["leads"]
    rows = run(tmp_path / "r.parquet", {"conditional": sure})
    assert "quantile" not in report(rows, "", resamples=2).about["leads"]


def test_thresholds_of_longer_recordings_are_named_for_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    signals = RNG.normal(0, 1, (len(IDS), 8, 1000)).astype(np.float32)
    made = [Case(k, k, x, MADE[k]) for k, x in zip(IDS, signals, strict=True)]
    monkeypatch.setattr(reading_report, "cases", lambda data, chosen: made)
    rows = run(tmp_path / "r.parquet", {"conditional": sure}, tasks=("leads", "block"))
    about = report(rows, "", resamples=2).about
    said = "chosen on recordings of 10 s; these stretches have 2.56 s"
    assert said in about["block"]
    assert said not in about["leads"]
