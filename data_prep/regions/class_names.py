"""What the classes of regions are called: one class a line, other names of it behind commas."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from data_prep.readers.encoding import file_text

CLASS_NAMES_NAME = "class_names.txt"
"""The file beside the manifest of an images corpus: line i + 1 is class i."""
BACKGROUND = "background"


class Vocabulary(NamedTuple):
    """Class 0 is the background and all that the file does not name, as in bottom-up attention."""

    lines: tuple[str, ...]
    ids: dict[str, int]

    def id_of(self, name: str) -> int:
        """The class of a name."""
        return self.ids.get(_plain(name), 0)


@cache
def load_vocabulary(path: str) -> Vocabulary:
    """The classes in a file such as Visual Genome's ``objects_vocab.txt``; read once in a process.

    Raises:
        ValueError: no such file, not UTF-8, a line without a name, or a name of two classes.
    """
    try:
        lines = file_text(Path(path)).splitlines()
    except (OSError, ValueError) as error:
        raise ValueError(f"--class-names {path}: {error}") from error
    names = (BACKGROUND, *lines)
    ids: dict[str, int] = {}
    for number, line in enumerate(names):
        aliases = [_plain(alias) for alias in line.split(",") if alias.strip()]
        if not aliases:
            raise ValueError(f"--class-names {path}, line {number}: expected a name of class")
        for alias in aliases:
            first = ids.setdefault(alias, number)
            if first not in (0, number):  # Visual Genome's list has "background", which is class 0
                raise ValueError(
                    f"--class-names {path}, line {number}: {alias!r} is a name of line {first}, "
                    "too: a name means one class"
                )
    if len(names) < 2:
        raise ValueError(f"--class-names {path} is empty: expected one class a line")
    return Vocabulary(names, ids)


def names_file(names: Sequence[str]) -> bytes:
    """The content of a ``class_names.txt``."""
    return "".join(" ".join(name.split()) + "\n" for name in names).encode()


def _plain(name: str) -> str:
    return " ".join(name.lower().split())
