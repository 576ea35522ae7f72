"""What a pair is compared with in cross-modal contrastive learning: its other segments.

The method is that of Li et al. 2021, section 2.1. Everything is drawn by key: the same pair in the
same epoch meets the same rewrites and neighbours on any number of ranks.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unimo_ds.batch import NO_LEVEL, Kind
from unimo_ds.config import ContrastConfig
from unimo_ds.data.schema import IMAGES, RELATED, REWRITES, TEXTS, Level
from unimo_ds.data.segments import ImageRef, Segment, plain
from unimo_ds.data.shards import Collection, Corpus, ImageCorpus, PairCorpus, TextCorpus
from unimo_ds.data.stages import Rewrites

EASIEST_FIRST = (Level.SENTENCE, Level.PHRASE, Level.WORD)


class Drawn(NamedTuple):
    """A pair that was drawn for a step."""

    corpus: PairCorpus
    row: int
    index: int  # in the collection of all pairs; its group
    number: int  # of the draw: a pair drawn twice in a step is two anchors
    captions: list[np.ndarray]
    order: list[int]  # of the captions: the first one is the original
    key: tuple[int, ...]  # of the random numbers
    step: int


class Contrast:
    """Draws what the pairs of a run are compared with.

    Raises:
        ValueError: rewrites or neighbours are asked for that the corpora do not have.
    """

    def __init__(
        self,
        config: ContrastConfig,
        pairs: Collection[PairCorpus],
        texts: Collection[TextCorpus],
        images: Collection[ImageCorpus],
    ) -> None:
        self.config, self.pairs = config, pairs
        self._counts = {
            Level.SENTENCE: config.sentence_negatives,
            Level.PHRASE: config.phrase_negatives,
            Level.WORD: config.word_negatives,
        }
        for level, count in self._counts.items():
            _require_rewrites(pairs, f"cmcl.{level.name.lower()}_negatives", count)
        _require_rewrites(pairs, "cmcl.rewritten_positives", config.rewritten_positives)
        self._texts: dict[str, TextCorpus] = {}
        self._images: dict[str, ImageCorpus] = {}
        for corpus in pairs.corpora:
            name = corpus.name
            if config.retrieved_texts:
                self._texts[name] = _related_corpus(corpus, TEXTS, texts, config.retrieved_texts)
            if config.retrieved_images:
                self._images[name] = _related_corpus(
                    corpus, IMAGES, images, config.retrieved_images
                )

    def segments(self, drawn: Drawn) -> list[Segment]:
        """Individually encoded ones, then jointly encoded ones."""
        rng = np.random.default_rng(drawn.key)
        return [*self._individual(drawn, rng), *self._joint(drawn, rng)]

    def _individual(self, drawn: Drawn, rng: np.random.Generator) -> list[Segment]:
        config, of_draw = self.config, {"group": drawn.index, "draw": drawn.number}
        if not config.captions:
            return []
        image = ImageRef(drawn.corpus.images, drawn.corpus.image_row(drawn.row), ())
        segments = [Segment(Kind.ENCODED_IMAGE, image, None, **of_draw)]
        for which in drawn.order[: config.captions]:
            text = plain(drawn.captions[which])
            segments.append(Segment(Kind.ENCODED_TEXT, None, text, **of_draw))
        if config.retrieved_texts:
            corpus = self._texts[drawn.corpus.name]
            rows = drawn.corpus.related(drawn.row).text_rows
            for at in _some(len(rows), config.retrieved_texts, rng):
                text = plain(corpus.tokens(int(rows[at])))
                segments.append(Segment(Kind.ENCODED_TEXT, None, text, **of_draw, anchor=False))
        if config.retrieved_images:
            images = self._images[drawn.corpus.name]
            rows = drawn.corpus.related(drawn.row).image_rows
            for at in _some(len(rows), config.retrieved_images, rng):
                image = ImageRef(images, int(rows[at]), ())
                segments.append(Segment(Kind.ENCODED_IMAGE, image, None, **of_draw, anchor=False))
        return segments

    def _joint(self, drawn: Drawn, rng: np.random.Generator) -> list[Segment]:
        config = self.config
        positives = config.joint_positives + config.rewritten_positives
        if not positives + sum(self._counts.values()) + config.other_negatives:
            return []
        rewrites = drawn.corpus.rewrites(drawn.row)
        captions = [(tokens, True, NO_LEVEL) for tokens in self._positives(drawn, rewrites, rng)]
        for level, count in self._counts.items():
            captions += self._negatives(drawn, rewrites, level, count, rng)
        others = (self._other_caption(drawn.index, rng) for _ in range(config.other_negatives))
        captions += [(tokens, False, NO_LEVEL) for tokens in others]
        image = ImageRef(drawn.corpus.images, drawn.corpus.image_row(drawn.row), ())
        return [
            Segment(
                Kind.SCORED_PAIR,
                image,
                plain(tokens),
                group=drawn.index,
                draw=drawn.number,
                positive=positive,
                level=level,
            )
            for tokens, positive, level in captions
        ]

    def _positives(
        self, drawn: Drawn, rewrites: Rewrites, rng: np.random.Generator
    ) -> list[np.ndarray]:
        """The original, then what says the same as it: rewritten, or its image's other captions."""
        original, *others = drawn.order
        rewritten = self.config.rewritten_positives
        same = np.flatnonzero((rewrites.positive == 1) & (rewrites.caption == original))
        chosen = [rewrites.tokens(int(same[at])) for at in _some(len(same), rewritten, rng)]
        chosen += [drawn.captions[which] for which in others]
        return [drawn.captions[original], *chosen[: rewritten + self.config.joint_positives]]

    def _negatives(
        self,
        drawn: Drawn,
        rewrites: Rewrites,
        level: Level,
        count: int,
        rng: np.random.Generator,
    ) -> list[tuple[np.ndarray, bool, int]]:
        """Rewrites of the original first, so that it and they differ in nothing but the rewrite."""
        wrong = np.flatnonzero((rewrites.level == level) & (rewrites.positive == 0))
        of_original = rewrites.caption[wrong] == drawn.order[0]
        pool = [
            int(rows[at])
            for rows in (wrong[of_original], wrong[~of_original])
            for at in _some(len(rows), count, rng)
        ]
        hard = hard_share(level, drawn.step, self.config.hardness_steps)
        negatives: list[tuple[np.ndarray, bool, int]] = []
        for i in range(count):
            is_hard = rng.random() < hard
            if is_hard and i < len(pool):
                negatives.append((rewrites.tokens(pool[i]), False, int(level)))
            else:
                negatives.append((self._other_caption(drawn.index, rng), False, NO_LEVEL))
        return negatives

    def _other_caption(self, index: int, rng: np.random.Generator) -> np.ndarray:
        other = (index + 1 + int(rng.integers(max(1, len(self.pairs) - 1)))) % len(self.pairs)
        corpus, row = self.pairs[other]
        captions = corpus.captions(row)
        return captions[int(rng.integers(len(captions)))]


def hard_share(level: Level, step: int, steps: int) -> float:
    """The share of a level's negatives that are rewrites in ``step``, when ``steps`` lead to all.

    Each level rises from 0 to 1 within its third of the steps: sentences, phrases, words.
    """
    if not steps:
        return 1.0
    return min(1.0, max(0.0, 3 * step / steps - EASIEST_FIRST.index(level)))


def _some(size: int, count: int, rng: np.random.Generator) -> Sequence[int]:
    """At most ``count`` different places of ``range(size)``, in a random order."""
    if not size or not count:
        return ()
    return rng.permutation(size)[:count].tolist()


def _require_rewrites(pairs: Collection[PairCorpus], option: str, count: int) -> None:
    for corpus in pairs.corpora if count else ():
        if REWRITES not in corpus.manifest.stages:
            raise ValueError(
                f"{option} is {count}, but {corpus.folder} has no rewritten captions: run "
                f"`unimo-prep rewrite {corpus.folder}`, or set {option}=0"
            )


def _related_corpus(pairs: PairCorpus, kind: str, among: Collection[Corpus], count: int) -> Corpus:
    """The corpus whose rows ``pairs`` names as related."""
    option = f"cmcl.retrieved_{kind}"
    told = pairs.manifest.stages.get(RELATED, {}).get("parameters", {}).get(kind)
    if not told:
        raise ValueError(
            f"{option} is {count}, but nothing was retrieved for {pairs.folder}: run `unimo-prep "
            f"retrieve {pairs.folder} --{kind} CORPUS`, or set {option}=0"
        )
    for corpus in among.corpora:
        if corpus.manifest.fingerprint == told["fingerprint"]:
            return corpus
    raise ValueError(
        f"{option} is {count}, but none of data.{kind} is the corpus that {pairs.folder} was "
        f"matched with ({told['rows']} rows, fingerprint {told['fingerprint']}): add it to "
        f"data.{kind}, run `unimo-prep retrieve --replace` with the ones there are, or set "
        f"{option}=0"
    )
