"""The process that measures: reads an Order, writes JSON lines: jobs begun, rows, jobs done.

A job is done once the device still answers after it.
"""

import argparse
import gc
import json
import os
import sys
import time
from typing import Any, NamedTuple, TextIO

import torch

from bench import attention, fused, machine, similarity
from bench.clocks import Clock, clock_for
from bench.exactness import WrongResultError
from bench.rows import (
    FAILED,
    SKIPPED,
    TOO_LARGE,
    UNAVAILABLE,
    WRONG,
    Job,
    Row,
    as_json,
    not_measured,
)

SECONDS = {"cpu": 0.7, "cuda": 0.4}
"""About how long one measurement takes."""

QUICK_SECONDS = 0.01


class Order(NamedTuple):
    """What a worker is to do; travels as a JSON list."""

    keys: list[str]  # of jobs
    seconds: dict[str, float]  # from now, after which no job of a section is begun


def planned(device: str, quick: bool) -> list[Job]:
    """Everything that is measured on a device, in order: what may be cut off comes last."""
    parts = (machine, similarity, fused, attention)
    if device == "cpu":
        parts = (machine, attention, similarity, fused)
    return [job for part in parts for job in part.jobs(device, quick)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("device", choices=["cpu", "cuda"])
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    # What libraries print must not end up among the results.
    results = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    order = Order(*json.load(sys.stdin))
    start = time.monotonic()
    _say(results, about=machine.describe(arguments.device))
    clock = clock_for(
        arguments.device, QUICK_SECONDS if arguments.quick else SECONDS[arguments.device]
    )
    for job in planned(arguments.device, arguments.quick):
        if job.key not in order.keys:
            continue
        _say(results, begun=job.key)
        if time.monotonic() - start > order.seconds[job.section]:
            rows = [not_measured(job, SKIPPED, f"the time for {job.section} was over")]
        else:
            rows = _rows(job, clock)
        for row in rows:
            _say(results, row=as_json(row))
        if arguments.device == "cuda" and not _device_answers():
            sys.exit("the device answers no more")
        _say(results, done=job.key)


def _say(results: TextIO, **fact: Any) -> None:
    results.write(json.dumps(fact) + "\n")
    results.flush()


def _rows(job: Job, clock: Clock) -> list[Row]:
    """The rows of a job, or the one that says why there is none."""
    rows: list[Row] = []
    try:
        rows.extend(job.measure(job, clock))
        return rows
    except WrongResultError as error:
        status, reason = WRONG, str(error)
    except (ImportError, ValueError, NotImplementedError) as error:
        status, reason = UNAVAILABLE, str(error)
    except (MemoryError, torch.OutOfMemoryError) as error:
        status, reason = TOO_LARGE, str(error)
    except Exception as error:  # whatever a rival raises, the others are still measured
        status, reason = FAILED, f"{type(error).__name__}: {error}"
    finally:
        gc.collect()
        if clock.device.type == "cuda":
            torch.cuda.empty_cache()
    return [*rows, not_measured(job, status, _short(reason))]


def _short(reason: str) -> str:
    text = " ".join(reason.split())
    return text if len(text) <= 300 else text[:300] + " ..."


def _device_answers() -> bool:
    """False after a kernel's illegal access, which ends every further call of the process."""
    try:
        torch.cuda.synchronize()
        return bool((torch.ones(1, device="cuda") == 1).item())
    except Exception:  # a broken device raises errors of several types
        return False


if __name__ == "__main__":
    main()
