"""Does the memory of each machine hold the batches that its ranks build ahead?"""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from unimo_ds.config import DataConfig
from unimo_ds.distributed import gather_objects

PROC, CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


def check_batches_fit(data: DataConfig, needed: int) -> None:
    """For every rank to call, each with the bytes that it needs: all refuse alike.

    Raises:
        ValueError: the ranks of a machine or container need more than it has left together.
    """
    if not needed:
        return
    boot = (PROC / "sys" / "kernel" / "random" / "boot_id").read_text().strip()
    name = socket.gethostname()  # containers of one machine each have their own, and their memory
    ranks = gather_objects((name, boot, needed, available_memory()))
    for host in dict.fromkeys(rank[:2] for rank in ranks):
        needs = [rank[2] for rank in ranks if rank[:2] == host]
        left = min(rank[3] for rank in ranks if rank[:2] == host)
        if sum(needs) > left:
            fitting = max(1, int(data.workers * left / sum(needs)))
            raise ValueError(
                f"{host[0]} has {left / 1e9:,.1f} GB of memory left; the batches that "
                f"{data.workers} data.workers of each of its {len(needs)} ranks build ahead take "
                f"{sum(needs) / 1e9:,.1f} GB: set data.workers={fitting}, lower batch.samples, or "
                "give the job more memory (docker --memory, resources.limits.memory, sbatch --mem)"
            )


def available_memory(proc: Path = PROC, cgroups: Path = CGROUPS) -> int:
    """Bytes that may still be taken, what the system can reclaim included: of the machine, and of
    all control groups (containers, jobs) that this process belongs to."""
    free = dict(re.findall(r"^(\w+):\s+(\d+) kB$", (proc / "meminfo").read_text(), re.MULTILINE))
    machine = 1024 * (int(free["MemAvailable"]) + int(free["SwapFree"]))
    return min([machine, *_left_in_groups(proc, cgroups)])


class _Files(NamedTuple):
    """What a version of control groups calls its files."""

    limit: str
    usage: str
    cached: str  # how the lines of memory.stat begin that count cached files


_FIRST = _Files("memory.limit_in_bytes", "memory.usage_in_bytes", "total_")
_SECOND = _Files("memory.max", "memory.current", "")


def _left_in_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    membership = proc / "self" / "cgroup"
    for line in membership.read_text().splitlines() if membership.is_file() else ():
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, names = (cgroups / "memory", _FIRST) if controllers else (cgroups, _SECOND)
        # A container may see the path that its host has for it, and its own files at the root.
        group = root / path.lstrip("/")
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                yield from _left(folder, names)


def _left(group: Path, names: _Files) -> Iterator[int]:
    """Bytes that ``group`` has left; nothing if it has no limit."""
    files = [group / name for name in (names.limit, names.usage, "memory.stat")]
    if not all(file.is_file() for file in files):
        return
    limit, usage, stat = (file.read_text() for file in files)
    if limit.strip() != "max":
        cached = re.findall(rf"^{names.cached}(?:in)?active_file (\d+)$", stat, re.MULTILINE)
        yield int(limit) - int(usage) + sum(map(int, cached))
