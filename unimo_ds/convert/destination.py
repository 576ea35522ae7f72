"""The folder that a conversion makes: it is there when all of it is, and not before."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def check_free(destination: Path) -> None:
    """Refuses a destination that holds something.

    Raises:
        ValueError: it is a file, or a folder that is not empty.
    """
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise ValueError(f"{destination} holds something already: name a new folder")


@contextmanager
def whole_folder(destination: Path) -> Iterator[Path]:
    """A folder beside ``destination`` to fill, which gets its name if nothing fails."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=destination.parent) as folder:
        unfinished = Path(folder) / destination.name
        unfinished.mkdir()
        yield unfinished
        os.replace(unfinished, destination)
