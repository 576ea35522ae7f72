"""Where in a file the bytes of a picture lie, and how they are read from there.

A picture is a file of its own, a range of bytes of one (a member of an uncompressed tar, a value in
an uncompressed Arrow file), or a row of a Parquet file. Nothing is ever unpacked to the disk.
"""

import os
from collections import deque
from collections.abc import Iterator
from threading import Lock
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.quarantine import BadRecord, Reason

MAX_PICTURE_BYTES = 256 << 20
"""Of an encoded picture; a larger one is a mistake or an attack."""

_BATCH_ROWS = 16  # of a Parquet file, decoded at a time
_BATCHES_KEPT = 4  # threads do not ask for rows in exact order


class Range(NamedTuple):
    """A part of a file."""

    offset: int
    length: int  # bytes


class Row(NamedTuple):
    """A value in a Parquet file."""

    group: int
    row: int  # within the row group
    column: str  # "jpg", or "image.bytes" of a struct


def read_place(path: str, place: Range | Row | None) -> bytes:
    """The bytes at ``place`` in the file ``path``; None stands for the whole file.

    Raises:
        BadRecord: too_large, missing_image, or broken_archive where the file does not hold them.
    """
    if isinstance(place, Row):
        return _CURSOR.value(path, place)
    with open(path, "rb") as file:
        offset, length = place or Range(0, os.fstat(file.fileno()).st_size)
        if length > MAX_PICTURE_BYTES:
            detail = f"{length:,} bytes of a picture, at most {MAX_PICTURE_BYTES:,}"
            raise BadRecord(Reason.TOO_LARGE, detail)
        file.seek(offset)
        data = file.read(length)
    if len(data) != length:
        detail = f"{path} ends within the picture: {len(data):,} of {length:,} bytes are there"
        raise BadRecord(Reason.BROKEN_ARCHIVE, detail)
    return data


class _Cursor:
    """Goes through a column of a row group: rows come in order, so each is decoded once."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._at = ("", -1, "")  # path, row group, column
        self._values: Iterator[pa.Array] = iter(())
        self._read = 0
        self._kept: deque[tuple[int, pa.Array]] = deque(maxlen=_BATCHES_KEPT)

    def value(self, path: str, place: Row) -> bytes:
        try:
            with self._lock:
                value = self._find(path, place)
        except (OSError, ValueError, pa.ArrowException, StopIteration) as error:
            self._at = ("", -1, "")
            detail = f"{path}, row group {place.group}: {error or 'fewer rows than it says'}"
            raise BadRecord(Reason.BROKEN_ARCHIVE, detail) from error
        if value is None:
            raise BadRecord(Reason.MISSING_IMAGE, f"no bytes in the column {place.column!r}")
        if len(value) > MAX_PICTURE_BYTES:
            raise BadRecord(Reason.TOO_LARGE, f"{len(value):,} bytes of a picture")
        return value

    def _find(self, path: str, place: Row) -> bytes | None:
        wanted = (path, place.group, place.column)
        if wanted != self._at or (self._kept and place.row < self._kept[0][0]):
            self._at, self._read = wanted, 0
            self._kept.clear()
            self._values = _column(path, place)
        while True:
            for first, values in self._kept:
                if first <= place.row < first + len(values):
                    return values[place.row - first].as_py()
            batch = next(self._values)
            self._kept.append((self._read, batch))
            self._read += len(batch)


_CURSOR = _Cursor()


def _column(path: str, place: Row) -> Iterator[pa.Array]:
    with pq.ParquetFile(path, buffer_size=1 << 20) as file:
        groups, columns = [place.group], [place.column]
        for batch in file.iter_batches(_BATCH_ROWS, row_groups=groups, columns=columns):
            values = batch.column(0)
            for name in place.column.split(".")[1:]:
                values = pc.struct_field(values, name)
            yield values
