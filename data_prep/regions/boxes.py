"""Boxes and numbers of regions: checked, and made relative to their picture."""

import numpy as np

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.tables.rows import BOX_TOLERANCE, fits

# R regions, F features

_ASPECT_TOLERANCE = 0.02  # pictures are resized to whole pixels
_MOST_FLOAT16 = float(np.finfo(np.float16).max)  # 65,504


def grid_boxes(rows: int, columns: int) -> np.ndarray:
    """float32 [rows*columns, 5]: x1/W, y1/H, x2/W, y2/H, area share of each cell, row by row."""
    row, column = np.divmod(np.arange(rows * columns), columns)
    edges = np.stack([column, row, column + 1, row + 1], axis=1)
    return with_area(edges / np.array([columns, rows, columns, rows]))


def relative_boxes(boxes: np.ndarray, width: float, height: float) -> np.ndarray:
    """float32 [R, 5] of float32 [R, 4] in pixels of a picture of that size.

    Raises:
        BadRecord: boxes that end before they begin, or lie outside.
    """
    left, top, right, bottom = boxes.T
    if (right < left).any() or (bottom < top).any():
        raise BadRecord(Reason.BOX_COLUMN_ORDER, "a box ends before it begins: not x1, y1, x2, y2")
    if not fits(right.max(), bottom.max(), width, height):
        told = f"a box ends at {right.max():g}, {bottom.max():g} in {width:g} x {height:g}"
        if fits(right.max(), bottom.max(), height, width):
            raise BadRecord(Reason.BOX_COLUMN_ORDER, f"{told}: width and height seem swapped")
        raise BadRecord(Reason.BOX_OUTSIDE_IMAGE, told)
    if min(left.min(), top.min()) < -BOX_TOLERANCE:
        raise BadRecord(Reason.BOX_OUTSIDE_IMAGE, f"a box begins at {left.min():g}, {top.min():g}")
    size = np.array([width, height, width, height], dtype=np.float32)
    return with_area((boxes / size).clip(0, 1))


def lies_sideways(size: tuple[float, float], width: int, height: int) -> bool:
    """Is a picture of that size, or resized from it, shown with its sides swapped?

    Pictures may have been squeezed too: only a size that fits swapped, and not as it is, counts.
    One of 0 x 0 is not known and never does.
    """

    def same_shape(across: float, down: float) -> bool:
        return abs(across * height - down * width) <= _ASPECT_TOLERANCE * down * width

    return same_shape(size[1], size[0]) and not same_shape(*size)


def with_area(edges: np.ndarray) -> np.ndarray:
    """float32 [R, 5] of relative edges [R, 4]."""
    area = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    return np.concatenate([edges, area[:, None]], axis=1).astype(np.float32)


def check_finite(name: str, numbers: np.ndarray) -> None:
    """Refuses NaN and infinity.

    Raises:
        BadRecord: non_finite_features.
    """
    if not np.isfinite(numbers).all():
        raise BadRecord(Reason.NON_FINITE_FEATURES, f"NaN or infinity in {name}")


def as_float16(features: np.ndarray) -> np.ndarray:
    """float16 of features [R, F].

    Raises:
        BadRecord: numbers that are none, or that float16 cannot hold.
    """
    check_finite("features", features)
    largest = float(np.abs(features).max(initial=0))
    if largest > _MOST_FLOAT16:
        raise BadRecord(Reason.FEATURE_OVERFLOW, f"{largest:g}, float16 holds {_MOST_FLOAT16:g}")
    return features.astype(np.float16)


def likeliest(probs: np.ndarray, kept: int) -> tuple[np.ndarray, np.ndarray]:
    """uint16 and float16 [R, k]: the likeliest classes of probabilities [R, K], likeliest first."""
    order = np.argsort(-probs, axis=1, kind="stable")[:, :kept]
    top = np.take_along_axis(probs, order, axis=1)
    return order.astype(np.uint16), top.astype(np.float16)
