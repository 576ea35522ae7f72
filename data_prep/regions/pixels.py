"""Regions that need no model: the normalised patches of a picture."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep.pool import run_tasks
from data_prep.quarantine import Bad, BadRecord
from data_prep.readers.images import Picture, open_picture
from data_prep.regions.visual_words import load_visual_words, nearest_words, sample_size
from unimo_ds.data.schema import IMAGES
from unimo_ds.pixels import PixelGrid

_SAMPLED_PICTURES = 2048
_PICTURES_PER_TASK = 64


class PixelMaker(NamedTuple):
    """Pictures -> rows of the images corpus; one class per region, its visual word."""

    grid: int
    patch: int
    visual_words: str  # path
    kind: str = IMAGES

    def rows(self, records: Sequence[Picture], bad: list[Bad]) -> Iterator[dict[str, Any]]:
        grid, words = (
            PixelGrid(grid=self.grid, patch=self.patch),
            load_visual_words(self.visual_words),
        )
        boxes = grid.boxes().reshape(-1)
        probs = np.ones(grid.num_regions, dtype=np.float16)
        for picture in records:
            try:
                image = open_picture(picture.path)
            except BadRecord as error:
                bad.append(error.at(picture.source, picture.line, picture.id))
                continue
            features = grid.features(image).astype(np.float16)
            yield {
                "id": picture.id,
                "width": image.width,
                "height": image.height,
                "num_regions": grid.num_regions,
                "features": features.reshape(-1),
                "boxes": boxes,
                "class_ids": nearest_words(features, words),
                "class_probs": probs,
            }


class _Sample(NamedTuple):
    index: int
    grid: PixelGrid
    pictures: list[Picture]
    patches: int  # to take of each picture
    seed: int


def sample_patches(
    pictures: Sequence[Picture], grid: PixelGrid, num_classes: int, seed: int, workers: int
) -> np.ndarray:
    """float16 [N, F]: patches of some of the pictures, the same whatever ``workers`` is."""
    rng = np.random.default_rng([seed, len(pictures)])
    count = min(len(pictures), _SAMPLED_PICTURES)
    chosen = sorted(rng.choice(len(pictures), size=count, replace=False).tolist())
    patches = min(grid.num_regions, -(-sample_size(num_classes) // count))
    tasks = [
        _Sample(i, grid, [pictures[k] for k in chosen[i : i + _PICTURES_PER_TASK]], patches, seed)
        for i in range(0, count, _PICTURES_PER_TASK)
    ]
    found = dict(run_tasks(_patches_of, tasks, workers))
    return np.concatenate([found[task.index] for task in tasks])


def _patches_of(sample: _Sample) -> tuple[int, np.ndarray]:
    rng = np.random.default_rng([sample.seed, sample.index, sample.patches])
    found = [np.empty((0, sample.grid.feature_size), dtype=np.float16)]
    for picture in sample.pictures:
        try:
            features = sample.grid.features(open_picture(picture.path))
        except BadRecord:  # it is put into quarantine when the shards are made
            continue
        rows = rng.choice(len(features), size=sample.patches, replace=False)
        found.append(features[rows].astype(np.float16))
    return sample.index, np.concatenate(found)
