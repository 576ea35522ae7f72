"""Which file a name means that nothing is called: told to the user, never taken by itself."""

import os
import unicodedata
from functools import lru_cache
from pathlib import PurePosixPath

_FOLDERS_KEPT = 8  # listings; names that are missing come folder by folder


def did_you_mean(root: str, name: str) -> str:
    """The end of a message that there is no file ``name`` below ``root``; empty if none is near."""
    near = near_name(root, name)
    if not near:
        return ""
    why = ""
    if "\\" in name:
        why = ", with / between folders"
    elif unicodedata.normalize("NFC", name) == unicodedata.normalize("NFC", near):
        why = ", the same letters in another Unicode form (NFC, NFD)"
    return f"; did you mean {near!r}{why}?"


def near_name(root: str, name: str) -> str:
    """The file below the folder ``root`` whose name differs from ``name`` in what systems write
    otherwise; empty if there is none.

    That is ``\\`` for ``/`` (Windows), letters with their accents in one character or two (NFC on
    Linux and Windows, NFD on macOS), capital and small letters, and folders of another machine
    before the ones that are here.
    """
    parts = list(PurePosixPath(name.replace("\\", "/").lstrip("/")).parts)
    if ".." in parts or "\0" in name:
        return ""
    for first in range(len(parts)):
        if found := _below(root, parts[first:]):
            return found
    return ""


def _below(root: str, parts: list[str]) -> str:
    """The file that the parts of a path lead to, each as near as it may be."""
    below: list[str] = []
    for part in parts:
        actual = _listing(os.path.join(root, *below)).get(_plain(part), "")
        if not actual:
            return ""
        below.append(actual)
    path = os.path.join(root, *below)
    inside = os.path.realpath(path).startswith(f"{os.path.realpath(root).rstrip('/')}/")
    return "/".join(below) if inside and os.path.isfile(path) else ""


@lru_cache(maxsize=_FOLDERS_KEPT)
def _listing(folder: str) -> dict[str, str]:
    """Plain form -> name as it stands in the folder."""
    try:
        return {_plain(name): name for name in sorted(os.listdir(folder), reverse=True)}
    except OSError:
        return {}


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
