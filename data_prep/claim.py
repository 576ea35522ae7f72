"""One build at a time in a folder."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from data_prep.receipts import is_unused, lock_in
from data_prep.writer import Folder
from unimo_ds.data.schema import fingerprint_of
from unimo_ds.transfer import clear_errors, default_cache


@contextmanager
def claimed(folder: Folder, resume: bool) -> Iterator[None]:
    """Keeps other builds out of ``folder`` meanwhile; the kernel ends the claim of a killed one.

    On remote storage, which knows no locks, it is a claim among the builds of this machine. Those
    of several machines with the same arguments write the same bytes; others are refused.

    Raises:
        ValueError: another build is at work there.
    """
    if not resume and not is_unused(folder):
        yield  # the builder will refuse it and leave it as it is
        return
    if isinstance(folder, Path):
        path = lock_in(folder)
    else:
        path = default_cache() / "locks" / f"{fingerprint_of(str(folder))}.lock"
    with clear_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise ValueError(
                f"another build is at work in {folder}: let it end, or end it first"
            ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        lock.release()
        if isinstance(folder, Path):  # a build that made nothing leaves nothing
            with suppress(OSError):
                path.parent.rmdir()
                folder.rmdir()
