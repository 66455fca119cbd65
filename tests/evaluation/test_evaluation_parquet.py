"""Rows through Parquet and back, whatever keys they have."""

import builtins
import json
from pathlib import Path
from typing import Any

import pytest

from ecgdiff.errors import DataError
from ecgdiff.evaluation.parquet import read_header, read_rows, write_rows

pytest.importorskip("pyarrow")

COMMON = {"task": "leads", "patient_id": 1, "fingerprint": "f", "device": "cpu"}
ROWS: list[dict[str, Any]] = [
    {
        **COMMON,
        "method": "mmps",
        "ecg_id": 5,
        "seconds": 1.25,
        "calls": [50, 50],
        "scores": {
            "crps": [0.1, 0.25],
            "amplitude_draws": [[1.0, 2.0], [3.0, 4.5]],
            "rmse_mean": 0.1,
            "ranks": [[1, 0, 9], [3, 3, 4]],
        },
        "probabilities": {"draws": {"AFIB": [0.1, 0.2]}, "mean": {"AFIB": 0.15, "PRC(S)": 0.5}},
        "statements": ["AFIB", "LAO/LAE"],
        "weight": 1.0,
    },
    {
        **COMMON,
        "method": "mean",
        "ecg_id": 6,
        "seconds": 2.0,
        "scores": {"crps": [0.0, 1.0], "amplitude_draws": [[1.0, 2.0]], "rmse_mean": 3.0},
        "statements": [],
        "weight": 12.5,
        "failed_parts": {"shape": {"type": "ValueError", "message": "no beat"}},
        "spectra": {
            "first_hz": 0.78125,
            "step_hz": 0.390625,
            "true_uv2_hz": [[12.34, 0.001234], [0.0, 1e-05]],
            "drawn_uv2_hz": [[1.0, 56780.0], [3.0, 4.0]],
        },
    },
    {
        **COMMON,
        "method": "mmps",
        "ecg_id": 7,
        "seconds": 0.1,
        "error": {"type": "OperatorError", "message": "too much noise, \u00b5V"},
        "statements": ["NORM"],
        "weight": 12.5,
    },
    {
        **COMMON,
        "method": "mmps",
        "ecg_id": 8,
        "seconds": 0.1,
        "scores": {"crps": [0.0, 1.0], "amplitude_draws": [[1.0, 2.0]], "rmse_mean": 3.0},
        "statements": ["NORM"],
        "weight": 12.5,
        "failed_parts": {"probabilities": {"type": "OperatorError", "message": "unread"}},
    },
]


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    write_rows(path, ROWS, {"settings": {"draws": 2}})
    assert json.dumps(read_rows(path), sort_keys=True) == json.dumps(ROWS, sort_keys=True)
    assert read_header(path) == {"settings": {"draws": 2}}
    assert [p.name for p in tmp_path.iterdir()] == ["rows.parquet"]


def test_the_file_is_compressed_and_readable_by_others(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    write_rows(tmp_path / "rows.parquet", ROWS, {})
    file = pq.ParquetFile(tmp_path / "rows.parquet")
    assert file.metadata.row_group(0).column(0).compression == "ZSTD"
    assert file.read(["ecg_id", "weight"]).to_pydict() == {
        "ecg_id": [5, 6, 7, 8],
        "weight": [1.0, 12.5, 12.5, 12.5],
    }


def test_other_files_are_refused(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with pytest.raises(DataError, match="no readable Parquet"):
        read_rows(tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("nothing like it", encoding="utf-8")
    with pytest.raises(DataError, match="no readable Parquet"):
        read_rows(tmp_path / "text.parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="not the rows of an evaluation"):
        read_header(tmp_path / "other.parquet")


def test_a_missing_pyarrow_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def refuse(name: str, *args: Any, **more: Any) -> Any:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ImportError, match=r"pip install 'ecgdiff\[data\]'"):
        write_rows(tmp_path / "rows.parquet", ROWS, {})
