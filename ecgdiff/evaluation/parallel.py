"""Work in processes of one thread each, started afresh; only the caller keeps results."""

import multiprocessing
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from ecgdiff.errors import EcgDiffError

__all__ = ["in_processes"]

Job = TypeVar("Job")
Result = TypeVar("Result")

_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_work: list[Callable[[Any], Any]] = []  # in a worker: what it does


def in_processes(
    work: Callable[[Job], Result], jobs: Sequence[Job], workers: int
) -> Iterator[Result]:
    """Yields the results of all jobs as they come, not in their order.

    When the caller stops early, by Ctrl-C too, the workers are ended at once; when it is killed,
    they end themselves.

    Arguments:
        work: What to do with a job; it is copied to each worker once.
        jobs: The jobs.
        workers: The number of processes.

    Raises:
        EcgDiffError: If `work` cannot be copied, or a worker was killed.
    """
    try:
        # Pickled here, once: the pool's own way would share each tensor through an open file, and
        # a network has more tensors than a process may open files.
        copy = pickle.dumps(work)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise EcgDiffError(
            f"A method cannot be copied to worker processes ({error}); use one worker."
        ) from error
    others = set(multiprocessing.active_children())
    context = multiprocessing.get_context("spawn")
    with _one_thread():
        pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(copy,))
        futures = [pool.submit(_do, job) for job in jobs]
    try:
        for future in as_completed(futures):
            yield future.result()
    except BaseException as error:
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()
        pool.shutdown(cancel_futures=True)
        if isinstance(error, BrokenProcessPool):
            raise EcgDiffError(
                "A worker process was killed, perhaps for want of memory. Finished rows are kept; "
                "run again with fewer workers to go on."
            ) from error
        raise
    pool.shutdown()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Lets the processes that are started in it compute in one thread: libraries ask early."""
    before = {name: os.environ.get(name) for name in _THREADS}
    os.environ.update(dict.fromkeys(_THREADS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _start(copy: bytes) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the caller's business
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    _work[:] = [pickle.loads(copy)]


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _do(job: Any) -> Any:
    return _work[0](job)
