"""A tiny configuration and samples of all kinds, for the tests of the model."""

from collections.abc import Callable
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from unimo_ds.batch import IGNORED_LABEL, Batch
from unimo_ds.model.configuration import UnimoConfig


class Sample(NamedTuple):
    """What a segment of a row holds; length zero is nothing."""

    words: Tensor  # int64 [L], with [CLS] and [SEP]
    features: Tensor  # [R, F], without [IMG]
    boxes: Tensor  # [R, 5]


class Padded(NamedTuple):
    """The same samples as the arguments of the padded interface."""

    input_ids: Tensor
    attention_mask: Tensor
    features: Tensor
    boxes: Tensor
    region_mask: Tensor


@pytest.fixture
def config() -> UnimoConfig:
    return UnimoConfig(
        vocab_size=99,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=24,
        image_feature_size=12,
        image_class_size=7,
        initializer_range=0.2,  # large enough for layers to matter
    )


@pytest.fixture
def samples() -> list[Sample]:
    """A pair, a text, an image, a longer pair; no two of one length."""
    generator = torch.Generator().manual_seed(7)

    def sample(words: int, regions: int) -> Sample:
        inner = torch.randint(4, 98, (max(0, words - 2),), generator=generator)
        ends = torch.tensor([0]), torch.tensor([2])
        ids = torch.cat([ends[0], inner, ends[1]]) if words else inner
        features = torch.randn(regions, 12, generator=generator)
        return Sample(ids, features, torch.rand(regions, 5, generator=generator))

    return [sample(6, 3), sample(9, 0), sample(0, 5), sample(11, 4)]


@pytest.fixture
def padded() -> Callable[[list[Sample]], Padded]:
    """Pads samples by hand."""
    return _padded


@pytest.fixture
def packed() -> Callable[..., Batch]:
    """Puts samples into one row by hand, one after the other: [IMG] regions [CLS] words [SEP]."""
    return _packed


def _padded(samples: list[Sample]) -> Padded:
    words = max(len(s.words) for s in samples)
    regions = max(len(s.features) for s in samples)
    result = Padded(
        torch.ones(len(samples), words, dtype=torch.long),
        torch.zeros(len(samples), words, dtype=torch.long),
        torch.full((len(samples), regions, 12), 9.0),  # what stands in padding must not matter
        torch.full((len(samples), regions, 5), 9.0),
        torch.zeros(len(samples), regions, dtype=torch.bool),
    )
    for i, sample in enumerate(samples):
        result.input_ids[i, : len(sample.words)] = sample.words
        result.attention_mask[i, : len(sample.words)] = 1
        result.features[i, : len(sample.features)] = sample.features
        result.boxes[i, : len(sample.boxes)] = sample.boxes
        result.region_mask[i, : len(sample.features)] = True
    return result


def _packed(samples: list[Sample], padding: int = 0) -> Batch:
    word_ids: list[int] = []
    position_ids: list[int] = []
    segment: list[int] = []
    region_at: list[int] = []
    features, boxes = [torch.empty(0, 12)], [torch.empty(0, 5)]
    for i, sample in enumerate(samples):
        if len(sample.features):
            rows = 1 + len(sample.features)
            region_at += range(len(segment), len(segment) + rows)
            features += [sample.features.mean(dim=0, keepdim=True), sample.features]
            boxes += [torch.tensor([[0.0, 0.0, 1.0, 1.0, 1.0]]), sample.boxes]
            word_ids += [1] * rows
            position_ids += [1] * rows
            segment += [i] * rows
        word_ids += sample.words.tolist()
        position_ids += range(2, 2 + len(sample.words))
        segment += [i] * len(sample.words)
    word_ids += [1] * padding
    position_ids += [1] * padding
    segment += [-1] * padding
    return _row_batch(
        word_ids, position_ids, segment, region_at, torch.cat(features), torch.cat(boxes)
    )


def _row_batch(
    word_ids: list[int],
    position_ids: list[int],
    segment: list[int],
    region_at: list[int],
    features: Tensor,
    boxes: Tensor,
) -> Batch:
    none, rows = torch.empty(0, dtype=torch.long), len(region_at)
    return Batch(
        word_ids=torch.tensor(word_ids, dtype=torch.long),
        position_ids=torch.tensor(position_ids, dtype=torch.long),
        segment=torch.tensor(segment, dtype=torch.int32),
        order=torch.zeros(len(segment), dtype=torch.int32),
        labels=torch.full((len(segment),), IGNORED_LABEL),
        features=features,
        class_ids=torch.empty(rows, 0, dtype=torch.long),
        class_probs=torch.empty(rows, 0),
        boxes=boxes,
        region_at=torch.tensor(region_at, dtype=torch.long),
        region_feature=torch.arange(rows),
        region_masked=torch.zeros(rows, dtype=torch.bool),
        pair_image=none,
        pair_text=none,
        pair_draw=none,
        pair_positive=none.bool(),
        pair_level=none.to(torch.int8),
        image_at=none,
        image_group=none,
        image_draw=none,
        image_anchor=none.bool(),
        text_at=none,
        text_group=none,
        text_draw=none,
        text_anchor=none.bool(),
        kind=none.to(torch.int8),
    )
