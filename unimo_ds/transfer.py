"""Downloads into a node's own cache: verified, continued where they stopped, whole or not there."""

import errno
import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from unimo_ds.storage import CHUNK, FileState, RemotePath, StorageError

_PART_SUFFIX = ".part"
_COPIES = "unimo_urls"  # folder of the cache whose paths say which URL they are copies of
_COPY = re.compile(rf"^/(?:.*/)?{_COPIES}/(?P<scheme>[^/]+)/(?P<key>.+)$", re.DOTALL)


def default_cache() -> Path:
    """Where a node keeps its copies of remote files: ``$UNIMO_CACHE`` or ``~/.cache/unimo_ds``."""
    return Path(os.environ.get("UNIMO_CACHE") or "~/.cache/unimo_ds").expanduser()


def copy_of(source: RemotePath, cache: Path) -> Path:
    """The path, in the folder ``cache``, of the local copy of a remote file or folder."""
    return cache.absolute() / _COPIES / source.scheme / source.key


def origin_of(path: str) -> str:
    """The URL that the file at ``path`` is a copy of; ``path`` itself if it is no copy."""
    found = _COPY.match(path)
    return f"{found['scheme']}://{found['key']}" if found else path


def fetch(
    source: RemotePath, target: Path, sha256: str = "", state: FileState | None = None
) -> None:
    """Downloads ``source`` to ``target``, which gets its name and the source's time when whole.

    What an earlier attempt left of the same content is continued. For one process at a time.

    Args:
        sha256: what its SHA-256 must be; empty: unknown.
        state: of ``source``, where the caller knows it.

    Raises:
        FileNotFoundError: no such file.
        StorageError: not readable, or twice not of that SHA-256; or the disk is full.
    """
    state = state or source.stat()
    target.parent.mkdir(parents=True, exist_ok=True)
    mark = f".{state.st_size:x}-{state.st_mtime_ns:x}{_PART_SUFFIX}"
    part = target.with_name(target.name + mark)
    for _ in range(2):
        with clear_errors(part):
            found = _continue(source, part, state.st_size, bool(sha256))
        if not sha256 or found == sha256:
            os.utime(part, ns=(state.st_mtime_ns, state.st_mtime_ns))
            os.replace(part, target)
            return
        part.unlink()
    raise StorageError(
        f"{source} came twice with a SHA-256 that is not its manifest's: `unimo-prep verify` tells "
        "what is damaged there"
    )


def is_fresh(copy: Path, state: FileState) -> bool:
    """Is ``copy`` what `fetch` made of a remote file in that state?"""
    if not copy.is_file():
        return False
    found = copy.stat()
    return (found.st_size, found.st_mtime_ns) == (state.st_size, state.st_mtime_ns)


def _continue(source: RemotePath, part: Path, size: int, hashed: bool) -> str:
    """Downloads what ``part`` lacks; the SHA-256 of the whole if ``hashed``."""
    digest = hashlib.sha256()
    if part.exists() and part.stat().st_size > size:
        part.unlink()
    with part.open("a+b") as file, source.open() as stream:
        file.seek(0)
        while hashed and (chunk := file.read(CHUNK)):
            digest.update(chunk)
        stream.seek(file.seek(0, io.SEEK_END))
        while chunk := stream.read(CHUNK):
            file.write(chunk)
            digest.update(chunk)
        file.flush()
        os.fsync(file.fileno())
    if part.stat().st_size != size:
        part.unlink()
        raise StorageError(f"{source} changed while it was read: start again")
    return digest.hexdigest()


@contextmanager
def clear_errors(path: Path) -> Iterator[None]:
    """Says which disk is full, and how full, when writing to ``path`` fails for that.

    Raises:
        StorageError: in place of ENOSPC, EDQUOT and EFBIG.
    """
    try:
        yield
    except OSError as error:
        folder = path.parent
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            usage = shutil.disk_usage(folder)
            raise StorageError(
                f"the disk of {folder} is full: {usage.free / 1e6:,.1f} MB of "
                f"{usage.total / 1e6:,.1f} MB are free; make room and go on (builds with --resume)"
            ) from error
        if error.errno == errno.EFBIG:
            raise StorageError(
                f"{folder} takes no file as large as {path.name} must be (a limit of its file "
                "system, or `ulimit -f`): raise it and go on (builds with --resume)"
            ) from error
        raise
