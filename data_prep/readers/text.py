"""Documents out of text files, JSON lines, tables, tars and saved Hugging Face datasets.

A ``.txt`` file holds one document per paragraph if a blank line stands in its first MiB, else one
per line; a ``.tsv`` row is ``id<TAB>text``, or what its header says. See
`data_prep.readers.text_sources` for what a source may be.
"""

import json
import lzma
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import pyarrow as pa

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.encoding import utf8_stream
from data_prep.readers.left_out import LeftOut, Tally
from data_prep.readers.lines import (
    MAX_RECORD_BYTES,
    bounded_lines,
    decoded,
    kind_of,
    unpacked,
)
from data_prep.readers.text_rows import row_records
from data_prep.readers.text_sources import ROWS, TABLES, TARS, text_files
from data_prep.readers.text_tables import table_records
from data_prep.readers.text_tars import tar_records

_PROBE = 1 << 20
_Records = Iterator[tuple[int, Any]]
"""(line or number, dict or text or BadRecord)"""


class Document(NamedTuple):
    """One text with an id that no other document of the build has."""

    id: str
    text: str
    source: str
    line: int


class DocumentReader:
    """Iterates over the documents of files, and over entries for what is left out or unreadable.

    Every iteration begins anew. ``bytes_read`` of ``total_bytes`` says how far the last one is.
    """

    def __init__(self, paths: Sequence[Path], field: str = "text") -> None:
        self._beside = Tally()
        self._files = [file for path in paths for file in text_files(path, self._beside)]
        self._field = field
        self._ids: set[str] = set()
        self._opened = 0
        self._raw: IO[bytes] | None = None
        self.guesses: list[str] = []
        """How files were read that may be read otherwise too."""
        self.total_bytes = sum(file.stat().st_size for file in self._files)

    @property
    def bytes_read(self) -> int:
        """Of the files as they lie on the disk, packed ones too."""
        return self._opened + (self._raw.tell() if self._raw else 0)

    def __iter__(self) -> Iterator[Document | Bad]:
        self._ids.clear()
        self._opened = 0
        yield from self._beside.entries()
        names = Counter(file.name for file in self._files)
        for number, file in enumerate(self._files):
            label = file.name if names[file.name] == 1 else f"{number}/{file.name}"
            within = Tally()
            try:
                for line, record in self._records(file):
                    if isinstance(record, LeftOut):
                        within.add(file, record)
                    else:
                        yield self._document(file, label, line, record)
            except (
                EOFError,
                OSError,
                lzma.LZMAError,
                zlib.error,
                pa.ArrowException,
                tarfile.TarError,
            ) as error:
                raise ValueError(f"{file} is damaged: {error}") from error
            yield from within.entries()
            self._raw = None
            self._opened += file.stat().st_size

    def _records(self, file: Path) -> _Records:
        kind = kind_of(file)
        if kind in TABLES:
            return table_records(file, self._field)
        return self._unpacked_records(file, kind)

    def _unpacked_records(self, file: Path, kind: str) -> _Records:
        with file.open("rb") as raw, unpacked(raw, file) as packed:
            self._raw = raw
            if kind in TARS:
                yield from tar_records(packed, file, self._field)
                self._raw = None
                return
            stream = utf8_stream(packed, file)
            if kind == ".jsonl":
                yield from _each(bounded_lines(stream), parse_object)
            elif kind in ROWS:
                lines = ((n, _text(line)) for n, line in bounded_lines(stream))
                yield from row_records(lines, file, self._field, self._guessed)
            elif b"\n\n" in _start_of(file).replace(b"\r", b""):
                yield from _paragraphs(stream)
            else:
                yield from _each(bounded_lines(stream), decoded)
            self._raw = None

    def _guessed(self, guess: str) -> None:
        if guess not in self.guesses:  # every iteration guesses the same
            self.guesses.append(guess)

    def _document(self, file: Path, label: str, line: int, record: Any) -> Document | Bad:
        try:
            if isinstance(record, BadRecord):
                raise record
            text, name = record, f"{label}:{line}"
            if isinstance(record, dict):
                given = record.get("id")
                text, name = record.get(self._field), name if given is None else str(given)
            if not isinstance(text, str):
                raise BadRecord(Reason.MISSING_FIELD, f"no text in the field {self._field!r}")
            if not text.strip():
                raise BadRecord(Reason.EMPTY_TEXT, "nothing but white space")
            if name in self._ids:
                raise BadRecord(Reason.DUPLICATE_ID, f"id {name!r} was there before")
        except BadRecord as error:
            return error.at(str(file), line, raw=record)
        if isinstance(record, dict):  # ids that were made here cannot come twice
            self._ids.add(name)
        return Document(name, text, str(file), line)


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line.

    Raises:
        BadRecord: not UTF-8, not JSON, or not an object.
    """
    text = decoded(line)
    if isinstance(text, BadRecord):
        raise text
    try:
        value = json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also numbers of 4300 digits and more
        raise BadRecord(Reason.BAD_JSON, str(error), line) from error
    if not isinstance(value, dict):
        raise BadRecord(Reason.BAD_JSON, f"{type(value).__name__} instead of an object", line)
    if "\\u" in text:
        check_surrogates(value)
    return value


def check_surrogates(value: object) -> None:
    """Half a character, which JSON can write (``"\\ud83d"``), is no text.

    Raises:
        BadRecord: bad_utf8.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRecord(Reason.BAD_UTF8, str(error), value) from error


def _start_of(file: Path) -> bytes:
    with file.open("rb") as raw, unpacked(raw, file) as stream:
        return utf8_stream(stream, file).read(_PROBE)


def _text(line: bytes | BadRecord) -> str | BadRecord:
    return line if isinstance(line, BadRecord) else decoded(line)


def _each(lines: Iterable[tuple[int, Any]], read: Any) -> _Records:
    """What ``read`` makes of every line that is not blank."""
    for number, line in lines:
        if isinstance(line, BadRecord):
            yield number, line
        elif line.strip():
            try:
                yield number, read(line)
            except BadRecord as error:
                yield number, error


def _paragraphs(stream: IO[bytes]) -> _Records:
    lines: list[bytes] = []
    first = size = 0  # the size goes on counting where lines are no longer kept
    for number, line in bounded_lines(stream):
        if isinstance(line, bytes) and not line.strip():
            yield from _paragraph(first, lines, size)
            lines, size = [], 0
            continue
        first = first if size else number
        size += len(line) if isinstance(line, bytes) else MAX_RECORD_BYTES + 1
        if size <= MAX_RECORD_BYTES:
            lines.append(line)
    yield from _paragraph(first, lines, size)


def _paragraph(first: int, lines: list[bytes], size: int) -> _Records:
    if size > MAX_RECORD_BYTES:
        told = f"a paragraph of more than the {MAX_RECORD_BYTES:,} bytes that are read"
        yield first, BadRecord(Reason.TOO_LARGE, told)
    elif size:
        yield first, decoded(b"".join(lines))
