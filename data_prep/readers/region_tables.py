"""Region features that somebody extracted before: which rows the tables have, and what is in a row.

Formats, all of pixels (x1, y1, x2, y2) and little-endian numbers in base64:

* UNIMO and bottom-up-attention, tab separated, 7 or 6 columns: image id, width, height, number of
  boxes, boxes float32 [R, 4], features float32 [R, F] (, class probabilities float32 [R, K]). Files
  with height before width exist too; the boxes tell which is which.
* LXMERT, tab separated, 10 columns: image id, height, width, class ids int64 [R], their
  confidences float32 [R], attribute ids and confidences, number of boxes, boxes, features.
* ``.npz``: features or x [R, F], boxes or bbox [R, 4], image_w, image_h (, probs or cls_prob
  [R, K]); the id is the file's path below the folder, without the suffix.
"""

import base64
import binascii
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.quarantine import Bad, BadRecord, Reason

# R regions, F features, K classes

BOX_TOLERANCE = 1.0
"""Pixels that a box may reach over the edge: detectors round, and count pixels from 0 or 1."""
_WIDTH_FIRST, _HEIGHT_FIRST = "wh", "hw"
BOX_ORDERS = ("auto", _WIDTH_FIRST, _HEIGHT_FIRST)
_HEADERS = (b"image_id", b"img_id")
_UNIMO_COLUMNS, _LXMERT_COLUMNS = (6, 7), 10


class TableRow(NamedTuple):
    """Where the regions of an image are. Size and time of the file stand for its content."""

    id: str
    path: str
    offset: int
    length: int  # bytes of the line; 0: the whole .npz file
    height_first: bool
    source: str
    line: int
    size: int
    changed_ns: int


class RawRegions(NamedTuple):
    """What a row holds, unchecked but for its shapes."""

    width: float
    height: float
    boxes: np.ndarray  # float32 [R, 4]
    features: np.ndarray  # float32, R*F numbers
    probs: np.ndarray  # float32, R*K numbers; none if the table knows no probabilities
    classes: (
        np.ndarray
    )  # int64 [R], with one probability each; none if it knows no detected classes


def read_tables(
    sources: Sequence[Path], box_order: str = "auto"
) -> tuple[list[TableRow], list[Bad]]:
    """The rows of all tables, and entries for lines that are none.

    Raises:
        ValueError: a source that is no table, or no row in any of them.
    """
    if box_order not in BOX_ORDERS:
        raise ValueError(f"--box-order {box_order}: expected one of {', '.join(BOX_ORDERS)}")
    rows: dict[str, TableRow] = {}
    bad: list[Bad] = []
    for source in sources:
        for entry in _rows_of(source, box_order):
            if isinstance(entry, Bad):
                bad.append(entry)
            elif entry.id in rows:
                error = BadRecord(Reason.DUPLICATE_ID, f"id {entry.id!r} was there before")
                bad.append(error.at(entry.source, entry.line, entry.id))
            else:
                rows[entry.id] = entry
    if not rows:
        raise ValueError(f"no row of regions in {', '.join(map(str, sources))}")
    return list(rows.values()), bad


def read_row(row: TableRow) -> RawRegions:
    """The content of one row.

    Raises:
        BadRecord: not of the format.
    """
    if not row.length:
        return _read_npz(row.path)
    with open(row.path, "rb") as file:
        file.seek(row.offset)
        return _parse_line(file.read(row.length), row.height_first)


def _rows_of(source: Path, box_order: str) -> Iterator[TableRow | Bad]:
    if source.is_dir():
        files = sorted(source.rglob("*.npz"))
        if not files:
            raise ValueError(f"{source} is a folder without .npz files")
        return (_npz_row(file, str(file.relative_to(source).with_suffix(""))) for file in files)
    if not source.is_file():
        raise ValueError(f"no file {source}")
    if source.suffix == ".npz":
        return iter([_npz_row(source, source.stem)])
    return _tsv_rows(source, box_order)


def _npz_row(file: Path, name: str) -> TableRow:
    state = file.stat()
    return TableRow(name, str(file), 0, 0, False, str(file), 1, state.st_size, state.st_mtime_ns)


def _tsv_rows(file: Path, box_order: str) -> Iterator[TableRow | Bad]:
    state = file.stat()
    found: list[TableRow | Bad] = []
    offset = misfits = misfits_swapped = 0
    lxmert = False
    with file.open("rb") as stream:
        for line, content in enumerate(stream, 1):
            columns = content.rstrip(b"\r\n").split(b"\t")
            at, offset = offset, offset + len(content)
            if not content.strip() or (line == 1 and columns[0] in _HEADERS):
                continue
            name = columns[0].decode("utf-8", "replace")
            try:
                fit, fit_swapped = _fits(columns)
            except BadRecord as error:
                found.append(error.at(str(file), line, name))
                continue
            misfits, misfits_swapped = misfits + (not fit), misfits_swapped + (not fit_swapped)
            lxmert = lxmert or len(columns) == _LXMERT_COLUMNS
            size, changed = state.st_size, state.st_mtime_ns
            row = TableRow(name, str(file), at, len(content), False, str(file), line, size, changed)
            found.append(row)
    if box_order != "auto":
        height_first = box_order == _HEIGHT_FIRST
    elif misfits == misfits_swapped:
        height_first = lxmert
    else:
        height_first = misfits_swapped < misfits
    return (r._replace(height_first=height_first) if isinstance(r, TableRow) else r for r in found)


def _fits(columns: list[bytes]) -> tuple[bool, bool]:
    """Do the boxes lie in the picture if the columns are (width, height), and if swapped?"""
    width, height, _, boxes = _geometry(columns)
    right, bottom = boxes[:, 2].max(initial=0), boxes[:, 3].max(initial=0)
    return fits(right, bottom, width, height), fits(right, bottom, height, width)


def fits(right: float, bottom: float, width: float, height: float) -> bool:
    """Does a box that ends there lie in a picture of that size?"""
    return bool(right <= width + BOX_TOLERANCE and bottom <= height + BOX_TOLERANCE)


def _geometry(columns: list[bytes]) -> tuple[float, float, int, np.ndarray]:
    """First and second size column, number of boxes, boxes."""
    if len(columns) in _UNIMO_COLUMNS:
        count, boxes = columns[3], columns[4]
    elif len(columns) == _LXMERT_COLUMNS:
        count, boxes = columns[7], columns[8]
    else:
        raise BadRecord(Reason.BAD_RECORD, f"{len(columns)} columns, expected 6, 7 or 10")
    try:
        first, second, number = float(columns[1]), float(columns[2]), int(count)
    except ValueError as error:
        raise BadRecord(Reason.BAD_RECORD, str(error)) from error
    if not (np.isfinite([first, second]).all() and min(first, second) >= 1 and number >= 1):
        raise BadRecord(Reason.BAD_RECORD, f"{number} boxes in a picture of {first} x {second}")
    array = _numbers(boxes, "<f4", "boxes")
    if len(array) != 4 * number:
        raise BadRecord(Reason.BAD_RECORD, f"{len(array)} numbers for {number} boxes")
    return first, second, number, array.reshape(number, 4)


def _parse_line(line: bytes, height_first: bool) -> RawRegions:
    columns = line.rstrip(b"\r\n").split(b"\t")
    first, second, number, boxes = _geometry(columns)
    width, height = (second, first) if height_first else (first, second)
    probs, classes = np.empty(0, np.float32), np.empty(0, np.int64)
    if len(columns) == _LXMERT_COLUMNS:
        features = _numbers(columns[9], "<f4", "features")
        classes = _numbers(columns[3], "<i8", "class ids")
        probs = _numbers(columns[4], "<f4", "confidences")
        if not len(classes) == len(probs) == number:
            raise BadRecord(Reason.BAD_RECORD, f"{len(classes)} class ids for {number} boxes")
    else:
        features = _numbers(columns[5], "<f4", "features")
        if len(columns) == max(_UNIMO_COLUMNS):
            probs = _numbers(columns[6], "<f4", "probabilities")
    return RawRegions(width, height, boxes, features, probs, classes)


def _numbers(text: bytes, dtype: str, name: str) -> np.ndarray:
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
    except (binascii.Error, ValueError) as error:
        raise BadRecord(Reason.BAD_RECORD, f"{name}: {error}") from error


def _read_npz(path: str) -> RawRegions:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features = _first_of(arrays, "features", "x")
            boxes = _first_of(arrays, "boxes", "bbox")
            width, height = float(arrays["image_w"]), float(arrays["image_h"])
            has_probs = {"probs", "cls_prob"} & set(arrays.files)
            probs = _first_of(arrays, "probs", "cls_prob") if has_probs else np.empty(0)
            return RawRegions(
                width,
                height,
                boxes.astype(np.float32).reshape(-1, 4),
                features.astype(np.float32).reshape(-1),
                probs.astype(np.float32).reshape(-1),
                np.empty(0, np.int64),
            )
    except KeyError as error:
        raise BadRecord(Reason.MISSING_FIELD, str(error)) from error
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise BadRecord(Reason.BAD_RECORD, f"{type(error).__name__}: {error}") from error


def _first_of(arrays: np.lib.npyio.NpzFile, *names: str) -> np.ndarray:
    name = next((name for name in names if name in arrays.files), names[0])
    return arrays[name]
