"""Segments -> Batch: rows one behind the other, their regions, their padding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from unimo_ds.batch import FIRST_POSITION, IGNORED_LABEL, PADDING_SEGMENT, Batch, Kind
from unimo_ds.config import CorruptionConfig
from unimo_ds.data.buffers import Buffers
from unimo_ds.data.corruption import TextSegment
from unimo_ds.data.regions import RegionRows, num_vectors
from unimo_ds.data.segments import Segment
from unimo_ds.tokenizer import PAD_ID


class RegionSizes(NamedTuple):
    """Widths of the region arrays, for rows without an image."""

    feature_size: int  # F
    kept_classes: int  # k


def collate(
    rows: Sequence[Sequence[Segment]],
    sizes: RegionSizes,
    corruption: CorruptionConfig,
    round_to: int,
    buffers: Buffers,
) -> Batch:
    """Packed rows, each padded to a multiple of ``round_to`` positions, one behind the other.

    Every array has its final size from the start and every segment is written to its place in it:
    what is copied twice costs more than all else here. Features stay float16 as they are stored;
    ``Batch.to`` casts them on the device.
    """
    positions = sum(padded_length(row, round_to) for row in rows)
    words = _Words(positions)
    count = sum(segment.num_regions for row in rows for segment in row)
    regions = RegionRows(count, sum(map(num_vectors_of, rows)), *sizes, buffers)
    for row in rows:
        end = words.end + padded_length(row, round_to)
        regions.begin_row()
        for segment in row:
            at = words.add(segment)
            if segment.image:
                regions.add(segment.image, at, corruption)
        words.end = end
    batch = Batch(**words.arrays(), **regions.arrays())
    return batch.pin_memory() if buffers.pinned else batch


def padded_length(row: Sequence[Segment], round_to: int) -> int:
    """Positions of a row."""
    filled = sum(segment.length for segment in row)
    return -(-max(filled, 1) // round_to) * round_to


def num_vectors_of(row: Sequence[Segment]) -> int:
    """Vectors that a row holds for its regions to share."""
    return num_vectors(segment.image for segment in row if segment.image)


class _Words:
    """The positions while they fill, and what stands where."""

    def __init__(self, positions: int) -> None:
        self.word_ids = np.full(positions, PAD_ID, np.int64)
        self.position_ids = np.full(positions, FIRST_POSITION - 1, np.int64)
        self.segment = np.full(positions, PADDING_SEGMENT, np.int32)
        self.order = np.zeros(positions, np.int32)
        self.labels = np.full(positions, IGNORED_LABEL, np.int64)
        self.pairs: list[tuple[int, int, int, bool, int]] = []
        self.images: list[tuple[int, int, int, bool]] = []
        self.texts: list[tuple[int, int, int, bool]] = []
        self.kinds: list[int] = []
        self.end = 0

    def add(self, segment: Segment) -> int:
        """Lays out ``segment`` behind what is there; where it starts."""
        start, words_at = self.end, self.end + segment.num_regions
        self.end = words_at + (segment.text.length if segment.text else 0)
        self.segment[start : self.end] = len(self.kinds)
        if segment.text:
            self._write(slice(words_at, self.end), segment.text.lay_out())
        self.kinds.append(segment.kind)
        if segment.kind == Kind.SCORED_PAIR:
            positive, level = segment.positive, segment.level
            self.pairs.append((start, words_at, segment.draw, positive, level))
        elif segment.kind == Kind.ENCODED_IMAGE:
            self.images.append((start, segment.group, segment.draw, segment.anchor))
        elif segment.kind == Kind.ENCODED_TEXT:
            self.texts.append((words_at, segment.group, segment.draw, segment.anchor))
        return start

    def _write(self, at: slice, text: TextSegment) -> None:
        self.word_ids[at], self.position_ids[at] = text.word_ids, text.position_ids
        self.order[at], self.labels[at] = text.order, text.labels

    def arrays(self) -> dict[str, torch.Tensor]:
        """The fields of a `Batch` that are not about regions."""
        pairs = np.array(self.pairs, np.int64).reshape(-1, 5)
        images = np.array(self.images, np.int64).reshape(-1, 4)
        texts = np.array(self.texts, np.int64).reshape(-1, 4)
        arrays = {
            "word_ids": self.word_ids,
            "position_ids": self.position_ids,
            "segment": self.segment,
            "order": self.order,
            "labels": self.labels,
            "pair_image": pairs[:, 0],
            "pair_text": pairs[:, 1],
            "pair_draw": pairs[:, 2],
            "pair_positive": pairs[:, 3].astype(bool),
            "pair_level": pairs[:, 4].astype(np.int8),
            "image_at": images[:, 0],
            "image_group": images[:, 1],
            "image_draw": images[:, 2],
            "image_anchor": images[:, 3].astype(bool),
            "text_at": texts[:, 0],
            "text_group": texts[:, 1],
            "text_draw": texts[:, 2],
            "text_anchor": texts[:, 3].astype(bool),
            "kind": np.array(self.kinds, np.int8),
        }
        return {n: torch.from_numpy(np.ascontiguousarray(array)) for n, array in arrays.items()}
