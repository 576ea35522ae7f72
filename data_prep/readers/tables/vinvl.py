"""VinVL's tables of regions.

* image id <tab> ``{"num_boxes": R, "features": base64 float32 [R, F + 6]}``, or Oscar's three
  columns id, R, base64: the last six numbers of a region are its box, x1/W, y1/H, x2/W, y2/H and
  its share of the width and height.
* image id <tab> ``{"objects": [{"rect": [x1, y1, x2, y2], "class": name, "conf": p, "feature":
  base64 float32 [F]}, ...]}`` in pixels, as the detector writes it.

The picture's size stands in the object as image_w and image_h, or in the file ``NAME.hw.tsv``
beside ``NAME.feature.tsv``: image id <tab> ``[{"height": H, "width": W}]``.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.encoding import utf8_stream
from data_prep.readers.tables.rows import MOST_NUMBERS, RawRegions, TableRow, numbers
from data_prep.readers.text import parse_object

_GEOMETRY = 6  # numbers behind the features of a region
_SIZE = re.compile(r"features?")


def picture_sizes(table: Path) -> dict[str, tuple[int, int]]:
    """Image id -> width and height, out of the file of sizes beside ``table``; none without it.

    Raises:
        ValueError: a line of it is none, or gives an image another size than one before.
    """
    path = table.with_name(_SIZE.sub("hw", table.name))
    if path == table or not path.is_file():
        return {}
    sizes: dict[str, tuple[int, int]] = {}
    with path.open("rb") as stream:
        for line, content in enumerate(utf8_stream(stream, path), 1):
            try:
                name, told = content.split(b"\t")
                record = parse_object(told.strip().removeprefix(b"[").removesuffix(b"]"))
                width, height = _size(record, "width", "height")
            except (BadRecord, ValueError) as error:
                expected = 'expected ID <tab> [{"height": H, "width": W}]'
                raise ValueError(f"{path}, line {line}: {error}; {expected}") from error
            image = name.decode("utf-8", "replace")
            if sizes.setdefault(image, (width, height)) != (width, height):
                raise ValueError(
                    f"{path}, line {line}: {image!r} is {width} x {height}, before it was "
                    f"{sizes[image][0]} x {sizes[image][1]}: give every image an id of its own"
                )
    return sizes


def parse_vinvl(line: bytes, row: TableRow) -> RawRegions:
    """The content of a line.

    Raises:
        BadRecord: not of the format.
    """
    columns = line.rstrip(b"\r\n").split(b"\t")
    if len(columns) == 3:
        return _of_block(columns[1], columns[2], row.width, row.height)
    record = parse_object(columns[1])
    width, height = (row.width, row.height) if row.width else _size(record, "image_w", "image_h")
    if "objects" in record:
        return _of_objects(record["objects"], width, height)
    return _of_block(record.get("num_boxes"), record.get("features"), width, height)


def _size(record: dict[str, Any], *names: str) -> tuple[int, int]:
    width, height = (record.get(name) for name in names)
    whole = isinstance(width, int) and isinstance(height, int)
    if not whole or not 1 <= min(width, height) <= max(width, height) < 2**31:
        raise BadRecord(Reason.MISSING_FIELD, f"no size of the picture in {' and '.join(names)}")
    return width, height


def _of_block(count: Any, features: Any, width: int, height: int) -> RawRegions:
    if not width:
        raise BadRecord(
            Reason.MISSING_FIELD,
            "the size of the picture is not known: put NAME.hw.tsv beside NAME.feature.tsv",
        )
    if isinstance(features, str | bytes) and isinstance(count, int | str | bytes):
        array = numbers(features, "<f4", "features")
        try:
            count = int(count)
        except ValueError as error:
            raise BadRecord(Reason.BAD_RECORD, f"num_boxes: {error}") from error
        wide = len(array) // count if count >= 1 else 0
        if wide > _GEOMETRY and wide * count == len(array):
            regions = array.reshape(count, wide)
            size = np.array([width, height, width, height], np.float32)
            boxes = regions[:, -_GEOMETRY:-2] * size
            return RawRegions(width, height, boxes, regions[:, :-_GEOMETRY].reshape(-1))
        told = f"{len(array)} numbers for {count} boxes"
        raise BadRecord(Reason.BAD_RECORD, f"{told}, expected some features and the box for each")
    raise BadRecord(Reason.MISSING_FIELD, "neither objects, nor num_boxes and features in base64")


def _of_objects(objects: Any, width: int, height: int) -> RawRegions:
    boxes, features, names, probs = [], [], [], []
    try:
        for thing in objects:
            boxes.append(np.array(thing["rect"], np.float32).reshape(4))
            features.append(numbers(thing["feature"], "<f4", "feature"))
            names.append(str(thing.get("class", "")))
            probs.append(float(thing.get("conf", 1.0)))
    except KeyError as error:
        raise BadRecord(Reason.MISSING_FIELD, f"an object without {error}") from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadRecord(Reason.BAD_RECORD, f"an object that is none: {error}") from error
    if not boxes or len({len(array) for array in features}) > 1:
        raise BadRecord(Reason.BAD_RECORD, "no objects, or with features of several widths")
    if len(boxes) * len(features[0]) > MOST_NUMBERS:
        raise BadRecord(Reason.TOO_LARGE, f"{len(boxes)} objects of {len(features[0])} features")
    named = tuple(names) if all(names) else ()
    return RawRegions(
        width,
        height,
        np.stack(boxes),
        np.concatenate(features),
        np.array(probs, np.float32) if named else np.empty(0, np.float32),
        names=named,
    )
