"""Captions out of tables: Flickr's token files, tables with a header, Conceptual Captions' TSV."""

import re
import zlib
from collections.abc import Iterator
from functools import partial
from hashlib import blake2b
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import numpy as np

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.delimited import (
    BAR,
    COMMA,
    SEMICOLON,
    TAB,
    Dialect,
    dialect_of,
    fields_of,
    table_rows,
)
from data_prep.readers.fields import (
    CAPTIONS,
    IMAGE_NAMES,
    SPLITS,
    STATUSES,
    all_captions,
    caption_fields,
    cell_captions,
    named,
    not_downloaded,
)
from data_prep.readers.images import is_url
from data_prep.readers.json_stream import MAX_RECORD
from data_prep.readers.left_out import LeftOut
from data_prep.readers.lines import text_lines
from data_prep.readers.records import Guess, Record, bad_caption

_DELIMITERS = (BAR, COMMA, TAB, SEMICOLON)
_URL_COLUMNS = frozenset(("url", "image_url"))
_TOKEN = re.compile(r"(.+)#\d+", re.DOTALL)
_ROWS_PER_FOLDER = 10_000
_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")


class _Said(NamedTuple):
    """What a row says."""

    line: int
    image: str
    captions: tuple[Any, ...]
    split: str = ""


class Header(NamedTuple):
    """Which columns a table has and where its picture and captions stand."""

    delimiter: str
    columns: int
    image: int
    captions: tuple[int, ...]
    split: int  # -1: there is none
    status: int


def token_records(file: Path) -> Iterator[Record | Bad | Guess]:
    """Flickr8k's and Flickr30k's ``name.jpg#0<TAB>caption``."""
    dialect = _dialect(file, TAB, 2)
    yield from _guess(dialect)
    yield from _grouped(_token_lines(file, dialect), str(file))


def csv_records(file: Path) -> Iterator[Record | Bad | LeftOut | Guess]:
    """Tables whose header names a column of pictures and one or more of captions, cut by ``|``,
    commas, tabs or semicolons.

    Raises:
        ValueError: the first line is no such header.
    """
    _, first = next(_lines(file), (0, ""))
    header = header_of(first) if isinstance(first, str) else None
    if not header:
        raise ValueError(
            f"{file}, line 1: expected a header with one of {', '.join(IMAGE_NAMES)} and one of "
            f"{', '.join(CAPTIONS)}, cut by | , ; or tabs; found {first!r:.80}"
        )
    dialect = _dialect(file, header.delimiter, header.columns)
    yield from _guess(dialect)
    yield from _grouped(_table_lines(file, header, dialect), str(file))


def conceptual_records(file: Path) -> Iterator[Record | Bad | Guess]:
    """Conceptual Captions: ``caption<TAB>url`` (CC12M: ``url<TAB>caption``) or a path for the url.

    Nothing is fetched. The picture of row N (from 0, a header does not count) is the first that is
    there of: N_CRC (CRC-32 of the url, as downloaders of this set name it), with or without a
    suffix; AAAAA/BBBBBBBBB.jpg (A = N // 10,000, B = N, as img2dataset numbers them);
    BBBBBBBBB.jpg; the last part of the url's path, if no other url of the file ends the same.
    """
    dialect = _dialect(file, TAB, 2)
    yield from _guess(dialect)
    shared = _shared_names(file, dialect)
    for row, (line, said) in enumerate(_tab_lines(file, dialect)):
        if isinstance(said, BadRecord):
            yield said.at(str(file), line)
        elif is_url(said.image):
            base = _base_name(said.image)
            own = (base,) if base and _hash(base) not in shared else ()
            image, *others = (*url_names(row, said.image), *own)
            url = said.image
            yield Record(image, said.captions, line, others=tuple(others), subject=url)
        else:
            yield Record(said.image, said.captions, line)


def is_token_line(line: str) -> bool:
    """Does a Flickr token file begin so?"""
    name, *captions = fields_of(line, TAB) or [""]
    return bool(captions and _TOKEN.fullmatch(name))


def is_conceptual_line(line: str) -> bool:
    """Does a Conceptual Captions file begin so, with a header or without?"""
    columns = line.rstrip("\r\n").split("\t")
    return len(columns) == 2 and all(columns)


def header_of(line: str) -> Header | None:
    """The header that a table begins with, or None if the line is none."""
    for delimiter in _DELIMITERS:
        names = fields_of(line, delimiter)
        image, captions = named(names, IMAGE_NAMES), caption_fields(names)
        if image and captions:
            split, status = named(names, SPLITS), named(names, STATUSES)
            return Header(
                delimiter,
                len(names),
                names.index(image),
                tuple(names.index(name) for name in captions),
                names.index(split) if split else -1,
                names.index(status) if status else -1,
            )
    return None


def url_names(row: int, url: str) -> Iterator[str]:
    """What downloaders call the picture of a url in row ``row`` of a list, from 0."""
    stem = f"{row}_{zlib.crc32(url.encode())}"
    yield stem
    number = f"{row:09d}"
    for pattern in (stem, f"{row // _ROWS_PER_FOLDER:05d}/{number}", number):
        for suffix in _SUFFIXES:
            yield pattern + suffix


def _lines(file: Path) -> Iterator[tuple[int, str | BadRecord]]:
    return text_lines(file, MAX_RECORD)


def _dialect(file: Path, delimiter: str, columns: int) -> Dialect:
    return dialect_of(partial(_lines, file), delimiter, columns)


def _guess(dialect: Dialect) -> Iterator[Guess]:
    if dialect.guess:
        yield Guess(dialect.guess)


def _grouped(
    found: Iterator[_Said | Bad | LeftOut], source: str
) -> Iterator[Record | Bad | LeftOut]:
    """Captions that follow each other and are about the same picture make one record."""
    group: Record | None = None
    for said in found:
        if not isinstance(said, _Said):
            yield said
            continue
        if not said.image:
            error = BadRecord(Reason.MISSING_FIELD, "no picture is named")
            yield error.at(source, said.line)
            continue
        kept: list[str] = []
        for number, caption in enumerate(said.captions, 1):
            if isinstance(caption, str) and caption.strip():
                kept.append(caption)
            else:
                yield bad_caption(caption, number).at(source, said.line, said.image)
        if not said.captions:
            error = BadRecord(Reason.MISSING_FIELD, "nothing is said about the picture")
            yield error.at(source, said.line, said.image)
        if kept and group and (group.image, group.split) == (said.image, said.split):
            group = group._replace(captions=(*group.captions, *kept))
        elif kept:
            if group:
                yield group
            group = Record(said.image, tuple(kept), said.line, said.split)
    if group:
        yield group


def _token_lines(file: Path, dialect: Dialect) -> Iterator[_Said | Bad]:
    for line, row in table_rows(_lines(file), dialect):
        if isinstance(row, BadRecord):
            yield row.at(str(file), line)
        elif len(row) > 1 and (match := _TOKEN.fullmatch(row[0])):
            yield _Said(line, match[1], (TAB.join(row[1:]),))
        elif any(field.strip() for field in row):
            detail = f"expected name#number<TAB>caption, found {TAB.join(row)!r:.80}"
            yield BadRecord(Reason.BAD_RECORD, detail).at(str(file), line)


def _table_lines(file: Path, header: Header, dialect: Dialect) -> Iterator[_Said | Bad | LeftOut]:
    for line, row in table_rows(_lines(file), dialect):
        if line == 1:
            continue
        if isinstance(row, list) and len(row) != header.columns:
            detail = f"{len(row)} columns, the header has {header.columns}: {row!r:.80}"
            row = BadRecord(Reason.BAD_RECORD, detail)
        if isinstance(row, BadRecord):
            yield row.at(str(file), line)
            continue
        left_out = not_downloaded(row[header.status]) if header.status >= 0 else ""
        if left_out:
            yield LeftOut(left_out)
            continue
        captions = all_captions(cell_captions(row[at]) for at in header.captions)
        split = row[header.split].strip() if header.split >= 0 else ""
        yield _Said(line, row[header.image].strip(), captions, split)


def _tab_lines(file: Path, dialect: Dialect) -> Iterator[tuple[int, _Said | BadRecord]]:
    """(line, its caption and url or path); without header and blank lines."""
    image_first = False
    for line, row in table_rows(_lines(file), dialect):
        if isinstance(row, BadRecord):
            yield line, row
            continue
        names = [name.strip().lower() for name in row]
        if line == 1 and _URL_COLUMNS & {*names}:
            image_first = names[0] in _URL_COLUMNS
        elif len(row) == 2:
            first, second = row
            swapped = image_first or is_url(first)
            image, caption = (first, second) if swapped else (second, first)
            yield line, _Said(line, image, (caption,))
        elif any(names):
            detail = f"{len(row)} columns, expected caption<TAB>url or path: {row!r:.80}"
            yield line, BadRecord(Reason.BAD_RECORD, detail)


def _base_name(url: str) -> str:
    try:
        return PurePosixPath(unquote(urlsplit(url).path)).name
    except ValueError:  # no URL after all
        return ""


def _hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(errors="replace"), digest_size=8).digest())


def _shared_names(file: Path, dialect: Dialect) -> frozenset[int]:
    """Hashes of the names that several urls of the file end with."""
    rows = (said for _, said in _tab_lines(file, dialect))
    urls = (said.image for said in rows if isinstance(said, _Said))
    pairs = ((_hash(_base_name(url)), _hash(url)) for url in urls if is_url(url))
    known = np.unique(np.fromiter(pairs, dtype=[("name", "u8"), ("url", "u8")]))
    names, counts = np.unique(known["name"], return_counts=True)
    return frozenset(names[counts > 1].tolist())
