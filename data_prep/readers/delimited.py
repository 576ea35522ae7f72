"""Rows of text tables: cut at a delimiter, with fields in double quotes or without.

Excel, pandas and `csv` put a field in quotes that holds a delimiter, a quote or the end of a line.
Tables between tabs or bars come from them, or from tools that know no quotes and write those of the
text as they are. A file is one or the other: `dialect_of` decides, and says when it had to guess.
"""

import csv
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from data_prep.quarantine import BadRecord, Reason

COMMA, SEMICOLON, TAB, BAR = ",", ";", "\t", "|"
_ALWAYS_QUOTED = (COMMA, SEMICOLON)
_QUOTE = '"'
_MAX_FIELD = 131_072  # characters

Lines = Iterator[tuple[int, str | BadRecord]]
"""(number, line with its end)"""


class Dialect(NamedTuple):
    """How the rows of a file are to be cut."""

    delimiter: str
    quoted: bool
    guess: str = ""  # what to tell, where the file may also be read otherwise


def dialect_of(
    read: Callable[[], Lines], delimiter: str, columns: int, max_field: int = _MAX_FIELD
) -> Dialect:
    """The dialect of a file, by all of it: that in which more rows have the ``columns``.

    Where both fit, what only quotes can hold (a quote twice), or a column in which all fields stand
    in quotes, speaks for tools that write them.

    Args:
        read: begins with the first line again.
    """
    if delimiter in _ALWAYS_QUOTED:
        return Dialect(delimiter, True)
    plain = _Plain(delimiter, columns)
    for number, line in read():
        if isinstance(line, str):
            plain.see(number, line)
    if not plain.opening:
        return Dialect(delimiter, False)
    rows = (row for _, row in _quoted_rows(read(), delimiter, max_field))
    score = sum(1 if isinstance(row, list) and len(row) == columns else -1 for row in rows)
    quoted = score > plain.score or (score == plain.score and plain.speaks_for_quotes)
    told = f"line {plain.opening} begins a field with a double quote"
    way = "hold fields together, as Excel and pandas write them" if quoted else "are text"
    return Dialect(delimiter, quoted, f"{told}: taken for a file in which quotes {way}")


def table_rows(
    lines: Lines, dialect: Dialect, max_field: int = _MAX_FIELD
) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """(line on which it begins, fields) of every row that is not blank. A row that cannot be read
    costs its first line alone, and in quoted fields ``max_field`` characters are the most."""
    if dialect.quoted:
        yield from _quoted_rows(lines, dialect.delimiter, max_field)
        return
    for number, line in lines:
        if isinstance(line, BadRecord):
            yield number, line
        elif line.strip("\r\n "):
            yield number, line.rstrip("\r\n").split(dialect.delimiter)


def fields_of(line: str, delimiter: str) -> list[str]:
    """The fields of a header, without spaces and quotes around them."""
    try:
        fields = next(_csv_rows([line], delimiter), [])
    except csv.Error:
        fields = line.split(delimiter)
    return [field.strip().strip(_QUOTE).strip() for field in fields]


class _Plain:
    """What a file looks like if quotes are text."""

    def __init__(self, delimiter: str, columns: int) -> None:
        self._delimiter, self._columns = delimiter, columns
        self._rows = 0  # of so many columns
        self._enclosed = [0] * columns  # fields in quotes by column
        self._needed = False  # has a field in quotes what must stand in them?
        self.opening = 0  # the first line with a field that begins with a quote
        self.score = 0  # rows of so many columns less rows of others

    def see(self, number: int, line: str) -> None:
        """Counts one more line."""
        if not line.strip("\r\n "):
            return
        good = line.count(self._delimiter) + 1 == self._columns
        self.score += 1 if good else -1
        self._rows += good
        if _QUOTE not in line:
            return
        for column, field in enumerate(line.rstrip("\r\n").split(self._delimiter)):
            if field.startswith(_QUOTE):
                self.opening = self.opening or number
                inner = field[1:-1] if len(field) > 1 and field.endswith(_QUOTE) else None
                if inner is None or _QUOTE in inner.replace(_QUOTE * 2, ""):
                    continue
                self._needed = self._needed or _QUOTE in inner or "\r" in inner
                if good:
                    self._enclosed[column] += 1

    @property
    def speaks_for_quotes(self) -> bool:
        return self._needed or (self._rows > 0 and self._rows in self._enclosed)


def _quoted_rows(
    lines: Lines, delimiter: str, max_field: int
) -> Iterator[tuple[int, list[str] | BadRecord]]:
    waiting: deque[tuple[int, str]] = deque()  # lines of a row that could not be read
    taken: list[tuple[int, str]] = []  # lines of the row that is being read
    bad: list[tuple[int, BadRecord]] = []

    def good() -> Iterator[str]:
        for number, line in _first(waiting, lines):
            if isinstance(line, BadRecord):
                bad.append((number, line))
            else:
                taken.append((number, line))
                yield line

    reader = _csv_rows(good(), delimiter)
    row: list[str] | BadRecord | None = []
    while row is not None:
        taken.clear()
        csv.field_size_limit(max_field)  # one for the process: others may have set theirs
        try:
            row = next(reader, None)
        except csv.Error as error:
            row = _unreadable(taken, error)
            waiting.extendleft(reversed(taken[1:]))
            reader = _csv_rows(good(), delimiter)
        yield from bad
        bad.clear()
        if row:
            yield taken[0][0], row


def _csv_rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    """The rows; people write a space behind commas, before a quote that opens a field, too."""
    spaced = delimiter in _ALWAYS_QUOTED
    return csv.reader(lines, delimiter=delimiter, strict=True, skipinitialspace=spaced)


def _first(waiting: deque[tuple[int, str]], lines: Lines) -> Lines:
    """Those that wait, then the others; again those where some wait once more."""
    while waiting:
        yield waiting.popleft()
    for entry in lines:
        yield entry
        while waiting:
            yield waiting.popleft()


def _unreadable(taken: list[tuple[int, str]], error: csv.Error) -> BadRecord:
    first, last = taken[0][0], taken[-1][0]
    if last > first:
        detail = f"a quoted field that ends neither here nor in a good row by line {last}: {error}"
        return BadRecord(Reason.BAD_RECORD, detail, taken[0][1])
    reason = Reason.TOO_LARGE if "limit" in str(error) else Reason.BAD_RECORD
    return BadRecord(reason, f"line {first}: {error}", taken[0][1])
