"""Whether all ranks mean the same folder: what one node writes, the others must see.

Network file systems show a new file to other nodes after some seconds: what is missing is looked
for again before it is missed.
"""

import os
import secrets
import socket
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from unimo_ds.distributed import agree, on_rank_0, rank, world_size

PATIENCE = 15.0
"""Seconds; NFS asks its server about a folder again after 3 to 60 (acdirmin, acdirmax in nfs(5)),
and at once when the folder is opened."""
ASK_EVERY = 0.25


class _Token(NamedTuple):
    """A file that rank 0 has written."""

    name: str
    in_parent: bool  # of the run's folder, which is not there yet
    host: str
    folder: str


def check_shared(run: Path) -> None:
    """Makes sure that ``run`` is one folder for all ranks, before anything depends on it.

    Raises:
        ValueError: on every rank, naming a rank that means another folder, its host and both
            folders; or nothing can be written there.
    """
    if world_size() == 1:
        return
    token = on_rank_0(lambda: _leave_token(run))
    base = run.absolute().parent if token.in_parent else run.absolute()
    try:
        agree(lambda: _look_for(token, base))
    finally:
        if rank() == 0:
            (base / token.name).unlink(missing_ok=True)


def await_files(folder: Path, names: Iterable[str]) -> None:
    """Returns when all of ``names`` are in ``folder``.

    Raises:
        ValueError: some are not, after ``PATIENCE``.
    """
    missing = set(names)

    def all_there() -> bool:
        missing.difference_update(relative_files(folder))
        return not missing

    if not soon(all_there, PATIENCE):
        raise ValueError(
            f"{len(missing)} files that other ranks wrote, {min(missing)} among them, are not in "
            f"{folder.absolute()} on {socket.gethostname()}: set folder to an absolute path on "
            "storage that all nodes share"
        )


def relative_files(folder: Path) -> list[str]:
    """The files below ``folder``, by their paths in it."""
    return [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()]


def soon(condition: Callable[[], bool], seconds: float) -> bool:
    """Whether ``condition`` holds, now or within some seconds."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(ASK_EVERY)
    return True


def _leave_token(run: Path) -> _Token:
    folder = (run if run.is_dir() else run.parent).absolute()
    name = f".unimo_ds_{secrets.token_hex(8)}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    except OSError as error:
        raise ValueError(
            f"cannot write into {folder} on {socket.gethostname()} ({error}): set folder"
        ) from error
    return _Token(name, not run.is_dir(), socket.gethostname(), str(folder))


def _look_for(token: _Token, folder: Path) -> None:
    def is_there() -> bool:
        # Opening the folder makes NFS ask its server; looking for the name alone does not.
        return folder.is_dir() and token.name in os.listdir(folder)

    patience = 1.0 if token.host == socket.gethostname() else PATIENCE
    if not soon(is_there, patience):
        raise ValueError(
            f"the run's folder is in {folder} here and in {token.folder} for rank 0 on "
            f"{token.host}, and what rank 0 writes there does not appear here: set folder to an "
            "absolute path on storage that all nodes share"
        )
