"""Captions in files beside a picture: ``.txt``, or the ``.json`` that img2dataset writes."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.encoding import utf8_bytes
from data_prep.readers.fields import record_captions, record_status
from data_prep.readers.images import PICTURE_SUFFIXES, file_below, picture_below
from data_prep.readers.json_stream import MAX_RECORD
from data_prep.readers.left_out import LeftOut, of_other_kind, suffix_of, walk
from data_prep.readers.lines import decoded
from data_prep.readers.records import Record
from data_prep.readers.text import parse_object

TEXT, JSON = ".txt", ".json"
_LINE_ENDS = re.compile(r"\r\n|\r|\n")


class Described(NamedTuple):
    """What files beside a picture say."""

    captions: tuple[object, ...]
    left_out: str  # why the picture is not wanted; empty if it is


def described(text: bytes | None, fields: bytes | None) -> Described:
    """The captions in the ``.txt``, else in the ``.json``, of which each may be absent.

    A ``.txt`` holds a caption on every line that is not blank, as those of CUB and of the Oxford
    flowers do. img2dataset writes one, which may go over several lines as its website has it, and
    the same into the ``.json``: that tells that it is one.

    Raises:
        BadRecord: bad_utf8 or bad_json.
    """
    values = parse_object(utf8_bytes(fields)) if fields is not None else {}
    if left_out := record_status(values):
        return Described((), left_out)
    captions = record_captions(values)
    if text is None:
        return Described(captions, "")
    whole = decoded(utf8_bytes(text))
    if isinstance(whole, BadRecord):
        raise BadRecord(Reason.BAD_UTF8, f"the caption: {whole.detail}", text)
    lines = tuple(line for line in _LINE_ENDS.split(whole) if line.strip())
    is_one = len(captions) == 1 and str(captions[0]).split() == whole.split()
    return Described((whole,) if is_one else lines or captions or (whole,), "")


def too_large(name: str, size: int) -> BadRecord:
    """The error for a caption's file of that size."""
    return BadRecord(Reason.TOO_LARGE, f"{name} has {size:,} bytes, at most {MAX_RECORD:,}")


def folder_records(folder: Path) -> Iterator[Record | Bad | LeftOut]:
    """Pictures below ``folder`` with ``name.txt`` or ``name.json`` beside ``name.jpg``.

    Where ``name.png`` stands there, too, the first by name has the captions.
    img2dataset writes both for pictures that it could not download, too: those are left out.
    """
    names: list[str] = []
    for entry in walk(folder):
        if isinstance(entry, LeftOut):
            yield entry
        else:
            names.append(entry)
    first: dict[str, str] = {}  # stem -> the first picture of that name
    for name in names:
        if suffix_of(name) in PICTURE_SUFFIXES:
            first.setdefault(_stem(name), name)
    beside = _sidecars(names)
    for number, name in enumerate(names, 1):
        stem, suffix = _stem(name), suffix_of(name)
        files = beside.get(stem, {})
        try:
            if suffix in PICTURE_SUFFIXES:
                picture = picture_below(folder, name, str(folder), number)
                captions, left_out = _described(folder, files)
                if files and not left_out and name != first[stem]:
                    detail = f"{first[stem]} has the caption beside it already: rename one of them"
                    raise BadRecord(Reason.DUPLICATE_ID, detail)
                found = Record(name, captions, number, picture=picture)
                yield LeftOut(left_out, name) if left_out else found
            elif files.get(suffix) != name:
                yield of_other_kind(name)
            elif stem not in first and name == next(iter(files.values())):  # once for its files
                yield _alone(folder, name, files)
        except BadRecord as error:
            yield error.at(str(folder), number, name)


def _alone(folder: Path, name: str, files: dict[str, str]) -> LeftOut:
    """Of files that describe a picture which is not there, or are JSON of some other meaning.

    Raises:
        BadRecord: missing_image.
    """
    try:
        captions, left_out = _described(folder, files)
    except BadRecord:
        captions, left_out = (), ""
    if left_out:
        return LeftOut(left_out, name)
    if captions or TEXT in files:
        raise BadRecord(Reason.MISSING_IMAGE, "a caption without a picture beside it")
    return of_other_kind(name)


def _described(folder: Path, files: dict[str, str]) -> Described:
    return described(*(_content(folder, files.get(suffix, "")) for suffix in (TEXT, JSON)))


def _sidecars(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Stem -> suffix in small letters -> the file; of ``a.TXT`` and ``a.txt`` the latter."""
    beside: dict[str, dict[str, str]] = {}
    for name in names:
        if suffix_of(name) in (TEXT, JSON):
            beside.setdefault(_stem(name), {})[suffix_of(name)] = name
    return beside


def _content(folder: Path, name: str) -> bytes | None:
    if not name:
        return None
    file = file_below(folder, name)
    if file.size > MAX_RECORD:
        raise too_large(name, file.size)
    with open(file.path, "rb") as stream:
        return stream.read(MAX_RECORD)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0]
