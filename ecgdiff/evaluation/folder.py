"""The folder of a run: whose rows it holds, one run at a time, and its files whole or not at all.

`run.json` is written before the first row and says what the rows were made with: the settings, the
list of records (name and checksum) and the arguments of every method. A run with other settings or
another list is refused: weights are those of one list, so rows of two would be averaged wrongly.
Folders from before `run.json` named the list are known by the header of their `rows.parquet`.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ecgdiff.errors import DataError
from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.parquet import read_header

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]

__all__ = ["begin", "compare", "compared", "joined", "locked", "write"]

Header = dict[str, Any]


@contextmanager
def locked(out: Path) -> Iterator[None]:
    """Keeps a second run out of the folder, which is created if it does not exist.

    The lock ends with the process, however it ends; where the file system has no locks, there is
    none.

    Arguments:
        out: The folder.

    Raises:
        DataError: If another run is at work in it.
    """
    out.mkdir(parents=True, exist_ok=True)
    with (out / "run.lock").open("a", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise DataError(
                    f"Another run is at work in {out}. Wait for its end or stop it, then run "
                    "again to compute what is missing, or choose another --out."
                ) from error
            except OSError:
                pass  # no locks here: no reason not to compute
        yield


def compared(out: Path, header: Mapping[str, Any], rows: Sequence[Row]) -> Header:
    """Compares a run with what the folder holds; writes nothing.

    Arguments:
        out: The folder.
        header: What the run is: `settings`, `records`, `methods` (arguments by task and label),
            `commands`, `priors`.
        rows: The rows that the folder holds already.

    Returns:
        The header with the commands, priors and methods of earlier runs in the folder.

    Raises:
        DataError: If the rows there are of other settings or another list of records, or run.json
            is damaged.
    """
    table, path = out / "rows.parquet", out / "run.json"
    earlier = read_header(table) if table.exists() else {}
    there = _notes(path) if path.exists() else {}
    records, methods = there.pop("records", None), there.pop("methods", None)
    if earlier:
        compare(table, earlier, header)
    if path.exists():
        _compare(path, there, header["settings"])
    if records and records != _identity(header["records"]):
        _refuse(path, records["name"], records["count"], header["records"])
    if not (earlier or records):
        _only_listed(out, rows, header["records"])
    return joined({**earlier, "methods": methods or _reported(out)}, header)


def compare(path: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses rows of other settings or another list of records.

    Arguments:
        path: The file of the rows, for the message.
        there: What they were made with, from the file.
        now: What the run is.

    Raises:
        DataError: If the two differ.
    """
    _compare(path, there["settings"], now["settings"])
    _compare_lists(path, there["records"], now["records"])


def joined(there: Mapping[str, Any], now: Mapping[str, Any]) -> Header:
    """Adds to a run the commands, priors and methods of an earlier one.

    Arguments:
        there: What the earlier run was; it may lack any of them.
        now: What this run is; where both name something, this one counts.
    """
    old, new = there.get("methods", {}), now["methods"]
    return {
        **now,
        "commands": list(dict.fromkeys([*there.get("commands", ()), *now["commands"]])),
        "priors": {**there.get("priors", {}), **now["priors"]},
        "methods": {task: {**old.get(task, {}), **new.get(task, {})} for task in {**old, **new}},
    }


def begin(out: Path, header: Mapping[str, Any]) -> None:
    """Says in the folder what its rows are, before the first of them is there.

    Arguments:
        out: The folder.
        header: From :func:`compared`.
    """
    notes = {"records": _identity(header["records"]), "methods": header["methods"]}
    text = json.dumps({**header["settings"], **notes}, indent=1) + "\n"
    write(out / "run.json", text)


def write(path: Path, text: str) -> None:
    """Writes a text file whole or not at all, whenever the run is killed."""
    part = path.with_name(f"{path.name}.part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)


def _notes(path: Path) -> Header:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise _damaged(path, f"no JSON: {error}") from error
    if not isinstance(found, dict):
        raise _damaged(path, "no JSON object")
    return found


def _damaged(path: Path, reason: str) -> DataError:
    return DataError(
        f"{path} is damaged ({reason}). Delete this file to go on with the settings and the list "
        "that the rows of the folder were made with, or choose another --out."
    )


def _compare(path: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    if there != now:
        changed = ", ".join(
            f"{name}: {there.get(name, 'not set')} there, {now.get(name, 'not set')} now"
            for name in dict.fromkeys([*there, *now])
            if there.get(name) != now.get(name)
        )
        raise DataError(
            f"{path} belongs to rows made with other settings ({changed}). Choose another --out, "
            "or delete the files in the folder."
        )


def _identity(records: Mapping[str, Any]) -> Header:
    """What tells a list from others."""
    facts = [list(records["ecg_ids"]), list(records.get("inclusion", ()))]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
    return {"name": records["name"], "count": len(records["ecg_ids"]), "sha256": digest}


def _compare_lists(path: Path, there: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Older headers of runs with --limit hold the begin of their list, which is the same list."""
    count = len(there["ecg_ids"])
    begins = {key: list(now.get(key, ()))[:count] for key in ("ecg_ids", "inclusion")}
    found = {key: list(there.get(key, ())) for key in begins}
    if (there["name"], found) != (now["name"], begins):
        _refuse(path, there["name"], count, now)


def _only_listed(out: Path, rows: Sequence[Row], records: Mapping[str, Any]) -> None:
    """Where nothing names the list of older rows, the rows themselves may tell."""
    strange = {row["ecg_id"] for row in rows} - set(records["ecg_ids"])
    if strange:
        raise DataError(
            f"{out} holds rows of {len(strange)} records (one is {min(strange)}) that are not in "
            f"the list {records['name']}. Choose another --out, or the --records of those rows."
        )


def _refuse(path: Path, name: str, count: int, now: Mapping[str, Any]) -> None:
    raise DataError(
        f"{path} belongs to rows of the list {name} ({count} records); this run has {now['name']} "
        f"({len(now['ecg_ids'])} records), another in name, records or inclusion probabilities. "
        "Weights are those of one list: choose another --out, or give --records the list of the "
        "folder; --limit computes fewer of its records."
    )


def _reported(out: Path) -> dict[str, Header]:
    """The arguments of methods that an older run left in its figures only."""
    with suppress(OSError, ValueError, KeyError):
        document = json.loads((out / "first_figures.json").read_text(encoding="utf-8"))
        return {
            name: {label: m["arguments"] for label, m in task["methods"].items()}
            for name, task in document["tasks"].items()
        }
    return {}
