"""Files that appear whole or not at all, and the shards among them."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import pyarrow as pa

from unimo_ds.data.schema import IMAGES, PAIRS, SCHEMAS, TEXTS, ShardRecord

TEMPORARY_SUFFIX = ".tmp"
ROWS_PER_BATCH = MappingProxyType({TEXTS: 8192, IMAGES: 1024, PAIRS: 8192})
"""Rows of a record batch: below 1024 the Python objects of a reader cost more than the rows."""


class HashingFile(io.RawIOBase):
    """A file opened for writing that knows the SHA-256 of what it was given."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__()
        self._file, self._hash, self._size = file, hashlib.sha256(), 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        self._hash.update(view)
        self._file.write(view)
        self._size += len(view)
        return len(view)

    def tell(self) -> int:
        return self._size

    @property
    def sha256(self) -> str:
        """Of all bytes so far, in hexadecimal digits."""
        return self._hash.hexdigest()


@contextmanager
def atomic_file(path: Path) -> Iterator[HashingFile]:
    """A file that gets its name when it is complete and on the disk; nothing is left else."""
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    try:
        with temporary.open("wb") as raw:
            yield HashingFile(raw)
            raw.flush()
            os.fsync(raw.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Puts ``data`` into the file ``path``, whole or not at all."""
    with atomic_file(path) as file:
        file.write(data)


def array_bytes(array: np.ndarray) -> bytes:
    """The content of an ``.npy`` file of ``array``."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def write_shard(
    folder: Path, name: str, kind: str, rows: Iterable[dict[str, Any]]
) -> ShardRecord | None:
    """Writes ``rows`` (column name -> value, lists as numpy arrays) and their lengths.

    Record batches go to the disk as they fill, so memory holds one of them. No rows, no shard.
    """
    path, lengths = folder / name, []
    with atomic_file(path) as file, pa.ipc.new_file(file, SCHEMAS[kind]) as writer:
        remaining = iter(rows)
        while chunk := tuple(islice(remaining, ROWS_PER_BATCH[kind])):
            writer.write_batch(_record_batch(kind, chunk))
            lengths += [row_length(kind, row) for row in chunk]
    if not lengths:
        path.unlink()
        return None
    lengths_name = f"{Path(name).stem}.lengths.npy"
    lengths_data = array_bytes(np.array(lengths, dtype=np.int32))
    write_bytes(folder / lengths_name, lengths_data)
    return ShardRecord(
        name=name,
        rows=len(lengths),
        bytes=file.tell(),
        sha256=file.sha256,
        lengths=lengths_name,
        lengths_sha256=hashlib.sha256(lengths_data).hexdigest(),
        length_sum=sum(lengths),
    )


def read_shard(path: Path, columns: list[int] | None = None) -> pa.Table:
    """The rows of a shard, or some of their columns, memory-mapped."""
    with pa.memory_map(str(path)) as file:
        options = pa.ipc.IpcReadOptions(included_fields=columns)
        return pa.ipc.open_file(file, options=options).read_all()


def row_length(kind: str, row: dict[str, Any]) -> int:
    """What the lengths file says of a row: tokens, regions, or tokens of all captions."""
    if kind == TEXTS:
        return len(row["tokens"])
    if kind == IMAGES:
        return int(row["num_regions"])
    return sum(len(caption) for caption in row["captions"])


def _record_batch(kind: str, rows: tuple[dict[str, Any], ...]) -> pa.RecordBatch:
    schema = SCHEMAS[kind]
    columns = [_column(field.type, [row[field.name] for row in rows]) for field in schema]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _column(kind: pa.DataType, values: list[Any]) -> pa.Array:
    """Lists of numbers are laid end to end; ``pa.array`` would walk them one by one."""
    nested = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if not nested:
        return pa.array(values, kind)
    offsets = np.zeros(len(values) + 1, dtype=np.int64)
    np.cumsum([len(value) for value in values], out=offsets[1:])
    if pa.types.is_nested(kind.value_type) or pa.types.is_string(kind.value_type):
        flat = _column(kind.value_type, [item for value in values for item in value])
    else:
        dtype = kind.value_type.to_pandas_dtype()
        flat = pa.array(np.concatenate([np.asarray(value, dtype=dtype) for value in values]))
    array = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    positions = pa.array(offsets if array is pa.LargeListArray else offsets.astype(np.int32))
    return array.from_arrays(positions, flat, type=kind)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
