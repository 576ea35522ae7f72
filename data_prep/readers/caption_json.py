"""Pictures and captions out of JSON: lines, lists of records, COCO, Karpathy's splits."""

import lzma
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.fields import (
    SPLITS,
    named,
    record_captions,
    record_image,
    record_status,
)
from data_prep.readers.json_stream import json_items, json_lines
from data_prep.readers.left_out import LeftOut
from data_prep.readers.records import Record


def line_records(file: Path) -> Iterator[Record | Bad | LeftOut]:
    """``.jsonl`` (also .gz, .xz): ``{"image": name, "captions": [text, ...]}`` on a line, or other
    fields of `data_prep.readers.fields`, each of which may hold a text or a list.

    Raises:
        ValueError: a packed file is damaged.
    """
    try:
        yield from _records(json_lines(file), file)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{file} is damaged: {error}") from error


def list_records(file: Path) -> Iterator[Record | Bad | LeftOut]:
    """``.json``: a list of the same records."""
    yield from _records(((n, item) for n, (_, item) in enumerate(json_items(file), 1)), file)


def karpathy_records(file: Path) -> Iterator[Record | Bad]:
    """Karpathy's splits: ``images`` with ``filename, filepath, split`` and ``sentences``."""
    number = 0
    for key, item in json_items(file):
        if key != "images":
            continue
        number += 1
        try:
            if isinstance(item, BadRecord):
                raise item
            yield _karpathy(item, number)
        except (KeyError, TypeError, AttributeError) as error:
            detail = f"not of Karpathy's splits: {error!r}"
            yield BadRecord(Reason.BAD_RECORD, detail).at(str(file), number)
        except BadRecord as error:
            yield error.at(str(file), number, raw=item)


def coco_records(file: Path, need_captions: bool) -> Iterator[Record | Bad]:
    """COCO's captions and instances: every image once, with its captions if there are any.

    An id that several files have, or a file's name that pictures of different sizes have, as in
    sets that were put together, tells of none of them.

    Raises:
        ValueError: captions are needed and there are none.
    """
    images: dict[Any, dict[str, int]] = {}  # id -> file's name -> number, of those that have one
    captions: dict[Any, list[Any]] = {}
    sizes = Sizes()
    counts = {"images": 0, "annotations": 0}
    for key, item in json_items(file):
        if key not in counts:
            continue
        counts[key] += 1
        try:
            if key == "images":
                names, name = images.setdefault(item["id"], {}), item["file_name"]
                if isinstance(name, str) and name:
                    names.setdefault(name, counts[key])
                    sizes.add(name, item.get("width"), item.get("height"))
                else:
                    error = BadRecord(Reason.MISSING_FIELD, "no name in the field 'file_name'")
                    yield error.at(str(file), counts[key], str(item["id"]))
            elif "caption" in item:
                captions.setdefault(item["image_id"], []).append(item["caption"])
        except (KeyError, TypeError, AttributeError) as error:
            detail = f"an item of {key!r} is not of COCO's captions JSON: {error!r}"
            yield BadRecord(Reason.BAD_RECORD, detail).at(str(file), counts[key])
    if need_captions and not captions:
        raise ValueError(
            f"{file} holds no caption ({counts['annotations']} annotations without 'caption'): "
            "expected COCO's captions_*.json; instances_*.json are for `images` and for --boxes"
        )
    for image in (key for key in captions if key not in images):
        detail = f"captions of image {image!r}, which is not in 'images'"
        yield BadRecord(Reason.MISSING_IMAGE, detail).at(str(file), 0, str(image))
    for image, names in images.items():
        said = tuple(captions.get(image, ()))
        for name, number in names.items():
            if said and need_captions and (len(names) > 1 or sizes.differ(name)):
                error = shared_id(image, names) if len(names) > 1 else sizes.shared_name(name)
                yield error.at(str(file), number, name)
            else:
                yield Record(name, said if len(names) == 1 else (), number)


def shared_id(image: object, names: Iterable[str]) -> BadRecord:
    """The error for a picture whose id in a COCO file others have, too."""
    told = ", ".join(map(repr, sorted(names)[:3]))
    detail = f"image id {image!r} is that of {told}: annotations of it may be of either"
    return BadRecord(Reason.DUPLICATE_ID, f"{detail}; give every image an id of its own")


class Sizes:
    """Which names of a COCO file stand for pictures of different sizes, so for several pictures."""

    def __init__(self) -> None:
        self._first: dict[str, tuple[Any, Any]] = {}
        self._other: dict[str, tuple[Any, Any]] = {}  # a second size, of those that have one

    def add(self, name: str, width: Any, height: Any) -> None:
        """Notes the size that one image of the name has, if the file says it."""
        if width and height:
            size = self._first.setdefault(name, (width, height))
            if size != (width, height):
                self._other.setdefault(name, (width, height))

    def differ(self, name: str) -> bool:
        """Do images of that name differ in size?"""
        return name in self._other

    def shared_name(self, name: str) -> BadRecord:
        """The error for a picture whose name in a COCO file others have, too."""
        told = " and ".join(f"{w} x {h}" for w, h in (self._first[name], self._other[name]))
        detail = f"images of {told} are called {name!r}: annotations of it may be of either"
        return BadRecord(Reason.DUPLICATE_ID, f"{detail}; give every picture a name of its own")


def _records(found: Iterator[tuple[int, Any]], file: Path) -> Iterator[Record | Bad | LeftOut]:
    for number, record in found:
        try:
            if isinstance(record, BadRecord):
                raise record
            if not isinstance(record, dict):
                raise BadRecord(Reason.BAD_JSON, "no object in the list")
            yield _record(record, number)
        except BadRecord as error:
            yield error.at(str(file), number, raw=record)


def _record(record: dict[str, Any], line: int) -> Record | LeftOut:
    if left_out := record_status(record):
        return LeftOut(left_out)
    image, split = record_image(record), named(record, SPLITS)
    if not image:
        raise BadRecord(Reason.MISSING_FIELD, "no name in the field 'image'")
    return Record(image, record_captions(record), line, str(record.get(split) or ""))


def _karpathy(image: dict[str, Any], number: int) -> Record:
    name = image["filename"]
    path = "/".join(part for part in (image.get("filepath"), name) if part)
    captions = tuple(sentence["raw"] for sentence in image["sentences"])
    others = (name,) if name != path else ()
    return Record(path, captions, number, str(image.get("split") or ""), others)
