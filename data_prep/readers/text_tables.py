"""Records with a text out of Parquet files and Arrow files of both forms, a batch at a time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.column_types import is_binary, is_text_or_bytes, values_of
from data_prep.readers.lines import MAX_RECORD_BYTES, decoded, kind_of

_ROWS_AT_ONCE = 1024
_ID = "id"
_FILE_FORM = b"ARROW1"


def table_records(file: Path, field: str) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """(row from 1, {``field``: text, "id": id where there is one}) of a .parquet or .arrow file.

    Raises:
        ValueError: no column ``field``, or one that holds no text.
        pyarrow.ArrowException: the file is damaged.
    """
    if kind_of(file) == ".parquet":
        table = pq.ParquetFile(file)
        columns = _columns(file, table.schema_arrow, field)
        batches = table.iter_batches(_ROWS_AT_ONCE, columns=columns)
    else:
        batches = _arrow_batches(file, field)
    row = 0
    for batch in batches:
        ids = values_of(batch.column(_ID)) if _ID in batch.schema.names else [None] * len(batch)
        for name, text in zip(ids, _texts(batch.column(field)), strict=True):
            row += 1
            bad = next((value for value in (name, text) if isinstance(value, BadRecord)), None)
            yield row, bad or {_ID: name, field: text}


def _arrow_batches(file: Path, field: str) -> Iterator[pa.RecordBatch]:
    with pa.memory_map(str(file)) as source:
        is_file = source.read(len(_FILE_FORM)) == _FILE_FORM
        source.seek(0)
        reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
        columns = _columns(file, reader.schema, field)
        count = reader.num_record_batches if is_file else None
        batches = map(reader.get_batch, range(count)) if count is not None else iter(reader)
        for batch in batches:
            for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
                part = batch.select(columns).slice(start, _ROWS_AT_ONCE)
                part.validate()
                yield part


def _columns(file: Path, schema: pa.Schema, field: str) -> list[str]:
    if field not in schema.names:
        raise ValueError(
            f"{file} has no column {field!r}, its columns are {', '.join(schema.names) or 'none'}: "
            "name the one with the text with --field"
        )
    kind = schema.field(field).type
    if not is_text_or_bytes(kind):
        raise ValueError(
            f"the column {field!r} of {file} holds {kind}, no text: name another with --field"
        )
    return [field, _ID] if _ID in schema.names and field != _ID else [field]


def _texts(column: pa.Array) -> Iterator[str | BadRecord | None]:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_run_end_encoded(column.type):
        column = pc.run_end_decode(column)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = column.view(pa.binary() if pa.types.is_string(column.type) else pa.large_binary())
    elif not is_binary(column.type) or pa.types.is_dictionary(column.type):
        column = column.cast(pa.large_binary())
    column.validate(full=True)  # offsets that lead out of the data would be read as they are
    for value in column:
        size = value.as_buffer().size if value.is_valid else 0
        if size > MAX_RECORD_BYTES:
            told = f"a text of {size:,} bytes, at most {MAX_RECORD_BYTES:,} are read"
            yield BadRecord(Reason.TOO_LARGE, told)
        else:
            yield decoded(value.as_py()) if value.is_valid else None
