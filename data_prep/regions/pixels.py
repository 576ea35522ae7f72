"""Regions that need no model: the normalised patches of a picture."""

from typing import NamedTuple

import numpy as np

from data_prep.readers.images import Picture, open_picture
from data_prep.regions.rows import Regions
from unimo_ds.pixels import PixelGrid


class PixelReader(NamedTuple):
    """Opens a picture and cuts it."""

    grid: PixelGrid

    def regions(self, record: Picture) -> Regions:
        """All patches of a picture, row by row.

        Raises:
            BadRecord: broken_image or decompression_bomb.
        """
        image = open_picture(record.path)
        count = self.grid.num_regions
        return Regions(
            width=image.width,
            height=image.height,
            features=self.grid.features(image).astype(np.float16),
            boxes=self.grid.boxes(),
            class_ids=np.empty((count, 0), dtype=np.uint16),
            class_probs=np.empty((count, 0), dtype=np.float16),
        )
