"""Samples of webdataset tars, img2dataset's among them: members that share a key."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.images import Picture
from data_prep.readers.json_stream import MAX_RECORD
from data_prep.readers.places import Range
from data_prep.readers.records import LeftOut, Record
from data_prep.readers.sidecars import Described, described, too_large
from data_prep.readers.tars import Member, read_members

_PICTURES = ("jpg", "jpeg", "png", "webp")
_TEXT, _JSON = "txt", "json"


class _Sample:
    """Members of one key."""

    def __init__(self) -> None:
        self.picture: Member | None = None
        self.sidecars: dict[str, Member] = {}


def shard_records(tar: Path, label: str) -> Iterator[Record | Bad | LeftOut]:
    """The samples of a tar: a picture (jpg, jpeg, png, webp) with ``txt`` or ``json`` beside it.

    The key of a sample is the name of its members up to the first dot after the last slash; they
    need not follow each other. The picture's id is ``label/name of the member``. Members of other
    kinds are passed over.

    Raises:
        ValueError: the tar is compressed, or none.
    """
    samples: dict[str, _Sample] = {}
    for member in read_members(tar):
        if isinstance(member, Bad):
            yield member
        elif twice := _add(samples, member):
            yield twice.at(str(tar), member.number, member.name)
    state = tar.stat()
    with tar.open("rb") as stream:
        for key, sample in samples.items():
            try:
                member = _picture_of(sample)
                captions, left_out = _described(stream, sample.sidecars)
            except BadRecord as error:
                yield error.at(str(tar), _first(sample).number, key)
                continue
            if left_out:
                yield LeftOut(left_out)
                continue
            name, place = f"{label}/{member.name}", Range(member.offset, member.length)
            stamp = state.st_size, state.st_mtime_ns
            picture = Picture(name, str(tar), str(tar), member.number, *stamp, place)
            yield Record(name, captions, member.number, others=(key,), picture=picture)


def _add(samples: dict[str, _Sample], member: Member) -> BadRecord | None:
    """Puts a member to those of its key; an error if its place is taken."""
    folder, _, name = member.name.rpartition("/")
    stem, _, kind = name.partition(".")
    kind = kind.lower()
    if kind not in (*_PICTURES, _TEXT, _JSON):
        return None
    sample = samples.setdefault(f"{folder}/{stem}" if folder else stem, _Sample())
    if kind in (_TEXT, _JSON):
        taken = kind in sample.sidecars
        sample.sidecars.setdefault(kind, member)
    else:
        taken = sample.picture is not None
        sample.picture = sample.picture or member
    return BadRecord(Reason.DUPLICATE_ID, "the sample has another already") if taken else None


def _picture_of(sample: _Sample) -> Member:
    if not sample.picture:
        raise BadRecord(Reason.MISSING_IMAGE, f"no {', '.join(_PICTURES)} in the sample")
    return sample.picture


def _first(sample: _Sample) -> Member:
    return sample.picture or next(iter(sample.sidecars.values()))


def _described(stream: IO[bytes], sidecars: dict[str, Member]) -> Described:
    return described(*(_content(stream, sidecars.get(kind)) for kind in (_TEXT, _JSON)))


def _content(stream: IO[bytes], member: Member | None) -> bytes | None:
    if not member:
        return None
    if member.length > MAX_RECORD:
        raise too_large(member.name, member.length)
    return os.pread(stream.fileno(), member.length, member.offset)
