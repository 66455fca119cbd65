"""Data manifests: what a data set is, who may use it, and the counts a loaded copy must show.

A manifest is a Croissant file (JSON-LD) in `data_manifests/`; an installed package carries a copy
of the folder. It states the name, version, license and citation, the SHA-256 of the tables, how
the signals are stored, and the size of every fold and split. `load_manifest` reads one and checks
that it agrees with itself; `Manifest.check_counts` and `Manifest.check_file` compare it with a
copy on disk.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ecgdiff.errors import DataError

__all__ = ["Manifest", "Split", "load_manifest", "manifest_names"]

# Installed: beside this module. In a checkout (or an editable install): at the repository's top.
_FOLDERS = (Path(__file__).parent / "manifests", Path(__file__).parents[2] / "data_manifests")


@dataclass(frozen=True)
class Split:
    """One split of a data set.

    Attributes:
        name: "train", "validation" or "test".
        folds: The official folds it consists of.
        records: The number of recordings.
        patients: The number of patients.
        labels: The number of recordings per statement.
    """

    name: str
    folds: tuple[int, ...]
    records: int
    patients: int
    labels: Mapping[str, int]


@dataclass(frozen=True)
class Manifest:
    """What a data set must contain.

    Attributes:
        name: The data set's name.
        version: The release.
        license: The URL of the license.
        citation: The credit to give.
        url: Where the data set is published.
        sampling_rate: Samples per second and lead (Hz).
        n_samples: Samples per lead in one recording.
        units: The physical units of the signal, "mV".
        step: The size of one stored integer step, in `units`.
        storage: The sample type on disk, "int16".
        leads: The lead names in file order.
        fold_records: The number of recordings per official fold.
        splits: The splits by name.
        sha256: The SHA-256 digest per listed file.
    """

    name: str
    version: str
    license: str
    citation: str
    url: str
    sampling_rate: float
    n_samples: int
    units: str
    step: float
    storage: str
    leads: tuple[str, ...]
    fold_records: Mapping[int, int]
    splits: Mapping[str, Split]
    sha256: Mapping[str, str]

    @property
    def records(self) -> int:
        """The number of recordings in all splits."""
        return sum(split.records for split in self.splits.values())

    @property
    def patients(self) -> int:
        """The number of patients in all splits; none is in two."""
        return sum(split.patients for split in self.splits.values())

    def check_counts(
        self, split: str, *, records: int, labels: Mapping[str, int] | None = None
    ) -> None:
        """Compares what was loaded with what the manifest states.

        Arguments:
            split: The name of the split that was loaded.
            records: The number of recordings found.
            labels: The number of recordings found per statement; those the manifest does not
                count are ignored.

        Raises:
            DataError: If a number differs, or the split is unknown.
        """
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise DataError(f"{self.name} has no split '{split}'; it has {known}.")
        want, labels = self.splits[split], labels or {}
        pairs = {"records": (records, want.records)}
        pairs |= {k: (labels[k], n) for k, n in want.labels.items() if k in labels}
        wrong = [f"{k} {found} instead of {n}" for k, (found, n) in pairs.items() if found != n]
        if wrong:
            raise DataError(
                f"{self.name} {self.version}, {split} split: found {', '.join(wrong)}. "
                "Check that the folder holds the complete release."
            )

    def check_file(self, name: str, path: str | Path) -> None:
        """Compares a file on disk with the digest of the manifest.

        Arguments:
            name: The file's name in the manifest, a key of `sha256`.
            path: Where the file is on disk.

        Raises:
            DataError: If the manifest does not list the name, or the file is missing or differs.
        """
        if name not in self.sha256:
            known = ", ".join(self.sha256)
            raise DataError(f"{self.name} lists no file '{name}'; it has {known}.")
        path = Path(path)
        if not path.is_file():
            raise DataError(f"{path} does not exist; {self.name} {self.version} needs {name}.")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if digest != self.sha256[name]:
            raise DataError(
                f"{path} has SHA-256 {digest}, {self.name} {self.version} states "
                f"{self.sha256[name]} for {name}. Fetch the file again or use its own manifest."
            )


def manifest_names() -> tuple[str, ...]:
    """The names that `load_manifest` accepts, sorted."""
    return tuple(sorted({path.stem for folder in _FOLDERS for path in folder.glob("*.json")}))


def load_manifest(name: str | Path = "ptbxl-1.0.3") -> Manifest:
    """Reads a manifest and checks that it agrees with itself.

    Arguments:
        name: The name of a manifest of the package, or the path of a `.json` file.

    Raises:
        DataError: If there is no such manifest, or it is not valid.
    """
    path = _find(name)
    try:
        manifest = _parse(json.loads(path.read_text(encoding="utf-8")))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{path} is not a valid manifest: {error!r}.") from error
    problems = _problems(manifest)
    if problems:
        raise DataError(f"{path} contradicts itself: {'; '.join(problems)}.")
    return manifest


def _find(name: str | Path) -> Path:
    path = Path(name)
    places = [path] if path.suffix == ".json" else [f / f"{name}.json" for f in _FOLDERS]
    for place in places:
        if place.is_file():
            return place
    raise DataError(f"No manifest '{name}'; the package has {', '.join(manifest_names())}.")


def _rows(document: Mapping[str, Any], record_set: str) -> list[dict[str, Any]]:
    """The inline rows of a record set, with plain column names."""
    for entry in document["recordSet"]:
        if entry["@id"] == record_set:
            prefix = f"{record_set}/"
            return [{k.removeprefix(prefix): v for k, v in row.items()} for row in entry["data"]]
    raise KeyError(f"recordSet {record_set}")


def _parse(document: Mapping[str, Any]) -> Manifest:
    (signals,) = _rows(document, "signals")
    folds = _rows(document, "folds")
    splits = {}
    for row in _rows(document, "splits"):
        name, records, patients = (row.pop(key) for key in ("split", "records", "patients"))
        members = tuple(fold["fold"] for fold in folds if fold["split"] == name)
        splits[name] = Split(name, members, records, patients, MappingProxyType(row))
    return Manifest(
        name=document["name"],
        version=document["version"],
        license=document["license"],
        citation=document["citeAs"],
        url=document["url"],
        sampling_rate=signals["sampling_rate"],
        n_samples=signals["n_samples"],
        units=signals["units"],
        step=signals["step"],
        storage=signals["storage"],
        leads=tuple(signals["leads"].split()),
        fold_records=MappingProxyType({fold["fold"]: fold["records"] for fold in folds}),
        splits=MappingProxyType(splits),
        sha256=MappingProxyType({f["@id"]: f["sha256"] for f in document["distribution"]}),
    )


def _problems(manifest: Manifest) -> list[str]:
    found = []
    for split in manifest.splits.values():
        inside = sum(manifest.fold_records[fold] for fold in split.folds)
        if inside != split.records:
            found.append(f"{split.name} has {split.records} records, its folds {inside}")
    if sum(manifest.fold_records.values()) != manifest.records:
        found.append("a fold belongs to no split")
    if len(set(manifest.leads)) != len(manifest.leads):
        found.append("a lead is named twice")
    found += [
        f"{name}: '{digest}' is no SHA-256 digest"
        for name, digest in manifest.sha256.items()
        if len(digest) != 64 or set(digest) - set("0123456789abcdef")
    ]
    return found
