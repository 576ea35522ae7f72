"""Scores and embeddings of many segments, in packed forwards."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unimo_ds.batch import Kind
from unimo_ds.config import CorruptionConfig
from unimo_ds.data.buffers import Buffers
from unimo_ds.data.collate import RegionSizes, collate
from unimo_ds.data.segments import ImageRef, Segment, plain
from unimo_ds.data.shards import PairCorpus
from unimo_ds.model.modeling import UnimoForImageTextRetrieval
from unimo_ds.objectives.pretraining import UnimoForPreTraining

POSITIONS = 8192
"""Of a packed row."""

_ROUND_TO = 64


ScoringModel = UnimoForImageTextRetrieval | UnimoForPreTraining

Advance = Callable[[int], None]
"""Told how many segments have been done since it was last told."""


def silent(done: int) -> None:
    """Shows no progress."""


class Scorer(NamedTuple):
    """A model that looks at the images of a corpus."""

    model: ScoringModel
    corpus: PairCorpus
    advance: Advance = silent

    def image(self, row: int) -> ImageRef:
        """The unmasked image of a pair."""
        return ImageRef(self.corpus.images, self.corpus.image_row(row), ())

    def images(self, rows: Sequence[int]) -> Tensor:
        """float32 [I, E]: the individually encoded images of pairs."""
        segments = (Segment(Kind.ENCODED_IMAGE, self.image(row), None, 0) for row in rows)
        return torch.cat([row.images for row in self._compared(segments)])

    def texts(self, texts: Sequence[np.ndarray]) -> Tensor:
        """float32 [J, E]: individually encoded texts, given without [CLS] and [SEP]."""
        segments = (Segment(Kind.ENCODED_TEXT, None, plain(text), 0) for text in texts)
        return torch.cat([row.texts for row in self._compared(segments)])

    def pairs(self, pairs: Sequence[tuple[int, np.ndarray]]) -> Tensor:
        """float32 [S]: scores of texts, each encoded jointly with the image of a pair."""
        segments = (
            Segment(Kind.SCORED_PAIR, self.image(row), plain(text), positive=True)
            for row, text in pairs
        )
        return torch.cat([row.pair_scores for row in self._compared(segments)])

    @torch.no_grad()
    def _compared(self, segments: Iterator[Segment]) -> Iterator["_Row"]:
        source = self.corpus.images.source
        sizes = RegionSizes(source.feature_size, source.kept_classes)
        device = self.model.device
        buffers = Buffers(pinned=device.type == "cuda")
        for some in _rows(segments):
            batch = collate([some], sizes, CorruptionConfig(), _ROUND_TO, buffers).to(device)
            compared = self.model.compare(self.model.unimo.encode(batch), batch)
            self.advance(len(some))
            yield _Row(*(x.float().cpu() for x in compared[:3]))


class _Row(NamedTuple):
    pair_scores: Tensor
    images: Tensor
    texts: Tensor


def _rows(segments: Iterator[Segment]) -> Iterator[list[Segment]]:
    """``segments`` in their order, as many as fit into a row at a time."""
    row: list[Segment] = []
    filled = 0
    for segment in segments:
        if row and filled + segment.length > POSITIONS:
            yield row
            row, filled = [], 0
        row.append(segment)
        filled += segment.length
    if row:
        yield row
