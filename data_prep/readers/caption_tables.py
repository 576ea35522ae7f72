"""Captions out of tables: Flickr's token files, tables with a header, Conceptual Captions' TSV."""

import csv
import re
import zlib
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.images import is_url
from data_prep.readers.json_stream import MAX_RECORD
from data_prep.readers.lines import bounded_lines
from data_prep.readers.records import Record

IMAGE_COLUMNS = ("image", "image_name", "file_name", "filename", "filepath", "image_path", "path")
CAPTION_COLUMNS = ("caption", "comment", "text", "title")

_DELIMITERS = ("|", ",", "\t")
_QUOTED = ","  # the tables with | and tabs in circulation hold lone quotes as text
_URL_COLUMNS = frozenset(("url", "image_url"))
_TOKEN = re.compile(r"([^\t]+)#\d+\t(.*)", re.DOTALL)
_ROWS_PER_FOLDER = 10_000
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class _Said(NamedTuple):
    """One caption."""

    line: int
    image: str
    caption: str


class Header(NamedTuple):
    """Which columns a table has and where its picture and caption stand."""

    delimiter: str
    columns: int
    image: int
    caption: int


def token_records(file: Path) -> Iterator[Record | Bad]:
    """Flickr8k's and Flickr30k's ``name.jpg#0<TAB>caption``."""
    return _grouped(_token_lines(file), str(file))


def csv_records(file: Path) -> Iterator[Record | Bad]:
    """Tables whose header names a column of pictures and one of captions, cut by ``|``, commas or
    tabs; quotes as in CSV where commas cut.

    Raises:
        ValueError: the first line is no such header.
    """
    return _grouped(_table_lines(file), str(file))


def conceptual_records(file: Path) -> Iterator[Record | Bad]:
    """Conceptual Captions: ``caption<TAB>url`` (CC12M: ``url<TAB>caption``) or a path for the url.

    Nothing is fetched. The picture of row N (from 0, a header does not count) is the first that is
    there of: N_CRC (CRC-32 of the url, as downloaders of this set name it), with or without a
    suffix; AAAAA/BBBBBBBBB.jpg (A = N // 10,000, B = N, as img2dataset numbers them);
    BBBBBBBBB.jpg; the last part of the url's path, if no other url of the file ends the same.
    """
    shared = _shared_names(file)
    for row, (line, said) in enumerate(_tab_lines(file)):
        if isinstance(said, BadRecord):
            yield said.at(str(file), line)
        elif is_url(said.image):
            base = _base_name(said.image)
            own = (base,) if base and _hash(base) not in shared else ()
            image, *others = (*url_names(row, said.image), *own)
            url = said.image
            yield Record(image, (said.caption,), line, others=tuple(others), subject=url)
        else:
            yield Record(said.image, (said.caption,), line)


def is_token_line(line: str) -> bool:
    """Does a Flickr token file begin so?"""
    return bool(_TOKEN.fullmatch(line.rstrip("\r\n")))


def is_conceptual_line(line: str) -> bool:
    """Does a Conceptual Captions file begin so, with a header or without?"""
    columns = line.rstrip("\r\n").split("\t")
    return len(columns) == 2 and all(columns)


def header_of(line: str) -> Header | None:
    """The header that a table begins with, or None if the line is none."""
    for delimiter in _DELIMITERS:
        names = [name.strip().strip('"').lower() for name in line.strip().split(delimiter)]
        image = next((names.index(n) for n in IMAGE_COLUMNS if n in names), None)
        caption = next((names.index(n) for n in CAPTION_COLUMNS if n in names), None)
        if image is not None and caption is not None:
            return Header(delimiter, len(names), image, caption)
    return None


def url_names(row: int, url: str) -> Iterator[str]:
    """What downloaders call the picture of a url in row ``row`` of a list, from 0."""
    stem = f"{row}_{zlib.crc32(url.encode())}"
    yield stem
    number = f"{row:09d}"
    for pattern in (stem, f"{row // _ROWS_PER_FOLDER:05d}/{number}", number):
        for suffix in _SUFFIXES:
            yield pattern + suffix


def text_lines(file: Path) -> Iterator[tuple[int, str | BadRecord]]:
    """(number, line with its end) of a UTF-8 file; a line is a BadRecord if it is too long or no
    UTF-8."""
    with file.open("rb") as stream:
        for number, line in bounded_lines(stream, MAX_RECORD):
            if isinstance(line, BadRecord):
                yield number, line
                continue
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                yield number, BadRecord(Reason.BAD_UTF8, str(error))


def _grouped(found: Iterator[_Said | Bad], source: str) -> Iterator[Record | Bad]:
    """Captions that follow each other and are about the same picture make one record."""
    group: Record | None = None
    for said in found:
        if isinstance(said, Bad):
            yield said
        elif not said.image or not said.caption.strip():
            missing = said.image and (Reason.EMPTY_CAPTION, "an empty caption")
            error = BadRecord(*(missing or (Reason.MISSING_FIELD, "no picture is named")))
            yield error.at(source, said.line, said.image)
        elif group and group.image == said.image:
            group = group._replace(captions=(*group.captions, said.caption))
        else:
            if group:
                yield group
            group = Record(said.image, (said.caption,), said.line)
    if group:
        yield group


def _token_lines(file: Path) -> Iterator[_Said | Bad]:
    for line, text in text_lines(file):
        if isinstance(text, BadRecord):
            yield text.at(str(file), line)
        elif match := _TOKEN.fullmatch(text.rstrip("\r\n")):
            yield _Said(line, match[1], match[2])
        elif text.strip():
            detail = f"expected name#number<TAB>caption, found {text!r:.80}"
            yield BadRecord(Reason.BAD_RECORD, detail).at(str(file), line)


def _table_lines(file: Path) -> Iterator[_Said | Bad]:
    lines = text_lines(file)
    _, first = next(lines, (0, ""))
    header = header_of(first) if isinstance(first, str) else None
    if not header:
        raise ValueError(
            f"{file}, line 1: expected a header with one of {', '.join(IMAGE_COLUMNS)} and one of "
            f"{', '.join(CAPTION_COLUMNS)}, cut by | , or tabs; found {first!r:.80}"
        )
    for line, row in _rows(lines, header.delimiter):
        if isinstance(row, list) and len(row) != header.columns:
            detail = f"{len(row)} columns, the header has {header.columns}: {row!r:.80}"
            row = BadRecord(Reason.BAD_RECORD, detail)
        if isinstance(row, BadRecord):
            yield row.at(str(file), line)
        else:
            yield _Said(line, row[header.image].strip(), row[header.caption])


def _rows(
    lines: Iterator[tuple[int, str | BadRecord]], delimiter: str
) -> Iterator[tuple[int, list[str] | BadRecord]]:
    """(line, columns) of the rows; a quoted column may go over several lines."""
    bad: list[tuple[int, BadRecord]] = []
    begin = last = 0

    def good() -> Iterator[str]:
        nonlocal begin, last
        for line, text in lines:
            if isinstance(text, str):
                begin, last = begin or line, line
                yield text
            else:
                bad.append((line, text))

    quoting = csv.QUOTE_MINIMAL if delimiter == _QUOTED else csv.QUOTE_NONE
    reader = csv.reader(good(), delimiter=delimiter, quoting=quoting, strict=True)
    row: list[str] | BadRecord | None = []
    while row is not None:
        begin = 0
        try:
            row = next(reader, None)
        except csv.Error as error:
            reason = Reason.TOO_LARGE if "limit" in str(error) else Reason.BAD_RECORD
            row = BadRecord(reason, f"lines {begin} to {last}: {error}")
        yield from bad
        bad.clear()
        if row:
            yield begin, row


def _tab_lines(file: Path) -> Iterator[tuple[int, _Said | BadRecord]]:
    """(line, its caption and url or path); without header and blank lines."""
    image_first = False
    for line, text in text_lines(file):
        if isinstance(text, BadRecord):
            yield line, text
            continue
        columns = text.rstrip("\r\n").split("\t")
        names = [name.strip().lower() for name in columns]
        if line == 1 and _URL_COLUMNS & {*names}:
            image_first = names[0] in _URL_COLUMNS
        elif len(columns) == 2:
            first, second = columns
            swapped = image_first or is_url(first)
            yield line, _Said(line, first, second) if swapped else _Said(line, second, first)
        elif text.strip():
            detail = f"{len(columns)} columns, expected caption<TAB>url or path: {text!r:.80}"
            yield line, BadRecord(Reason.BAD_RECORD, detail)


def _base_name(url: str) -> str:
    try:
        return PurePosixPath(unquote(urlsplit(url).path)).name
    except ValueError:  # no URL after all
        return ""


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest())


def _shared_names(file: Path) -> frozenset[int]:
    """Hashes of the names that several urls of the file end with."""
    urls = (said.image for _, said in _tab_lines(file) if isinstance(said, _Said))
    pairs = ((_hash(_base_name(url)), _hash(url)) for url in urls if is_url(url))
    known = np.unique(np.fromiter(pairs, dtype=[("name", "u8"), ("url", "u8")]))
    names, counts = np.unique(known["name"], return_counts=True)
    return frozenset(names[counts > 1].tolist())
