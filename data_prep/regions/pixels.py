"""Regions that need no model: the normalised patches of a picture."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data_prep.quarantine import BadRecord
from data_prep.readers.images import Picture, open_scaled
from data_prep.regions.rows import Regions, one_by_one
from unimo_ds.data.schema import RegionSource
from unimo_ds.pixels import PixelGrid


def grid_of_source(source: RegionSource) -> PixelGrid:
    """The grid that a corpus of pixels says it was cut with.

    Raises:
        ValueError: it does not go with the number and size of its regions.
    """
    try:
        grid = PixelGrid(**source.parameters)
        fits = (grid.num_regions, grid.feature_size) == (source.max_regions, source.feature_size)
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise ValueError(
            f"regions of pixels with parameters {source.parameters} are not {source.max_regions} "
            f"of {source.feature_size} numbers: the manifest was changed, or rebuild the corpus"
        )
    return grid


class PixelReader(NamedTuple):
    """Opens a picture and cuts it."""

    grid: PixelGrid
    wants_gpu = False

    def regions_of(self, records: Sequence[Picture]) -> Iterator[Regions | BadRecord]:
        """See `RegionReader`."""
        return one_by_one(self.regions, records)

    def regions(self, record: Picture) -> Regions:
        """All patches of a picture, row by row.

        Raises:
            BadRecord: see `open_picture`.
        """
        image, (width, height) = open_scaled(record, self.grid.side)
        count = self.grid.num_regions
        return Regions(
            width=width,
            height=height,
            features=self.grid.features(image, np.float16),
            boxes=self.grid.boxes(),
            class_ids=np.empty((count, 0), dtype=np.uint16),
            class_probs=np.empty((count, 0), dtype=np.float16),
        )
