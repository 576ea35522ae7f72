"""Corpora at URLs: fetched once to a node's own cache, verified, and shared by its ranks.

A copy lies under the SHA-256 of its manifests, so that a corpus that is built anew under the same
URL is another copy, and whatever has its final name there has been verified.
"""

import hashlib
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

from unimo_ds.config import DataConfig
from unimo_ds.data.schema import MANIFEST_NAME, Manifest, read_manifest
from unimo_ds.storage import RemotePath, is_url
from unimo_ds.transfer import clear_errors, default_cache, fetch

_AT_ONCE = 4  # downloads


class _Part(NamedTuple):
    """A corpus at a URL: the one that was asked for, or the images that its pairs refer to."""

    source: RemotePath
    below: str  # folder in the copy; empty: the copy itself
    manifest: Manifest
    content: bytes  # of the manifest's file


class _File(NamedTuple):
    source: RemotePath
    target: Path
    sha256: str
    size: int  # 0: unknown


def local_corpus(folder: str | Path, cache: str = "") -> Path:
    """The local folder of a corpus: ``folder`` itself, or a whole copy of what lies at that URL.

    Several processes may ask at once: one of them fetches, the others wait for it.

    Args:
        cache: folder of the copies; empty: ``$UNIMO_CACHE`` or ``~/.cache/unimo_ds``.

    Raises:
        ValueError: no corpus at that URL.
        StorageError: not readable, damaged, or the disk of the cache is full.
    """
    if not is_url(str(folder)):
        return Path(folder)
    source = RemotePath(str(folder))
    parts = _parts(source)
    digest = hashlib.sha256(b"".join(part.content for part in parts)).hexdigest()[:16]
    root = Path(cache).expanduser() if cache else default_cache()
    copy = root.absolute() / "corpora" / digest / source.name
    with _alone(copy.parent, source):
        files = list(_missing(parts, copy))
        if files or not (copy / MANIFEST_NAME).is_file():
            _fetch_all(files, source, copy)
            for part in reversed(parts):  # that of the whole corpus comes last
                _write(copy / part.below / MANIFEST_NAME, part.content)
    return copy


def fetch_corpora(data: DataConfig) -> None:
    """Has a whole local copy made of every corpus of the run that lies at a URL.

    Raises:
        ValueError, StorageError: as `local_corpus`.
    """
    for folder in (*data.texts, *data.images, *data.pairs, *data.heldout_pairs):
        local_corpus(folder, data.cache)


def _parts(source: RemotePath, below: str = "") -> list[_Part]:
    manifest = read_manifest(source)
    part = _Part(source, below, manifest, (source / MANIFEST_NAME).read_bytes())
    if not manifest.images:
        return [part]
    name = _plain(manifest.images, source)
    return [part, *_parts(source / name, name)]


def _missing(parts: list[_Part], copy: Path) -> Iterator[_File]:
    for part in parts:
        for shard in part.manifest.shards:
            for name, sha256 in shard.files:
                size = shard.bytes if name == shard.name else 0
                target = copy / part.below / _plain(name, part.source)
                found = target.stat().st_size if target.is_file() else -1
                if found < 0 or (size and found != size):
                    yield _File(part.source / name, target, sha256, size)


def _plain(name: str, source: RemotePath) -> str:
    if Path(name).name != name:
        raise ValueError(f"the manifest of {source} names {name!r}, which is no file in it")
    return name


def _fetch_all(files: list[_File], source: RemotePath, copy: Path) -> None:
    total = sum(file.size for file in files)
    _say(f"fetching {source}: {len(files)} files, {total / 1e6:,.1f} MB, to {copy}")
    done = 0
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="fetch") as pool:
        running = {
            pool.submit(fetch, file.source, file.target, file.sha256): file for file in files
        }
        try:
            for future in as_completed(running):
                future.result()
                done += running[future].size
                if running[future].size:
                    _say(f"fetching {source}: {done / 1e6:,.1f} of {total / 1e6:,.1f} MB")
        finally:
            pool.shutdown(cancel_futures=True)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with clear_errors(path):
        temporary.write_bytes(content)
        temporary.replace(path)


@contextmanager
def _alone(folder: Path, source: RemotePath) -> Iterator[None]:
    path = folder / "lock"
    with clear_errors(path):
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            _say(f"waiting for another process of this node that fetches {source}")
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
