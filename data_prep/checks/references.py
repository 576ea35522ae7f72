"""Ids that come twice, and pairs whose image is not where they say."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.hashing import Place, id_hashes, open_hashes, repeated
from data_prep.writer import Folder, read_batches
from unimo_ds.data.schema import PAIR_SCHEMA, Manifest

MOST_TOLD = 10
"""Rows of one kind that are named; the others are counted."""
_COLUMNS = [PAIR_SCHEMA.names.index(name) for name in ("id", "image_id", "image_row")]


def duplicate_ids(
    folder: Folder, manifest: Manifest, files: Sequence[Path], shards: Sequence[int]
) -> Iterator[str]:
    """Rows with an id that an earlier row has; ``files`` hold the hashes of those ``shards``."""
    found = repeated([open_hashes(file) for file in files])
    told = sorted(((b, a) for a, b in islice(found, MOST_TOLD)), key=lambda pair: pair)
    for later, first in told:
        names = [manifest.shards[shards[place.file]].name for place in (later, first)]
        name = id_at(folder / names[0], later.row)
        told_first = f"row {first.row} of {names[1]}"
        yield f"{folder / names[0]}: row {later.row}: id {name!r} is also that of {told_first}"
    if others := sum(1 for _ in found):
        yield f"{folder}: {others} more rows have an id that came before"


def id_at(path: Folder, row: int) -> str:
    """The id of a row of a shard."""
    for batch in read_batches(path, [0]):
        if row < batch.num_rows:
            return str(batch.column(0)[row].as_py())
        row -= batch.num_rows
    raise AssertionError(f"{path} has no row {row}")


class ReferenceTask(NamedTuple):
    """A shard of pairs, and the hashes of the ids of all images."""

    index: int
    path: Folder
    images: Sequence[Folder]  # shards
    hashes: Sequence[Path]  # one file for each


class ReferenceReport(NamedTuple):
    """The problems of one shard of pairs."""

    index: int
    problems: list[str]


def check_references(task: ReferenceTask) -> ReferenceReport:
    """Every pair's row of the images corpus must be the image that the pair names."""
    hashes = [open_hashes(file).values for file in task.hashes]
    starts = np.cumsum([0, *(len(array) for array in hashes)])
    problems: list[str] = []
    count = 0
    for batch in read_batches(task.path, _COLUMNS):
        rows = batch.column("image_row").to_numpy()
        fits = _fits(id_hashes(batch.column("image_id")), rows, hashes, starts)
        wrong = np.flatnonzero(~fits)
        count += len(wrong)
        for at in wrong[: MOST_TOLD - len(problems)].tolist():
            pair, image = batch.column("id")[at].as_py(), batch.column("image_id")[at].as_py()
            is_there = _image_at(task.images, starts, int(rows[at]))
            problems.append(f"{task.path}: pair {pair} wants {image}, row {rows[at]} is {is_there}")
    if count > MOST_TOLD:
        problems.append(f"{task.path}: {count - MOST_TOLD} more pairs have another image")
    return ReferenceReport(task.index, problems)


def _fits(
    wanted: np.ndarray, rows: np.ndarray, hashes: Sequence[np.ndarray], starts: np.ndarray
) -> np.ndarray:
    """bool [N]: is the id with hash ``wanted`` [N, 2] in row ``rows`` [N]?"""
    fits = (rows >= 0) & (rows < starts[-1])
    shard = np.searchsorted(starts, rows, side="right") - 1
    for number in np.unique(shard[fits]).tolist():
        here = np.flatnonzero(fits & (shard == number))
        found = hashes[number][rows[here] - starts[number]]
        fits[here] = (found == wanted[here]).all(axis=1)
    return fits


def _image_at(images: Sequence[Folder], starts: np.ndarray, row: int) -> str:
    if not 0 <= row < starts[-1]:
        return "no row"
    place = int(np.searchsorted(starts, row, side="right")) - 1
    return id_at(images[place], Place(place, row - int(starts[place])).row)
