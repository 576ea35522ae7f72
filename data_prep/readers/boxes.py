"""Boxes that somebody drew: COCO's instances, Visual Genome, Flickr30k Entities, JSON lines.

Forms, told apart by their content:

* COCO instances: ``images`` with ``id, file_name, width, height``, ``annotations`` with ``image_id,
  bbox [x, y, width, height]``, ``categories``.
* Visual Genome: a list of images with ``objects`` (``x, y, w, h, names``; objects.json and
  scene_graphs.json) or ``regions`` (``x, y, width, height``). The picture of image 7 is ``7.jpg``.
* JSON lines (.jsonl, also .gz, .xz): ``{"image": name, "boxes": [[x1, y1, x2, y2], ...],
  "normalised": false, "classes": [name, ...]}``, the last two may be left out; or Flickr30k
  Entities' ``{"image": name, "boxes_xyxy_norm": {entity: [[x1, y1, x2, y2], ...]}}``.
"""

import lzma
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.caption_json import Sizes, shared_id
from data_prep.readers.fields import record_image
from data_prep.readers.json_stream import json_items, json_lines
from data_prep.readers.left_out import suffix_of

_LINES = (".jsonl", ".jsonl.gz", ".jsonl.xz")
_EXPECTED = (
    "expected COCO's instances JSON, Visual Genome's objects, scene_graphs or region_descriptions "
    'JSON, or .jsonl with {"image": name, "boxes": [[x1, y1, x2, y2], ...]}'
)


class BoxSet(NamedTuple):
    """What is known of one picture; it may have no box."""

    image: str  # as the file names it
    boxes: np.ndarray  # float32 [R, 4]: x1, y1, x2, y2
    normalised: bool  # shares of width and height, else pixels of the picture as it is
    classes: tuple[str, ...]  # R names; none if the file knows no classes
    source: str
    line: int  # line, or number of the image in the file
    size: tuple[float, float] = (0, 0)  # width and height of the picture, if the file says them


def read_boxes(file: Path) -> Iterator[BoxSet | Bad]:
    """The boxes of every picture in ``file``, and entries for records and boxes that are none.

    Boxes of COCO come normalised by the size that the file gives, so they fit resized pictures.
    A picture may come several times.

    Raises:
        ValueError: no such file, not JSON, or of another form.
    """
    if not file.is_file():
        raise ValueError(f"--boxes {file}: no such file")
    if file.name.lower().endswith(_LINES):
        return _of_lines(file)
    if suffix_of(file.name) == ".json":
        return _of_json(file)
    raise ValueError(f"--boxes {file}: {_EXPECTED}")


def _of_lines(file: Path) -> Iterator[BoxSet | Bad]:
    try:
        for line, record in json_lines(file):
            try:
                if isinstance(record, BadRecord):
                    raise record
                drawn = _entities(record) if "boxes_xyxy_norm" in record else _listed(record)
            except BadRecord as error:
                yield error.at(str(file), line, raw=record)
                continue
            yield from _checked(drawn, str(file), line)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"--boxes {file} is damaged: {error}") from error


def _of_json(file: Path) -> Iterator[BoxSet | Bad]:
    items = json_items(file)
    key, first = next(items, ("", None))
    if key:
        yield from _of_coco(file)
        return
    if not isinstance(first, dict) or not {"objects", "regions"} & first.keys():
        found = f"a list of {sorted(first) if isinstance(first, dict) else type(first).__name__}"
        raise ValueError(f"--boxes {file}: {_EXPECTED}; found {found}")
    for number, (_, record) in enumerate(json_items(file), 1):
        try:
            drawn = _genome(record)
        except BadRecord as error:
            yield error.at(str(file), number, raw=record)
            continue
        yield from _checked(drawn, str(file), number)


class _Drawn(NamedTuple):
    image: str
    boxes: Sequence[Any]  # of four numbers each, if all is well
    classes: Sequence[str]  # as many, or none
    normalised: bool
    size: tuple[float, float] = (0, 0)


def _checked(drawn: _Drawn, source: str, line: int) -> Iterator[BoxSet | Bad]:
    """One set of what can be a box, and an entry for each that cannot."""
    kept: list[int] = []
    good: list[Sequence[float]] = []
    for number, box in enumerate(drawn.boxes):
        wrong = _wrong(box, drawn.normalised)
        if wrong:
            detail = f"box {number + 1}, {box!r:.80}: {wrong}"
            yield BadRecord(Reason.BAD_BOX, detail).at(source, line, drawn.image)
        else:
            kept.append(number)
            good.append(box)
    boxes = np.array(good, dtype=np.float32).reshape(-1, 4)
    classes = tuple(drawn.classes[number] for number in kept) if drawn.classes else ()
    yield BoxSet(drawn.image, boxes, drawn.normalised, classes, source, line, drawn.size)


def _wrong(box: Any, normalised: bool) -> str:
    """Why ``box`` is none; empty if it is one."""
    if not isinstance(box, list | tuple) or len(box) != 4:
        return "not four numbers"
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in box):
        return "not four numbers"
    if not all(abs(n) < 1e9 for n in box):  # NaN is not below it either
        return "not finite"
    if not (box[0] < box[2] and box[1] < box[3]):
        return "no area: expected x1 < x2 and y1 < y2"
    if normalised and not all(-0.01 <= n <= 1.01 for n in box):
        return "a share of the picture below 0 or above 1"
    return ""


def _listed(record: dict[str, Any]) -> _Drawn:
    image, boxes = record_image(record), record.get("boxes")
    classes, normalised = record.get("classes", []), record.get("normalised", False)
    if not image:
        raise BadRecord(Reason.MISSING_FIELD, "no name in the field 'image'")
    if not isinstance(boxes, list):
        raise BadRecord(Reason.MISSING_FIELD, "no list in the field 'boxes'")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise BadRecord(Reason.BAD_RECORD, "'classes' is no list of texts")
    if classes and len(classes) != len(boxes):
        raise BadRecord(Reason.BAD_RECORD, f"{len(classes)} classes for {len(boxes)} boxes")
    if not isinstance(normalised, bool):
        raise BadRecord(Reason.BAD_RECORD, "'normalised' is neither true nor false")
    return _Drawn(image, boxes, classes, normalised)


def _entities(record: dict[str, Any]) -> _Drawn:
    """The class of an entity is the first type that a phrase gives it."""
    image, by_entity = record_image(record), record["boxes_xyxy_norm"]
    if not image or not isinstance(by_entity, dict):
        raise BadRecord(Reason.MISSING_FIELD, "no 'image', or 'boxes_xyxy_norm' is no object")
    kinds: dict[str, str] = {}
    try:
        for sentence in record.get("sentences", []):
            for *_, entity, types in sentence["phrases"]:
                kinds.setdefault(str(entity), str(types[0]))
        boxes = [(entity, box) for entity, found in by_entity.items() for box in found]
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise BadRecord(Reason.BAD_RECORD, f"not of Flickr30k Entities: {error!r}") from error
    classes = [kinds.get(entity, "other") for entity, _ in boxes]
    return _Drawn(image, [box for _, box in boxes], classes, True)


def _genome(record: Any) -> _Drawn:
    if isinstance(record, BadRecord):
        raise record
    try:
        number = record.get("image_id", record.get("id"))
        if not isinstance(number, int):
            raise BadRecord(Reason.MISSING_FIELD, "no number in 'image_id' or 'id'")
        if "objects" in record:
            boxes = [_corners([o["x"], o["y"], o["w"], o["h"]]) for o in record["objects"]]
            classes = [str(o["names"][0]) for o in record["objects"]]
        else:
            parts = [[r["x"], r["y"], r["width"], r["height"]] for r in record["regions"]]
            boxes, classes = [_corners(part) for part in parts], []
    except (KeyError, TypeError, IndexError, AttributeError) as error:
        raise BadRecord(Reason.BAD_RECORD, f"not of Visual Genome: {error!r}") from error
    return _Drawn(f"{number}.jpg", boxes, classes, False)


class _Sized(NamedTuple):
    """An image of a COCO file."""

    number: int
    width: Any
    height: Any


class _Coco:
    """The lists of a COCO file, which may come in any order: joined when all is read."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.images: dict[Any, dict[str, _Sized]] = {}  # id -> file's name -> the image
        self.boxes: dict[Any, list[tuple[Any, Any]]] = {}  # image id -> (box, category)
        self.names: dict[Any, str] = {}  # category -> name
        self.shared_categories: dict[Any, tuple[str, str]] = {}  # category -> two of its names
        self.sizes = Sizes()
        self.counts = {"images": 0, "annotations": 0, "categories": 0}

    def add(self, key: str, item: Any) -> None:
        self.counts[key] += 1
        try:
            if key == "images":
                names, name = self.images.setdefault(item["id"], {}), str(item["file_name"])
                image = _Sized(self.counts[key], item.get("width"), item.get("height"))
                names.setdefault(name, image)
                self.sizes.add(name, image.width, image.height)
            elif key == "annotations":
                box = _corners(item["bbox"]), item.get("category_id")
                self.boxes.setdefault(item["image_id"], []).append(box)
            else:
                name = str(item["name"])
                if self.names.setdefault(item["id"], name) != name:
                    self.shared_categories[item["id"]] = (self.names[item["id"]], name)
        except (KeyError, TypeError, AttributeError) as error:
            detail = f"an item of {key!r} of another form: {error!r}"
            raise BadRecord(Reason.BAD_RECORD, detail) from error

    def drawn(self) -> Iterator[tuple[int, _Drawn | Bad]]:
        """(number, what is drawn in it) of every image; bad where others have its id or name."""
        for image, names in self.images.items():
            boxes = self.boxes.get(image, [])
            classes = [self.names.get(kind, str(kind)) for _, kind in boxes]
            for name, (number, width, height) in names.items():
                if boxes and len(names) > 1:
                    yield number, shared_id(image, names).at(self._file, number, name)
                    continue
                if self.sizes.differ(name):
                    yield number, self.sizes.shared_name(name).at(self._file, number, name)
                    continue
                corners = [box for box, _ in boxes]
                sized = all(isinstance(n, int | float) and n > 0 for n in (width, height))
                if sized:
                    corners = [_shares(box, width, height) for box in corners]
                size = (width, height) if sized else (0, 0)
                yield number, _Drawn(name, corners, classes, sized, size)


def _of_coco(file: Path) -> Iterator[BoxSet | Bad]:
    coco = _Coco(str(file))
    for key, item in json_items(file):
        if key in coco.counts:
            try:
                coco.add(key, item)
            except BadRecord as error:
                yield error.at(str(file), coco.counts[key])
    if not coco.images or not coco.boxes:
        told = ", ".join(f"{count} {key}" for key, count in coco.counts.items())
        raise ValueError(f"--boxes {file}: {_EXPECTED}; found {told}, none with 'bbox'")
    for image in (key for key in coco.boxes if key not in coco.images):
        detail = f"boxes of image {image!r}, which is not in 'images'"
        yield BadRecord(Reason.MISSING_IMAGE, detail).at(str(file), 0, str(image))
    if coco.shared_categories:
        kind, names = next(iter(coco.shared_categories.items()))
        raise ValueError(
            f"--boxes {file}: category id {kind!r} is both {names[0]!r} and {names[1]!r}, so boxes "
            "of it may be of either: give every category an id of its own"
        )
    for number, drawn in coco.drawn():
        if isinstance(drawn, Bad):
            yield drawn
        else:
            yield from _checked(drawn, str(file), number)


def _corners(box: Any) -> Any:
    """x, y, width, height -> x1, y1, x2, y2; what is not four numbers stays as it is."""
    try:
        x, y, width, height = box
        return [x, y, x + width, y + height]
    except (TypeError, ValueError):
        return box


def _shares(box: Any, width: float, height: float) -> Any:
    try:
        x1, y1, x2, y2 = box
        return [x1 / width, y1 / height, x2 / width, y2 / height]
    except (TypeError, ValueError):
        return box
