"""Runs workers until every job has an answer or the time is up.

One worker takes all jobs; where it dies or hangs, the job it was at is named, the rest of that
variant is skipped and a new worker takes what is left. On a processor every job has a process of
its own, so that its peak memory is its own.
"""

import contextlib
import json
import os
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from bench.rows import FAILED, MEASURED, SKIPPED, Job, Row, not_measured
from bench.worker import Order

KERNELS = Path(__file__).parents[1]
LONGEST_JOB = 120.0
"""Seconds; compiling is most of it."""


class Collected(NamedTuple):
    """What the workers said."""

    machine: dict[str, Any]
    rows: list[Row]


class _End(NamedTuple):
    """How a worker came to its end before its batch was done."""

    at: str  # the job it was at; empty between jobs
    status: str
    reason: str


class Collection:
    """The jobs of one run and the answers so far."""

    def __init__(
        self,
        jobs: list[Job],
        device: str,
        quick: bool,
        seconds: Mapping[str, float],
        report: Callable[[Row], None],
    ) -> None:
        """
        Args:
            seconds: by section, from now: afterwards no job of it is begun. After the largest of
                them what runs is stopped.
            report: is told every row as it comes.
        """
        now = time.monotonic()
        self._jobs, self._device, self._quick, self._report = jobs, device, quick, report
        self._apart = device == "cpu" and not quick
        self._until = {section: now + limit for section, limit in seconds.items()}
        self._deadline = max(self._until.values())
        self._machine: dict[str, Any] = {}
        self._rows: dict[str, list[Row]] = {}
        self._done: set[str] = set()

    def run(self) -> Collected:
        """Every job gets one row or more, in the order of the jobs."""
        while left := [job for job in self._jobs if job.key not in self._done]:
            if time.monotonic() >= self._deadline:
                for job in left:
                    self._close(job, SKIPPED, "the time of the run was over")
                break
            batch = left[:1] if self._apart else left
            end = self._work(batch)
            if end is None:
                continue
            # Between two jobs or at its start it was on the way to the next one.
            unanswered = [job for job in batch if job.key not in self._done]
            at = next((job for job in unanswered if job.key == end.at), unanswered[0])
            self._close(at, end.status, end.reason)
            for job in left if end.status == FAILED else []:
                if (job.section, job.variant) == (at.section, at.variant):
                    self._close(job, SKIPPED, f"its process ended in {at.case}")
        rows = [row for job in self._jobs for row in self._rows[job.key]]
        return Collected(self._machine, rows)

    def _add(self, key: str, row: Row) -> None:
        self._rows.setdefault(key, []).append(row)
        self._report(row)

    def _close(self, job: Job, status: str, reason: str) -> None:
        """Says why a job has no (further) row, unless it was said."""
        said = any(row.status != MEASURED for row in self._rows.get(job.key, []))
        if job.key not in self._done and not said:
            self._add(job.key, not_measured(job, status, reason))
        self._done.add(job.key)

    def _work(self, batch: list[Job]) -> _End | None:
        """Feeds one worker; None if it did the whole batch."""
        command = [sys.executable, "-P", "-m", "bench.worker", self._device]
        paths = [str(KERNELS), *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
        environment.pop("TRITON_INTERPRET", None)  # nothing is timed in an interpreter
        with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as complaints:
            worker = subprocess.Popen(
                command + ["--quick"] * self._quick,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=complaints,
                env=environment,
                text=True,
                encoding="utf-8",
            )
            assert worker.stdin and worker.stdout
            now = time.monotonic()
            seconds = {section: until - now for section, until in self._until.items()}
            # One that dies at once reads nothing; its complaints say why.
            with contextlib.suppress(BrokenPipeError), worker.stdin as orders:
                json.dump(Order([job.key for job in batch], seconds), orders)
            try:
                end = self._listen(worker.stdout)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    worker.wait(0 if end.reason else 10)
            finally:
                worker.kill()
                code = worker.wait()
            if end.reason or all(job.key in self._done for job in batch):
                return end if end.reason else None
            complaints.seek(0)
            last = [text for text in complaints.read().splitlines() if text.strip()][-1:]
            return _End(end.at, FAILED, f"exit code {code}: {' '.join(last)[:300]}")

    def _listen(self, said: IO[str]) -> _End:
        """Takes what a worker says, to its end or until it must be stopped: then with a reason."""
        lines: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=_read, args=(said, lines), daemon=True).start()
        at, since = "", time.monotonic()
        while True:
            limit = min(self._deadline, since + LONGEST_JOB)
            try:
                line = lines.get(timeout=max(0.0, limit - time.monotonic()))
            except queue.Empty:
                if limit == self._deadline:
                    return _End(at, SKIPPED, "the time of the run was over")
                return _End(at, FAILED, f"stopped after {LONGEST_JOB:.0f} s")
            if line is None:
                return _End(at, FAILED, "")
            if not line.startswith("{"):
                continue  # what a library printed while it was imported
            fact = json.loads(line)
            if "about" in fact:
                self._machine = fact["about"]
            if "row" in fact:
                self._add(at, Row(**fact["row"]))
            if "begun" in fact:
                at, since = fact["begun"], time.monotonic()
            if "done" in fact:
                self._done.add(fact["done"])
                at, since = "", time.monotonic()


def _read(said: IO[str], lines: "queue.Queue[str | None]") -> None:
    for line in said:
        lines.put(line)
    lines.put(None)
