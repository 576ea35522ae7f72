"""Texts out of .tsv and .csv: an id and a text on a row, or what a header names."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.delimited import COMMA, SEMICOLON, TAB, Lines, dialect_of, table_rows
from data_prep.readers.delimited import fields_of as fields_in
from data_prep.readers.fields import named
from data_prep.readers.lines import MAX_RECORD_BYTES, kind_of, text_lines
from data_prep.readers.text_sources import CSV

_ID = "id"


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
    _, first = next(text_lines(file), (0, ""))
    delimiter, names = _header(first if isinstance(first, str) else "", field)
    if not delimiter:
        if kind_of(file) == CSV:
            raise ValueError(
                f"{file}, line 1: expected a header with a column {field!r} between commas, "
                f"semicolons or tabs, found {first!r:.80}: name the one with the text with --field"
            )
        delimiter, names = TAB, []
    columns = len(names) or 2
    dialect = dialect_of(partial(text_lines, file), delimiter, columns)
    if dialect.guess:
        on_guess(f"{file}: {dialect.guess}")
    text_at = names.index(named(names, [field.lower()])) if names else 1
    name = named(names, [_ID])
    id_at = names.index(name) if name else -1 if names else 0
    for line, row in table_rows(lines, dialect, MAX_RECORD_BYTES):
        if isinstance(row, BadRecord):
            yield line, row
        elif names and line == 1:
            continue
        elif len(row) != columns:
            expected = f"the header has {columns}" if names else "expected 2: id, tab, text"
            told = f"{len(row)} columns, {expected}"
            yield line, BadRecord(Reason.BAD_RECORD, told, TAB.join(row))
        else:
            yield line, {_ID: row[id_at] if id_at >= 0 else None, field: row[text_at]}


def _header(line: str, field: str) -> tuple[str, list[str]]:
    """What cuts the header and the names in it; both empty where the line is none."""
    for delimiter in (TAB, COMMA, SEMICOLON):
        names = fields_in(line, delimiter)
        if len(names) > 1 and named(names, [field.lower()]):
            return delimiter, names
    return "", []
