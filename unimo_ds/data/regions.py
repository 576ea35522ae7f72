"""The regions of a batch while they fill: each image once from the corpus, each [IMG] its mean."""

import numpy as np
import torch

from unimo_ds.config import CorruptionConfig
from unimo_ds.data.buffers import Buffers
from unimo_ds.data.corruption import mask_regions
from unimo_ds.data.segments import ImageRef

# R regions of a batch ([IMG] included), F features, k kept classes

IMG_BOX = np.array([0, 0, 1, 1, 1], np.float32)
_TORCH_GRAIN = 32_768
"""From so many numbers on torch starts threads of its own, in each of our workers."""


class RegionRows:
    """Arrays of R regions, filled image by image.

    Args:
        count: R.
        feature_size, kept_classes: F and k.
        buffers: where the features lie from the start.
    """

    def __init__(self, count: int, feature_size: int, kept_classes: int, buffers: Buffers) -> None:
        self._tensor = buffers.empty(count, feature_size)
        self._features = self._tensor.numpy()
        self._boxes = np.empty((count, 5), np.float32)
        self._region_at = np.empty(count, np.int64)
        self._masked = np.zeros(count, bool)
        self._class_ids = np.zeros((count, kept_classes), np.int64)
        self._class_probs = np.zeros((count, kept_classes), np.float32)
        self._mean = _Mean(feature_size)
        self._end = 0
        self._last: tuple[ImageRef | None, slice] = None, slice(0)

    def add(self, image: ImageRef, position: int, corruption: CorruptionConfig) -> None:
        """Writes [IMG] and the regions of ``image``, which stand from ``position`` on.

        Raises:
            ValueError: the corpus holds another number of regions than its lengths say.
        """
        expected = 1 + int(image.corpus.lengths[image.row])
        rows = slice(self._end, self._end + expected)
        self._end = rows.stop
        self._region_at[rows] = np.arange(position, position + expected)
        last, again = self._last
        if image == last:  # the segments of a pair show one image several times
            for array in (self._features, self._boxes, self._class_ids, self._class_probs):
                array[rows] = array[again]
            return
        self._read(image, rows)
        masked = None
        regions = slice(rows.start + 1, rows.stop)
        if image.mask_key and expected > 1:
            rng = np.random.default_rng(image.mask_key)
            masked = mask_regions(self._boxes[regions], corruption, rng)
            self._masked[regions] = masked
        else:
            self._last = image, rows
        self._features[rows.start] = self._mean_of(regions, masked)

    def arrays(self) -> dict[str, torch.Tensor]:
        """The fields of a `Batch` that are about regions."""
        assert self._end == len(self._features)
        return {
            "features": self._tensor,
            "boxes": torch.from_numpy(self._boxes),
            "region_at": torch.from_numpy(self._region_at),
            "region_masked": torch.from_numpy(self._masked),
            "region_class_ids": torch.from_numpy(self._class_ids),
            "region_class_probs": torch.from_numpy(self._class_probs),
        }

    def _read(self, image: ImageRef, rows: slice) -> None:
        arrays, of_row = image.corpus.region_rows(image.row)
        found = of_row.stop - of_row.start
        if 1 + found != rows.stop - rows.start:
            raise ValueError(
                f"row {image.row} of {image.corpus.folder} holds {found} regions, its lengths file "
                f"says {rows.stop - rows.start - 1}: see `unimo-prep verify`"
            )
        at = slice(rows.start + 1, rows.stop)
        self._features[at] = arrays.features[of_row]
        self._boxes[rows.start], self._boxes[at] = IMG_BOX, arrays.boxes[of_row]
        self._class_ids[at] = arrays.class_ids[of_row]
        self._class_probs[at] = arrays.class_probs[of_row]

    def _mean_of(self, regions: slice, masked: np.ndarray | None) -> np.ndarray:
        """float16 [F]. Of visible regions only, or the mean would give masked ones away."""
        if masked is None:
            return self._mean(self._tensor[regions])
        return self._mean(torch.from_numpy(self._features[regions][~masked]))


class _Mean:
    """Means over rows, summed one row after the other in float32: the same bits everywhere.

    torch converts float16 ten times as fast as numpy and a few rows at a time stay in the cache:
    together a fifth of the time of ``features.mean(axis=0, dtype=np.float32)``, with its result.
    """

    def __init__(self, feature_size: int) -> None:
        self._rows = max(1, (_TORCH_GRAIN - 1) // feature_size)
        self._scratch = np.empty((1 + self._rows, feature_size), np.float32)
        self._converted = torch.from_numpy(self._scratch[1:])
        self._total = np.empty(feature_size, np.float32)

    def __call__(self, features: torch.Tensor) -> np.ndarray:
        """float16 [F]: the mean of ``features`` [R, F]; zeros where there is none."""
        if not len(features):
            return np.zeros(len(self._total), np.float16)
        for start in range(0, len(features), self._rows):
            part = features[start : start + self._rows]
            self._converted[: len(part)].copy_(part)
            # The total so far is the first row of what is summed next.
            rows = self._scratch[int(start == 0) : 1 + len(part)]
            np.add.reduce(rows, axis=0, out=self._total)
            self._scratch[0] = self._total
        return (self._total / np.float32(len(features))).astype(np.float16)
