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
    """A folder to fill, which becomes ``destination`` if nothing fails.

    A folder that is there already may be a mount point or where somebody stands, and stays: what
    was filled is moved into it, config.json last, without which it is no model.
    """
    destination = destination.absolute()
    is_there = destination.is_dir()
    beside = destination if is_there else destination.parent
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".convert-", dir=beside) as folder:
        unfinished = Path(folder) / "model"
        unfinished.mkdir()
        yield unfinished
        if not is_there:
            os.replace(unfinished, destination)
            return
        for path in sorted(unfinished.iterdir(), key=lambda path: path.name == "config.json"):
            os.replace(path, destination / path.name)
