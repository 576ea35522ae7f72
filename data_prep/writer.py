"""Files that appear whole or not at all, and the shards among them."""

import hashlib
import io
import os
import secrets
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import pyarrow as pa

from unimo_ds.data.schema import IMAGES, PAIRS, SCHEMAS, TEXTS, ShardRecord
from unimo_ds.storage import RemotePath
from unimo_ds.transfer import clear_errors

Folder = Path | RemotePath
"""Where a corpus lies: builders use no method that only one of the two has."""

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
def atomic_file(path: Folder) -> Iterator[HashingFile]:
    """A file that gets its name when it is complete and on the disk; nothing is left else.

    Raises:
        StorageError: the disk is full, or the upload failed as often as it was tried.
    """
    if isinstance(path, RemotePath):
        with _uploaded(path) as file:
            yield file
        return
    # a worker whose build was killed may still write: no two writers share a name
    mark = f".{os.getpid():x}-{secrets.token_hex(4)}{TEMPORARY_SUFFIX}"
    temporary = path.with_name(path.name + mark)
    try:
        with clear_errors(path):
            with temporary.open("wb") as raw:
                yield HashingFile(raw)
                raw.flush()
                os.fsync(raw.fileno())
            os.replace(temporary, path)
            _sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _uploaded(path: RemotePath) -> Iterator[HashingFile]:
    with (
        clear_errors(Path(tempfile.gettempdir()) / path.name),
        tempfile.TemporaryFile() as raw,  # has no name: a kill leaves nothing
    ):
        yield HashingFile(raw)
        raw.flush()
        path.put(raw)


def write_bytes(path: Folder, data: bytes) -> None:
    """Puts ``data`` into the file ``path``, whole or not at all."""
    with atomic_file(path) as file:
        file.write(data)


def sizes_in(folder: Folder) -> dict[str, int]:
    """Name -> bytes of the files in ``folder``, without its sub-folders."""
    if isinstance(folder, RemotePath):
        files = folder.files().items()
        return {path.name: state.st_size for path, state in files if path.parent == folder}
    return {path.name: path.stat().st_size for path in folder.iterdir() if path.is_file()}


def array_bytes(array: np.ndarray) -> bytes:
    """The content of an ``.npy`` file of ``array``."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    return buffer.getvalue()


def write_shard(
    folder: Folder, name: str, kind: str, rows: Iterable[dict[str, Any]]
) -> ShardRecord | None:
    """Writes ``rows`` (column name -> value, lists as numpy arrays) and their lengths.

    Rows may have ``units`` besides, bool [tokens of the row]: all of them, or none.

    Record batches go to the disk as they fill, so memory holds one of them. No rows, no shard.
    """
    remaining, lengths, units = iter(rows), [], []
    chunk = tuple(islice(remaining, ROWS_PER_BATCH[kind]))
    if not chunk:
        return None
    with atomic_file(folder / name) as file, pa.ipc.new_file(file, SCHEMAS[kind]) as writer:
        while chunk:
            writer.write_batch(record_batch(SCHEMAS[kind], chunk))
            lengths += [row_length(kind, row) for row in chunk]
            units += [row["units"] for row in chunk if "units" in row]
            chunk = tuple(islice(remaining, ROWS_PER_BATCH[kind]))
    lengths_file = _write_beside(folder, name, "lengths", np.array(lengths, dtype=np.int32))
    units_file = "", ""
    if units:
        assert [len(begins) for begins in units] == lengths
        units_file = _write_beside(folder, name, "units", np.packbits(np.concatenate(units)))
    return ShardRecord(
        name=name,
        rows=len(lengths),
        bytes=file.tell(),
        sha256=file.sha256,
        lengths=lengths_file[0],
        lengths_sha256=lengths_file[1],
        length_sum=sum(lengths),
        units=units_file[0],
        units_sha256=units_file[1],
    )


def _write_beside(folder: Folder, shard: str, what: str, array: np.ndarray) -> tuple[str, str]:
    """Name and SHA-256 of the file that was written."""
    name, data = f"{Path(shard).stem}.{what}.npy", array_bytes(array)
    write_bytes(folder / name, data)
    return name, hashlib.sha256(data).hexdigest()


def read_shard(path: Folder, columns: list[int] | None = None) -> pa.Table:
    """The rows of a shard, or some of their columns, memory-mapped if it is local."""
    with _opened(path) as file:
        options = pa.ipc.IpcReadOptions(included_fields=columns)
        return pa.ipc.open_file(file, options=options).read_all()


Version = tuple[int, int, int]
"""Of a file on this machine: another one after it was replaced."""


def version_of(path: Path) -> Version:
    """For caches of what was read: the same path may hold something else later."""
    told = path.stat()
    return told.st_ino, told.st_mtime_ns, told.st_size


def read_array(path: Folder) -> np.ndarray:
    """The array in an ``.npy`` file; never an object that was pickled."""
    with path.open("rb") as file:
        return np.load(file, allow_pickle=False)


def read_batches(path: Folder, columns: list[int] | None = None) -> Iterator[pa.RecordBatch]:
    """The record batches of a shard one by one: one of any size fits. Memory-mapped if it is local.

    Raises:
        ValueError: the file is no Arrow file.
    """
    options = pa.ipc.IpcReadOptions(included_fields=columns)
    try:
        with _opened(path) as file, pa.ipc.open_file(file, options=options) as reader:
            for number in range(reader.num_record_batches):
                yield reader.get_batch(number)
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no shard: {error}") from error


def shard_schema(path: Folder) -> pa.Schema:
    """The columns of a shard.

    Raises:
        ValueError: the file is no Arrow file.
    """
    try:
        with _opened(path) as file, pa.ipc.open_file(file) as reader:
            return reader.schema
    except pa.ArrowException as error:
        raise ValueError(f"{path} is no shard: {error}") from error


def _opened(path: Folder) -> pa.NativeFile:
    remote = isinstance(path, RemotePath)
    return pa.PythonFile(path.open(), "r") if remote else pa.memory_map(str(path))


def row_length(kind: str, row: dict[str, Any]) -> int:
    """What the lengths file says of a row: tokens, regions, or tokens of all captions."""
    if kind == TEXTS:
        return len(row["tokens"])
    if kind == IMAGES:
        return int(row["num_regions"])
    return sum(len(caption) for caption in row["captions"])


def record_batch(schema: pa.Schema, rows: Sequence[dict[str, Any]]) -> pa.RecordBatch:
    """The rows (column name -> value) as one record batch."""
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
        parts = [np.asarray(value, dtype=dtype) for value in values]
        flat = pa.array(np.concatenate([np.empty(0, dtype), *parts]))
    array = pa.LargeListArray if pa.types.is_large_list(kind) else pa.ListArray
    positions = pa.array(offsets if array is pa.LargeListArray else offsets.astype(np.int32))
    return array.from_arrays(positions, flat, type=kind)


def sha256_of(path: Folder) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
