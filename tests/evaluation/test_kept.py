"""Rows that are kept as small files, and runs that go on from them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdiff.errors import DataError
from ecgdiff.evaluation.kept import keep, known

pytest.importorskip("pyarrow")

HEADER: dict[str, Any] = {
    "settings": {"draws": 2},
    "records": {"name": "two", "ecg_ids": [5, 6]},
    "commands": ["a command"],
    "priors": {},
    "methods": {"leads": {"mgps:lr=0.1,steps=3": {"steps": 3}, "mean": {}}, "block": {"mean": {}}},
}


def row(task: str, method: str, ecg_id: int, **more: Any) -> dict[str, Any]:
    given = {"task": task, "method": method, "ecg_id": ecg_id, "fingerprint": f"{task} {method}"}
    return {**given, **more}


def test_rows_come_back_to_four_digits_without_spectra(tmp_path: Path) -> None:
    values = [float(v) for v in np.random.default_rng(0).lognormal(0, 5, 500)]
    scores = {"crps": [*values, 0.0, -0.0123456], "ranks": [[0, 3, 123456]], "r": [0.5, None]}
    there = [
        row("leads", "mgps:lr=0.1,steps=3", 5, scores=scores, spectra={"true": [1.0]}, weight=1.0),
        row("leads", "mgps:lr=0.1,steps=3", 6, error={"type": "E", "message": "why"}),
    ]
    (path,) = keep(there, HEADER, tmp_path)
    assert path == tmp_path / "leads" / "mgps_lr=0.1_steps=3.parquet"
    ((found, header, (first, second)),) = known(tmp_path)
    assert found == path
    assert header["methods"] == {"leads": {"mgps:lr=0.1,steps=3": {"steps": 3}}}
    assert {k: header[k] for k in ("settings", "records")} == {
        k: HEADER[k] for k in ("settings", "records")
    }
    assert second == there[1]
    assert set(first) == set(there[0]) - {"spectra", "weight"}
    got, meant = first["scores"], scores
    assert (got["ranks"], got["r"]) == (meant["ranks"], meant["r"])
    errors = [abs(g - m) for g, m in zip(got["crps"], meant["crps"], strict=True)]
    assert all(e <= 2e-4 * abs(m) for e, m in zip(errors, meant["crps"], strict=True))
    assert max(len(json.dumps(v)) for v in got["crps"]) < 13


def test_a_file_for_each_task_and_method_and_the_latest_row_of_a_record(tmp_path: Path) -> None:
    there = [
        row("leads", "mean", 5, error={"type": "E", "message": "first try"}),
        row("block", "mean", 5, seconds=1.0),
        row("leads", "mean", 5, seconds=2.0),
    ]
    assert len(keep(there, HEADER, tmp_path)) == 2
    found = {path.parent.name: rows for path, _, rows in known(tmp_path)}
    assert found == {"block": [there[1]], "leads": [there[2]]}


def test_small_files(tmp_path: Path) -> None:
    from ecgdiff.evaluation.parquet import write_rows

    rng = np.random.default_rng(1)
    rows = [
        row("leads", "mean", i, scores={"crps": [float(f"{v:.6g}") for v in rng.normal(size=50)]})
        for i in range(200)
    ]
    write_rows(tmp_path / "all.parquet", rows, HEADER)
    (kept,) = keep(rows, HEADER, tmp_path)
    # 13 bits, a sign and a few of the exponent out of 64.
    assert kept.stat().st_size < 0.4 * (tmp_path / "all.parquet").stat().st_size


def test_rows_of_two_settings_are_not_kept_as_one(tmp_path: Path) -> None:
    there = [row("leads", "mean", 5), {**row("leads", "mean", 6), "fingerprint": "other"}]
    with pytest.raises(DataError, match="task leads, method mean were made with two settings"):
        keep(there, HEADER, tmp_path)


def test_a_folder_without_kept_rows_says_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no kept rows"):
        known(tmp_path)
    (tmp_path / "leads").mkdir()
    (tmp_path / "leads" / "mean.parquet").write_bytes(b"no such thing")
    with pytest.raises(DataError, match="no readable Parquet"):
        known(tmp_path)


def test_numbers_that_need_no_rounding_stay(tmp_path: Path) -> None:
    values = [1.0, 0.25, 512.0, 24.0, 0.0]
    keep([row("leads", "mean", 1, scores=values)], HEADER, tmp_path)
    ((_, _, (found,)),) = known(tmp_path)
    assert found["scores"] == values
    assert all(math.isfinite(v) for v in found["scores"])
