import ast
import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import pytest

from ecgdiff.data import load_manifest, manifest_names
from ecgdiff.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "data_manifests" / "ptbxl-1.0.3.json"
SPLIT_OF_FOLD = {**dict.fromkeys(range(1, 9), "train"), 9: "validation", 10: "test"}


@pytest.fixture
def document():
    return json.loads(SOURCE.read_text(encoding="utf-8"))


def _load(tmp_path, document):
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return load_manifest(path)


def _rows(document, name):
    return next(r["data"] for r in document["recordSet"] if r["@id"] == name)


def test_official_facts_of_ptbxl():
    manifest = load_manifest("ptbxl-1.0.3")
    assert (manifest.name, manifest.version) == ("PTB-XL", "1.0.3")
    assert "by/4.0" in manifest.license
    assert "10.13026/kfzx-aw45" in manifest.citation
    assert (manifest.records, manifest.patients) == (21_799, 18_869)
    assert " ".join(manifest.leads) == "I II III aVR aVL aVF V1 V2 V3 V4 V5 V6"
    assert (manifest.sampling_rate, manifest.n_samples) == (100.0, 1000)
    assert (manifest.storage, manifest.units, manifest.step) == ("int16", "mV", 0.001)
    assert manifest.splits["train"].folds == tuple(range(1, 9))
    assert manifest.splits["test"].labels == {"CRBBB": 54, "CLBBB": 54, "AFIB": 152, "SBRAD": 64}


def test_a_manifest_is_frozen():
    manifest = load_manifest()
    with pytest.raises(dataclasses.FrozenInstanceError):
        manifest.version = "2"
    with pytest.raises(TypeError):
        manifest.splits["test"].labels["AFIB"] = 0


def test_counts_equal_those_of_the_table(ptbxl_csv):
    manifest = load_manifest()
    with ptbxl_csv.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    folds = Counter(int(row["strat_fold"]) for row in rows)
    assert folds == dict(manifest.fold_records)
    for name, split in manifest.splits.items():
        mine = [row for row in rows if SPLIT_OF_FOLD[int(row["strat_fold"])] == name]
        labels = Counter(code for row in mine for code in ast.literal_eval(row["scp_codes"]))
        manifest.check_counts(name, records=len(mine), labels=labels)
        assert len({row["patient_id"] for row in mine}) == split.patients


def test_digests_equal_those_of_the_packed_tables(ptbxl_csv):
    if "report" in ptbxl_csv.read_text(encoding="utf-8").split("\n", 1)[0]:
        pytest.skip("this is the official table; the manifest records the reduced one")
    manifest = load_manifest()
    manifest.check_file("ptbxl_database.reduced.csv", ptbxl_csv)
    manifest.check_file("scp_statements.csv", ptbxl_csv.with_name("scp_statements.csv"))


def test_wrong_counts_are_named():
    with pytest.raises(DataError, match=r"records 2203 instead of 2198, AFIB 10 instead of 152"):
        load_manifest().check_counts("test", records=2203, labels={"AFIB": 10, "NORM": 1})
    with pytest.raises(DataError, match="no split 'dev'"):
        load_manifest().check_counts("dev", records=1)


def test_a_missing_changed_or_unlisted_file_is_refused(tmp_path):
    manifest = load_manifest()
    path = tmp_path / "scp_statements.csv"
    with pytest.raises(DataError, match="does not exist"):
        manifest.check_file("scp_statements.csv", path)
    path.write_text("changed")
    with pytest.raises(DataError, match="SHA-256"):
        manifest.check_file("scp_statements.csv", path)
    with pytest.raises(DataError, match="lists no file"):
        manifest.check_file("other.csv", path)


def test_an_unknown_manifest_names_the_known_ones():
    assert "ptbxl-1.0.3" in manifest_names()
    with pytest.raises(DataError, match=r"ptbxl-1\.0\.3"):
        load_manifest("mit-bih")


@pytest.mark.parametrize("key", ["license", "recordSet", "distribution"])
def test_a_manifest_without_a_key_is_refused(tmp_path, document, key):
    del document[key]
    with pytest.raises(DataError, match=key):
        _load(tmp_path, document)


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_a_file_that_is_no_manifest_is_refused(tmp_path, text):
    path = tmp_path / "damaged.json"
    path.write_text(text)
    with pytest.raises(DataError, match="not a valid manifest"):
        load_manifest(path)


def test_contradictions_are_refused(tmp_path, document):
    _rows(document, "folds")[9]["folds/records"] = 2203
    _rows(document, "signals")[0]["signals/leads"] = "I I"
    document["distribution"][0]["sha256"] = "0"
    with pytest.raises(DataError, match="contradicts itself") as error:
        _load(tmp_path, document)
    for words in ("test has 2198 records", "no split", "named twice", "no SHA-256"):
        assert words in str(error.value)


def test_the_manifest_is_croissant(document):
    assert document["conformsTo"] == "http://mlcommons.org/croissant/1.1"
    assert document["@type"] == "sc:Dataset"
    for key in ("name", "description", "license", "url", "citeAs", "creator", "datePublished"):
        assert document[key], key
    for file in document["distribution"]:
        assert file["@type"] == "cr:FileObject"
        assert {"@id", "contentUrl", "encodingFormat", "sha256"} <= file.keys()
    for records in document["recordSet"]:
        ids = {field["@id"] for field in records["field"]}
        assert all(row.keys() == ids for row in records.get("data", []))
