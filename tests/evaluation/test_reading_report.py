"""From the rows of a run to Table 5: the right records, thresholds and refusals."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import Tensor, nn

from ecgdiff.classifier import Classifier
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.ecg.leads import LEADS_12
from ecgdiff.errors import DataError
from ecgdiff.evaluation import reading_report
from ecgdiff.evaluation.parquet import write_rows
from ecgdiff.evaluation.reading_figure import figure
from ecgdiff.evaluation.reading_report import report
from ecgdiff.evaluation.tasks import Case
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
    *,
    fold: int = 10,
    reader: str = "default",
    lost: int = 0,
    unread: Sequence[int] = (),
) -> Path:
    """The rows of a run in which a method gives each record the probability of its function."""
    rows: list[dict[str, Any]] = []
    for name, probability in methods.items():
        for k in IDS:
            row: dict[str, Any] = {"task": "leads", "method": name, "ecg_id": k, "patient_id": k}
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
        },
        "records": {"name": "some", "fold": fold, "seed": 0, "rule": "r", "ecg_ids": list(IDS)},
    }
    write_rows(path, rows, header)
    return path


def sure(made: bool) -> float:
    return 0.8 if made else 0.3


def timid(made: bool) -> float:
    return 0.2 if made else 0.1


def test_methods_and_controls_are_judged_on_the_same_records(tmp_path: Path) -> None:
    rows = run(tmp_path / "r.parquet", {"conditional": sure, "timid": timid}, lost=3)
    found, tables = report(rows, "", resamples=10)
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
    note = tables[0].note
    assert "39 records of fold 10" in note and "1 records on which a method failed" in note
    count = sum(CONDITIONS[0] in MADE[k] for k in IDS if k != 3)
    assert f"{count} CRBBB" in note
    assert [t.title for t in tables] == [f"{code}, task leads" for code in CONDITIONS]


def test_records_that_could_not_be_read_are_left_out_and_counted(tmp_path: Path) -> None:
    methods = {"conditional": sure, "timid": timid}
    rows = run(tmp_path / "r.parquet", methods, lost=3, unread=(5, 6))
    own = run(tmp_path / "9.parquet", methods, fold=9, unread=IDS)
    found, tables = report(rows, "", own=own, resamples=5)
    note = tables[0].note
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
    found, _ = report(rows, "", resamples=10)
    made = figure(found)
    assert len(made["data"]) == 2 * len(CONDITIONS)
    for trace in made["data"]:
        k = CONDITIONS.index(trace["name"])
        score = "auroc" if trace["xaxis"] == "x1" else "youden"
        entries = [entry[score] for entry in found["leads"].values()]
        assert trace["x"] == [entry["value"][k] for entry in entries]
        ends = np.subtract(trace["x"], trace["error_x"]["arrayminus"])
        np.testing.assert_allclose(ends, [entry["low"][k] for entry in entries])
    write_figure(made, tmp_path / "f.html")
    assert "lead-I classifier" in (tmp_path / "f.html").read_text(encoding="utf-8")


def test_thresholds_may_be_chosen_on_reconstructions_of_fold_nine(tmp_path: Path) -> None:
    rows = run(tmp_path / "10.parquet", {"conditional": sure, "timid": timid})
    own = run(tmp_path / "9.parquet", {"timid": timid}, fold=9)
    found, tables = report(rows, "", own=own, resamples=5)
    assert found["leads"]["timid"]["own youden"]["value"] == [1.0] * 4
    assert "own youden" not in found["leads"]["conditional"]
    assert "own Youden" in tables[0].markdown()
    with pytest.raises(DataError, match="on fold 9; this is a run on fold 10"):
        report(rows, "", own=rows)


def test_runs_that_cannot_be_judged_are_refused(tmp_path: Path) -> None:
    other = run(tmp_path / "o.parquet", {"conditional": sure}, reader="mine")
    with pytest.raises(DataError, match="mine sum-of-mine read these draws, not default"):
        report(other, "")
    rows = run(tmp_path / "r.parquet", {"timid": timid})
    with pytest.raises(DataError, match="no method 'conditional' on task leads"):
        report(rows, "")
