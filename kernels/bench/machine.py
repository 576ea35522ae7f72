"""Which machine this is, and what it reaches: its largest matrix product and its fastest copy."""

import os
import platform
import re
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from bench.clocks import MIB, Clock
from bench.rows import Job, Row, measured

SECTION = "peak"
PRODUCT, COPY = "matrix product", "copy"


def slug(device: str, about: dict[str, Any]) -> str:
    """The name of a device's results: ``cpu``, ``nvidia-h200``."""
    return "cpu" if device == "cpu" else re.sub(r"[^a-z0-9]+", "-", about["device"].lower())


def describe(device: str) -> dict[str, Any]:
    """What the numbers hang on, for people to read."""
    about: dict[str, Any] = {
        "device": torch.cuda.get_device_name() if device == "cuda" else _processor(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": installed_version("triton"),
    }
    if device == "cuda":
        properties = torch.cuda.get_device_properties(0)
        about |= {
            "cuda": torch.version.cuda,
            "capability": f"{properties.major}.{properties.minor}",
            "multiprocessors": properties.multi_processor_count,
            "device_memory_gib": round(properties.total_memory / 2**30, 1),
            "l2_mib": round(properties.L2_cache_size / MIB, 1),
        }
    else:
        about["threads"] = torch.get_num_threads()
    return about


def installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    with_names = Path("/proc/cpuinfo")
    if with_names.exists():
        for line in with_names.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def available_bytes() -> int:
    """Memory that a new process can have."""
    overview = Path("/proc/meminfo")
    if overview.exists():
        for line in overview.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def jobs(device: str, quick: bool) -> list[Job]:
    """The two peaks that every other row is a share of."""
    size = 256 if quick else 8192 if device == "cuda" else 2048
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    length = (8 if quick else 2048 if device == "cuda" else 256) * MIB

    def product(job: Job, clock: Clock) -> Iterator[Row]:
        a, b = (torch.randn(size, size, device=clock.device, dtype=dtype) for _ in range(2))
        yield measured(job, "", clock.time(lambda: a @ b), flops=2 * size**3)

    def copy(job: Job, clock: Clock) -> Iterator[Row]:
        source = torch.randn(length // 4, device=clock.device)
        target = torch.empty_like(source)
        yield measured(job, "", clock.time(lambda: target.copy_(source)), moved=2 * length)

    precision = str(dtype).removeprefix("torch.")
    return [
        Job(SECTION, f"{precision}, {size:,} x {size:,}", PRODUCT, product),
        Job(SECTION, f"{length // MIB:,} MiB read and written", COPY, copy),
    ]


def with_share(row: Row, rows: list[Row]) -> Row:
    """The row with its share of the peaks among ``rows``; the larger one where it has two rates."""
    product = next((r.tflops for r in rows if (r.section, r.variant) == (SECTION, PRODUCT)), None)
    copy = next((r.gbs for r in rows if (r.section, r.variant) == (SECTION, COPY)), None)
    shares = [
        rate / peak for rate, peak in ((row.tflops, product), (row.gbs, copy)) if rate and peak
    ]
    return row._replace(share=max(shares)) if shares and row.section != SECTION else row
