"""PTB-XL is read exactly, and an incomplete folder is named as such."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import wfdb

from ecgdiff.data import training_set
from ecgdiff.data.ptbxl import PTBXL, Row, _read_table
from ecgdiff.data.statements import STATEMENTS
from ecgdiff.data.training_set import load_fold_set, load_labelled_set, preprocess_microvolts
from ecgdiff.ecg.leads import LEADS_8, LEADS_12
from ecgdiff.ecg.preprocess import CLIP_MV, baseline
from ecgdiff.errors import DataError


def test_counts_and_labels_of_the_release(ptbxl_root: Path) -> None:
    data = PTBXL(ptbxl_root)
    assert len(data.table) == 21_799
    assert len({row.patient_id for row in data.table}) == 18_869
    patients = [{r.patient_id for r in data.rows([fold])} for fold in range(1, 11)]
    assert sum(map(len, patients)) == 18_869  # nobody is in two folds
    assert sum("AFIB" in row.statements for row in data.rows([10])) == 152


def test_samples_are_those_of_the_reference_reader(ptbxl_root: Path) -> None:
    data = PTBXL(ptbxl_root)
    ids, samples = data.signals([10], leads=LEADS_8)
    assert samples.dtype == np.int16 and samples.shape == (2198, 8, 1000)
    for k in (0, 777, 2197):
        row = data.rows([10])[k]
        assert row.ecg_id == ids[k]
        reference = wfdb.rdrecord(str(ptbxl_root / row.path), physical=False)
        order = [[n.upper() for n in reference.sig_name].index(lead.upper()) for lead in LEADS_8]
        np.testing.assert_array_equal(samples[k], reference.d_signal.T[order])


def test_an_incomplete_folder_is_named(ptbxl_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"ptbxl_database\.csv was not found"):
        PTBXL(tmp_path)
    table = (ptbxl_root / "ptbxl_database.csv").read_text()
    (tmp_path / "ptbxl_database.csv").write_text(table)
    with pytest.raises(DataError, match="2198 of 2198 records of folds"):
        PTBXL(tmp_path).signals([10])
    first = PTBXL(tmp_path).rows([10])[0].path
    target = tmp_path / f"{first}.dat"
    target.parent.mkdir(parents=True)
    shutil.copy(ptbxl_root / f"{first}.dat", target)
    with pytest.raises(DataError, match="2197 of 2198"):
        PTBXL(tmp_path).signals([10])
    (tmp_path / "ptbxl_database.csv").write_text("\n".join(table.split("\n")[:5000]))
    with pytest.raises(DataError, match=r"release 1\.0\.3 has"):
        PTBXL(tmp_path)
    (tmp_path / "ptbxl_database.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match="columns"):
        PTBXL(tmp_path)


def test_a_truncated_record_is_named(ptbxl_root: Path, tmp_path: Path) -> None:
    data = PTBXL(ptbxl_root)
    row = data.rows([10])[0]
    damaged = tmp_path / "damaged"
    (damaged / row.path).parent.mkdir(parents=True)
    raw = (ptbxl_root / f"{row.path}.dat").read_bytes()
    (damaged / f"{row.path}.dat").write_bytes(raw[:-2])
    data.root = damaged
    with pytest.raises(DataError, match="11999 numbers"):
        data._read(row)


def test_training_sees_what_inference_sees() -> None:
    """The int16 set is the documented preprocessing to half a microvolt, clipped and counted."""
    rng = np.random.default_rng(0)
    samples = rng.normal(0, 300, (3, 8, 1000)).astype(np.int16)
    samples[1, 2, 500] = 9000
    found, clipped = preprocess_microvolts(samples)
    exact = samples / 1000 - baseline(samples / 1000, 100.0)
    assert clipped == 1 and found[1, 2, 500] == 1000 * CLIP_MV
    inside = np.abs(exact) <= CLIP_MV
    assert np.abs(found / 1000 - exact)[inside].max() <= 0.000501


class Few:
    """Three records of fold 1, the second of which cannot be used."""

    def __init__(self, root: str) -> None: ...

    def rows(self, folds: object) -> list[Row]:
        said = [frozenset({"NORM", "SR"}), frozenset({"AFIB"}), frozenset({"AFIB", "CRBBB"})]
        return [
            Row(ecg_id=12721 + k, patient_id=k, fold=1, statements=said[k], path="")
            for k in range(3)
        ]

    def signals(self, folds: object, leads: object) -> tuple[np.ndarray, np.ndarray]:
        amplitude = 100 * np.arange(1, 4)[:, None, None] * np.sin(np.arange(1000) / 3)
        samples = np.broadcast_to(amplitude, (3, 8, 1000)).astype(np.int16)
        return np.array([12721, 12722, 12723]), samples


def test_unusable_records_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_set, "PTBXL", Few)
    assert load_fold_set("x", [1], LEADS_8)[0].shape == (2, 8, 1000)
    assert len(LEADS_12) == 12


def test_statements_stay_with_their_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_set, "PTBXL", Few)
    samples, labels, _ = load_labelled_set("x", [1], LEADS_8)
    assert samples.abs().amax((1, 2)).tolist() == pytest.approx([100, 300], rel=0.1)
    found = [{STATEMENTS[k] for k in row.nonzero().flatten()} for row in labels]
    assert found == [{"NORM", "SR"}, {"AFIB", "CRBBB"}]


def test_a_statement_of_unknown_likelihood_is_made(tmp_path: Path) -> None:
    """0 means unknown: rhythm statements have no other, and a filter would delete them all."""
    table = tmp_path / "ptbxl_database.csv"
    table.write_text(
        "ecg_id,patient_id,scp_codes,strat_fold,filename_lr\n"
        "1,7.0,\"{'AFIB': 0.0, 'NORM': 100.0}\",3,records100/00000/00001_lr\n"
    )
    (row,) = _read_table(table)
    assert row.statements == {"AFIB", "NORM"}


def test_the_statements_are_those_of_the_release(ptbxl_csv: Path) -> None:
    used = set().union(*(row.statements for row in _read_table(ptbxl_csv)))
    assert tuple(sorted(used)) == STATEMENTS
    places = {"AFIB": 4, "CLBBB": 11, "CRBBB": 12, "NORM": 46, "SBRAD": 59, "SR": 61}
    assert {code: STATEMENTS.index(code) for code in places} == places
