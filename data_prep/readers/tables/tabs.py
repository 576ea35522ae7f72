"""Tab-separated tables of regions: UNIMO's, those of bottom-up attention, LXMERT's.

* 7 or 6 columns: image id, width, height, number of boxes, boxes float32 [R, 4], features float32
  [R, F] (, class probabilities float32 [R, K]). Files with height before width exist too.
* LXMERT, 10 columns: image id, height, width, class ids int64 [R], their confidences float32 [R],
  attribute ids and confidences, number of boxes, boxes, features.

Arrays are little-endian numbers in base64; boxes are pixels. Columns may be quoted, as by `csv`.
"""

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.tables.rows import Geometry, RawRegions, geometry, numbers

HEADERS = (b"image_id", b"img_id")
_SHORT, _WITH_PROBABILITIES, _LXMERT = 6, 7, 10


def columns_of(line: bytes) -> list[bytes]:
    """The columns of a line, without `csv`'s quotes."""
    return [_unquoted(column) for column in line.rstrip(b"\r\n").split(b"\t")]


def tabs_geometry(columns: list[bytes]) -> Geometry:
    """Sizes and boxes of a line.

    Raises:
        BadRecord: not of the format.
    """
    if len(columns) in (_SHORT, _WITH_PROBABILITIES):
        return geometry(*columns[1:5], height_first=False)
    if len(columns) == _LXMERT:
        return geometry(columns[1], columns[2], columns[7], columns[8], height_first=True)
    expected = "expected 6, 7 or 10, or 2 or 3 of VinVL"
    raise BadRecord(Reason.BAD_RECORD, f"{len(columns)} columns, {expected}")


def parse_tabs(line: bytes, height_first: bool) -> RawRegions:
    """The content of a line.

    Raises:
        BadRecord: not of the format.
    """
    columns = columns_of(line)
    first, second, boxes, _ = tabs_geometry(columns)
    width, height = (second, first) if height_first else (first, second)
    if len(columns) != _LXMERT:
        has_probs = len(columns) == _WITH_PROBABILITIES
        found = RawRegions(width, height, boxes, numbers(columns[5], "<f4", "features"))
        if not has_probs:
            return found
        return found._replace(probs=numbers(columns[6], "<f4", "probabilities"))
    classes = numbers(columns[3], "<i8", "class ids")
    probs = numbers(columns[4], "<f4", "confidences")
    if not len(classes) == len(probs) == len(boxes):
        raise BadRecord(Reason.BAD_RECORD, f"{len(classes)} class ids for {len(boxes)} boxes")
    return RawRegions(width, height, boxes, numbers(columns[9], "<f4", "features"), probs, classes)


def _unquoted(column: bytes) -> bytes:
    if len(column) >= 2 and column[:1] == column[-1:] == b'"':
        return column[1:-1].replace(b'""', b'"')
    return column
