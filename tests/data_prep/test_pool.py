"""Worker processes: who does the tasks, and for how long the workers stay."""

import os
import time

import psutil
import pytest

from data_prep.pool import kept_workers, run_tasks

TASKS = range(8)


def _where(number):
    time.sleep(0.05)  # so that both workers get some
    if number < 0:
        raise ValueError(f"task {number}")
    return os.getpid()


def test_workers_that_are_kept_do_the_next_tasks_too_and_end_with_the_block():
    with kept_workers():
        first = set(run_tasks(_where, TASKS, 2))
        again = set(run_tasks(_where, TASKS, 2))
        assert first == again and len(first) == 2 and os.getpid() not in first
    assert not any(psutil.pid_exists(pid) for pid in first)
    other = set(run_tasks(_where, TASKS, 2))
    assert len(other) == 2 and other.isdisjoint(first)


def test_a_task_that_fails_leaves_kept_workers_to_the_next_ones():
    with kept_workers():
        with pytest.raises(ValueError, match="task -1"):
            list(run_tasks(_where, [1, -1, 2, 3], 2))
        assert len(set(run_tasks(_where, TASKS, 2))) == 2


def test_one_worker_is_this_process():
    with kept_workers():
        assert set(run_tasks(_where, range(3), 1)) == {os.getpid()}
