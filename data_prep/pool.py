"""Worker processes that end with their parent, fed no faster than they work."""

import ctypes
import gc
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from itertools import chain, islice
from typing import TypeVar

from threadpoolctl import threadpool_limits

Task = TypeVar("Task")
Result = TypeVar("Result")

_PR_SET_PDEATHSIG = 1


def default_workers() -> int:
    """As many as this process may use cores."""
    return len(os.sched_getaffinity(0))


def run_tasks(
    function: Callable[[Task], Result], tasks: Iterable[Task], workers: int
) -> Iterator[Result]:
    """``function`` of every task, in the order in which they end; one worker = in this process.

    ``function`` and the tasks must be picklable. An exception in a task is raised here.
    """
    if workers < 1:
        raise ValueError(f"--workers {workers}: at least one is needed")
    tasks = iter(tasks)
    first = list(islice(tasks, 2))
    tasks = chain(first, tasks)
    if workers == 1 or len(first) < 2:  # a worker takes a second to start
        with threadpool_limits(1):
            yield from map(function, tasks)
        return
    with _pool(workers) as pool:
        running: set[Future[Result]] = set()
        try:
            for task in tasks:
                if len(running) >= 2 * workers:
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    yield from (future.result() for future in done)
                running.add(pool.submit(function, task))
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
        finally:
            for future in running:
                future.cancel()


@contextmanager
def kept_workers() -> Iterator[None]:
    """Within it `run_tasks` starts workers once: they take seconds to load what they use."""
    global _kept
    _kept = {}
    try:
        yield
    finally:
        pools, _kept = _kept, None
        for pool in pools.values():
            pool.shutdown()


_kept: dict[int, ProcessPoolExecutor] | None = None  # number of workers -> they


@contextmanager
def _pool(workers: int) -> Iterator[ProcessPoolExecutor]:
    if _kept is None:
        with _started(workers) as pool:
            yield pool
    else:
        if workers not in _kept:
            _kept[workers] = _started(workers)
        yield _kept[workers]


def _started(workers: int) -> ProcessPoolExecutor:
    # spawn: a fork would copy the tokenizer library's threads in an undefined state
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, context, initializer=_start, initargs=(os.getpid(),))


def end_with_parent(parent: int) -> None:
    """Asks the kernel to kill this process when its parent, of that id, dies."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the kernel was asked
        os._exit(1)


def _start(parent: int) -> None:
    """Ends with the parent; does nothing twice at the same time.

    A matrix product may differ in its last bit with the number of threads, so workers have one.
    """
    end_with_parent(parent)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threadpool_limits(1)
    # Records live as long as their shard: to look through them every 700 objects finds nothing.
    gc.set_threshold(200_000, 20, 100)
