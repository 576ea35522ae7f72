"""How time and memory are taken: by events on a CUDA device, by the wall clock on a processor."""

import contextlib
import ctypes
import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol

import torch

MIB = 1 << 20
Run = Callable[[], object]


class Timing(NamedTuple):
    """Milliseconds of one run, over many."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    runs: int


class Clock(Protocol):
    """Where things run, and how long and in how much memory."""

    device: torch.device

    def time(self, run: Run) -> Timing: ...

    def extra_mib(self, run: Run) -> float: ...


def _timing(samples: list[float]) -> Timing:
    if len(samples) == 1:
        return Timing(samples[0], samples[0], samples[0], 1)
    low, median, high = statistics.quantiles(samples, n=4, method="inclusive")
    return Timing(median, low, high, len(samples))


class CudaClock:
    """Events around one run, with an empty L2 cache and the launches already queued.

    The device spins before each timed run for as long as the host needs to issue it, so that a
    short kernel's time is the device's and not Python's. A run that waits for the device inside
    still pays for it.
    """

    WARM_UP = 3
    FEWEST, FEWEST_SLOW, MOST = 5, 3, 100
    LONGEST_SPIN = 0.02  # seconds

    def __init__(self, seconds: float) -> None:
        """``seconds``: about how long one measurement may take."""
        self.device = torch.device("cuda")
        self.seconds = seconds
        cache = torch.cuda.get_device_properties(self.device).L2_cache_size
        self._flush = torch.empty(max(4 * cache, 256 * MIB), dtype=torch.uint8, device="cuda")
        cycles = 20_000_000
        self._spin(cycles)
        self._cycles_per_second = cycles / (self._spin(cycles) / 1e3)

    @staticmethod
    def _spin(cycles: int) -> float:
        """How many milliseconds the device spins."""
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        torch.cuda._sleep(cycles)
        end.record()
        end.synchronize()
        return begin.elapsed_time(end)

    def time(self, run: Run) -> Timing:
        start = time.perf_counter()
        for _ in range(self.WARM_UP):
            run()
            torch.cuda.synchronize()
            if slow := time.perf_counter() - start > self.seconds:
                break
        start = time.perf_counter()
        run()
        issued = time.perf_counter() - start
        torch.cuda.synchronize()
        cycles = int(min(1.5 * issued, self.LONGEST_SPIN) * self._cycles_per_second)
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        samples: list[float] = []
        start = time.perf_counter()
        fewest = self.FEWEST_SLOW if slow else self.FEWEST
        while len(samples) < fewest or (
            len(samples) < self.MOST and time.perf_counter() - start < self.seconds
        ):
            self._flush.zero_()
            torch.cuda._sleep(cycles)
            begin.record()
            run()
            end.record()
            end.synchronize()
            samples.append(begin.elapsed_time(end))
        return _timing(samples)

    def extra_mib(self, run: Run) -> float:
        """What a run takes at its peak above what is allocated before it."""
        run()
        gc.collect()
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / MIB


class CpuClock:
    """Wall clock, and the resident memory of a process that does nothing else."""

    FEWEST, MOST = 3, 50
    SLOW = 5.0  # seconds; a run that takes longer is made once

    def __init__(self, seconds: float) -> None:
        """``seconds``: about how long one measurement may take; one run at least."""
        self.device = torch.device("cpu")
        self.seconds = seconds
        self._first: tuple[Run, float] | None = None

    def time(self, run: Run) -> Timing:
        if self._first and self._first[0] is run:
            if self._first[1] > self.SLOW:
                return _timing([1e3 * self._first[1]])
        else:
            run()
        samples: list[float] = []
        start = time.perf_counter()
        while True:
            begin = time.perf_counter()
            run()
            samples.append(1e3 * (time.perf_counter() - begin))
            spent = time.perf_counter() - start
            enough = len(samples) >= self.FEWEST or spent > 3 * self.seconds
            if enough and (spent > self.seconds or len(samples) >= self.MOST):
                return _timing(samples)

    def extra_mib(self, run: Run) -> float:
        """What a run takes at its peak above what is resident before it; its first run."""
        gc.collect()
        _give_back_freed_memory()
        before = _forget_peak()
        start = time.perf_counter()
        run()
        self._first = run, time.perf_counter() - start
        return max(0.0, _peak_mib() - before)


def _status_mib(field: str) -> float:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise ValueError(f"/proc/self/status has no {field}")


def _forget_peak() -> float:
    """MiB resident now; the peak starts from here where the system lets it."""
    with contextlib.suppress(OSError):  # then the peak is that since the start of the process
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")
    return _status_mib("VmRSS") if sys.platform == "linux" else _peak_mib()


def _peak_mib() -> float:
    # getrusage inherits the peak of the process that forked this one; VmHWM does not.
    if sys.platform == "linux":
        return _status_mib("VmHWM")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / MIB if sys.platform == "darwin" else peak / 1024


def _give_back_freed_memory() -> None:
    with contextlib.suppress(AttributeError, OSError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)


def clock_for(device: str, seconds: float) -> Clock:
    return CudaClock(seconds) if device == "cuda" else CpuClock(seconds)
