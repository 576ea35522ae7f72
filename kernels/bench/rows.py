"""What is measured and what came of it: jobs, rows, and how a row travels as JSON."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from bench.clocks import Clock, Timing

MEASURED, WRONG, FAILED = "measured", "wrong", "failed"
UNAVAILABLE, TOO_LARGE, SKIPPED = "unavailable", "too large", "skipped"
FORWARD, BOTH = "forward", "forward+backward"


class Row(NamedTuple):
    """One number of one variant in one case, or why there is none."""

    section: str
    case: str
    variant: str
    step: str = ""  # FORWARD or BOTH; empty where there is one step, or none was reached
    status: str = MEASURED
    reason: str = ""  # why it was not measured
    note: str = ""  # which code ran behind the variant's name
    ms: float | None = None  # median
    ms_low: float | None = None  # first quartile
    ms_high: float | None = None  # third quartile
    runs: int | None = None
    tflops: float | None = None  # 1e12 useful floating-point operations a second
    gbs: float | None = None  # 1e9 bytes a second, of those that must move
    share: float | None = None  # of the device's measured peak
    extra_mib: float | None = None  # peak memory above the inputs
    error: float | None = None  # |found - exact| / |exact|, the largest of output and gradients


class Job(NamedTuple):
    """Measures one variant in one case; gives one row per step."""

    section: str
    case: str
    variant: str
    measure: Callable[["Job", Clock], Iterator[Row]]

    @property
    def key(self) -> str:
        return f"{self.section}: {self.case}: {self.variant}"


def measured(
    job: Job, step: str, timing: Timing, *, flops: float = 0, moved: float = 0, **rest: Any
) -> Row:
    """A row out of a timing.

    Args:
        flops: useful floating-point operations of one run. moved: bytes that must move; 0 = none.
        rest: further fields of Row.
    """
    return Row(
        job.section,
        job.case,
        job.variant,
        step,
        ms=timing.median,
        ms_low=timing.low,
        ms_high=timing.high,
        runs=timing.runs,
        tflops=flops / timing.median / 1e9 if flops else None,
        gbs=moved / timing.median / 1e6 if moved else None,
        **rest,
    )


def not_measured(job: Job, status: str, reason: str) -> Row:
    return Row(job.section, job.case, job.variant, status=status, reason=reason)


def as_json(row: Row) -> dict[str, Any]:
    """Without the fields that hold nothing."""
    return {name: value for name, value in row._asdict().items() if value not in (None, "")}
