"""Pictures, and pairs of a picture and its captions, out of sources of any format."""

import os
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache, partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.caption_json import (
    coco_records,
    karpathy_records,
    line_records,
    list_records,
)
from data_prep.readers.caption_tables import conceptual_records, csv_records, token_records
from data_prep.readers.columns import arrow_records, parquet_records
from data_prep.readers.formats import LOOKED_FOR, Format, Source, find_sources
from data_prep.readers.images import Picture, find_picture, folder_pictures, unique
from data_prep.readers.left_out import LeftOut, Tally, note_of, suffix_of
from data_prep.readers.places import Range, Row, read_place
from data_prep.readers.records import Guess, Record, bad_caption
from data_prep.readers.shards import shard_records
from data_prep.readers.sidecars import folder_records
from data_prep.readers.visual_genome import genome_records

_TRAIN, _RESTVAL = "train", "restval"
"""Karpathy's ``restval`` is the rest of COCO's val2014: all published results train on it too."""
_PROBED = 100  # records that tell whether there are captions
_CONTAINERS = (Format.WEBDATASET, Format.PARQUET, Format.ARROW)


class Pair(NamedTuple):
    """An image, named as in the source, with what is said about it."""

    image: str
    captions: tuple[str, ...]
    source: str
    line: int
    others: tuple[str, ...] = ()  # other names the image may have, in this order
    picture: Picture | None = None  # where it lies, if the source holds it
    subject: str = ""  # what ``others`` are guesses for, if it is not ``image``: a URL


class Found(NamedTuple):
    """The pairs that sources hold."""

    entries: list[Pair | Bad]  # without what is left out
    left_out: list[Bad]
    guesses: tuple[str, ...] = ()  # "FILE: quotes are text"


class Pictures(NamedTuple):
    """The pictures that sources hold."""

    records: list[Picture]
    bad: list[Bad]  # without what is left out
    left_out: list[Bad]
    guesses: tuple[str, ...] = ()


def read_pairs(
    sources: Sequence[Source],
    splits: Sequence[str] = (),
    seen: Callable[[int], None] = lambda count: None,
) -> Found:
    """The pairs of all sources, and entries for what cannot be one, empty captions among them.

    Where records have a split, ``splits`` names those to take; empty = all. ``train`` takes
    Karpathy's ``restval`` too. ``seen`` is called for every record that is read.

    Raises:
        ValueError: a source that cannot be read at all, or no record of the wanted splits.
    """
    entries: list[Pair | Bad] = []
    tally = Tally()
    guesses: list[str] = []
    for source in sources:
        for entry in pairs_of(source, splits):
            seen(1)
            if isinstance(entry, Guess):
                guesses.append(f"{source.path}: {entry.what}")
            elif isinstance(entry, LeftOut):
                tally.add(source.path, entry)
            else:
                entries.append(entry)
    left_out = _left_out(sources, tally)
    if splits and not entries:
        there = "; ".join(f"{entry.source}: {entry.detail}" for entry in left_out) or "none"
        raise ValueError(f"no record of --split {', '.join(splits)}; there are: {there}")
    return Found(entries, left_out, tuple(guesses))


def pairs_of(source: Source, splits: Sequence[str] = ()) -> Iterator[Pair | Bad | LeftOut | Guess]:
    """`read_pairs` of one source, as it is read."""
    for record in _records(source, captioned=True):
        if not isinstance(record, Record):
            yield record
            continue
        split = record.split or source.split
        if splits and not _wanted(split, splits, source.form):
            yield LeftOut(f"split {split!r}" if split else "no split", record.image)
        else:
            yield from _pair(record, str(source.path))


def read_pictures(
    sources: Sequence[Source],
    image_root: Path | None = None,
    seen: Callable[[int], None] = lambda count: None,
) -> Pictures:
    """The pictures of all sources, and entries for records that name none.

    The id of a picture is its path below the folder, below the image root or beside the file that
    names it, behind the name of its source if there are several; a picture in a container is called
    ``CONTAINER/name`` or ``CONTAINER#row``.

    Raises:
        ValueError: a source that cannot be read at all, or none of them names a picture.
    """
    entries: list[Picture | Bad] = []
    tally = Tally()
    guesses: list[str] = []
    for source in sources:
        several = len(sources) > 1 and source.form not in _CONTAINERS
        prefix = f"{source.path.resolve().name}/" if several else ""
        for entry in _pictures(source, image_root):
            seen(1)
            if isinstance(entry, Guess):
                guesses.append(f"{source.path}: {entry.what}")
            elif isinstance(entry, LeftOut):
                tally.add(source.path, entry)
            elif isinstance(entry, Bad):
                entries.append(entry)
            else:
                entries.append(entry._replace(id=prefix + entry.id))
    pictures, twice = unique(entry for entry in entries if isinstance(entry, Picture))
    bad = [entry for entry in entries if isinstance(entry, Bad)] + twice
    if not pictures and not bad:
        paths = ", ".join(str(source.path) for source in sources)
        less = note_of(_left_out(sources, tally))
        raise ValueError(f"no picture in {paths}; looked for: {LOOKED_FOR}{less}")
    return Pictures(pictures, bad, _left_out(sources, tally), tuple(guesses))


def holds_captions(path: Path) -> bool:
    """Is ``path`` a source of pairs? Else what it holds are documents."""
    if suffix_of(path.name) == ".json":
        return True
    try:
        for source in find_sources([path], captioned=True):
            for entry in islice(_records(source, captioned=True), _PROBED):
                if isinstance(entry, Record) and entry.captions:
                    return source.form is not Format.CONCEPTUAL or bool(entry.others)
    except ValueError:
        return False
    return False


def picture_of(record: Record | Pair, source: str, image_root: Path | None) -> Picture:
    """Where the picture of a record lies: in its source, below ``image_root``, or beside its file.

    Raises:
        BadRecord: see `find_picture`.
    """
    root = image_root or _folder_of(source)
    if not record.picture:
        return find_picture(root, (record.image, *record.others), source, record.line)
    if record.others and _is_beside(record.picture, record.others[0], root):
        return find_picture(root, record.others, source, record.line)
    return record.picture


def _is_beside(picture: Picture, name: str, root: Path) -> bool:
    """Does a row of a Parquet file hold no picture, but the name of a file that is there?"""
    folder, base = os.path.split(os.path.join(root, name))
    if not isinstance(picture.place, Row) or base not in _names_in(folder):
        return False
    try:
        read_place(picture.path, picture.place)
    except BadRecord as error:
        return error.reason is Reason.MISSING_IMAGE
    return False


@lru_cache(maxsize=256)
def _names_in(folder: str) -> frozenset[str]:
    try:
        return frozenset(os.listdir(folder))
    except (OSError, ValueError):  # none, or a name that none can have
        return frozenset()


def _left_out(sources: Sequence[Source], tally: Tally) -> list[Bad]:
    return [*(entry for source in sources for entry in source.left_out), *tally.entries()]


@lru_cache
def _folder_of(source: str) -> Path:
    path = Path(source)
    return path if path.is_dir() else path.parent


def _pictures(source: Source, image_root: Path | None) -> Iterator[Picture | Bad | LeftOut | Guess]:
    if source.form is Format.FOLDER:
        yield from folder_pictures(source.path)
        return
    described: set[tuple[str, str, Range | Row | None]] = set()
    for record in _records(source, captioned=False):
        if not isinstance(record, Record):
            yield record
            continue
        try:
            picture = picture_of(record, str(source.path), image_root)
        except BadRecord as error:
            yield error.at(str(source.path), record.line, record.image)
            continue
        place = picture.id, picture.path, picture.place
        if not record.captions:
            yield picture
        elif place not in described:  # else it is another caption of the same picture
            described.add(place)
            yield picture


def _records(source: Source, *, captioned: bool) -> Iterator[Record | Bad | LeftOut | Guess]:
    path, label = source.path, source.label
    readers: dict[Format, Callable[[], Iterator[Record | Bad | LeftOut | Guess]]] = {
        Format.SIDECARS: partial(folder_records, path),
        Format.WEBDATASET: partial(shard_records, path, label),
        Format.PARQUET: partial(parquet_records, path, label, captioned),
        Format.ARROW: partial(arrow_records, path, label, captioned),
        Format.JSONL: partial(line_records, path),
        Format.JSON: partial(list_records, path),
        Format.COCO: partial(coco_records, path, need_captions=captioned),
        Format.KARPATHY: partial(karpathy_records, path),
        Format.VISUAL_GENOME: partial(genome_records, path),
        Format.FLICKR: partial(token_records, path),
        Format.TABLE: partial(csv_records, path),
        Format.CONCEPTUAL: partial(conceptual_records, path),
    }
    if source.form not in readers:
        raise ValueError(f"{path}: --format {source.form} holds pictures without captions")
    return readers[source.form]()


def _wanted(split: str, splits: Sequence[str], form: Format) -> bool:
    rest = form is Format.KARPATHY and split == _RESTVAL and _TRAIN in splits
    return split in splits or rest


def _pair(record: Record, source: str) -> Iterator[Pair | Bad]:
    """The pair of a record, if a caption of it is left, and entries for those that are not."""
    place = source, record.line, record.image
    kept: list[str] = []
    bad: list[BadRecord] = []
    for number, caption in enumerate(record.captions, 1):
        if isinstance(caption, str) and caption.strip():
            kept.append(" ".join(caption.split()))
        else:
            bad.append(bad_caption(caption, number))
    if kept:
        yield from (error.at(*place) for error in bad)
        yield Pair(
            image=record.image,
            captions=tuple(kept),
            source=source,
            line=record.line,
            others=record.others,
            picture=record.picture,
            subject=record.subject,
        )
    elif bad:
        detail = bad[0].detail if len(bad) == 1 else f"{bad[0].detail}, and no other is left"
        yield BadRecord(bad[0].reason, detail).at(*place)
    else:
        yield BadRecord(Reason.MISSING_FIELD, "nothing is said about the picture").at(*place)
