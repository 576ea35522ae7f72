"""Rows of a corpus as numbers, so that ids and values can be compared without keeping them."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from xxhash import xxh3_64_intdigest, xxh3_128_digest

# N rows

ROWS_AT_ONCE = 1 << 20
"""Hashed rows that are sorted in memory; of more, one range of hashes after the other."""


class Place(NamedTuple):
    """A row of the corpus: which file of hashes it came from, and which row of that."""

    file: int
    row: int


def id_hashes(ids: pa.Array) -> np.ndarray:
    """uint64 [N, 2]: the 128-bit xxh3 of every string."""
    ((data, ends),) = _streams(ids, np.arange(len(ids) + 1), outer=True)
    digests = b"".join(xxh3_128_digest(data[a:b]) for a, b in pairwise(ends.tolist()))
    return np.frombuffer(digests, ">u8").astype(np.uint64).reshape(-1, 2)


def value_hashes(column: pa.Array) -> np.ndarray:
    """uint64 [N]: the 64-bit xxh3 of every row of a column of numbers, strings or lists of them.

    Raises:
        ValueError: a value is missing.
    """
    found = [0] * len(column)
    for data, ends in _streams(column, np.arange(len(column) + 1), outer=True):
        spans = zip(pairwise(ends.tolist()), found, strict=True)
        found = [xxh3_64_intdigest(data[a:b], seed) for (a, b), seed in spans]
    return np.array(found, dtype=np.uint64)


def _streams(
    array: pa.Array, bounds: np.ndarray, outer: bool = False
) -> Iterator[tuple[memoryview, np.ndarray]]:
    """Bytes, and [N+1] offsets between which those of each row lie; a list of lists has several.

    ``bounds`` [N+1]: items of ``array`` between which each row lies. The lengths of inner lists
    are hashed too, so that [[1], [2]] is not [[1, 2]].
    """
    if array.null_count:
        raise ValueError("a value is missing: see `unimo-prep verify`")
    is_text = pa.types.is_string(array.type)
    if not is_text and not pa.types.is_list(array.type) and not pa.types.is_large_list(array.type):
        values = array.to_numpy(zero_copy_only=True)
        yield memoryview(values.view(np.uint8)), bounds * values.itemsize
        return
    offsets = _text_offsets(array) if is_text else array.offsets.to_numpy()
    if not outer:
        yield memoryview(np.diff(offsets).astype(np.int64).view(np.uint8)), bounds * 8
    if is_text:
        yield memoryview(array.buffers()[2] or b""), offsets[bounds]
    else:
        yield from _streams(array.values, offsets[bounds])


def _text_offsets(array: pa.Array) -> np.ndarray:
    if not len(array):
        return np.zeros(1, dtype=np.int32)
    first = array.offset
    return np.frombuffer(array.buffers()[1], np.int32)[first : first + len(array) + 1]


def ranges(rows: int) -> Iterator[tuple[np.uint64, np.uint64]]:
    """Splits the first words of hashes into ranges (both ends included) of some ROWS_AT_ONCE."""
    edges = np.linspace(0, 1, max(-(-rows // ROWS_AT_ONCE), 1) + 1)
    marks = [min(int(edge * 2**64), 2**64 - 1) for edge in edges[1:]]
    starts = [0, *(mark + 1 for mark in marks[:-1])]
    yield from ((np.uint64(a), np.uint64(b)) for a, b in zip(starts, marks, strict=True))


class Hashes(NamedTuple):
    """Hashed rows and the way to those whose hash lies in a range."""

    values: np.ndarray  # uint64 [N, 2 or more]: the hash of the id comes first
    keys: np.ndarray  # uint64 [N]: the first words of the hashes, sorted
    order: np.ndarray  # int64 [N]: the row of each key

    def in_range(self, low: np.uint64, high: np.uint64) -> np.ndarray:
        """The rows whose hash begins with low to high."""
        first, last = np.searchsorted(self.keys, low), np.searchsorted(self.keys, high, "right")
        return np.sort(self.order[first:last])


def hashes_of(values: np.ndarray) -> Hashes:
    """Sorts the first words of uint64 [N, 2 or more]."""
    order = np.argsort(values[:, 0], kind="stable")
    return Hashes(values, values[order, 0], order)


def save_hashes(path: Path, values: np.ndarray) -> None:
    """Writes files that `open_hashes` maps into memory, so that hashes need none."""
    for name, array in hashes_of(values)._asdict().items():
        np.save(_part(path, name), array)


def open_hashes(path: Path) -> Hashes:
    """What `save_hashes` wrote."""
    parts = (np.load(_part(path, name), mmap_mode="r") for name in Hashes._fields)
    return Hashes(*parts)


def _part(path: Path, name: str) -> Path:
    return path.with_name(f"{path.name}.{name}.npy")


def repeated(files: Sequence[Hashes]) -> Iterator[tuple[Place, Place]]:
    """Rows of ``files`` that have the same hash: the first of them and each of the others, in no
    particular order."""
    for low, high in ranges(sum(len(hashes.keys) for hashes in files)):
        chosen = [hashes.in_range(low, high) for hashes in files]
        file = np.repeat(np.arange(len(files)), [len(rows) for rows in chosen])
        row = np.concatenate([np.empty(0, np.int64), *chosen])
        parts = [f.values[rows] for f, rows in zip(files, chosen, strict=True)]
        hashes = np.concatenate([np.empty((0, 2), np.uint64), *parts])
        order = np.lexsort((row, file, hashes[:, 1], hashes[:, 0]))
        same = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
        first = 0
        for at in np.flatnonzero(same):
            if not same[at - 1] or at == 0:
                first = order[at]
            later = order[at + 1]
            yield Place(int(file[first]), int(row[first])), Place(int(file[later]), int(row[later]))
