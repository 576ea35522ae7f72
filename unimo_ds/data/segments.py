"""What a sample is made of: sequences of known length that are laid out later."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from unimo_ds.batch import NO_LEVEL, Kind
from unimo_ds.data.corruption import TextSegment, plain_text
from unimo_ds.data.shards import ImageCorpus, PairCorpus, TextCorpus

NO_GROUP = NO_DRAW = -1


class PlannedText(NamedTuple):
    """A text of known length. To be laid out once: it goes on with the generator of its sample."""

    length: int
    lay_out: Callable[[], TextSegment]


class ImageRef(NamedTuple):
    """An image that collate will read: only rows of this rank touch the features."""

    corpus: ImageCorpus
    row: int
    mask_key: tuple[int, ...]  # keys the choice of masked regions; empty: nothing is masked


class Segment(NamedTuple):
    """One sequence: [IMG] regions, words, or both, and its part in the contrast."""

    kind: Kind
    image: ImageRef | None
    text: PlannedText | None
    group: int = NO_GROUP  # the pair that it is an image or a text of
    draw: int = NO_DRAW  # the number of the draw that it was made for
    positive: bool = False  # of a scored pair
    level: int = NO_LEVEL  # of a scored pair whose caption was rewritten
    anchor: bool = True  # of what is individually encoded: was it drawn, or retrieved?

    @property
    def num_regions(self) -> int:
        """[IMG] included."""
        return 1 + int(self.image.corpus.lengths[self.image.row]) if self.image else 0

    @property
    def length(self) -> int:
        """Positions that it takes."""
        return self.num_regions + (self.text.length if self.text else 0)


class Sample(NamedTuple):
    """All segments of one draw; they share a row, so that a group is never torn apart."""

    corpus: TextCorpus | ImageCorpus | PairCorpus
    row: int
    segments: list[Segment]

    @property
    def name(self) -> str:
        return f"{self.corpus.name}:{self.corpus.row_id(self.row)}"

    @property
    def length(self) -> int:
        return sum(segment.length for segment in self.segments)


def plain(tokens: np.ndarray) -> PlannedText:
    """A text of which nothing is hidden."""
    return PlannedText(len(tokens) + 2, partial(plain_text, tokens))
