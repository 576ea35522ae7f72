"""How the rows of a corpus would share the rows of a batch, by the trainer's own rule."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from data_prep.inspect.charts import rows_chart
from data_prep.inspect.sampling import PACKED_ROWS, lengths_at, sample_rows
from unimo_ds.config import BatchConfig
from unimo_ds.data.packing import pack
from unimo_ds.data.shards import Corpus, ImageCorpus, PairCorpus

_AROUND_TEXT = 2  # [CLS] and [SEP]
_IMAGE_MARK = 1  # [IMG]


class Filling(NamedTuple):
    """What packing a sample gives; shares as texts."""

    samples: int
    fill: str  # positions that hold something
    balance: str  # mean load of a row beside the heaviest
    mean_length: str
    what: str  # that one sample is
    svg: str  # rows of the first step
    frame: str  # positions of the longest of them
    rule: str


def filling_of(corpus: Corpus, seed: int) -> Filling:
    """Packs keyed samples as steps of the default `BatchConfig`, or with longer rows if one does
    not fit."""
    lengths, what = _positions(corpus, sample_rows(corpus, PACKED_ROWS, seed, purpose=2))
    batch = BatchConfig()
    limit = max(batch.tokens_per_row, max(lengths))
    steps = [lengths[i : i + batch.samples] for i in range(0, len(lengths), batch.samples)]
    steps = steps[:-1] if len(steps) > 1 and len(steps[-1]) < batch.samples else steps
    rows: list[list[list[int]]] = []
    for step in steps:
        packed = pack(step, batch.rows, limit)
        rows.append([[step[i] for i in row] for row in packed])
    loads = [sum(row) for row in chain.from_iterable(rows)]
    padded = [-(-load // batch.round_to) * batch.round_to for load in loads]
    fill, balance = sum(loads) / max(sum(padded), 1), sum(loads) / max(len(loads) * max(loads), 1)
    first = rows[0][: batch.rows]
    frame = max(sum(row) for row in first)
    told = f"{len(first)} packed rows of up to {frame} positions"
    return Filling(
        samples=sum(len(step) for step in steps),
        fill=f"{fill:.1%}",
        balance=f"{balance:.1%}",
        mean_length=f"{sum(lengths) / len(lengths):,.1f}",
        what=what,
        svg=rows_chart(first, frame, told),
        frame=f"{frame:,}",
        rule=f"steps of {batch.samples} samples in {batch.rows} rows of at most {limit:,} "
        f"positions, padded to multiples of {batch.round_to}",
    )


def _positions(corpus: Corpus, rows: Sequence[int]) -> tuple[list[int], str]:
    """Positions that each of ``rows`` takes in a batch, and what was counted."""
    if isinstance(corpus, PairCorpus):
        regions = lengths_at(corpus.images, [corpus.image_row(row) for row in rows])
        captions = [len(corpus.captions(row)[0]) for row in rows]
        around = _IMAGE_MARK + _AROUND_TEXT
        sums = [a + b + around for a, b in zip(regions, captions, strict=True)]
        return sums, "an image with its first caption"
    around, what = (
        (_IMAGE_MARK, "an image") if isinstance(corpus, ImageCorpus) else (_AROUND_TEXT, "a text")
    )
    return [length + around for length in lengths_at(corpus, rows)], what
