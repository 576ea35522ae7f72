"""The regions of a batch while they fill: each image of a row once, each [IMG] its mean."""

from collections.abc import Iterable

import numpy as np
import torch

from unimo_ds.config import CorruptionConfig
from unimo_ds.data.buffers import Buffers
from unimo_ds.data.corruption import mask_regions
from unimo_ds.data.segments import ImageRef
from unimo_ds.data.shards import ImageCorpus

# R regions of a batch ([IMG] included), U vectors that they show, F features, k kept classes

IMG_BOX = np.array([0, 0, 1, 1, 1], np.float32)
_TORCH_GRAIN = 32_768
"""From so many numbers on torch starts threads of its own, in each of our workers."""


def num_vectors(shown: Iterable[ImageRef]) -> int:
    """U of one row: the regions of each image, and a mean for each choice of visible ones."""
    refs = set(shown)
    images = {(ref.corpus, ref.row) for ref in refs}
    return len(refs) + sum(int(corpus.lengths[row]) for corpus, row in images)


class RegionRows:
    """Arrays of R regions and of the U vectors that they show, filled image by image.

    Args:
        count: R.
        vectors: U, the sum of `num_vectors` over the rows.
        feature_size, kept_classes: F and k.
        buffers: where the features lie from the start.
    """

    def __init__(
        self, count: int, vectors: int, feature_size: int, kept_classes: int, buffers: Buffers
    ) -> None:
        self._tensor = buffers.empty(vectors, feature_size)
        self._features = self._tensor.numpy()
        self._class_ids = np.zeros((vectors, kept_classes), np.int64)
        self._class_probs = np.zeros((vectors, kept_classes), np.float32)
        self._boxes = np.empty((count, 5), np.float32)
        self._region_at = np.empty(count, np.int64)
        self._region_feature = np.empty(count, np.int64)
        self._masked = np.zeros(count, bool)
        self._mean = _Mean(feature_size)
        self._end = self._vectors_end = 0
        self.begin_row()

    def begin_row(self) -> None:
        """Images are shared within a row: how rows lie on ranks must not change what they hold."""
        # Image -> the regions that show it and its vectors; and where a mean of it lies.
        self._images: dict[tuple[ImageCorpus, int], tuple[slice, slice]] = {}
        self._means: dict[ImageRef, int] = {}

    def add(self, image: ImageRef, position: int, corruption: CorruptionConfig) -> None:
        """Writes [IMG] and the regions of ``image``, which stand from ``position`` on.

        Raises:
            ValueError: the corpus holds another number of regions than its lengths say.
        """
        rows = slice(self._end, self._end + 1 + int(image.corpus.lengths[image.row]))
        self._end = rows.stop
        self._region_at[rows] = np.arange(position, position + rows.stop - rows.start)
        regions = slice(rows.start + 1, rows.stop)
        if (image.corpus, image.row) in self._images:
            again, vectors = self._images[image.corpus, image.row]
            self._boxes[rows] = self._boxes[again]
        else:
            vectors = self._read(image, rows)
            self._images[image.corpus, image.row] = rows, vectors
        masked = None
        if image.mask_key and rows.stop > regions.start:
            rng = np.random.default_rng(image.mask_key)
            masked = mask_regions(self._boxes[regions], corruption, rng)
            self._masked[regions] = masked
        if image not in self._means:
            self._means[image] = self._take(1).start
            self._features[self._means[image]] = self._mean_of(vectors, masked)
        self._region_feature[rows.start] = self._means[image]
        self._region_feature[regions] = np.arange(vectors.start, vectors.stop)

    def arrays(self) -> dict[str, torch.Tensor]:
        """The fields of a `Batch` that are about regions."""
        assert (self._end, self._vectors_end) == (len(self._boxes), len(self._features))
        return {
            "features": self._tensor,
            "class_ids": torch.from_numpy(self._class_ids),
            "class_probs": torch.from_numpy(self._class_probs),
            "boxes": torch.from_numpy(self._boxes),
            "region_at": torch.from_numpy(self._region_at),
            "region_feature": torch.from_numpy(self._region_feature),
            "region_masked": torch.from_numpy(self._masked),
        }

    def _take(self, count: int) -> slice:
        self._vectors_end += count
        return slice(self._vectors_end - count, self._vectors_end)

    def _read(self, image: ImageRef, rows: slice) -> slice:
        """Copies vectors and boxes from the corpus; where the vectors lie."""
        arrays, of_row = image.corpus.region_rows(image.row)
        found = of_row.stop - of_row.start
        if 1 + found != rows.stop - rows.start:
            raise ValueError(
                f"row {image.row} of {image.corpus.folder} holds {found} regions, its lengths file "
                f"says {rows.stop - rows.start - 1}: see `unimo-prep verify`"
            )
        at = self._take(found)
        self._features[at] = arrays.features[of_row]
        self._class_ids[at] = arrays.class_ids[of_row]
        self._class_probs[at] = arrays.class_probs[of_row]
        self._boxes[rows.start] = IMG_BOX
        self._boxes[rows.start + 1 : rows.stop] = arrays.boxes[of_row]
        return at

    def _mean_of(self, vectors: slice, masked: np.ndarray | None) -> np.ndarray:
        """float16 [F]. Of visible regions only, or the mean would give masked ones away."""
        if masked is None:
            return self._mean(self._tensor[vectors])
        return self._mean(torch.from_numpy(self._features[vectors][~masked]))


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
