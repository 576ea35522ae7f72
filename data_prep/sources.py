"""Remote sources become local files before any reader sees them."""

import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock

from unimo_ds.storage import FileState, RemotePath, is_url
from unimo_ds.transfer import clear_errors, copy_of, fetch, is_fresh, origin_of

_AT_ONCE = 8  # downloads
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_WILD = re.compile(r"[*?\[]")
_NAMES_FILES = (".json", ".jsonl", ".tsv", ".csv", ".txt", ".parquet", ".arrow")
"""Suffixes of sources that name pictures lying beside them."""
_COPY_IN_TEXT = re.compile(r"/\S*/unimo_urls/([a-z0-9+.-]+)/")


def localise(
    sources: Sequence[str | Path | RemotePath], cache: Path, beside: Iterable[str] = ()
) -> list[Path]:
    """Local paths of ``sources``: local ones as they are, copies of those that are URLs.

    A URL names a file, or a folder, of which all files are fetched. Braces (``{a,b}``,
    ``{000..127}``) and globs (``*``, ``?``, ``[...]``) stand for several. Copies keep names and
    folders, so that ids are those of the same files on a disk. A copy whose size and time are those
    of the source is not fetched again.

    Args:
        beside: suffixes of the files to fetch from the folder of a source that names pictures, and
            from its sub-folders.

    Raises:
        ValueError: a URL that no file matches.
        StorageError: see `unimo_ds.storage.retried`.
    """
    suffixes = frozenset(beside)
    found: list[Path] = []
    for source in sources:
        if not is_url(str(source)):
            found.append(Path(source))
            continue
        matches = [match for text in braced(str(source)) for match in _matching(text)]
        wanted: dict[RemotePath, FileState] = {}
        for match in matches:
            wanted |= _files_of(match, suffixes)
        _fetch_all(wanted, cache)
        for match in matches:
            _forget_others(copy_of(match, cache), {copy_of(path, cache) for path in wanted})
        found += [copy_of(match, cache) for match in matches]
    return found


def bring(entries: Iterable[Any]) -> None:
    """Fetches what ``entries`` have a ``path`` or ``tokenizer`` of but this node has no copy of."""
    named = (getattr(entry, name, "") for entry in entries for name in ("path", "tokenizer"))
    for path in sorted({str(path) for path in named}):
        if origin_of(path) == path or Path(path).exists():
            continue
        source = RemotePath(origin_of(path))
        for file, state in _files_of(source, frozenset()).items():
            below = str(file).removeprefix(str(source)).lstrip("/")
            _fetch_one(file, state, Path(path) / below if below else Path(path))


def with_origins(text: str) -> str:
    """``text`` with URLs in place of the paths of their copies."""
    return _COPY_IN_TEXT.sub(r"\1://", origin_of(text))


def braced(text: str) -> Iterator[str]:
    """All that the braces in ``text`` stand for, as the shell reads them."""
    found = _BRACES.search(text)
    if not found:
        yield text
        return
    numbers = _RANGE.fullmatch(found[1])
    choices: Iterable[str]
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        step = 1 if last >= first else -1
        padded = any(len(n) > 1 and n.startswith("0") for n in numbers.groups())
        width = max(map(len, numbers.groups())) if padded else 0
        choices = (f"{n:0{width}d}" for n in range(first, last + step, step))
    else:
        choices = found[1].split(",")
    for choice in choices:
        yield from braced(text[: found.start()] + choice + text[found.end() :])


def _matching(url: str) -> list[RemotePath]:
    """The files that ``url`` names, in order; a folder stays one."""
    if url.startswith(("http://", "https://")):
        if "?" in url or "#" in url:
            raise ValueError(f"{url}: no name of a file; download it first and name the file")
        return [RemotePath(url)]
    parts = url.split("/")
    wild = next((i for i, part in enumerate(parts) if _WILD.search(part)), None)
    if wild is None:
        return [RemotePath(url)]
    if wild < 3:
        raise ValueError(f"{url}: a bucket must be named, not matched")
    depth = len(parts)
    files = RemotePath("/".join(parts[:wild])).files()
    cut = ((path, str(path).split("/")) for path in files)
    found = [
        path
        for path, names in cut
        if len(names) == depth and all(map(_fits, names[wild:], parts[wild:]))
    ]
    if not found:
        raise ValueError(f"no file matches {url}")
    return found


def _fits(name: str, pattern: str) -> bool:
    """As in a shell, hidden files fit no pattern that does not begin with a dot."""
    return fnmatchcase(name, pattern) and (pattern.startswith(".") or not name.startswith("."))


def _files_of(source: RemotePath, beside: frozenset[str]) -> dict[RemotePath, FileState]:
    if source.is_dir():
        found = source.files()
        if not found:
            raise ValueError(f"no file below {source}")
        return found
    try:
        found = {source: source.stat()}
    except FileNotFoundError as error:
        raise ValueError(str(error)) from error
    if beside and source.key.suffix.lower() in _NAMES_FILES:
        others = source.parent.files().items()
        found |= {path: state for path, state in others if path.key.suffix.lower() in beside}
    return found


def _fetch_all(files: dict[RemotePath, FileState], cache: Path) -> None:
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        done = pool.map(
            lambda item: _fetch_one(item[0], item[1], copy_of(item[0], cache)), files.items()
        )
        for _ in done:  # raises what a download raised
            pass


def _forget_others(copy: Path, wanted: set[Path]) -> None:
    """Deletes what a folder has no longer; the copy is read as a whole."""
    for file in copy.rglob("*") if copy.is_dir() else ():
        busy = file.suffix in (".part", ".lock")
        if file.is_file() and file not in wanted and not busy:
            file.unlink()


def _fetch_one(source: RemotePath, state: FileState, target: Path) -> None:
    if is_fresh(target, state):
        return
    lock = target.with_name(f".{target.name}.lock")
    with clear_errors(lock):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not is_fresh(target, state):
                fetch(source, target, state=state)
            lock.unlink(missing_ok=True)
