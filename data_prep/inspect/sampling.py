"""Which rows of a corpus a page looks at: a keyed sample, so that one of millions is not read."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unimo_ds.data.shards import Corpus, ImageCorpus

# R regions of all sampled images together, k kept classes

_MOST_SHARDS = 48
"""Shards that a sample is taken from: every one is a file that stays open."""
COUNTED_IMAGES = 1000
PACKED_ROWS = 2048
_NEAR = 1e-4


class RegionSample(NamedTuple):
    """The regions of some images, without their features."""

    images: int
    boxes: np.ndarray  # float32 [R, 5]
    classes: np.ndarray  # int64 [R]: the likeliest class of each
    probs: np.ndarray  # float32 [R]: how likely it is
    sizes: np.ndarray  # int64 [images, 2]: width and height of the pictures


def sample_rows(corpus: Corpus, count: int, seed: int, purpose: int) -> list[int]:
    """``count`` rows of ``corpus``, in order, or all if there are fewer; keyed by the rest.

    They are drawn from at most 48 shards, which are drawn first.
    """
    rng = np.random.default_rng([seed, len(corpus), purpose])
    shards = corpus.manifest.shards
    chosen = np.sort(rng.choice(len(shards), min(len(shards), _MOST_SHARDS), replace=False))
    starts = np.cumsum([0, *(shard.rows for shard in shards)])
    sizes = np.array([shards[number].rows for number in chosen])
    ends = np.cumsum(sizes)
    most = int(ends[-1]) if len(ends) else 0
    picked = np.sort(rng.choice(most, min(most, count), replace=False))
    where = np.searchsorted(ends, picked, side="right")
    return (picked - (ends - sizes)[where] + starts[chosen][where]).tolist()


def lengths_at(corpus: Corpus, rows: Sequence[int]) -> list[int]:
    """Of some rows; no more than the pages of the lengths files that they lie on are read.

    Raises:
        ValueError: a row that the corpus does not have.
    """
    starts = np.cumsum([0, *(shard.rows for shard in corpus.manifest.shards)])
    wanted, found = np.asarray(rows, dtype=np.int64), np.empty(len(rows), dtype=np.int64)
    if len(wanted) and not 0 <= wanted.min() <= wanted.max() < starts[-1]:
        raise ValueError(f"{corpus.folder} has no row {wanted.max()}: see `unimo-prep verify`")
    shard = np.searchsorted(starts, wanted, side="right") - 1
    for number in np.unique(shard).tolist():
        path = corpus.folder / corpus.manifest.shards[number].lengths
        here = shard == number
        found[here] = np.load(path, allow_pickle=False, mmap_mode="r")[
            wanted[here] - starts[number]
        ]
    return found.tolist()


def sample_regions(corpus: ImageCorpus, seed: int) -> RegionSample:
    """Boxes and classes of up to 1,000 images."""
    rows = sample_rows(corpus, COUNTED_IMAGES, seed, purpose=1)
    boxes, classes, probs, sizes = [], [], [], []
    for row in rows:
        regions = corpus.regions(row)
        boxes.append(regions.boxes)
        best = regions.class_probs.argmax(axis=1)[:, None]
        classes.append(np.take_along_axis(regions.class_ids, best, axis=1)[:, 0])
        probs.append(np.take_along_axis(regions.class_probs, best, axis=1)[:, 0])
        sizes.append(corpus.size(row))
    return RegionSample(
        len(rows),
        np.concatenate([np.empty((0, 5), np.float32), *boxes]),
        np.concatenate([np.empty(0, np.int64), *classes]).astype(np.int64),
        np.concatenate([np.empty(0, np.float32), *probs]).astype(np.float32),
        np.array(sizes, dtype=np.int64).reshape(-1, 2),
    )


def grid_of(boxes: np.ndarray) -> tuple[int, int]:
    """(columns, rows) if ``boxes`` [R, 5] are the cells of a grid, row by row; else (0, 0)."""
    if not len(boxes):
        return 0, 0
    width, height = boxes[0, 2] - boxes[0, 0], boxes[0, 3] - boxes[0, 1]
    if width <= 0 or height <= 0:
        return 0, 0
    columns, rows = round(1 / float(width)), round(1 / float(height))
    if columns * rows != len(boxes):
        return 0, 0
    row, column = np.divmod(np.arange(len(boxes)), columns)
    edges = np.stack([column, row, column + 1, row + 1], axis=1)
    edges = edges / np.array([columns, rows, columns, rows])
    return (columns, rows) if np.abs(edges - boxes[:, :4]).max() < _NEAR else (0, 0)
