"""Segments -> Batch: one row, its regions, its padding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch

from unimo_ds.batch import FIRST_POSITION, IGNORED_LABEL, PADDING_SEGMENT, Batch, Kind
from unimo_ds.config import CorruptionConfig
from unimo_ds.data.corruption import mask_regions
from unimo_ds.data.samples import Segment
from unimo_ds.tokenizer import PAD_ID

IMG_BOX = np.array([[0, 0, 1, 1, 1]], np.float32)


class RegionSizes(NamedTuple):
    """Widths of the region arrays, for rows without an image."""

    feature_size: int  # F
    kept_classes: int  # k


class _Regions(NamedTuple):
    features: np.ndarray  # float16 [1+R, F]
    boxes: np.ndarray  # float32 [1+R, 5]
    masked: np.ndarray  # bool [1+R]
    class_ids: np.ndarray  # int64 [1+R, k]
    class_probs: np.ndarray  # float32 [1+R, k]


def collate(
    segments: Sequence[Segment], sizes: RegionSizes, corruption: CorruptionConfig, round_to: int
) -> Batch:
    """One packed row, padded to a multiple of ``round_to`` positions.

    Features stay float16 as they are stored; ``Batch.to`` casts them on the device.
    """
    filled = sum(len(segment) for segment in segments)
    length = -(-max(filled, 1) // round_to) * round_to
    row = _Row(length)
    regions = [_no_regions(sizes)]
    for number, segment in enumerate(segments):
        if segment.image:
            regions.append(_read_regions(segment, corruption))
        row.add(number, segment, len(regions[-1].boxes) if segment.image else 0)
    stacked = _Regions(*(np.concatenate(parts) for parts in zip(*regions, strict=True)))
    return row.batch(stacked)


def merge(batches: Sequence[Batch]) -> Batch:
    """Rows one behind the other as one row; segments, regions and positions are renumbered."""
    merged: list[Batch] = []
    positions = segments = 0
    for batch in batches:
        shifted = {
            name: getattr(batch, name) + positions
            for name in ("region_at", "pair_image", "pair_text", "image_at", "text_at")
        }
        padding = batch.segment == PADDING_SEGMENT
        segment = torch.where(padding, PADDING_SEGMENT, batch.segment + segments)
        merged.append(batch._replace(segment=segment, **shifted))
        positions += len(batch.segment)
        segments += len(batch.kind)
    return Batch(*(torch.cat(fields) for fields in zip(*merged, strict=True)))


class _Row:
    """The row while it fills."""

    def __init__(self, length: int) -> None:
        self.word_ids = np.full(length, PAD_ID, np.int64)
        self.position_ids = np.full(length, FIRST_POSITION - 1, np.int64)
        self.segment = np.full(length, PADDING_SEGMENT, np.int32)
        self.order = np.zeros(length, np.int32)
        self.labels = np.full(length, IGNORED_LABEL, np.int64)
        self.region_at: list[np.ndarray] = []
        self.pairs: list[tuple[int, int, int, bool]] = []
        self.images: list[tuple[int, int]] = []
        self.texts: list[tuple[int, int]] = []
        self.kinds: list[int] = []
        self.end = 0

    def add(self, number: int, segment: Segment, regions: int) -> None:
        start, words_at = self.end, self.end + regions
        self.end = words_at + len(segment.text.word_ids)
        self.segment[start : self.end] = number
        text = slice(words_at, self.end)
        self.word_ids[text], self.position_ids[text] = (
            segment.text.word_ids,
            segment.text.position_ids,
        )
        self.order[text], self.labels[text] = segment.text.order, segment.text.labels
        self.region_at.append(np.arange(start, words_at))
        self.kinds.append(segment.kind)
        if segment.kind == Kind.SCORED_PAIR:
            self.pairs.append((start, words_at, segment.group, segment.positive))
        elif segment.kind == Kind.ENCODED_IMAGE:
            self.images.append((start, segment.group))
        elif segment.kind == Kind.ENCODED_TEXT:
            self.texts.append((words_at, segment.group))

    def batch(self, regions: _Regions) -> Batch:
        pairs = np.array(self.pairs, np.int64).reshape(-1, 4)
        images = np.array(self.images, np.int64).reshape(-1, 2)
        texts = np.array(self.texts, np.int64).reshape(-1, 2)
        arrays = Batch(
            word_ids=self.word_ids,
            position_ids=self.position_ids,
            segment=self.segment,
            order=self.order,
            labels=self.labels,
            features=regions.features,
            boxes=regions.boxes,
            region_at=np.concatenate([np.empty(0, np.int64), *self.region_at]),
            region_masked=regions.masked,
            region_class_ids=regions.class_ids,
            region_class_probs=regions.class_probs,
            pair_image=pairs[:, 0],
            pair_text=pairs[:, 1],
            pair_group=pairs[:, 2],
            pair_positive=pairs[:, 3].astype(bool),
            image_at=images[:, 0],
            image_group=images[:, 1],
            text_at=texts[:, 0],
            text_group=texts[:, 1],
            kind=np.array(self.kinds, np.int8),
        )
        return Batch(*(torch.from_numpy(np.ascontiguousarray(array)) for array in arrays))


def _read_regions(segment: Segment, corruption: CorruptionConfig) -> _Regions:
    assert segment.image is not None
    regions = segment.image.corpus.regions(segment.image.row)
    masked = np.zeros(len(regions.boxes), bool)
    if segment.image.mask_key and len(masked):
        rng = np.random.default_rng(segment.image.mask_key)
        masked = mask_regions(regions.boxes, corruption, rng)
    kept = regions.class_ids.shape[1]
    return _Regions(
        np.concatenate([_mean_feature(regions.features, ~masked), regions.features]),
        np.concatenate([IMG_BOX, regions.boxes]),
        np.concatenate([[False], masked]),
        np.concatenate([np.zeros((1, kept), np.int64), regions.class_ids]),
        np.concatenate([np.zeros((1, kept), np.float32), regions.class_probs]),
    )


def _mean_feature(features: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """float16 [1, F]: [IMG]. Of visible regions only, or the mean would give masked ones away."""
    if not visible.any():
        return np.zeros((1, features.shape[1]), np.float16)
    return features[visible].mean(axis=0, dtype=np.float32, keepdims=True).astype(np.float16)


def _no_regions(sizes: RegionSizes) -> _Regions:
    return _Regions(
        np.empty((0, sizes.feature_size), np.float16),
        np.empty((0, 5), np.float32),
        np.empty(0, bool),
        np.empty((0, sizes.kept_classes), np.int64),
        np.empty((0, sizes.kept_classes), np.float32),
    )
