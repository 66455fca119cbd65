"""Which rows of a run can be judged side by side: a method that is not through blocks no other."""

from collections.abc import Sequence

from ecgdiff.evaluation.journal import Row
from ecgdiff.evaluation.tasks import TASKS

__all__ = ["judged"]


def judged(
    rows: Sequence[Row], reference: str, notes: list[str], task: str | None = None
) -> dict[str, list[Row]]:
    """Picks by task the rows of the methods that have all records there are.

    Arguments:
        rows: The rows of a run; a row that failed counts as one.
        reference: The method without which a task is skipped.
        notes: What is left out is added here, one sentence each.
        task: Only this one; all if None.
    """
    out: dict[str, list[Row]] = {}
    for name in TASKS if task is None else [task]:
        records: dict[str, set[int]] = {}
        for row in rows:
            if row["task"] == name:
                records.setdefault(row["method"], set()).add(row["ecg_id"])
        every = set[int]().union(*records.values())
        for label, found in list(records.items()):
            if lacking := len(every - found):
                del records[label]
                notes.append(
                    f"Task {name}: `{label}` is left out, {lacking} of {len(every)} records are "
                    "not computed yet."
                )
        if reference in records:
            out[name] = [row for row in rows if row["task"] == name and row["method"] in records]
        elif every:
            notes.append(
                f"Task {name} is skipped: no method {reference!r} on task {name} has all records; "
                f"name another --reference, one of {', '.join(records) or 'those not left out'}."
            )
        elif task is not None:
            notes.append(f"There are no rows of task {name}.")
    return out
