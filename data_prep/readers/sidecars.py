"""Captions in files beside a picture: ``.txt``, or the ``.json`` that img2dataset writes."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.images import PICTURE_SUFFIXES, file_below, files_of, picture_below
from data_prep.readers.json_stream import MAX_RECORD
from data_prep.readers.records import LeftOut, Record
from data_prep.readers.text import parse_object

TEXT, JSON = ".txt", ".json"
CAPTION_FIELDS = ("captions", "caption", "TEXT", "text")
SUCCESS = "success"
"""What img2dataset says of a picture that it has downloaded."""


class Described(NamedTuple):
    """What files beside a picture say."""

    captions: tuple[object, ...]
    left_out: str  # why the picture is not wanted; empty if it is


def described(text: bytes | None, fields: bytes | None) -> Described:
    """The caption in the ``.txt``, else in the ``.json``, of which each may be absent.

    Raises:
        BadRecord: bad_utf8 or bad_json.
    """
    values = parse_object(fields) if fields is not None else {}
    status = values.get("status", SUCCESS)
    if status != SUCCESS:
        return Described((), f"status {status!r:.40}")
    if text is not None:
        try:
            return Described((text.decode("utf-8"),), "")
        except UnicodeDecodeError as error:
            raise BadRecord(Reason.BAD_UTF8, f"the caption: {error}") from error
    found = next((values[name] for name in CAPTION_FIELDS if name in values), [])
    return Described(tuple(found) if isinstance(found, list) else (found,), "")


def too_large(name: str, size: int) -> BadRecord:
    """The error for a caption's file of that size."""
    return BadRecord(Reason.TOO_LARGE, f"{name} has {size:,} bytes, at most {MAX_RECORD:,}")


def folder_records(folder: Path) -> Iterator[Record | Bad | LeftOut]:
    """Pictures below ``folder`` with ``name.txt`` or ``name.json`` beside ``name.jpg``."""
    names = list(files_of(folder))
    pictures = {name for name in names if _suffix(name) in PICTURE_SUFFIXES}
    stems = {os.path.splitext(name)[0] for name in pictures}
    there = set(names)
    for number, name in enumerate(names, 1):
        stem, suffix = os.path.splitext(name)
        if suffix == TEXT and stem not in stems:
            error = BadRecord(Reason.MISSING_IMAGE, "a caption without a picture beside it")
            yield error.at(str(folder), number, name)
        elif name in pictures:
            try:
                picture = picture_below(folder, name, str(folder), number)
                beside = (stem + s if stem + s in there else "" for s in (TEXT, JSON))
                captions, left_out = described(*(_content(folder, other) for other in beside))
            except BadRecord as error:
                yield error.at(str(folder), number, name)
                continue
            yield LeftOut(left_out) if left_out else Record(name, captions, number, picture=picture)


def _content(folder: Path, name: str) -> bytes | None:
    if not name:
        return None
    file = file_below(folder, name)
    if file.size > MAX_RECORD:
        raise too_large(name, file.size)
    with open(file.path, "rb") as stream:
        return stream.read(MAX_RECORD)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()
