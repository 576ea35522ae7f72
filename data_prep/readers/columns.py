"""Pictures and captions out of Parquet and Arrow: values of a column, or files that it names.

What columns mean is told by their names and types:

* picture: binary, or a struct with ``bytes`` (as `datasets` writes images), called image, img, jpg,
  jpeg, png, webp or picture; else text called image, image_path, file_name, filename, filepath or
  path; else ``key`` (img2dataset's; ``KEY.jpg`` beside the file or in a folder called like it);
  else ``url`` (found by the rules of Conceptual Captions but for the last).
* captions: text or a list of texts, called captions, caption, sentences, TEXT or text.
* ``split``, and img2dataset's ``status``, of which only "success" is taken.
"""

from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.caption_tables import url_names
from data_prep.readers.images import Picture
from data_prep.readers.left_out import LeftOut
from data_prep.readers.places import Range, Row
from data_prep.readers.records import Record
from data_prep.readers.sidecars import CAPTION_FIELDS, SUCCESS

_PICTURES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture")
_NAMES = ("image", "image_path", "file_name", "filename", "filepath", "path")
_KEYS, _URLS = ("key", "__key__"), ("url", "URL")
_CAPTIONS = (*CAPTION_FIELDS[:2], "sentences", *CAPTION_FIELDS[2:])
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
_BATCH_ROWS = 4096
_PROBED = 16  # rows
_ARROW_FILE = b"ARROW1"


class Columns(NamedTuple):
    """Names of the columns that hold what, empty where none does; or the values in them."""

    data: Any  # the pictures themselves, "image" or "image.bytes"
    name: Any  # their names, "image" or "image.path"
    key: Any
    url: Any
    caption: Any
    split: Any
    status: Any


class _File(NamedTuple):
    """The file that rows lie in."""

    path: Path
    label: str  # what the ids of its pictures begin with
    columns: Columns
    size: int
    changed_ns: int


def columns_of(schema: pa.Schema, file: Path) -> Columns:
    """What the columns of a table mean.

    Raises:
        ValueError: none of them tells of a picture.
    """
    types = {field.name: field.type for field in schema}

    def first(names: tuple[str, ...], fits: Callable[[pa.DataType], bool]) -> str:
        return next((name for name in names if name in types and fits(types[name])), "")

    data, name = first(_PICTURES, _is_binary), first(_NAMES, _is_text)
    if struct := first(_PICTURES, _has_bytes):
        data = f"{struct}.bytes"
        name = f"{struct}.path" if types[struct].get_field_index("path") >= 0 else ""
    found = Columns(
        data=data,
        name=name,
        key=first(_KEYS, _is_text),
        url=first(_URLS, _is_text),
        caption=first(_CAPTIONS, _is_said),
        split=first(("split",), _is_text),
        status=first(("status",), _is_text),
    )
    if not any((found.data, found.name, found.key, found.url)):
        raise ValueError(
            f"{file} has the columns {', '.join(types) or 'none'}; expected pictures in one of "
            f"{', '.join(_PICTURES)}, or their names in one of {', '.join((*_NAMES, 'key', 'url'))}"
        )
    return found


def parquet_records(file: Path, label: str) -> Iterator[Record | Bad | LeftOut]:
    """The rows of a Parquet file; a picture in it is called ``label#row``, rows from 0.

    Raises:
        ValueError: no Parquet, damaged, or without pictures.
    """
    try:
        with pq.ParquetFile(file) as table:
            rows = _file(file, label, table.schema_arrow)
            number = 0
            for group in range(table.num_row_groups):
                held = _holds_values(table, group, rows.columns)
                for row, values in enumerate(_group_rows(table, group, rows.columns, rows.size)):
                    place = Row(group, row, rows.columns.data) if held else None
                    yield _entry(rows, number, values, place)
                    number += 1
    except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no Parquet file, or damaged: {error}") from error


def arrow_records(file: Path, label: str) -> Iterator[Record | Bad | LeftOut]:
    """The rows of an uncompressed Arrow IPC file or stream, named like those of Parquet.

    Raises:
        ValueError: no Arrow, damaged, compressed, or without pictures.
    """
    try:
        with pa.memory_map(str(file)) as mapped:
            whole = mapped.read_buffer()
            schema, batches = _batches(whole)
            rows = _file(file, label, schema)
            number = 0
            for batch in batches:
                batch.validate(full=True)  # offsets that lie would be followed anywhere
                places = _ranges(batch, rows.columns.data, whole, file)
                for place, values in zip(places, _batch_rows(batch, rows.columns), strict=True):
                    yield _entry(rows, number, values, place)
                    number += 1
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
        if values.status is not None and values.status != SUCCESS:
            return LeftOut(f"status {values.status!r:.40}")
        captions, split = _captions(values.caption), str(values.split or "")
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


def _captions(value: Any) -> tuple[Any, ...]:
    if isinstance(value, list):
        return tuple(part.get("raw") if isinstance(part, dict) else part for part in value)
    return () if value is None else (value,)


def _file(path: Path, label: str, schema: pa.Schema) -> _File:
    state = path.stat()
    return _File(path, label, columns_of(schema, path), state.st_size, state.st_mtime_ns)


def _holds_values(table: pq.ParquetFile, group: int, columns: Columns) -> bool:
    """Are there pictures in the row group? Its first rows tell: the statistics of a damaged file
    end the process when they are asked for."""
    if not columns.data or not columns.name:
        return bool(columns.data)
    first = next(table.iter_batches(_PROBED, row_groups=[group], columns=[columns.data]), None)
    return first is not None and _column(first, columns.data).null_count < first.num_rows


def _group_rows(
    table: pq.ParquetFile, group: int, columns: Columns, size: int
) -> Iterator[Columns]:
    wanted = [name for name in columns[1:] if name]
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
    found = [_values(_column(batch, name)) if name else nothing for name in columns[1:]]
    return (Columns(None, *row) for row in zip(*found, strict=True))


def _column(batch: pa.RecordBatch, name: str) -> pa.Array:
    first, *rest = name.split(".")
    values = batch.column(first)
    for part in rest:
        values = pc.struct_field(values, part)
    return values


def _values(array: pa.Array) -> list[Any]:
    try:
        return array.to_pylist()
    except UnicodeDecodeError:
        return [_value(item) for item in array]


def _value(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError as error:
        return BadRecord(Reason.BAD_UTF8, str(error))


def _batches(whole: pa.Buffer) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    stream = pa.BufferReader(whole)
    if whole[: len(_ARROW_FILE)].to_pybytes() != _ARROW_FILE:
        reader = pa.ipc.open_stream(stream)
        return reader.schema, iter(reader)
    file = pa.ipc.open_file(stream)
    return file.schema, (file.get_batch(number) for number in range(file.num_record_batches))


def _ranges(
    batch: pa.RecordBatch, column: str, whole: pa.Buffer, file: Path
) -> Iterator[Range | None]:
    """Where in the file the values of a column of bytes lie; None where there is none."""
    if not column:
        yield from repeat(None, batch.num_rows)
        return
    values = _column(batch, column)
    valid = values.is_valid().to_pylist()
    _, offsets, data = values.buffers()
    start = data.address - whole.address if data else 0
    if data and not 0 <= start <= whole.size - data.size:
        raise ValueError(f"{file} is compressed: save it uncompressed, as `save_to_disk` does")
    width = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    count = offsets.size // width().itemsize  # validated to be enough
    ends = np.frombuffer(offsets, width, count)[values.offset :][: len(values) + 1].tolist()
    for number, is_there in enumerate(valid):
        begin, end = ends[number], ends[number + 1]
        yield Range(start + begin, end - begin) if is_there else None


def _is_binary(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _has_bytes(kind: pa.DataType) -> bool:
    if not pa.types.is_struct(kind) or kind.get_field_index("bytes") < 0:
        return False
    return _is_binary(kind.field("bytes").type)


def _is_said(kind: pa.DataType) -> bool:
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
        if pa.types.is_struct(kind) and kind.get_field_index("raw") >= 0:
            kind = kind.field("raw").type
    return _is_text(kind)
