"""`unimo-prep rewrite`: the rewritten captions of a pairs corpus, as columns beside its shards.

A first pass reads the scene graphs and counts what stands in them, a second one rewrites; between
them lies all that a caption of one shard needs to know of the others.
"""

import json
import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import pyarrow as pa

from data_prep.engine import Options
from data_prep.phrases import parser_version
from data_prep.pool import kept_workers
from data_prep.rewrite.paraphrase import Plug, positives
from data_prep.rewrite.replacement import Rewrite, hard_negatives, normalised
from data_prep.rewrite.scene_graph import Node, scene_graphs
from data_prep.rewrite.similar_captions import (
    content,
    save_captions,
    sentence_negatives,
    similar_captions,
)
from data_prep.rewrite.vocabulary import Vocabulary, count_items
from data_prep.rewrite.words import stem
from data_prep.stages import Made, Stage, begin_stage, finish_stage, make_columns
from data_prep.texts import cached_encoder
from data_prep.writer import Folder, read_batches, write_bytes
from unimo_ds.data.schema import PAIR_SCHEMA, REWRITES, Level, Manifest
from unimo_ds.tokenizer import load_tokenizer

_VOCABULARY = "vocabulary.json"
_CAPTIONS = [PAIR_SCHEMA.names.index("caption_texts")]
_AT_ONCE = 4096  # captions that the parser gets


@dataclass(frozen=True, kw_only=True)
class Rewriting:
    """What is rewritten and how much of it."""

    levels: tuple[Level, ...] = (Level.SENTENCE, Level.PHRASE, Level.WORD)
    per_caption: int = 3  # rewrites of each level; of sentences as many positives besides
    plug: Plug | None = None  # where sentence-level positives come from
    min_similarity: float = 0.4  # of a positive
    max_similarity: float = 0.8  # of a sentence-level negative


class _Maker(NamedTuple):
    """Rewrites the pairs of a record batch."""

    work: Folder
    first_rows: list[int]  # of the shards
    tokenizer: str
    max_tokens: int
    seed: int
    rewriting: Rewriting
    searchable: bool

    def __call__(self, first_row: int, batch: pa.RecordBatch) -> Made:
        ids = batch.column("id").to_pylist()
        captions = batch.column("caption_texts").to_pylist()
        flat = [text for texts in captions for text in texts]
        owner = [first_row + i for i, texts in enumerate(captions) for _ in texts]
        counts: Counter[str] = Counter()
        graphs = iter(self._graphs(first_row, len(ids)) if self._replaces else [[] for _ in flat])
        vocabulary = _vocabulary(self.work) if self._replaces else Vocabulary(Counter())
        similar = iter(self._similar(owner, flat))
        paraphrases = iter(self._paraphrases(flat))
        found = []
        for id_, texts in zip(ids, captions, strict=True):
            own = {normalised(text) for text in texts}
            told = frozenset(stem(word) for text in own for word in text.split())
            said = frozenset().union(*map(content, texts))
            for at, text in enumerate(texts):
                rng = random.Random(f"{self.seed}/{id_}/{at}")
                made = [
                    *self._positives(text, next(paraphrases), own, counts),
                    *self._sentences(text, next(similar), own, said, counts),
                    *self._replaced(text, next(graphs), vocabulary, told, rng),
                ]
                found.append([one for one in made if one.positive or _is_new(one, own)])
        rows = self._columns([len(texts) for texts in captions], found, counts)
        return Made(rows, counts)

    @property
    def _replaces(self) -> bool:
        return bool({Level.WORD, Level.PHRASE} & {*self.rewriting.levels})

    def _graphs(self, first_row: int, rows: int) -> list[list[Node]]:
        """The nodes of all captions of the pairs in some rows of the corpus."""
        starts, folder = self.first_rows, self.work
        shard = bisect_right(starts, first_row) - 1
        of_shard = _read_graphs(folder / _graphs_name(shard))
        first = first_row - starts[shard]
        return [nodes for pair in of_shard[first : first + rows] for nodes in pair]

    def _similar(self, owner: Sequence[int], flat: Sequence[str]) -> Iterator[list[Any]]:
        if not self.searchable:
            return iter([[] for _ in flat])
        queries = list(zip(owner, flat, strict=True))
        return similar_captions(self.work, queries, self.rewriting.per_caption)

    def _paraphrases(self, flat: Sequence[str]) -> list[list[str]]:
        plug, count = self.rewriting.plug, self.rewriting.per_caption
        return plug.paraphrase(flat, count) if plug else [[] for _ in flat]

    def _positives(
        self, text: str, found: list[str], own: set[str], counts: Counter[str]
    ) -> Iterator[Rewrite]:
        plug = self.rewriting.plug
        if plug:
            bound = self.rewriting.min_similarity
            yield from positives(text, found, plug.how, bound, own, counts)

    def _sentences(
        self,
        text: str,
        found: list[Any],
        own: set[str],
        said: frozenset[str],
        counts: Counter[str],
    ) -> Iterator[Rewrite]:
        count, bound = self.rewriting.per_caption, self.rewriting.max_similarity
        yield from sentence_negatives(text, found, count, own, said, bound, counts)

    def _replaced(
        self,
        text: str,
        nodes: list[Node],
        vocabulary: Vocabulary,
        told: frozenset[str],
        rng: random.Random,
    ) -> Iterator[Rewrite]:
        for level in (Level.PHRASE, Level.WORD):
            if level in self.rewriting.levels:
                count = self.rewriting.per_caption
                yield from hard_negatives(text, nodes, level, count, vocabulary, told, rng)

    def _columns(
        self, captions: Sequence[int], found: Sequence[list[Rewrite]], counts: Counter[str]
    ) -> list[dict[str, Any]]:
        """The columns of each pair, which has so many captions."""
        tokens = iter(
            cached_encoder(self.tokenizer).encode_whole(
                [one.text for some in found for one in some]
            )
        )
        per_caption = iter(found)
        rows = []
        for count in captions:
            entries = []
            for caption in range(count):
                for one in next(per_caption):
                    ids = next(tokens)
                    if not 0 < len(ids) <= self.max_tokens:
                        counts["too long"] += 1
                        continue
                    counts[f"{one.level.name.lower()}: {_kind(one)}"] += 1
                    entries.append((caption, one, ids))
            rows.append(_row(entries))
        return rows


def _kind(one: Rewrite) -> str:
    return f"{'positive' if one.positive else 'negative'}, {one.how}"


def _is_new(one: Rewrite, own: set[str]) -> bool:
    return normalised(one.text) not in own


def _row(entries: Sequence[tuple[int, Rewrite, list[int]]]) -> dict[str, Any]:
    rewrites = [one for _, one, _ in entries]
    return {
        "caption": [caption for caption, _, _ in entries],
        "level": [int(one.level) for one in rewrites],
        "positive": [int(one.positive) for one in rewrites],
        "begin": [one.begin for one in rewrites],
        "end": [one.end for one in rewrites],
        "how": [one.how for one in rewrites],
        "similarity": [one.similarity for one in rewrites],
        "text": [one.text for one in rewrites],
        "tokens": [ids for _, _, ids in entries],
    }


def rewrite_pairs(
    folder: Folder, tokenizer: str, rewriting: Rewriting, options: Options, *, again: bool = False
) -> Manifest | None:
    """Gives the pairs corpus in ``folder`` the columns of rewrites; None if it has just these.

    Args:
        tokenizer: file of the tokenizer that the corpus was made with.
        again: whether rewrites that are there may be replaced.

    Raises:
        ValueError: another tokenizer, bad arguments, or see `data_prep.stages.begin_stage`.
    """
    if rewriting.per_caption < 1:
        raise ValueError(f"--per-caption {rewriting.per_caption}: 1 at least")
    words = load_tokenizer(tokenizer)
    parameters = json.loads(json.dumps(asdict(rewriting))) | {
        "tokenizer": words.fingerprint,
        "parser": parser_version(),
        "seed": options.seed,
    }
    stage = begin_stage(folder, REWRITES, parameters, options, again)
    if stage is None:
        return None
    if stage.manifest.tokenizer != words.fingerprint:
        raise ValueError(
            f"{folder} was made with tokenizer {stage.manifest.tokenizer}, {words.source} is "
            f"{words.fingerprint}: name the one it was made with"
        )
    with kept_workers():
        facts = _first_pass(stage, rewriting, options)
        maker = _Maker(
            stage.work,
            stage.first_rows(),
            tokenizer,
            stage.manifest.max_tokens,
            options.seed,
            rewriting,
            bool(facts.get("searched")),
        )
        receipts = make_columns(stage, maker, options)
    return finish_stage(stage, receipts, options, **facts)


def _first_pass(stage: Stage, rewriting: Rewriting, options: Options) -> dict[str, Any]:
    """Writes what the rewriting of any shard needs of all of them."""
    facts: dict[str, Any] = {}
    shards = [stage.folder / shard.name for shard in stage.manifest.shards]
    if {Level.WORD, Level.PHRASE} & {*rewriting.levels}:
        counts: Counter[tuple[str, str, str]] = Counter()
        options.on_stage("scene graphs")
        tasks = [_Parsing(n, shard, stage.work) for n, shard in enumerate(shards)]
        for found in options.run(_parse, tasks):
            counts.update(found)
        lines = sorted([*key, count] for key, count in counts.items())
        write_bytes(stage.work / _VOCABULARY, json.dumps(lines).encode())
        facts["vocabulary"] = Vocabulary(counts).sizes()
    if Level.SENTENCE in rewriting.levels:
        options.on_stage("captions to search")
        captions = [
            (row, text)
            for row, texts in enumerate(t for shard in shards for t in _captions(shard))
            for text in texts
        ]
        facts |= save_captions(stage.work, captions)
    return facts


def _captions(shard: Folder) -> Iterator[list[str]]:
    for batch in read_batches(shard, _CAPTIONS):
        yield from batch.column(0).to_pylist()


class _Parsing(NamedTuple):
    shard: int
    path: Folder
    work: Folder


def _parse(task: _Parsing) -> Counter[tuple[str, str, str]]:
    """Writes the scene graphs of a shard's captions; what stands in them."""
    path = task.work / _graphs_name(task.shard)
    if path.is_file():
        graphs = _read_graphs(path)
    else:
        captions = list(_captions(task.path))
        found = iter(_graphs([text for texts in captions for text in texts]))
        graphs = [[next(found) for _ in texts] for texts in captions]
        write_bytes(path, json.dumps(graphs, separators=(",", ":")).encode())
    return count_items(nodes for pair in graphs for nodes in pair)


def _graphs_name(shard: int) -> str:
    return f"graphs-{shard:05d}.json"


def _read_graphs(path: Folder) -> list[list[list[Node]]]:
    pairs = json.loads(path.read_text(encoding="utf-8"))
    return [[[Node(*node) for node in nodes] for nodes in pair] for pair in pairs]


def _graphs(captions: Sequence[str]) -> Iterator[list[Node]]:
    remaining = iter(captions)
    while block := list(islice(remaining, _AT_ONCE)):
        yield from scene_graphs(block)


def _vocabulary(work: Folder) -> Vocabulary:
    return _read_vocabulary(work, (work / _VOCABULARY).stat().st_mtime_ns)


@lru_cache(maxsize=1)
def _read_vocabulary(work: Folder, written: int) -> Vocabulary:
    """What the first pass left at the time ``written``: a worker may outlive a command."""
    lines = json.loads((work / _VOCABULARY).read_text(encoding="utf-8"))
    return Vocabulary(Counter({(kind, slot, item): n for kind, slot, item, n in lines}))
