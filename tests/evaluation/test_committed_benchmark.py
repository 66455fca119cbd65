"""The rows of the benchmark that are committed give the figures that are committed beside them."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdiff.data.statements import CONDITIONS
from ecgdiff.evaluation import comonotone
from ecgdiff.evaluation.diagnosis import aurocs
from ecgdiff.evaluation.journal import Row, failed
from ecgdiff.evaluation.parquet import read_header, read_rows
from ecgdiff.evaluation.records import read_list
from ecgdiff.evaluation.weighted_scores import score_table, weighted_scores

pytest.importorskip("pyarrow")

FOLDER = Path(__file__).parents[2] / "results" / "benchmark"
FILES = sorted((FOLDER / "rows").glob("*/*.parquet"))


@pytest.fixture(scope="module")
def readings() -> dict[str, Any]:
    return json.loads((FOLDER / "readings.json").read_text(encoding="utf-8"))


def in_tables(task: str, method: str, column: str) -> float:
    """The point estimate in the table of errors of a task."""
    text = (FOLDER / "tables.md").read_text(encoding="utf-8")
    _, table = text.split(f"## Reconstruction errors in mV, task {task}\n\n")
    lines = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in table.split("\n\n")[0].splitlines()
    ]
    (row,) = [line for line in lines if line[0] == method]
    return float(row[lines[0].index(column)].split()[0])


def of_one_method(path: Path) -> tuple[str, str, list[Row], np.ndarray]:
    rows = read_rows(path)
    ((task, method),) = {(row["task"], row["method"]) for row in rows}
    good = [row for row in rows if not failed(row)]
    return task, method, good, np.array([row["weight"] for row in good])


def test_no_file_tells_where_it_was_made() -> None:
    for path in sorted(FOLDER.glob("rows*/*/*.parquet")):
        words = [word for line in read_header(path)["commands"] for word in shlex.split(line)]
        assert not [word for word in words if word.startswith("/")], path


def test_there_are_rows() -> None:
    assert {path.parent.name for path in FILES} >= {"leads", "block"}
    assert (FOLDER / "rows" / "leads" / "conditional.parquet") in FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_rows_are_of_the_list_and_have_its_weights(path: Path) -> None:
    task, method, rows, _ = of_one_method(path)
    assert path.parent.name == task
    assert path.stem == re.sub(r"[^A-Za-z0-9.=-]+", "_", method)
    chosen = read_list(read_header(path)["records"]["name"])
    assert chosen.name == "fold10_440_conditions"
    found = {row["ecg_id"]: row["weight"] for row in rows}
    assert len(found) == len(rows)
    weights = {i: chosen.weights[i] for i in found}
    assert found == pytest.approx(weights, rel=1e-4)  # kept with four digits


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_rows_give_the_crps_of_the_tables(path: Path) -> None:
    task, method, rows, weights = of_one_method(path)
    (crps,) = weighted_scores(score_table(rows), weights[None])["crps"]
    # Half a unit of the last digit shown, and the digits that kept rows have.
    assert in_tables(task, method, "CRPS") == pytest.approx(crps, abs=0.6e-4)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_rows_give_the_auroc_of_the_readings(path: Path, readings: dict[str, Any]) -> None:
    task, method, rows, weights = of_one_method(path)
    if method in comonotone.LABELS:
        pytest.skip("these draws are no curves of an ECG, so nothing is read from them")
    assert readings["conditions"] == list(CONDITIONS)
    labels = np.array([[code in row["statements"] for code in CONDITIONS] for row in rows], int)
    scores = np.array([[row["probabilities"]["mean"][c] for c in CONDITIONS] for row in rows])
    # Scores of four digits may tie.
    assert readings["tasks"][task][method]["auroc"]["value"] == pytest.approx(
        aurocs(labels, scores, weights), abs=1e-4
    )
