"""The folder of a run: what may go on in it, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from ecgdiff.errors import DataError
from ecgdiff.evaluation.folder import begin, compared, locked
from ecgdiff.evaluation.parquet import write_rows

pytest.importorskip("pyarrow")

RECORDS: dict[str, Any] = {"name": "five", "fold": 10, "ecg_ids": (1, 2, 3, 4, 5)}
SETTINGS = {"draws": 3, "seed": 0}


def header(**changed: Any) -> dict[str, Any]:
    return {
        "settings": SETTINGS,
        "records": RECORDS,
        "commands": ["now"],
        "priors": {"mine": "abc"},
        "methods": {"leads": {"m": {"steps": 2}}},
        **changed,
    }


def older(out: Path, records: dict[str, Any]) -> None:
    """A folder as it was before its run.json named the list."""
    (out / "run.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    there = {"settings": SETTINGS, "records": records, "commands": ["then"], "priors": {"a": "b"}}
    write_rows(out / "rows.parquet", [{"ecg_id": 1}], there)


def test_an_older_folder_of_the_same_list_goes_on(tmp_path: Path) -> None:
    older(tmp_path, {**RECORDS, "ecg_ids": [1, 2, 3, 4, 5]})
    methods = {"m": {"arguments": {"steps": 9}}, "n": {"arguments": {"steps": 4}}}
    figures = {"tasks": {"leads": {"methods": methods}, "block": {"methods": {}}}}
    (tmp_path / "first_figures.json").write_text(json.dumps(figures), encoding="utf-8")
    merged = compared(tmp_path, header(), [{"ecg_id": 1}])
    assert merged["commands"] == ["then", "now"]
    assert merged["priors"] == {"a": "b", "mine": "abc"}
    known = {"leads": {"m": {"steps": 2}, "n": {"steps": 4}}, "block": {}}
    assert merged["methods"] == known
    begin(tmp_path, merged)
    (tmp_path / "first_figures.json").unlink()  # run.json has it now
    assert compared(tmp_path, header(), [])["methods"] == known


def test_an_older_run_with_a_limit_is_of_the_same_list(tmp_path: Path) -> None:
    older(tmp_path, {**RECORDS, "ecg_ids": [1, 2]})
    assert compared(tmp_path, header(), [{"ecg_id": 1}])["records"] == RECORDS


@pytest.mark.parametrize(
    "changed", [{"ecg_ids": [1, 2, 4]}, {"name": "six"}, {"inclusion": [1.0, 0.5, 1, 1, 1]}]
)
def test_an_older_folder_of_another_list_is_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    older(tmp_path, {**RECORDS, "ecg_ids": [1, 2, 3, 4, 5], **changed})
    with pytest.raises(DataError, match=r"rows\.parquet belongs to rows of the list .*--limit"):
        compared(tmp_path, header(), [{"ecg_id": 1}])
    assert json.loads((tmp_path / "run.json").read_text(encoding="utf-8")) == SETTINGS


def test_rows_of_a_killed_older_run_must_be_of_listed_records(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text(json.dumps(SETTINGS), encoding="utf-8")
    assert compared(tmp_path, header(), [{"ecg_id": 5}])
    with pytest.raises(DataError, match=r"rows of 1 records \(one is 6\).*not in the list five"):
        compared(tmp_path, header(), [{"ecg_id": 5}, {"ecg_id": 6}])


@pytest.mark.parametrize(
    ("text", "reason"), [("{", "no JSON: Expecting property name"), ("[]", "no JSON object")]
)
def test_damaged_notes_of_a_folder_are_named(tmp_path: Path, text: str, reason: str) -> None:
    begin(tmp_path, header())
    assert compared(tmp_path, header(), [])
    (tmp_path / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"run\.json is damaged \({reason}.*Delete this file"):
        compared(tmp_path, header(), [])
    (tmp_path / "run.json").unlink()
    assert compared(tmp_path, header(), [{"ecg_id": 5}])


def test_two_runs_do_not_share_a_folder(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    out = tmp_path / "new" / "out"
    with locked(out), locked(tmp_path / "other"):
        with pytest.raises(DataError, match="Another run is at work"), locked(out):
            raise AssertionError("both are in")
        with pytest.raises(DataError), locked(out):  # the refusal has not freed it
            raise AssertionError("both are in")
    with locked(out):
        pass
