"""Texts out of .tsv and .csv: an id and a text on a row, or what a header names."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.delimited import (
    COMMA,
    SEMICOLON,
    TAB,
    Lines,
    dialect_of,
    fields_of,
    table_rows,
)
from data_prep.readers.fields import named
from data_prep.readers.lines import MAX_RECORD_BYTES, kind_of, text_lines
from data_prep.readers.text_sources import CSV

_ID = "id"


class _Layout(NamedTuple):
    """Where the parts of a document stand in a row."""

    delimiter: str
    columns: int
    text: int
    id: int  # -1: rows have none
    has_header: bool


_ID_AND_TEXT = _Layout(TAB, 2, 1, 0, False)


def row_records(
    lines: Lines, file: Path, field: str, on_guess: Callable[[str], None]
) -> Iterator[tuple[int, dict[str, Any] | BadRecord]]:
    """(line, {"id": id, ``field``: text}) of the rows. The first line is a header if one of its
    fields is called ``field``; without it rows are id, tab, text.

    Args:
        lines: of ``file``, once; it is read as a whole before, to find out how it is quoted.

    Raises:
        ValueError: a .csv without a header that names the text.
    """
    layout = _layout(file, field)
    read = partial(text_lines, file)
    dialect = dialect_of(read, layout.delimiter, layout.columns, MAX_RECORD_BYTES)
    if dialect.guess:
        on_guess(f"{file}: {dialect.guess}")
    for line, row in table_rows(lines, dialect, MAX_RECORD_BYTES):
        if isinstance(row, BadRecord):
            yield line, row
        elif layout.has_header and line == 1:
            continue
        elif len(row) != layout.columns:
            expected = "as in the header" if layout.has_header else "id, tab, text"
            detail = f"{len(row)} columns, expected {layout.columns}: {expected}"
            yield line, BadRecord(Reason.BAD_RECORD, detail, TAB.join(row))
        else:
            name = row[layout.id] if layout.id >= 0 else ""
            yield line, {_ID: name if name.strip() else None, field: row[layout.text]}


def _layout(file: Path, field: str) -> _Layout:
    _, first = next(text_lines(file), (0, ""))
    is_csv = kind_of(file) == CSV
    for delimiter in (COMMA, SEMICOLON, TAB) if is_csv else (TAB,):
        names = fields_of(first, delimiter) if isinstance(first, str) else []
        if text := named(names, [field.lower()]):
            name = named(names, [_ID])
            at = names.index(name) if name else -1
            return _Layout(delimiter, len(names), names.index(text), at, True)
    if is_csv:
        raise ValueError(
            f"{file}, line 1: expected a header with a column {field!r} between commas, "
            f"semicolons or tabs, found {first!r:.80}: name the one with the text with --field"
        )
    return _ID_AND_TEXT
