"""Samples of webdataset tars, img2dataset's among them: members that share a key."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.images import Picture
from data_prep.readers.json_stream import MAX_RECORD
from data_prep.readers.left_out import LeftOut, by_name, of_other_kind, suffix_of
from data_prep.readers.places import Range
from data_prep.readers.records import Record
from data_prep.readers.sidecars import Described, described, too_large
from data_prep.readers.tars import Member, read_members

_PICTURES = ("jpg", "jpeg", "png", "webp")
_TEXT, _JSON = "txt", "json"
_PARTS = "parts of samples that have a picture or caption of their own"


class _Part(NamedTuple):
    """A picture, or a file that describes one."""

    kind: str  # suffix in small letters
    run: int  # the same for members of a key that stand side by side in the tar
    member: Member


class _Sample(NamedTuple):
    """Members of one key."""

    picture: Member | None
    sidecars: dict[str, Member]
    more: Sequence[Member]  # pictures behind the first

    @property
    def members(self) -> list[Member]:
        """All of them, pictures and what describes them."""
        first = [self.picture] if self.picture else []
        return [*first, *self.sidecars.values(), *self.more]

    @property
    def number(self) -> int:
        """Where it begins in the tar, or where its picture stands."""
        first = self.picture or next(iter(self.sidecars.values()))
        return first.number


def shard_records(tar: Path, label: str) -> Iterator[Record | Bad | LeftOut]:
    """The samples of a tar: a picture (jpg, jpeg, png, webp) with ``txt`` or ``json`` beside it.

    The key of a sample is the name of its members up to the last dot; they need not follow each
    other. Where a key comes several times, as in tars that were joined, those that stand side by
    side are a sample. webdataset takes the name up to the *first* dot for the key: ``7.seg.png``
    and ``7.en.txt`` are left out where there is a ``7.jpg`` or ``7.txt``, unless they have both
    picture and caption. The picture's id is ``label/name of the member``.

    Raises:
        ValueError: the tar is compressed, or none.
    """
    parts: dict[str, list[_Part]] = {}
    undotted: set[str] = set()
    run, last = 0, ""
    for member in read_members(tar):
        entry = member if isinstance(member, Bad) else by_name(member.name)
        if entry:
            yield entry
            continue
        key, kind = os.path.splitext(member.name)[0], suffix_of(member.name)[1:]
        if kind not in (*_PICTURES, _TEXT, _JSON):
            yield of_other_kind(member.name)
            continue
        if _owner(key) == key:
            undotted.add(key)
        run, last = run + (key != last), key
        parts.setdefault(key, []).append(_Part(kind, run, member))
    yield from _records(tar, label, parts, undotted)


def _records(
    tar: Path, label: str, parts: dict[str, list[_Part]], undotted: set[str]
) -> Iterator[Record | Bad | LeftOut]:
    state = tar.stat()
    with tar.open("rb") as stream:
        for key, sample in ((key, s) for key, found in parts.items() for s in _samples(found)):
            is_dotted = _owner(key) != key and _owner(key) in undotted
            if is_dotted and not _is_captioned(stream, sample):
                yield from (LeftOut(_PARTS, member.name) for member in sample.members)
                continue
            for member in sample.more:
                twice = BadRecord(Reason.DUPLICATE_ID, "the sample has another already")
                yield twice.at(str(tar), member.number, member.name)
            try:
                captions, left_out = _described(stream, sample.sidecars)
                if left_out:
                    yield LeftOut(left_out, key)
                    continue
                picture = _picture_of(sample)
            except BadRecord as error:
                yield error.at(str(tar), sample.number, key)
                continue
            name, place = f"{label}/{picture.name}", Range(picture.offset, picture.length)
            stamp = state.st_size, state.st_mtime_ns
            held = Picture(name, str(tar), str(tar), picture.number, *stamp, place)
            yield Record(name, captions, picture.number, others=(key,), picture=held)


def _samples(parts: Sequence[_Part]) -> Iterator[_Sample]:
    """The sample of a key; several, where its members come again and nobody says which belong
    together but their order."""
    pictures = [part for part in parts if part.kind in _PICTURES]
    sidecars = [part for part in parts if part.kind not in _PICTURES]
    if len(pictures) < 2 and len({part.kind for part in sidecars}) == len(sidecars):
        yield _sample(parts)
        return
    group: list[_Part] = []
    for part in parts:
        if group and (part.run != group[-1].run or part.kind in {other.kind for other in group}):
            yield _sample(group)
            group = []
        group.append(part)
    yield _sample(group)


def _sample(parts: Sequence[_Part]) -> _Sample:
    pictures = [part.member for part in parts if part.kind in _PICTURES]
    sidecars = {part.kind: part.member for part in parts if part.kind not in _PICTURES}
    return _Sample(pictures[0] if pictures else None, sidecars, pictures[1:])


def _owner(key: str) -> str:
    """The key by webdataset's rule."""
    folder, slash, name = key.rpartition("/")
    return f"{folder}{slash}{name.partition('.')[0]}"


def _is_captioned(stream: IO[bytes], sample: _Sample) -> bool:
    """Has a sample a picture and a caption, perhaps a damaged one? JSON may describe segments."""
    if not sample.picture or not sample.sidecars:
        return False
    try:
        captions, left_out = _described(stream, sample.sidecars)
    except BadRecord:
        return _TEXT in sample.sidecars
    return bool(captions or left_out)


def _picture_of(sample: _Sample) -> Member:
    if not sample.picture:
        raise BadRecord(Reason.MISSING_IMAGE, f"no {', '.join(_PICTURES)} in the sample")
    return sample.picture


def _described(stream: IO[bytes], sidecars: dict[str, Member]) -> Described:
    return described(*(_content(stream, sidecars.get(kind)) for kind in (_TEXT, _JSON)))


def _content(stream: IO[bytes], member: Member | None) -> bytes | None:
    if not member:
        return None
    if member.length > MAX_RECORD:
        raise too_large(member.name, member.length)
    return os.pread(stream.fileno(), member.length, member.offset)
