"""The fixed list of records, and their preprocessing."""

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from ecgdiff.data.ptbxl import PTBXL
from ecgdiff.data.statements import CONDITIONS
from ecgdiff.errors import DataError
from ecgdiff.evaluation.records import (
    RecordList,
    batches,
    cases,
    disturbed,
    draw_conditions,
    draw_list,
    preprocess,
    read_list,
)
from ecgdiff.evaluation.tasks import LeadTask, NoisyTask


@dataclass(frozen=True)
class FakeRow:
    ecg_id: int
    patient_id: int
    statements: frozenset[str] = frozenset()


class FakeData:
    """Two folds of six records of three patients."""

    def rows(self, folds: Sequence[int]) -> list[FakeRow]:
        return [
            FakeRow(100 * f + k, 10 * f + k % 3, frozenset({"AFIB"} if k == 4 else {"NORM"}))
            for f in folds
            for k in range(6)
        ]

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


COMMITTED = [
    ("fold10_440_conditions", 10, 304, 136, 2198),
    ("fold9_440_conditions", 9, 307, 133, 2183),
]


@pytest.mark.parametrize(("name", "fold", "certain", "drawn", "size"), COMMITTED)
def test_committed_lists_stand_for_their_fold(
    name: str, fold: int, certain: int, drawn: int, size: int
) -> None:
    chosen = read_list(name)
    assert (chosen.name, chosen.fold, chosen.seed) == (name, fold, 0)
    assert len(set(chosen.ecg_ids)) == 440 == certain + drawn
    assert list(chosen.ecg_ids) == sorted(chosen.ecg_ids)
    assert Counter(chosen.inclusion) == {1.0: certain, drawn / (size - certain): drawn}
    assert sum(chosen.weights.values()) == pytest.approx(size)


@pytest.mark.parametrize(("name", "fold", "certain", "drawn", "size"), COMMITTED)
def test_committed_lists_of_conditions_can_be_drawn_again(
    name: str, fold: int, certain: int, drawn: int, size: int, ptbxl_csv: Path
) -> None:
    rows = PTBXL(ptbxl_csv.parent).rows((fold,))
    assert len(rows) == size
    assert sum(bool(row.statements & set(CONDITIONS)) for row in rows) == certain
    chosen = read_list(name)
    assert draw_conditions(rows, fold, count=440, seed=chosen.seed) == chosen


def fold(count: int, common: int) -> list[FakeRow]:
    """One record in `common` has none of the four conditions; the others take turns."""
    codes = [{"NORM"} if k % common else {"NORM", CONDITIONS[k % 4]} for k in range(count)]
    return [FakeRow(k + 1, k // 2, frozenset(c)) for k, c in enumerate(codes)]


def test_all_conditions_are_taken_and_the_rest_with_its_probability() -> None:
    rows = fold(60, 5)
    chosen = draw_conditions(rows, count=24, seed=3)
    have = {r.ecg_id for r in rows if r.statements & set(CONDITIONS)}
    assert len(have) == 12
    assert have < set(chosen.ecg_ids)
    assert len(set(chosen.ecg_ids)) == 24
    found = dict(zip(chosen.ecg_ids, chosen.inclusion, strict=True))
    assert {found[i] for i in have} == {1.0}
    assert {p for i, p in found.items() if i not in have} == {12 / 48}
    assert sum(chosen.weights.values()) == pytest.approx(60)
    assert draw_conditions(rows[::-1], count=24, seed=3) == chosen
    assert draw_conditions(rows, count=24, seed=4).ecg_ids != chosen.ecg_ids


def test_records_are_taken_as_often_as_the_list_says() -> None:
    rows, runs = fold(40, 5), 400
    counts = np.zeros(41)
    for seed in range(runs):
        counts[list(draw_conditions(rows, count=16, seed=seed).ecg_ids)] += 1
    expected = [1.0 if k % 5 == 0 else 8 / 32 for k in range(40)]
    # Four standard errors of a share of 1/4 in 400 runs.
    np.testing.assert_allclose(counts[1:] / runs, expected, atol=4 * np.sqrt(3 / 16 / runs))


def test_conditions_leave_out_known_patients_and_survive_their_file(tmp_path: Path) -> None:
    rows = fold(60, 5)
    known = draw_conditions(rows, count=14)
    chosen = draw_conditions(rows, count=10, other_than=known)
    patients = {r.ecg_id: r.patient_id for r in rows}
    assert not {patients[i] for i in known.ecg_ids} & {patients[i] for i in chosen.ecg_ids}
    assert "leave out" in chosen.rule
    chosen.write(tmp_path / "list.json")
    assert read_list(tmp_path / "list.json") == chosen


@pytest.mark.parametrize("count", [11, 61])
def test_conditions_refuse_counts_that_cannot_be(count: int) -> None:
    with pytest.raises(DataError, match="ask for 12 to 60 records"):
        draw_conditions(fold(60, 5), count=count)


def test_lists_without_probabilities_weigh_all_alike(tmp_path: Path) -> None:
    chosen = read_list("fold10_100")
    assert chosen.inclusion == ()
    assert set(chosen.weights.values()) == {1.0}
    chosen.write(tmp_path / "again.json")
    committed = Path(read_list.__code__.co_filename).with_name("fold10_100.json")
    assert (tmp_path / "again.json").read_bytes() == committed.read_bytes()


@pytest.mark.parametrize("inclusion", [(1.0,), (1.0, 0.0), (0.5, 1.5)])
def test_wrong_probabilities_are_refused(inclusion: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="nclusion probabilities"):
        RecordList("x", 10, 0, "", (1, 2), inclusion)


def test_disturbed_records_carry_the_noise_of_the_task() -> None:
    _, signals = FakeData().signals([1], leads=("I", "II"))
    x = preprocess(signals)
    x[2] = 0  # a flat record stays as it is
    (noisy,) = disturbed(lambda: [x], NoisyTask(), 0)
    added = noisy - x
    assert not added[:, 1].any()
    assert not added[2].any()
    snr = np.mean(x[0, 0] ** 2) / np.mean(added[[0, 1, 3, 4, 5], 0] ** 2)
    assert 12 < 10 * np.log10(snr) < 18  # the high-pass takes some of the wander
    assert not np.array_equal(added[0, 0], added[1, 0])
    (same,) = disturbed(lambda: [x], LeadTask(), 0)
    assert np.array_equal(same, x)


def test_cases_come_in_the_order_of_the_list() -> None:
    chosen = draw_list(FakeData().rows([10]), count=3)
    loaded = cases(FakeData(), chosen)
    assert tuple(c.ecg_id for c in loaded) == chosen.ecg_ids
    assert [c.patient_id for c in loaded] == [100 + (i - 1000) % 3 for i in chosen.ecg_ids]
    assert loaded[0].name == f"ptbxl-{chosen.ecg_ids[0]}"
    table = {row.ecg_id: row.statements for row in FakeData().rows([10])}
    assert [c.statements for c in loaded] == [table[i] for i in chosen.ecg_ids]
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
