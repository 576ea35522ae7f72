"""What a source holds but a build does not take: found by name, counted, told in one wording."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.quarantine import Bad, Reason

HIDDEN_FILES, HIDDEN_FOLDERS = "hidden files", "hidden folders"
APPLE_DOUBLE = "._ files (AppleDouble)"
"""What macOS writes beside a file, into archives and onto disks that cannot hold its attributes:
``._NAME``, in zip archives ``__MACOSX/._NAME``. It has the suffix of NAME and none of its bytes."""
LINKED_FOLDERS, BROKEN_LINKS = "links to folders", "links that lead nowhere"
OUTER_LINKS, NO_FILES = "links out of the folder", "pipes, sockets and devices"
OTHER_KINDS = "files of other kinds"

_MAC_FOLDER = "__MACOSX"
_NAMES_TOLD = 3
_KINDS_TOLD = 16  # of a source; texts of its own, such as statuses, may make any number
_MORE_KINDS = "of more kinds"
_FOLDER, _LINK, _FILE = "folder", "link to a folder", "file"


class LeftOut(NamedTuple):
    """A record or file that is not wrong, but not wanted: hidden, of another split or kind."""

    what: str  # the kind: "hidden files", "split 'test'"
    name: str = ""  # of this one, where it has one


class Tally:
    """Counts what is left out of sources, and keeps the first names of every kind."""

    def __init__(self) -> None:
        self._counts: dict[tuple[str, str], int] = {}  # (source, kind) -> number
        self._names: dict[tuple[str, str], list[str]] = {}
        self._kinds: Counter[str] = Counter()  # source -> kinds

    def add(self, source: object, entry: LeftOut) -> None:
        """Counts one more; kinds above `_KINDS_TOLD` of a source count as one, with their names."""
        key = str(source), entry.what
        if key not in self._counts and self._kinds[key[0]] >= _KINDS_TOLD:
            key, entry = (key[0], _MORE_KINDS), LeftOut(_MORE_KINDS, entry.what)
        self._kinds[key[0]] += key not in self._counts
        self._counts[key] = self._counts.get(key, 0) + 1
        names = self._names.setdefault(key, [])
        if entry.name and len(names) <= _NAMES_TOLD and entry.name not in names:
            names.append(entry.name)

    def entries(self) -> list[Bad]:
        """One line of the quarantine for every source and kind: "hidden files: 2 (.a, .b)"."""
        return [
            Bad(Reason.LEFT_OUT, source, 0, "", f"{what}: {count:,}{_listed(names)}")
            for ((source, what), count), names in zip(
                self._counts.items(), self._names.values(), strict=True
            )
        ]


def note_of(entries: Iterable[Bad]) -> str:
    """The end of a message that nothing is left; empty if nothing was left out."""
    details = [entry.detail for entry in entries if entry.reason is Reason.LEFT_OUT]
    return f"; left out: {', '.join(details)}" if details else ""


def by_name(name: str) -> LeftOut | None:
    """Why a file of that name, in a folder or in an archive, is no data; None if it may be.

    Folders that the user names are not looked at: ``name`` is what stands below them.
    """
    parts = name.split("/")
    if parts[-1].startswith("._") or _MAC_FOLDER in parts:
        return LeftOut(APPLE_DOUBLE, name)
    if any(part.startswith(".") and part not in (".", "..") for part in parts):
        return LeftOut(HIDDEN_FILES, name)
    return None


def of_other_kind(name: str) -> LeftOut:
    """For a file whose suffix says that it is none of those that are read."""
    return LeftOut(OTHER_KINDS, f"*{suffix_of(name)}" if suffix_of(name) else name)


def suffix_of(name: str) -> str:
    """The last suffix, in small letters: cameras and Windows write ``.JPG`` and ``.TXT``."""
    return os.path.splitext(name)[1].lower()


def walk(folder: Path) -> Iterator[str | LeftOut]:
    """The names of the files in ``folder`` and its sub-folders, in the order of their parts.

    Hidden files and folders, files that macOS makes and links to folders are left out; links to
    files are names like others, wherever they lead.
    """
    pending = [("", _FOLDER)]
    while pending:
        name, kind = pending.pop()
        if kind is not _FOLDER:
            yield by_name(name) or (LeftOut(LINKED_FOLDERS, name) if kind is _LINK else name)
            continue
        if name and (entry := by_name(os.path.basename(name))):
            what = APPLE_DOUBLE if entry.what == APPLE_DOUBLE else HIDDEN_FOLDERS
            yield LeftOut(what, f"{name}/")
            continue
        with os.scandir(os.path.join(folder, name)) as entries:
            found = sorted((entry.name, _kind(entry)) for entry in entries)
        pending += [(os.path.join(name, inner), kind) for inner, kind in reversed(found)]


def _kind(entry: os.DirEntry[str]) -> str:
    if entry.is_dir(follow_symlinks=False):
        return _FOLDER
    return _LINK if entry.is_symlink() and entry.is_dir() else _FILE


def _listed(names: list[str]) -> str:
    if not names:
        return ""
    more = ", ..." if len(names) > _NAMES_TOLD else ""
    return f" ({', '.join(names[:_NAMES_TOLD])}{more})"
