"""The first pass of a build without duplicates: a file of signatures for every slice.

Like shards, the files are made by workers, appear whole or not at all, and are not made again when
a build is resumed. Memory: 16 bytes a document, and 4 a permutation that the kernel may page out.
"""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.cleaning.duplicates import Duplicates, find_duplicates
from data_prep.cleaning.signatures import DIGEST_SIZE, Nearness, SignatureMaker
from data_prep.engine import Options, Slice
from data_prep.readers.text import Document
from data_prep.writer import Folder, atomic_file, read_shard
from unimo_ds.data.schema import fingerprint_of

_KEY = b"key"
_DOCUMENTS_AT_ONCE = 1 << 13


class _Task(NamedTuple):
    path: Folder
    key: str
    documents: Sequence[Document]
    size: int


def sign(
    folder: Folder, maker: SignatureMaker, slices: Iterable[Slice], options: Options
) -> list[pa.Table]:
    """The signatures of every slice, memory-mapped from ``folder``, which keeps them.

    Raises:
        ValueError: signatures from before are not those of the same slice: the input has changed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths: list[Folder] = []

    def missing() -> Iterator[_Task]:
        for index, piece in enumerate(slices):
            path = folder / f"{index:05d}.arrow"
            paths.append(path)
            key = fingerprint_of([maker.nearness, [list(d) for d in piece.records]])
            if not path.is_file():
                yield _Task(path, key, piece.records, piece.size)
                continue
            options.progress(piece.size)
            if read_shard(path).schema.metadata[_KEY] != key.encode():
                raise ValueError(
                    f"the input of slice {index} in {folder} has changed since the build was "
                    "begun: delete the folder and build it anew"
                )

    for size in options.run(partial(_make, maker), missing()):
        options.progress(size)
    return [read_shard(path) for path in paths]


def slices_of(documents: Iterable[Document]) -> Iterator[Slice]:
    """Documents that are not of the build's own input, in slices that move no progress bar."""
    piece: list[Document] = []
    for document in documents:
        piece.append(document)
        if len(piece) == _DOCUMENTS_AT_ONCE:
            yield Slice(piece, (), 0)
            piece = []
    if piece:
        yield Slice(piece, (), 0)


class Signatures:
    """Of documents in one order: table after table, row after row."""

    def __init__(self, tables: Sequence[pa.Table], nearness: Nearness) -> None:
        self._tables, self._nearness = tables, nearness
        sizes = [table.num_rows for table in tables]
        self.starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def name(self, index: int) -> tuple[int, str]:
        """(table, id) of the document that has this place."""
        table = int(np.searchsorted(self.starts, index, side="right")) - 1
        row = index - int(self.starts[table])
        return table, str(self._tables[table].column("id")[row].as_py())

    def duplicates(self, scratch: Path) -> Duplicates:
        """Of all documents; those that the sieve holds back are nobody's duplicates.

        Args:
            scratch: file to keep MinHashes in meanwhile.
        """
        count = int(self.starts[-1])
        kept = np.flatnonzero(np.concatenate([[], *(_is_kept(t) for t in self._tables)]))
        digests = _matrix(self._tables, "digest", DIGEST_SIZE // 8, np.uint64)
        minhashes = None
        if self._nearness.near:
            minhashes = self._minhashes(scratch, len(kept))
        found = find_duplicates(digests, minhashes, self._nearness)
        first, exact = np.arange(count), np.zeros(count, dtype=bool)
        first[kept], exact[kept] = kept[found.first], found.exact
        del minhashes
        scratch.unlink(missing_ok=True)
        return Duplicates(first, exact)

    def _minhashes(self, scratch: Path, count: int) -> np.ndarray:
        """uint32 [count, P] on the disk: a corpus of many millions passes the memory's size."""
        width = self._nearness.permutations
        if not count:
            return np.empty((0, width), dtype=np.uint32)
        array = np.lib.format.open_memmap(scratch, mode="w+", dtype=np.uint32, shape=(count, width))
        row = 0
        for table in self._tables:
            part = _matrix([table], "minhash", width, np.uint32)
            array[row : row + len(part)] = part
            row += len(part)
        return array


def _make(maker: SignatureMaker, task: _Task) -> int:
    table = maker.table(task.documents).replace_schema_metadata({_KEY: task.key})
    with atomic_file(task.path) as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return task.size


def _is_kept(table: pa.Table) -> np.ndarray:
    return table.column("reason").is_null().to_numpy()


def _matrix(tables: Sequence[pa.Table], name: str, width: int, dtype: type) -> np.ndarray:
    """[kept documents, width] out of a column of fixed size."""
    parts = [
        np.frombuffer(column.buffers()[1], dtype=dtype)[: len(column) * width]
        for column in (
            pc.filter(table.column(name), table.column("reason").is_null()).combine_chunks()
            for table in tables
        )
        if len(column)
    ]
    joined = np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
    return joined.reshape(-1, width)
