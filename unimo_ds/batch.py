"""What a training step eats: one packed row of positions, its samples and what is asked of it.

Legend, used all over the project:
    T positions of the row · R regions ([IMG] included) · U different vectors that they show ·
    F feature width · k kept classes
    S jointly encoded, scored image-text pairs · I individually encoded images · J individually
    encoded texts · E segments

Absent is length zero, never None: a row of texts alone has R = S = I = J = 0 and still runs every
head.
"""

from enum import IntEnum
from typing import NamedTuple

import torch
from torch import Tensor

IGNORED_LABEL = -100
"""Label of a position that no language objective asks about (torch's cross-entropy default)."""

PADDING_SEGMENT = -1
"""Segment of a position that belongs to no sample: it sees nothing and nothing sees it."""

FIRST_POSITION = 2
"""Position id of [CLS]: RoBERTa's offset, which UNIMO's released readers keep."""


NO_LEVEL = -1


class Kind(IntEnum):
    """What a segment is, for metrics by modality."""

    TEXT = 0
    IMAGE = 1
    PAIR = 2
    ENCODED_IMAGE = 3
    ENCODED_TEXT = 4
    SCORED_PAIR = 5


class Batch(NamedTuple):
    """One packed row; there is no batch axis.

    A position sees those of its own ``segment`` whose ``order`` is not greater than its own: order
    0 everywhere is bidirectional, a prefix of zeros followed by 1, 2, 3, ... is prefix-LM.
    """

    word_ids: Tensor  # int64 [T], the padding word where a region or nothing stands
    position_ids: Tensor  # int64 [T], from FIRST_POSITION; 1 where no word stands
    segment: Tensor  # int32 [T], PADDING_SEGMENT = padding
    order: Tensor  # int32 [T]
    labels: (
        Tensor  # int64 [T], IGNORED_LABEL = not asked; order > 0 marks sequence-to-sequence labels
    )

    # Several segments of a pair show one image: its vectors are held once.
    features: Tensor  # float [U, F], unmasked; what an [IMG] shows is the mean of visible regions
    class_ids: Tensor  # int64 [U, k], the kept classes of the soft label
    class_probs: Tensor  # float32 [U, k], their probabilities; the rest is spread evenly
    boxes: Tensor  # float32 [R, 5]: x1/W, y1/H, x2/W, y2/H, area share; [IMG] = (0, 0, 1, 1, 1)
    region_at: Tensor  # int64 [R], the position of each region
    region_feature: Tensor  # int64 [R], which of the vectors it shows
    region_masked: Tensor  # bool [R]: the model sees zeros there and is asked for the vector

    pair_image: Tensor  # int64 [S], position of the [IMG] of a jointly encoded pair
    pair_text: Tensor  # int64 [S], position of its [CLS]
    pair_draw: Tensor  # int64 [S], the draw it belongs to, which is its anchor
    pair_positive: Tensor  # bool [S], whether it counts in the numerator
    pair_level: Tensor  # int8 [S], the Level of a rewritten negative, NO_LEVEL of all others

    image_at: Tensor  # int64 [I], position of the [IMG] of an individually encoded image
    image_group: Tensor  # int64 [I], images and texts of one group are positives of each other
    image_draw: Tensor  # int64 [I], the draw it belongs to: that of its scored pairs
    image_anchor: Tensor  # bool [I], whether it is an anchor; retrieved ones are positives only
    text_at: Tensor  # int64 [J], position of the [CLS] of an individually encoded text
    text_group: Tensor  # int64 [J]
    text_draw: Tensor  # int64 [J]
    text_anchor: Tensor  # bool [J]

    kind: Tensor  # int8 [E], a Kind per segment

    def to(self, device: torch.device | str, dtype: torch.dtype = torch.float32) -> "Batch":
        """The batch on ``device``; features in ``dtype`` (boxes and probabilities stay float32)."""
        moved = Batch(*(field.to(device, non_blocking=True) for field in self))
        return moved._replace(features=moved.features.to(dtype))

    def pin_memory(self) -> "Batch":
        return Batch(*(field.pin_memory() for field in self))


def num_filled(batch: Batch) -> int:
    """Positions that hold something; divided by ``len(batch.segment)``: the packing efficiency."""
    return int((batch.segment != PADDING_SEGMENT).sum())
