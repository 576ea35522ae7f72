"""Which rows of two corpora are the same, changed, or in one of them only.

Every row is hashed, column by column, into temporary files; they are then compared one range of
id hashes after the other, so memory does not grow with the corpora.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.hashing import Hashes, id_hashes, open_hashes, ranges, save_hashes, value_hashes
from data_prep.pool import run_tasks
from data_prep.writer import Folder, read_batches
from unimo_ds.data.schema import SCHEMAS, Manifest

# N rows, C columns besides the id

ID_WORDS = 2  # of a row's hashes, before those of its C columns


class Row(NamedTuple):
    """Where a row stands: shard and row of it."""

    shard: int
    row: int


class ChangedRow(NamedTuple):
    """A row of the same id in both, and the columns in which it differs."""

    a: Row
    b: Row
    columns: tuple[str, ...]


class RowChanges(NamedTuple):
    """Counts of rows, and the first of each sort."""

    same: int
    only_a: int
    only_b: int
    changed: int
    columns: dict[str, int]  # column -> changed rows that differ in it
    same_order: bool  # of all rows, where no row differs
    examples_a: list[Row]
    examples_b: list[Row]
    examples_changed: list[ChangedRow]


class _HashTask(NamedTuple):
    index: int
    path: Folder
    rows: int
    output: Path  # of hashes with 2 + C words


class _Side(NamedTuple):
    """The hashed shards of one corpus and their numbers."""

    shards: list[int]
    hashes: list[Hashes]
    width: int  # 2 + C


def compare_rows(
    a: tuple[Folder, Manifest],
    b: tuple[Folder, Manifest],
    scratch: Path,
    *,
    workers: int,
    most: int,
) -> RowChanges:
    """Matches rows by id; the n-th row of an id with the n-th. Shards of the same number and the
    same bytes are not read.

    Args:
        a, b: folder and manifest, both of one kind.
        scratch: an empty folder for hashes, (4 + columns) * 8 bytes a row.
        workers: processes that hash.
        most: examples of each sort.

    Raises:
        ValueError: a shard is missing or damaged.
    """
    shared = _shared_shards(a[1], b[1])
    sides = [
        _hashed(*corpus, shared, scratch / name, workers) for name, corpus in (("a", a), ("b", b))
    ]
    columns = SCHEMAS[a[1].kind].names[1:]
    total = sum(len(hashes.keys) for side in sides for hashes in side.hashes)
    found = _Tally(columns, most)
    for low, high in ranges(total):
        found.add(sides[0], sides[1], low, high)
    same = found.same + sum(a[1].shards[number].rows for number in shared)
    return found.changes(same, _in_order(a[1], b[1], shared, sides))


def _shared_shards(a: Manifest, b: Manifest) -> set[int]:
    pairs = enumerate(zip(a.shards, b.shards, strict=False))
    return {number for number, (ours, theirs) in pairs if ours.sha256 == theirs.sha256}


def _hashed(
    folder: Folder, manifest: Manifest, shared: set[int], scratch: Path, workers: int
) -> _Side:
    scratch.mkdir()
    tasks = [
        _HashTask(number, folder / shard.name, shard.rows, scratch / str(number))
        for number, shard in enumerate(manifest.shards)
        if number not in shared
    ]
    list(run_tasks(_hash_shard, tasks, workers))
    hashes = [open_hashes(task.output) for task in tasks]
    return _Side([task.index for task in tasks], hashes, 1 + len(SCHEMAS[manifest.kind]))


def _hash_shard(task: _HashTask) -> int:
    if not task.path.is_file():
        raise ValueError(f"{task.path} is missing: see `unimo-prep verify`")
    blocks = []
    for batch in read_batches(task.path):
        ids, *columns = batch.columns
        hashes = [value_hashes(column)[:, None] for column in columns]
        blocks.append(np.concatenate([id_hashes(ids), *hashes], axis=1))
    found = np.concatenate(blocks) if blocks else np.empty((0, ID_WORDS), np.uint64)
    if len(found) != task.rows:
        raise ValueError(
            f"{task.path} has {len(found)} rows, its manifest says {task.rows}: see "
            "`unimo-prep verify`"
        )
    save_hashes(task.output, found)
    return task.index


def _in_order(a: Manifest, b: Manifest, shared: set[int], sides: Sequence[_Side]) -> bool:
    """Are the rows in the same order, given that they are the same? Shards may be cut elsewhere."""
    starts = [np.cumsum([0, *(shard.rows for shard in m.shards)]) for m in (a, b)]
    if any(starts[0][number] != starts[1][number] for number in shared):
        return False
    ours, theirs = (_blocks(side) for side in sides)
    left, right = next(ours, None), next(theirs, None)
    while left is not None and right is not None:
        size = min(len(left), len(right))
        if not np.array_equal(left[:size], right[:size]):
            return False
        left = left[size:] if size < len(left) else next(ours, None)
        right = right[size:] if size < len(right) else next(theirs, None)
    return left is None and right is None


def _blocks(side: _Side) -> Iterator[np.ndarray]:
    yield from (hashes.values for hashes in side.hashes if len(hashes.values))


class _Tally:
    """Counts and examples, range by range."""

    def __init__(self, columns: Sequence[str], most: int) -> None:
        self._names, self._most = columns, most
        self.same = self._only_a = self._only_b = self._changed = 0
        self._columns = np.zeros(len(columns), dtype=np.int64)
        self._a: list[Row] = []
        self._b: list[Row] = []
        self._examples: list[ChangedRow] = []

    def add(self, a: _Side, b: _Side, low: np.uint64, high: np.uint64) -> None:
        """Compares the rows whose id hashes lie in a range."""
        places_a, values_a = _in_order_of_ids(a, low, high)
        places_b, values_b = _in_order_of_ids(b, low, high)
        at_a, at_b = _matches(values_a, values_b)
        lost, new = _others(len(values_a), at_a), _others(len(values_b), at_b)
        self._only_a, self._only_b = self._only_a + len(lost), self._only_b + len(new)
        self._a = self._first([*self._a, *_rows(a, places_a[lost], self._most)])
        self._b = self._first([*self._b, *_rows(b, places_b[new], self._most)])
        differs = values_a[at_a, ID_WORDS + 1 :] != values_b[at_b, ID_WORDS + 1 :]
        self._columns += differs.sum(axis=0)
        changed = np.flatnonzero(differs.any(axis=1))
        self.same += len(at_a) - len(changed)
        self._changed += len(changed)
        order = np.lexsort(places_a[at_a[changed]].T[::-1])[: self._most]
        for number in changed[order]:
            names = tuple(n for n, d in zip(self._names, differs[number], strict=True) if d)
            here = _rows(a, places_a[at_a[number]][None], 1)[0]
            there = _rows(b, places_b[at_b[number]][None], 1)[0]
            self._examples.append(ChangedRow(here, there, names))
        self._examples = self._first(self._examples)

    def _first(self, rows: list) -> list:
        return sorted(rows)[: self._most]

    def changes(self, same: int, in_order: bool) -> RowChanges:
        """All that was counted."""
        columns = {
            name: int(count)
            for name, count in zip(self._names, self._columns, strict=True)
            if count
        }
        untouched = not (self._only_a or self._only_b or self._changed)
        return RowChanges(
            same,
            self._only_a,
            self._only_b,
            self._changed,
            columns,
            in_order and untouched,
            self._a,
            self._b,
            self._examples,
        )


def _in_order_of_ids(side: _Side, low: np.uint64, high: np.uint64) -> tuple[np.ndarray, np.ndarray]:
    """Of the rows in a range: (file, row) int64 [n, 2], and uint64 [n, 2 + 1 + C]: the id, how
    many rows of this id came before, and the columns; sorted by those."""
    chosen = [hashes.in_range(low, high) for hashes in side.hashes]
    file = np.repeat(np.arange(len(chosen)), [len(rows) for rows in chosen])
    row = np.concatenate([np.empty(0, np.int64), *chosen])
    parts = [f.values[rows] for f, rows in zip(side.hashes, chosen, strict=True)]
    values = np.concatenate([np.empty((0, side.width), np.uint64), *parts])
    order = np.lexsort((row, file, values[:, 1], values[:, 0]))
    values, places = values[order], np.stack([file, row], axis=1)[order]
    new = np.ones(len(values), dtype=bool)
    new[1:] = (values[1:, :ID_WORDS] != values[:-1, :ID_WORDS]).any(axis=1)
    at = np.arange(len(values))
    before = at - np.maximum.accumulate(np.where(new, at, 0))
    return places, np.insert(values, ID_WORDS, before.astype(np.uint64), axis=1)


def _matches(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Indices of rows of ``a`` and ``b`` whose first three numbers are the same; both are sorted
    by them and have none twice."""
    keys = np.concatenate([a[:, : ID_WORDS + 1], b[:, : ID_WORDS + 1]])
    side = np.repeat([0, 1], [len(a), len(b)])
    order = np.lexsort((side, keys[:, 2], keys[:, 1], keys[:, 0]))
    both = np.flatnonzero((keys[order[1:]] == keys[order[:-1]]).all(axis=1))
    return order[both], order[both + 1] - len(a)


def _others(count: int, these: np.ndarray) -> np.ndarray:
    """The indices below ``count`` that are not among ``these``."""
    left = np.ones(count, dtype=bool)
    left[these] = False
    return np.flatnonzero(left)


def _rows(side: _Side, places: np.ndarray, most: int) -> list[Row]:
    first = places[np.lexsort(places.T[::-1])[:most]]
    return [Row(side.shards[file], row) for file, row in first.tolist()]
