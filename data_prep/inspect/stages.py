"""What later stages found for a pair, as a page shows it: rewritten captions and neighbours."""

from typing import Any, NamedTuple

from data_prep.writer import read_batches
from unimo_ds.data.schema import RELATED, REWRITES, Level
from unimo_ds.data.shards import PairCorpus

_MOST_REWRITES = 8  # of one pair
_MOST_NEIGHBOURS = 3  # of each kind


class Rewritten(NamedTuple):
    """A rewritten caption: ``changed`` stands in place of what the caption says there."""

    before: str
    changed: str
    after: str
    level: str
    how: str
    positive: bool


class Neighbour(NamedTuple):
    """A related text or image."""

    kind: str
    name: str
    score: str


def rewritten_captions(corpus: PairCorpus, row: int) -> list[Rewritten]:
    """Some of a pair's rewrites, of every level and kind; none without `unimo-prep rewrite`."""
    columns = _columns(corpus, row, REWRITES)
    sources = corpus.caption_texts(row) if columns else []
    names = ("caption", "level", "positive", "begin", "end", "how", "text")
    found: dict[tuple[Any, ...], Rewritten] = {}
    rows = zip(*(columns[name] for name in names), strict=True) if columns else ()
    for caption, level, positive, begin, end, how, text in rows:
        stop = len(text) - (len(sources[caption]) - end)
        one = Rewritten(
            text[:begin],
            text[begin:stop],
            text[stop:],
            Level(level).name.lower(),
            how,
            bool(positive),
        )
        found.setdefault((level, positive, how), one)
    return [found[key] for key in sorted(found)][:_MOST_REWRITES]


def neighbours(corpus: PairCorpus, row: int) -> list[Neighbour]:
    """The nearest texts and images of a pair; none without `unimo-prep retrieve`."""
    columns = _columns(corpus, row, RELATED)
    return [
        Neighbour(kind, name, f"{score:.2f}")
        for kind in ("text", "image")
        for name, score in zip(
            columns.get(f"{kind}_ids", [])[:_MOST_NEIGHBOURS],
            columns.get(f"{kind}_scores", [])[:_MOST_NEIGHBOURS],
            strict=True,
        )
    ]


def _columns(corpus: PairCorpus, row: int, stage: str) -> dict[str, Any]:
    """The columns of one pair; empty where the stage was not run."""
    if stage not in corpus.manifest.stages:
        return {}
    for shard in corpus.manifest.shards:
        if row < shard.rows:
            break
        row -= shard.rows
    for batch in read_batches(corpus.folder / getattr(shard, stage)):
        if row < batch.num_rows:
            return {name: batch.column(name)[row].as_py() for name in batch.schema.names}
        row -= batch.num_rows
    raise ValueError(f"{corpus.folder}: the columns of {stage} have fewer rows than the shard")
