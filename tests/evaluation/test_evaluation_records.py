"""The fixed list of records, and their preprocessing."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.errors import DataError
from ecgdiff.evaluation.records import batches, cases, draw_list, preprocess, read_list


@dataclass(frozen=True)
class FakeRow:
    ecg_id: int
    patient_id: int


class FakeData:
    """Two folds of six records of three patients."""

    def rows(self, folds: Sequence[int]) -> list[FakeRow]:
        return [FakeRow(100 * f + k, 10 * f + k % 3) for f in folds for k in range(6)]

    def signals(
        self, folds: Sequence[int], leads: tuple[str, ...] = ()
    ) -> tuple[NDArray[np.int64], NDArray[np.int16]]:
        ids = np.array([row.ecg_id for row in self.rows(folds)])
        t = np.arange(200)
        wave = np.stack([500 * np.sin(2 * np.pi * (t + i) / 20) for i in ids])
        signals = np.repeat(wave[:, None], len(leads), axis=1) + 300
        return ids, signals.astype(np.int16)


def test_draw_takes_one_record_per_patient_and_ignores_order() -> None:
    rows = FakeData().rows([10])
    chosen = draw_list(rows, count=3, seed=1)
    assert len({i % 3 for i in chosen.ecg_ids}) == 3
    assert draw_list(rows[::-1], count=3, seed=1) == chosen
    seeds = {draw_list(rows, count=3, seed=s).ecg_ids for s in range(20)}
    assert len(seeds) > 3


def test_draw_refuses_more_records_than_patients() -> None:
    with pytest.raises(DataError, match="3 patients"):
        draw_list(FakeData().rows([10]), count=4)


def test_list_survives_its_file(tmp_path: Path) -> None:
    chosen = draw_list(FakeData().rows([10]), count=3)
    chosen.write(tmp_path / "list.json")
    assert read_list(tmp_path / "list.json") == chosen


def test_unknown_list_is_refused() -> None:
    with pytest.raises(DataError, match="no readable record list"):
        read_list("no_such_list")


def test_committed_list_has_100_records() -> None:
    chosen = read_list("fold10_100")
    assert (chosen.name, chosen.fold, chosen.seed) == ("fold10_100", 10, 0)
    assert len(set(chosen.ecg_ids)) == 100


def test_committed_list_can_be_drawn_again(ptbxl_csv: Path) -> None:
    with ptbxl_csv.open(newline="", encoding="utf-8") as file:
        table = [r for r in csv.DictReader(file) if r["strat_fold"] == "10"]
    rows = [FakeRow(int(r["ecg_id"]), int(float(r["patient_id"]))) for r in table]
    chosen = read_list("fold10_100")
    assert draw_list(rows) == chosen
    patients = {r.ecg_id: r.patient_id for r in rows}
    assert len({patients[i] for i in chosen.ecg_ids}) == 100


def test_cases_come_in_the_order_of_the_list() -> None:
    chosen = draw_list(FakeData().rows([10]), count=3)
    loaded = cases(FakeData(), chosen)
    assert tuple(c.ecg_id for c in loaded) == chosen.ecg_ids
    assert [c.patient_id for c in loaded] == [100 + (i - 1000) % 3 for i in chosen.ecg_ids]
    assert loaded[0].name == f"ptbxl-{chosen.ecg_ids[0]}"
    _, signals = FakeData().signals([10], leads=("I",) * 8)
    expected = preprocess(signals[[i - 1000 for i in chosen.ecg_ids]])
    np.testing.assert_array_equal(np.stack([c.truth for c in loaded]), expected)


def test_missing_records_are_named() -> None:
    chosen = draw_list(FakeData().rows([10]), count=3)
    absent = type(chosen)("x", 9, 0, "", chosen.ecg_ids)
    with pytest.raises(DataError, match="3 of 3 records"):
        cases(FakeData(), absent)


def test_preprocessing_is_in_mv_without_baseline() -> None:
    _, signals = FakeData().signals([1], leads=("I",))
    x = preprocess(signals)
    assert x.dtype == np.float32
    assert abs(x.mean()) < 1e-3
    assert np.abs(x).max() == pytest.approx(0.5, abs=0.06)


def test_batches_cover_the_folds() -> None:
    sizes = [len(b) for b in batches(FakeData(), (1, 2), size=4)]
    assert sizes == [4, 2, 4, 2]
