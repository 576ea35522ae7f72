"""UNIMO's fine-tuning rows, separated by ";". Only regions are taken from them.

* SNLI-VE, 14 fields: image id; row id; label; token, sentence and position ids; -; width; height;
  number of boxes; boxes; features; -; -.
* COCO captions, 16 fields: 9 characters + image id; caption id; token, sentence and position ids;
  segment labels; -; -; height; width; number of boxes; boxes; class probabilities; attribute
  probabilities; features; label.

Their texts are token ids of UNIMO's own vocabulary: captions come from the original sets instead.
An image has a row for each of its texts.
"""

from typing import NamedTuple

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.tables.rows import Geometry, RawRegions, geometry, numbers

_ID_PREFIX = 9  # characters before the image id in rows of COCO


class _Fields(NamedTuple):
    """At which place a row has what."""

    first: int  # of the two sizes
    count: int
    boxes: int
    features: int
    probs: int
    height_first: bool


_SNLI_VE = _Fields(first=7, count=9, boxes=10, features=11, probs=0, height_first=False)
_COCO = _Fields(first=8, count=10, boxes=11, features=14, probs=12, height_first=True)


def fields_of(line: bytes) -> list[bytes]:
    """The fields of a line."""
    return [field.strip() for field in line.rstrip(b"\r\n").split(b";")]


def image_id(fields: list[bytes]) -> bytes:
    """The image's own id, without the characters that UNIMO puts before COCO's.

    Raises:
        BadRecord: nothing is left.
    """
    name = fields[0][_ID_PREFIX:] if _places(fields) is _COCO else fields[0]
    if not name:
        raise BadRecord(Reason.MISSING_FIELD, f"no image id in {fields[0]!r}")
    return name


def semicolon_geometry(fields: list[bytes]) -> Geometry:
    """Sizes and boxes of a line.

    Raises:
        BadRecord: not of the format.
    """
    at = _places(fields)
    sizes = fields[at.first], fields[at.first + 1]
    return geometry(*sizes, fields[at.count], fields[at.boxes], at.height_first)


def same_regions(fields: list[bytes]) -> int:
    """The same number for rows that tell of the same regions, within one process."""
    at = _places(fields)
    return hash((fields[at.boxes], fields[at.features]))


def parse_semicolons(line: bytes, height_first: bool) -> RawRegions:
    """The content of a line.

    Raises:
        BadRecord: not of the format.
    """
    fields = fields_of(line)
    at = _places(fields)
    first, second, boxes, _ = semicolon_geometry(fields)
    width, height = (second, first) if height_first else (first, second)
    found = RawRegions(width, height, boxes, numbers(fields[at.features], "<f4", "features"))
    if not at.probs:
        return found
    return found._replace(probs=numbers(fields[at.probs], "<f4", "probabilities"))


def _places(fields: list[bytes]) -> _Fields:
    if len(fields) == 14:
        return _SNLI_VE
    if len(fields) == 16:
        return _COCO
    expected = "expected tabs, or 14 (SNLI-VE) or 16 (COCO) of UNIMO"
    raise BadRecord(Reason.BAD_RECORD, f'{len(fields)} fields between ";", {expected}')
