"""Workers give what one process gives, and end when they should."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from ecgdiff.errors import EcgDiffError
from ecgdiff.evaluation.benchmark import Rows, Settings, run
from ecgdiff.evaluation.parallel import in_processes
from ecgdiff.evaluation.tasks import TASKS, Case, Problem
from ecgdiff.random import streams

SETTINGS = Settings(draws=3, seed=0, noise=0.1, version="test", reader="shy", spectra=True)


@dataclass(frozen=True)
class Drawing:
    """Draws around what is observed; fails on record 2."""

    label: str = "drawing"
    arguments: Mapping[str, object] = field(default_factory=dict)
    calls: tuple[int, int] = (0, 0)

    def __call__(self, problems: Sequence[Problem]) -> list[NDArray[np.floating]]:
        if any(p.name == "ptbxl-2" for p in problems):
            raise EcgDiffError("not this one")
        shape = (3, *problems[0].y.shape)
        return [p.y + streams(0, p.name, range(3)).normal(shape).numpy() for p in problems]


class Shy:
    """Reads what begins with less than 0.5 mV in V6."""

    classes = ("CRBBB",)

    def probabilities(self, signal: NDArray[np.floating], /) -> NDArray[np.floating]:
        if signal[0, -1, 0] > 0.5:
            raise ValueError("not this one")
        return signal[:, 0, :1]


def threads(job: int) -> tuple[int, int, str]:
    return job, torch.get_num_threads(), os.environ["OPENBLAS_NUM_THREADS"]


def die(job: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_give_the_rows_of_one_process(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    cases = [Case(k, k, rng.normal(size=(8, 1000)).astype(np.float32)) for k in range(6)]
    tasks = [TASKS["leads"], TASKS["noisy"]]
    methods = {task.name: [Drawing()] for task in tasks}
    made = []
    for workers in (1, 2):
        rows = Rows(tmp_path / f"{workers}.jsonl")
        options = {"batch": 2, "workers": workers, "keep_errors": True}
        found = list(run(tasks, methods, cases, rows, SETTINGS, reader=Shy(), **options))
        assert Rows(rows.path).rows == found  # the caller alone has written them
        made.append(
            sorted(
                ({k: v for k, v in row.items() if not k.endswith("seconds")} for row in found),
                key=lambda row: (row["task"], row["ecg_id"]),
            )
        )
    assert len(made[0]) == 12
    assert sum("error" in row for row in made[0]) == 2
    assert sum("spectra" in row for row in made[0]) == 10
    unread = sum("failed_parts" in row for row in made[0])
    assert 0 < unread < 10
    assert sum("probabilities" in row for row in made[0]) == 10 - unread
    assert made[0] == made[1]


@pytest.mark.slow
def test_workers_have_one_thread_and_end_with_an_early_stop() -> None:
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    results = in_processes(threads, range(500), 1)
    assert next(results)[1:] == (1, "1")
    results.close()  # type: ignore[attr-defined]
    assert os.environ.get("OPENBLAS_NUM_THREADS") == before


@pytest.mark.slow
def test_a_killed_worker_is_an_error() -> None:
    with pytest.raises(EcgDiffError, match="worker process was killed"):
        list(in_processes(die, [1], 1))


def test_methods_that_cannot_be_copied_are_refused() -> None:
    with pytest.raises(EcgDiffError, match="use one worker"):
        list(in_processes(lambda job: job, [1], 2))


PROGRAM = """
import os, signal, sys, time
from ecgdiff.evaluation.parallel import in_processes

def work(job):
    print(os.getpid(), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    # Shells start what they put in the background with interrupts ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    list(in_processes(work, [1], 1))
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.skipif(sys.platform == "win32", reason="needs signals")
def test_workers_end_with_their_caller(how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, str(script)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as caller:
        assert caller.stdout is not None
        try:
            worker = int(caller.stdout.readline())
            caller.send_signal(how)
            caller.wait(timeout=60)
        finally:
            caller.kill()
        assert caller.returncode != 0
    end = time.monotonic() + 60
    while alive(worker) and time.monotonic() < end:
        time.sleep(0.05)
    assert not alive(worker)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    state = Path(f"/proc/{pid}/stat")
    # A child whose parent is gone may wait as a zombie for the system to collect it.
    return not (state.exists() and state.read_text().rsplit(")", 1)[1].split()[0] == "Z")
