"""The estimate of the time left, by hand."""

import pytest

from ecgdiff.evaluation.timeleft import TimeLeft

CALLS = {("leads", "slow"): 100, ("leads", "fast"): 10, ("leads", "mean"): 0}


def row(method: str, seconds: float) -> dict[str, object]:
    return {"task": "leads", "method": method, "seconds": seconds}


def left(todo: dict[str, int], *finished: dict[str, object], workers: int = 1) -> TimeLeft:
    counts = {("leads", method): count for method, count in todo.items()}
    return TimeLeft(counts, CALLS, finished, workers)


def test_nothing_is_known_at_first() -> None:
    assert left({"slow": 3, "fast": 1, "mean": 1}).seconds() is None
    assert left({"slow": 0, "mean": 5}).seconds() == 0  # what needs no network costs nothing


def test_each_method_goes_on_at_its_own_pace() -> None:
    estimate = left({"slow": 3, "fast": 2}, row("slow", 10), row("slow", 20), row("fast", 1))
    assert estimate.seconds() == pytest.approx(3 * 15 + 2 * 1)
    estimate.add(row("slow", 30))
    assert estimate.seconds() == pytest.approx(2 * 20 + 2 * 1)


def test_a_method_not_yet_seen_costs_what_its_calls_cost() -> None:
    estimate = left({"slow": 4, "fast": 2}, row("fast", 3), row("mean", 0.001))
    assert estimate.seconds() == pytest.approx(2 * 3 + 4 * 100 * 3 / 10)


def test_workers_share_the_work_and_failures_take_no_time() -> None:
    estimate = left({"slow": 4}, row("slow", 10), workers=2)
    estimate.add({**row("slow", 0.01), "error": {"type": "E", "message": "m"}})
    assert estimate.seconds() == pytest.approx(3 * 10 / 2)


def whole(method: str, seconds: float, job: float) -> dict[str, object]:
    return {**row(method, seconds), "job_seconds": job}


def test_what_is_measured_on_draws_takes_its_time() -> None:
    estimate = left({"fast": 3}, whole("fast", 1, 4), whole("fast", 1, 6))
    assert estimate.seconds() == pytest.approx(3 * 5)
    estimate = left({"fast": 3}, row("fast", 1), whole("fast", 1, 5))  # one of an older run
    assert estimate.seconds() == pytest.approx(3 * 5)


def test_a_method_not_yet_seen_is_measured_as_the_others_of_its_task() -> None:
    estimate = left({"slow": 4, "mean": 2}, whole("fast", 3, 5), whole("fast", 3, 5))
    assert estimate.seconds() == pytest.approx(4 * (100 * 3 / 10 + 2) + 2 * 2)
    other = {**whole("fast", 3, 5), "task": "block"}
    assert left({"mean": 2}, other).seconds() == 0
