"""DeepSpeed's extension for ranks on CPUs: built once per machine, aloud, and by one process.

PyTorch builds it on first use, under a lock that is a file: a build that is killed leaves it, and
every later start waits for it without a word.
"""

import contextlib
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from unimo_ds.train.console import told_while_waiting

STALE_SECONDS = 600.0
"""The build takes two minutes on two quiet cores, five on busy ones."""
ASK_EVERY = 0.2
TELL_EVERY = 30.0


def load_extension() -> None:
    """Loads the extension before DeepSpeed does; builds it if it is not there.

    Raises:
        ValueError: an ended build has left a lock, or the folder takes no locks.
    """
    import deepspeed.ops
    from deepspeed.accelerator import get_accelerator
    from torch.utils.cpp_extension import _get_build_directory

    builder = get_accelerator().create_op_builder("ShareMemCommBuilder")
    if builder is None or not deepspeed.ops.__compatible_ops__.get(builder.NAME, False):
        return
    folder = Path(_get_build_directory(builder.name, False))
    with sole_builder(folder):
        if not any(folder.glob("*.so")):
            _tell(f"building DeepSpeed's {builder.name} in {folder}: once, some minutes")
        with told_while_waiting(f"still building DeepSpeed's {builder.name} in {folder}"):
            builder.load()


@contextmanager
def sole_builder(folder: Path) -> Iterator[None]:
    """Keeps other processes of ours out of ``folder``, and PyTorch's lock there from being waited
    for in silence.

    Raises:
        ValueError: that lock is of an ended build, or the folder takes no locks.
    """
    ours = FileLock(folder / "unimo_ds.lock")
    try:
        with told_while_waiting(f"waiting for the process that builds in {folder}"):
            ours.acquire()
    except (OSError, NotImplementedError) as error:
        raise ValueError(
            f"{ours.lock_file} cannot be locked ({error}): set TORCH_EXTENSIONS_DIR to a folder on "
            "a disk of this machine"
        ) from error
    # Names who builds; where it is still there, that process was ended: its lock is ours now.
    builder = folder / "unimo_ds.building"
    try:
        _free(folder / "lock", builder)
        builder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        try:
            yield
        finally:
            builder.unlink(missing_ok=True)
    finally:
        ours.release()


def _free(lock: Path, builder: Path) -> None:
    """Removes PyTorch's lock if a process of ours left it; waits for it if another holds it."""
    if lock.exists() and builder.exists():
        whose = builder.read_text(encoding="utf-8")
        _tell(f"removing {lock}: {whose} was ended while it built DeepSpeed's extension")
        lock.unlink()
    tell_at = 0.0
    while (age := _age(lock)) is not None:
        holder = _holder(lock)
        if holder is None and age > STALE_SECONDS:
            raise ValueError(
                f"{lock} is {age / 60:.0f} minutes old and no process of this machine holds it: a "
                "build of DeepSpeed's extension that was ended left it, and every start waits for "
                f"it. Remove it (rm {lock}), or set TORCH_EXTENSIONS_DIR to another folder"
            )
        if time.monotonic() > tell_at:
            tell_at = time.monotonic() + TELL_EVERY
            who = f"process {holder}" if holder else "no process of this machine"
            _tell(
                f"waiting for {lock}, {age:.0f} s old, held by {who}: it guards the build of "
                "DeepSpeed's extension; if nothing builds it, remove the file"
            )
        time.sleep(ASK_EVERY)


def _age(path: Path) -> float | None:
    try:
        return time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return None


def _holder(lock: Path) -> int | None:
    """The process of this machine that has ``lock`` open, as a build has; None: none is seen."""
    target = str(lock.resolve())
    for link in Path("/proc").glob("[0-9]*/fd/*"):
        with contextlib.suppress(OSError):  # processes end, and others' are not ours to look at
            if os.readlink(link) == target:
                return int(link.parts[2])
    return None


def _tell(text: str) -> None:
    print(f"unimo_ds: {text}", file=sys.stderr, flush=True)
