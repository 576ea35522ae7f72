"""A row of a table of region features: where it is, and what it holds."""

import base64
import binascii
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from data_prep.quarantine import BadRecord, Reason

# R regions, F features, K classes

BOX_TOLERANCE = 1.0
"""Pixels that a box may reach over the edge: detectors round, and count pixels from 0 or 1."""
MOST_NUMBERS = 1 << 24
"""In one array of one image, 8,192 regions of 2,048 features: a file that declares more is not
read, whatever it is compressed to."""
NO_NUMBERS = np.empty(0, np.float32)
NO_CLASSES = np.empty(0, np.int64)


class TableFormat(StrEnum):
    """How a row is written; see the modules of the same names."""

    TABS = "tabs"
    SEMICOLONS = "semicolons"
    VINVL = "vinvl"
    NPZ = "npz"
    HDF5 = "hdf5"


class TableRow(NamedTuple):
    """Where the regions of an image are. Size and time of the file stand for its content."""

    id: str
    path: str
    format: TableFormat
    source: str
    line: int
    size: int
    changed_ns: int
    offset: int = 0
    length: int = 0  # bytes of the line
    member: str = ""  # group of an HDF5 file
    height_first: bool = False
    width: int = 0  # pixels of the picture, where the row itself does not know; 0: it does
    height: int = 0


class RawRegions(NamedTuple):
    """What a row holds, unchecked but for its shapes."""

    width: float
    height: float
    boxes: np.ndarray  # float32 [R, 4], pixels
    features: np.ndarray  # float32, R*F numbers
    probs: np.ndarray = NO_NUMBERS  # float32, R*K numbers; none if the table has no probabilities
    classes: np.ndarray = NO_CLASSES  # int64 [R], with one probability each; none if it has none
    names: tuple[str, ...] = ()  # [R] classes by name, with one probability each; none if unnamed


class Geometry(NamedTuple):
    """Sizes and boxes of a row whose two sizes may be in either order."""

    first: float
    second: float
    boxes: np.ndarray  # float32 [R, 4]
    height_first: bool  # what the format says


def fits(right: float, bottom: float, width: float, height: float) -> bool:
    """Does a box that ends there lie in a picture of that size?"""
    return bool(right <= width + BOX_TOLERANCE and bottom <= height + BOX_TOLERANCE)


def numbers(text: bytes | str, dtype: str, name: str) -> np.ndarray:
    """The little-endian numbers in base64 text.

    Raises:
        BadRecord: it is not base64, or cut off.
    """
    try:
        return np.frombuffer(base64.b64decode(text, validate=True), dtype=dtype)
    except (binascii.Error, ValueError) as error:
        raise BadRecord(Reason.BAD_RECORD, f"{name}: {error}") from error


def geometry(
    first: bytes, second: bytes, count: bytes, boxes: bytes, height_first: bool
) -> Geometry:
    """Out of the columns of a line.

    Raises:
        BadRecord: no sizes, no boxes, or another number of them than it says.
    """
    try:
        sizes, number = (float(first), float(second)), int(count)
    except ValueError as error:
        raise BadRecord(Reason.BAD_RECORD, str(error)) from error
    if not (np.isfinite(sizes).all() and min(sizes) >= 1 and max(sizes) < 2**31 and number >= 1):
        told = f"{number} boxes in a picture of {sizes[0]} x {sizes[1]}"
        raise BadRecord(Reason.BAD_RECORD, told)
    array = numbers(boxes, "<f4", "boxes")
    if len(array) != 4 * number:
        raise BadRecord(Reason.BAD_RECORD, f"{len(array)} numbers for {number} boxes")
    return Geometry(*sizes, array.reshape(number, 4), height_first)
