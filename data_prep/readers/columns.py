"""Pictures and captions out of Parquet and Arrow: values of a column, or files that it names.

What columns mean is told by their names (`data_prep.readers.fields`) and types:

* picture: binary, or a struct with ``bytes`` (as `datasets` writes images); else text with its
  name; else ``key`` (img2dataset's; ``KEY.jpg`` beside the file or in a folder called like it);
  else ``url`` (found by the rules of Conceptual Captions but for the last). Rows without bytes are
  those that a name is looked at for.
* captions: text, a struct with one in a field such as ``raw``, a list of either, or a series of
  columns of them.
* ``split``, and img2dataset's ``status``, of which only success is taken.
"""

from collections.abc import Callable, Iterator
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.arrow_places import Compressed, value_ranges
from data_prep.readers.caption_tables import url_names
from data_prep.readers.column_types import (
    is_binary,
    is_captions,
    is_status,
    is_text,
    is_text_or_bytes,
    struct_field,
    values_of,
)
from data_prep.readers.fields import (
    IMAGE_NAMES,
    KEYS,
    PICTURES,
    SPLITS,
    SPOKEN,
    STATUSES,
    URLS,
    all_captions,
    caption_fields,
    named,
    not_downloaded,
)
from data_prep.readers.images import Picture
from data_prep.readers.left_out import LeftOut
from data_prep.readers.places import Range, Row
from data_prep.readers.records import Record

_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_BATCH_ROWS = 4096
_PICTURE_ROWS = 16  # of pictures at a time
_ARROW_FILE = b"ARROW1"


class Columns(NamedTuple):
    """Names of the columns that hold what, empty where none does; or the values in them."""

    data: Any  # the pictures themselves, "image" or "image.bytes"
    name: Any  # their names, "image" or "image.path"
    key: Any
    url: Any
    captions: Any  # of one column, or of a series
    split: Any
    status: Any


class _File(NamedTuple):
    """The file that rows lie in."""

    path: Path
    label: str  # what the ids of its pictures begin with
    columns: Columns
    size: int
    changed_ns: int


def columns_of(schema: pa.Schema, file: Path, captioned: bool = True) -> Columns:
    """What the columns of a table mean.

    Raises:
        ValueError: none of them tells of a picture, or it is to be ``captioned`` and the column of
            captions holds something else.
    """
    types = {field.name: field.type for field in schema}

    def first(names: tuple[str, ...], fits: Callable[[pa.DataType], bool]) -> str:
        return named((name for name, kind in types.items() if fits(kind)), names)

    data, name = first(PICTURES, is_binary), first(IMAGE_NAMES, is_text)
    if struct := first(PICTURES, lambda kind: struct_field(kind, "bytes", is_binary)):
        data = f"{struct}.bytes"
        name = f"{struct}.path" if struct_field(types[struct], "path", is_text) else ""
    elif not data and not name:
        struct = first(PICTURES, lambda kind: struct_field(kind, "path", is_text))
        name = f"{struct}.path" if struct else ""
    found = Columns(
        data=data,
        name=name,
        key=first(KEYS, is_text_or_bytes),
        url=first(URLS, is_text_or_bytes),
        captions=_caption_columns(types, file, captioned),
        split=first(SPLITS, is_text_or_bytes),
        status=first(STATUSES, is_status),
    )
    if not any((found.data, found.name, found.key, found.url)):
        raise ValueError(
            f"{file} has the columns {', '.join(types) or 'none'}; expected pictures in one of "
            f"{', '.join(PICTURES)}, or their names in one of "
            f"{', '.join((*IMAGE_NAMES, *KEYS[:1], *URLS))}"
        )
    return found


def _caption_columns(types: dict[str, pa.DataType], file: Path, captioned: bool) -> tuple[str, ...]:
    names = caption_fields(types)
    other = next((name for name in names if not is_captions(types[name])), "")
    if not other:
        return names
    if not captioned:
        return ()
    raise ValueError(
        f"{file}: the column {other!r} holds {types[other]}; expected captions, as text, as struct "
        f"with a text in {', '.join(SPOKEN)}, or as a list of either: rename it if it holds no "
        "captions, else convert it"
    )


def parquet_records(
    file: Path, label: str, captioned: bool = True
) -> Iterator[Record | Bad | LeftOut]:
    """The rows of a Parquet file; a picture in it is called ``label#row``, rows from 0.

    Raises:
        ValueError: no Parquet, damaged, or without pictures.
    """
    try:
        with pq.ParquetFile(file) as table:
            rows = _file(file, label, table.schema_arrow, captioned)
            number = 0
            for group in range(table.num_row_groups):
                held = _held(table, group, rows.columns)
                for row, values in enumerate(_group_rows(table, group, rows.columns, rows.size)):
                    place = Row(group, row, rows.columns.data) if next(held) else None
                    yield _entry(rows, number, values, place)
                    number += 1
    except (OSError, pa.ArrowException, UnicodeDecodeError, StopIteration) as error:
        raise ValueError(f"{file} is no Parquet file, or damaged: {error}") from error


def arrow_records(
    file: Path, label: str, captioned: bool = True
) -> Iterator[Record | Bad | LeftOut]:
    """The rows of an uncompressed Arrow IPC file or stream, named like those of Parquet.

    Raises:
        ValueError: no Arrow, damaged, compressed, or without pictures.
    """
    try:
        with pa.memory_map(str(file)) as mapped:
            whole = mapped.read_buffer()
            schema, batches = _batches(whole)
            rows = _file(file, label, schema, captioned)
            number = 0
            for batch in batches:
                batch.validate(full=True)  # offsets that lie would be followed anywhere
                places = _places(batch, rows.columns.data, whole)
                for place, values in zip(places, _batch_rows(batch, rows.columns), strict=True):
                    yield _entry(rows, number, values, place)
                    number += 1
    except Compressed as error:
        raise ValueError(
            f"{file} is compressed: save it uncompressed, as `save_to_disk` does"
        ) from error
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no Arrow file, or damaged: {error}") from error


def _entry(
    file: _File, row: int, values: Columns, place: Range | Row | None
) -> Record | Bad | LeftOut:
    """``values`` holds what stands in the columns that it is named after."""
    name = f"{file.label}#{row}"
    try:
        for value in values:
            if isinstance(value, BadRecord):
                raise value
        if left_out := not_downloaded(values.status):
            return LeftOut(left_out)
        captions, split = all_captions(values.captions or ()), str(values.split or "")
        if captions and all(isinstance(caption, BadRecord) for caption in captions):
            raise captions[0]
        names = _names(file, row, values)
        if place is None and not names:
            raise BadRecord(Reason.MISSING_IMAGE, "neither a picture nor its name in the row")
    except BadRecord as error:
        return error.at(str(file.path), row + 1, name)
    if place is None:
        url = str(values.url or "")
        return Record(names[0], captions, row + 1, split, names[1:], subject=url)
    stamp = file.size, file.changed_ns
    picture = Picture(name, str(file.path), str(file.path), row + 1, *stamp, place)
    own = names[0] if names else ""
    return Record(name, captions, row + 1, split, names[:1], picture, subject=own)


def _names(file: _File, row: int, values: Columns) -> tuple[str, ...]:
    if values.name:
        return (str(values.name),)
    if values.key:
        folders = ("", f"{file.path.stem}/")
        return tuple(f"{f}{values.key}{suffix}" for f in folders for suffix in _SUFFIXES)
    return tuple(url_names(row, values.url)) if values.url else ()


def _file(path: Path, label: str, schema: pa.Schema, captioned: bool) -> _File:
    state = path.stat()
    return _File(path, label, columns_of(schema, path, captioned), state.st_size, state.st_mtime_ns)


def _held(table: pq.ParquetFile, group: int, columns: Columns) -> Iterator[bool]:
    """For every row of the group: does it hold a picture?

    Where names stand beside pictures and the first rows all hold one, the others are taken to, and
    `data_prep.readers.pairs.picture_of` looks at those whose name is that of a file: else all of
    the pictures would be read to find those that are not there. The statistics in the file do not
    help: those of a damaged one end the process when they are asked for.
    """
    if not columns.data or not columns.name:
        return repeat(bool(columns.data))
    batches = table.iter_batches(_PICTURE_ROWS, row_groups=[group], columns=[columns.data])
    held = (_column(batch, columns.data).is_valid().to_pylist() for batch in batches)
    first = next(held, [])
    if first and all(first):
        return repeat(True)
    return chain(first, chain.from_iterable(held))


def _group_rows(
    table: pq.ParquetFile, group: int, columns: Columns, size: int
) -> Iterator[Columns]:
    one_each = (columns.name, columns.key, columns.url, columns.split, columns.status)
    wanted = [*filter(None, one_each), *columns.captions]
    if not wanted:
        rows = table.metadata.row_group(group).num_rows
        if rows > size:
            raise pa.ArrowInvalid(f"{rows:,} rows in {size:,} bytes")
        yield from repeat(Columns(*[None] * len(columns)), rows)
        return
    for batch in table.iter_batches(_BATCH_ROWS, row_groups=[group], columns=wanted):
        yield from _batch_rows(batch, columns)


def _batch_rows(batch: pa.RecordBatch, columns: Columns) -> Iterator[Columns]:
    """For every row what stands in the columns, but for the pictures themselves."""
    nothing = [None] * batch.num_rows

    def values(name: str) -> list[Any]:
        return values_of(_column(batch, name)) if name else nothing

    captions = list(zip(*map(values, columns.captions), strict=True)) or nothing
    found = [captions if name is columns.captions else values(name) for name in columns[1:]]
    return (Columns(None, *row) for row in zip(*found, strict=True))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    first, *rest = name.split(".")
    values = batch.column(first)
    for part in rest:
        values = pc.struct_field(values, part)
    return values


def _batches(whole: pa.Buffer) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    stream = pa.BufferReader(whole)
    if whole[: len(_ARROW_FILE)].to_pybytes() != _ARROW_FILE:
        reader = pa.ipc.open_stream(stream)
        return reader.schema, iter(reader)
    file = pa.ipc.open_file(stream)
    return file.schema, (file.get_batch(number) for number in range(file.num_record_batches))


def _places(batch: pa.RecordBatch, column: str, whole: pa.Buffer) -> Iterator[Range | None]:
    """Where in the file the pictures of a batch lie; None where there is none."""
    return value_ranges(_column(batch, column), whole) if column else repeat(None, batch.num_rows)
