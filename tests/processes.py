"""Commands in processes of their own that leave nothing running behind them."""

import contextlib
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

SECONDS = 600  # the slowest takes a tenth of it on two quiet cores


def run_command(
    command: Sequence[object],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    seconds: float = SECONDS,
) -> subprocess.CompletedProcess[str]:
    """Like ``subprocess.run`` with captured text; where it ends by time or by an exception, its
    children end with it: a launcher killed alone leaves its ranks, and all later tests wait."""
    process = subprocess.Popen(
        list(map(str, command)),
        env=env,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except BaseException:
        kill_tree(process.pid)
        process.communicate()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def kill_tree(pid: int) -> None:
    """kill -9 for a process and all its children."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        for each in [process, *process.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
