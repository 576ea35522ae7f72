"""All runs of an ablation: as many at once as there are jobs, those that ended not again."""

import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from multiprocessing import get_context
from typing import Any

from data_prep.pool import end_with_parent
from unimo_ds.ablation.run import Planned, finished, make

RUNS_OF_A_PROCESS = 6
"""The memory of a process creeps from run to run: one of bf16 on a CPU adds 0.2 to 0.6 GiB."""

Told = Callable[[Planned, dict[str, Any]], None]
"""Hears of every run that has ended."""


def run_grid(
    planned: Sequence[Planned], jobs: int, minutes: float, told: Told
) -> list[dict[str, Any]]:
    """The results, in the order of ``planned``, of those that ended.

    A process makes some runs one after the other, as importing torch takes longer than evaluating.

    Args:
        minutes: none begins that would probably not end within them; 0 = no limit.

    Raises:
        ValueError: a run that cannot work, or the folder holds results of other settings.
    """
    results = {run: result for run in range(len(planned)) if (result := finished(planned[run]))}
    for run, result in results.items():
        told(planned[run], result)
    left = [run for run in range(len(planned)) if run not in results]
    ends = time.monotonic() + 60 * minutes if minutes else float("inf")
    longest = 0.0
    running: dict[Future[dict[str, Any]], int] = {}
    # A run that outlived a killed ablation would write into the folder of the one that goes on.
    pool = ProcessPoolExecutor(
        jobs,
        get_context("spawn"),
        initializer=end_with_parent,
        initargs=(os.getpid(),),
        max_tasks_per_child=RUNS_OF_A_PROCESS,
    )
    with pool:
        while left or running:
            while left and len(running) < jobs and time.monotonic() + longest < ends:
                run = left.pop(0)
                running[pool.submit(make, planned[run])] = run
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                run = running.pop(future)
                results[run] = future.result()
                longest = max(longest, results[run]["seconds"])
                told(planned[run], results[run])
    return [results[run] for run in sorted(results)]
