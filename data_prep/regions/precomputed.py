"""Regions out of feature tables: checked, boxes made relative, soft labels cut to their top."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.region_tables import (
    BOX_TOLERANCE,
    RawRegions,
    TableRow,
    fits,
    read_row,
)
from data_prep.regions.rows import Regions

# R regions, F features, K classes, k kept classes

_MOST_FLOAT16 = float(np.finfo(np.float16).max)  # 65,504
_SUM_TOLERANCE = 0.02  # of probabilities that somebody rounded


class TableReader(NamedTuple):
    """What all rows of a corpus have in common."""

    feature_size: int
    num_classes: int  # K; 0: the tables know no classes
    kept_classes: int  # k
    max_regions: int

    def regions(self, record: TableRow) -> Regions:
        """The first ``max_regions`` regions of a row.

        Raises:
            BadRecord: its numbers are not what the format promises.
        """
        raw = read_row(record)
        count = len(raw.boxes)
        features = _matrix(raw.features, count, self.feature_size, "features")
        kept = slice(self.max_regions)
        _check_numbers(features, raw)
        ids, probs = self._classes(raw)
        return Regions(
            width=round(raw.width),
            height=round(raw.height),
            features=features[kept].astype(np.float16),
            boxes=_relative(raw)[kept],
            class_ids=ids[kept],
            class_probs=probs[kept],
        )

    def _classes(self, raw: RawRegions) -> tuple[np.ndarray, np.ndarray]:
        """uint16 and float16 [R, k]: the k likeliest classes of every region, likeliest first."""
        count = len(raw.boxes)
        if not self.num_classes:
            return np.empty((count, 0), np.uint16), np.empty((count, 0), np.float16)
        if len(raw.classes):
            if raw.classes.min() < 0 or raw.classes.max() >= self.num_classes:
                detail = f"class {raw.classes.max()}, but --num-classes is {self.num_classes}"
                raise BadRecord(Reason.BAD_RECORD, detail)
            return raw.classes[:, None].astype(np.uint16), raw.probs[:, None].astype(np.float16)
        probs = _matrix(raw.probs, count, self.num_classes, "probabilities")
        if probs.min() < 0 or probs.sum(axis=1).max() > 1 + _SUM_TOLERANCE:
            raise BadRecord(Reason.BAD_RECORD, "probabilities below 0 or with a sum above 1")
        order = np.argsort(-probs, axis=1, kind="stable")[:, : self.kept_classes]
        top = np.take_along_axis(probs, order, axis=1)
        return order.astype(np.uint16), top.astype(np.float16)


def table_reader(
    rows: Sequence[TableRow], num_classes: int, kept_classes: int, max_regions: int
) -> TableReader:
    """The reader for tables like the first readable row of ``rows``.

    ``num_classes`` counts where the table has detected classes without a distribution.

    Raises:
        ValueError: no row is readable.
    """
    for row in rows:
        try:
            raw = read_row(row)
        except BadRecord:
            continue
        count = len(raw.boxes)
        if not count or not len(raw.features) or len(raw.features) % count:
            continue
        feature_size = len(raw.features) // count
        if len(raw.classes):
            return TableReader(feature_size, num_classes, 1, max_regions)
        found = len(raw.probs) // count
        return TableReader(feature_size, found, min(kept_classes, found), max_regions)
    raise ValueError(f"none of the {len(rows)} rows of the tables can be read")


def _matrix(numbers: np.ndarray, count: int, width: int, name: str) -> np.ndarray:
    if not count or len(numbers) != count * width:
        detail = f"{len(numbers)} {name} for {count} boxes, the first row has {width} for each"
        raise BadRecord(Reason.WRONG_FEATURE_SIZE, detail)
    return numbers.reshape(count, width)


def _check_numbers(features: np.ndarray, raw: RawRegions) -> None:
    for name, numbers in (("features", features), ("boxes", raw.boxes), ("probs", raw.probs)):
        if not np.isfinite(numbers).all():
            raise BadRecord(Reason.NON_FINITE_FEATURES, f"NaN or infinity in {name}")
    largest = float(np.abs(features).max())
    if largest > _MOST_FLOAT16:
        raise BadRecord(Reason.FEATURE_OVERFLOW, f"{largest:g}, float16 holds {_MOST_FLOAT16:g}")


def _relative(raw: RawRegions) -> np.ndarray:
    """float32 [R, 5] of float32 [R, 4] in pixels."""
    left, top, right, bottom = raw.boxes.T
    if (right < left).any() or (bottom < top).any():
        raise BadRecord(Reason.BOX_COLUMN_ORDER, "a box ends before it begins: not x1, y1, x2, y2")
    if not fits(right.max(), bottom.max(), raw.width, raw.height):
        told = f"a box ends at {right.max():g}, {bottom.max():g} in {raw.width:g} x {raw.height:g}"
        if fits(right.max(), bottom.max(), raw.height, raw.width):
            raise BadRecord(Reason.BOX_COLUMN_ORDER, f"{told}: width and height seem swapped")
        raise BadRecord(Reason.BOX_OUTSIDE_IMAGE, told)
    if min(left.min(), top.min()) < -BOX_TOLERANCE:
        raise BadRecord(Reason.BOX_OUTSIDE_IMAGE, f"a box begins at {left.min():g}, {top.min():g}")
    size = np.array([raw.width, raw.height, raw.width, raw.height], dtype=np.float32)
    edges = (raw.boxes / size).clip(0, 1)
    area = (edges[:, 2] - edges[:, 0]) * (edges[:, 3] - edges[:, 1])
    return np.concatenate([edges, area[:, None]], axis=1).astype(np.float32)
