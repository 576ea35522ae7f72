"""Regions out of an encoder's map of a picture: its cells, or given boxes pooled over it."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.images import Picture
from data_prep.regions.boxes import (
    as_float16,
    grid_boxes,
    lies_sideways,
    relative_boxes,
    with_area,
)
from data_prep.regions.encoder import Encoded, Encoder
from data_prep.regions.pooling import POINTS, pool_boxes, shrink
from data_prep.regions.rows import Regions

# R regions

_TOLERANCE = 0.01  # a normalised box may reach over the edge by this share


class GridReader(NamedTuple):
    """The cells of the map, or as many means over it as ``grid`` says."""

    encoder: Encoder
    grid: int  # cells a side; 0: those of the map

    @property
    def wants_gpu(self) -> bool:
        """See `RegionReader`."""
        return self.encoder.folder.wants_gpu

    def regions_of(self, records: Sequence[Picture]) -> Iterator[Regions | BadRecord]:
        """See `RegionReader`."""
        for found in self.encoder.encoded(records):
            try:
                yield found if isinstance(found, BadRecord) else self._regions(found)
            except BadRecord as error:
                yield error

    def _regions(self, found: Encoded) -> Regions:
        cells = shrink(found.cells, self.grid) if self.grid else found.cells
        size, rows, columns = cells.shape
        features = as_float16(cells.reshape(size, -1).T)
        return _unlabelled(found, features, grid_boxes(rows, columns))


class BoxedPicture(NamedTuple):
    """A picture with boxes that somebody drew."""

    picture: Picture
    boxes: tuple[tuple[float, float, float, float], ...]  # x1, y1, x2, y2
    normalised: bool  # shares of width and height, else pixels
    class_ids: tuple[int, ...]  # as many as boxes; none if they have no classes
    size: tuple[float, float] = (0, 0)  # width and height that the boxes were drawn on, if known

    @property
    def id(self) -> str:
        return self.picture.id

    @property
    def path(self) -> str:
        return self.picture.path

    @property
    def source(self) -> str:
        return self.picture.source

    @property
    def line(self) -> int:
        return self.picture.line


class BoxReader(NamedTuple):
    """The map pooled over given boxes."""

    encoder: Encoder
    max_regions: int

    @property
    def wants_gpu(self) -> bool:
        """See `RegionReader`."""
        return self.encoder.folder.wants_gpu

    def regions_of(self, records: Sequence[BoxedPicture]) -> Iterator[Regions | BadRecord]:
        """See `RegionReader`."""
        maps = self.encoder.encoded([record.picture for record in records])
        for record, found in zip(records, maps, strict=True):
            try:
                yield found if isinstance(found, BadRecord) else self._regions(record, found)
            except BadRecord as error:
                yield error

    def _regions(self, record: BoxedPicture, found: Encoded) -> Regions:
        if lies_sideways(record.size, found.width, found.height):
            raise BadRecord(
                Reason.BAD_BOX,
                "boxes of a picture of {:g} x {:g}, ".format(*record.size)
                + f"it is shown as {found.width} x {found.height}: turn them as its EXIF turns it, "
                "or take the orientation out of its EXIF",
            )
        boxes = np.array(record.boxes[: self.max_regions], np.float32)
        if not record.normalised:
            boxes = relative_boxes(boxes, found.width, found.height)
        elif boxes.min() < -_TOLERANCE or boxes.max() > 1 + _TOLERANCE:
            raise BadRecord(Reason.BOX_OUTSIDE_IMAGE, f"from {boxes.min():g} to {boxes.max():g}")
        else:
            boxes = with_area(boxes.clip(0, 1))
        features = as_float16(pool_boxes(found.cells, boxes[:, :4]))
        regions = _unlabelled(found, features, boxes)
        if not record.class_ids:
            return regions
        ids = np.array(record.class_ids[: self.max_regions], np.uint16)[:, None]
        return regions._replace(class_ids=ids, class_probs=np.ones(ids.shape, np.float16))


def box_parameters() -> dict[str, Any]:
    """How maps are pooled over boxes, for the manifest."""
    return {"pooling": "roi_align", "points": POINTS}


def _unlabelled(found: Encoded, features: np.ndarray, boxes: np.ndarray) -> Regions:
    """Regions without classes."""
    count = len(boxes)
    none_ids, none_probs = np.empty((count, 0), np.uint16), np.empty((count, 0), np.float16)
    return Regions(found.width, found.height, features, boxes, none_ids, none_probs)
