"""How long a run will still take, over all that is to be done.

Rows cost from microseconds (a mean) to minutes (a sampler with hundreds of gradients), and come
method by method, so the rate of the rows so far says little. Each task and method is therefore
extrapolated from the mean of its own rows; one without rows yet from its number of network calls
and the seconds per call of the others.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping

from ecgdiff.evaluation.journal import Row, failed

__all__ = ["TimeLeft"]

Key = tuple[str, str]


class TimeLeft:
    """Creates the estimate.

    Arguments:
        todo: How many rows are to be computed of each (task, method).
        calls: Network calls, forward and backward, per draw of each.
        finished: Rows of the same run that are there already.
        workers: How many are computed at a time.
    """

    def __init__(
        self,
        todo: Mapping[Key, int],
        calls: Mapping[Key, int],
        finished: Iterable[Row] = (),
        workers: int = 1,
    ) -> None:
        self.todo, self.calls, self.workers = dict(todo), dict(calls), workers
        self._times: dict[Key, list[float]] = defaultdict(list)
        for row in finished:
            self._time(row)

    def add(self, row: Row) -> None:
        """Takes note of a row that was just computed."""
        self.todo[row["task"], row["method"]] -= 1
        self._time(row)

    def _time(self, row: Row) -> None:
        if not failed(row):
            self._times[row["task"], row["method"]].append(row["seconds"])

    def seconds(self) -> float | None:
        """The estimate in seconds; None as long as nothing is known of what is to be done."""
        mean = {key: sum(times) / len(times) for key, times in self._times.items()}
        known = sum(self.calls.get(key, 0) for key in mean)
        spent = sum(mean[key] for key in mean if self.calls.get(key, 0))
        rate = spent / known if known else None
        total = 0.0
        for key, count in self.todo.items():
            if count and key not in mean and self.calls[key] and rate is None:
                return None
            total += count * mean.get(key, self.calls[key] * (rate or 0.0))
        return total / self.workers
