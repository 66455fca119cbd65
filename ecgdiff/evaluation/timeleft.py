"""How long a run will still take, over all that is to be done.

Rows cost from microseconds (a mean) to minutes (a sampler with hundreds of gradients), and come
method by method, so the rate of the rows so far says little. Each task and method is therefore
extrapolated from the mean of its own rows, each with all that is measured on it (a classifier's
reading or the morphology of ten draws can take longer than a fast method). One without rows yet is
estimated from its number of network calls and the seconds per call of the others, and what is
measured from the other methods of its task.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

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
        self._measuring: dict[Key, list[float]] = defaultdict(list)
        for row in finished:
            self._time(row)

    def add(self, row: Row) -> None:
        """Takes note of a row that was just computed."""
        self.todo[row["task"], row["method"]] -= 1
        self._time(row)

    def _time(self, row: Row) -> None:
        if not failed(row):
            key = row["task"], row["method"]
            self._times[key].append(row["seconds"])
            # Older rows do not tell; a mean over those that do is not pulled down by them.
            if "job_seconds" in row:
                self._measuring[key].append(max(row["job_seconds"] - row["seconds"], 0.0))

    def seconds(self) -> float | None:
        """The estimate in seconds; None as long as nothing is known of what is to be done."""
        mean = {key: _mean(times) for key, times in self._times.items()}
        known = sum(self.calls.get(key, 0) for key in mean)
        spent = sum(mean[key] for key in mean if self.calls.get(key, 0))
        rate = spent / known if known else None
        total = 0.0
        for key, count in self.todo.items():
            if count and key not in mean and self.calls[key] and rate is None:
                return None
            sampling = mean.get(key, self.calls[key] * (rate or 0.0))
            total += count * (sampling + self._measured(key))
        return total / self.workers

    def _measured(self, key: Key) -> float:
        """What is measured on a row of a task and method, or else of the task, in seconds."""
        if times := self._measuring.get(key):
            return _mean(times)
        of_task = [_mean(times) for (task, _), times in self._measuring.items() if task == key[0]]
        return _mean(of_task) if of_task else 0.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
