"""How long the rows of a corpus are: counted from the lengths files, shard by shard."""

from typing import NamedTuple

import numpy as np

from data_prep.writer import Folder, read_array, read_batches
from unimo_ds.data.schema import PAIR_SCHEMA, Manifest

LONGEST = 1 << 24
"""No row is as long: a file that says so is damaged, and counting would fill the memory."""


class Lengths(NamedTuple):
    """``counts[n]`` rows have length n; int64 [longest + 1]."""

    counts: np.ndarray

    @property
    def rows(self) -> int:
        return int(self.counts.sum())

    @property
    def total(self) -> int:
        return int(self.counts @ np.arange(len(self.counts)))

    @property
    def mean(self) -> float:
        return self.total / max(self.rows, 1)

    @property
    def shortest(self) -> int:
        return int(np.flatnonzero(self.counts)[0]) if self.rows else 0

    @property
    def longest(self) -> int:
        return len(self.counts) - 1

    def percentile(self, share: float) -> int:
        """The length that this share (0 to 1) of the rows does not pass."""
        return int(np.searchsorted(np.cumsum(self.counts), share * self.rows))

    def histogram(self, most_bins: int) -> list[tuple[int, int, int]]:
        """(from, to, rows), both ends included, in bins of equal width from the shortest on."""
        low = self.shortest
        step = max(-(-(len(self.counts) - low) // most_bins), 1)
        starts = range(low, len(self.counts), step)
        sums = (int(self.counts[start : start + step].sum()) for start in starts)
        return [(start, start + step - 1, rows) for start, rows in zip(starts, sums, strict=True)]


class CaptionLengths(NamedTuple):
    """Of a pairs corpus: how many captions an image has, and how many tokens a caption."""

    captions: Lengths
    tokens: Lengths


def row_lengths(folder: Folder, manifest: Manifest) -> Lengths:
    """Tokens of texts, regions of images, tokens of all captions of pairs.

    Raises:
        ValueError: a lengths file is missing or damaged.
    """
    counts = np.zeros(1, dtype=np.int64)
    for shard in manifest.shards:
        path = folder / shard.lengths
        try:
            counts = _add(counts, read_array(path))
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f"{path} is damaged: {error}; see `unimo-prep verify`") from error
    return Lengths(counts)


def caption_lengths(folder: Folder, manifest: Manifest) -> CaptionLengths:
    """Read from the offsets of the captions; no token is looked at.

    Raises:
        ValueError: a shard is missing or damaged.
    """
    captions = tokens = np.zeros(1, dtype=np.int64)
    column = PAIR_SCHEMA.names.index("captions")
    for shard in manifest.shards:
        for batch in read_batches(folder / shard.name, [column]):
            array = batch.column(0)
            captions = _add(captions, np.diff(array.offsets.to_numpy()))
            tokens = _add(tokens, np.diff(array.values.offsets.to_numpy()))
    return CaptionLengths(Lengths(captions), Lengths(tokens))


def _add(counts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    if lengths.ndim != 1 or lengths.dtype != np.int32:
        raise ValueError(f"{lengths.dtype} {lengths.shape}, expected int32 [rows]")
    if len(lengths) and not 0 <= lengths.min() <= lengths.max() < LONGEST:
        raise ValueError(f"lengths from {lengths.min()} to {lengths.max()}")
    found = np.bincount(lengths)
    longer, shorter = (counts, found) if len(counts) > len(found) else (found, counts)
    longer = longer.astype(np.int64)
    longer[: len(shorter)] += shorter
    return longer
