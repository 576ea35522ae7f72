"""What a drawn sample becomes: the segments that the model reads for it."""

from typing import NamedTuple

import numpy as np

from unimo_ds.batch import Kind
from unimo_ds.config import RunConfig
from unimo_ds.data.corruption import (
    TextSegment,
    Words,
    caption_target,
    cut_fragments,
    mask_spans,
    plain_text,
)
from unimo_ds.data.mixture import Draw
from unimo_ds.data.shards import (
    Collection,
    ImageCorpus,
    PairCorpus,
    TextCorpus,
    open_collection,
)
from unimo_ds.tokenizer import load_tokenizer

NO_GROUP = -1
NO_WORDS = TextSegment(*(np.empty(0, t) for t in (np.int64, np.int64, np.int32, np.int64)))


class ImageRef(NamedTuple):
    """An image that collate will read: only rows of this rank touch the features."""

    corpus: ImageCorpus
    row: int
    mask_key: tuple[int, ...]  # keys the choice of masked regions; empty: nothing is masked


class Segment(NamedTuple):
    """One sequence: [IMG] regions, words, or both, and its part in the contrast."""

    kind: Kind
    image: ImageRef | None
    text: TextSegment
    group: int = NO_GROUP
    positive: bool = False  # of a scored pair

    def __len__(self) -> int:  # type: ignore[override]
        regions = 1 + int(self.image.corpus.lengths[self.image.row]) if self.image else 0
        return regions + len(self.text.word_ids)


class Sample(NamedTuple):
    """All segments of one draw; they share a row, so that a group is never torn apart."""

    name: str
    segments: list[Segment]

    @property
    def length(self) -> int:
        return sum(len(segment) for segment in self.segments)


class Samples:
    """The corpora of a run, and how a draw from them becomes segments."""

    def __init__(self, config: RunConfig, pairs: Collection[PairCorpus]) -> None:
        self.config = config
        tokenizer = load_tokenizer(config.data.tokenizer)
        self.words = Words(tokenizer.word_starts(), tokenizer.mask_id)
        self.texts = open_collection(config.data.texts, TextCorpus)
        self.images = open_collection(config.data.images, ImageCorpus)
        self.pairs = pairs
        if tokenizer.vocab_size != config.model.vocab_size:
            raise ValueError(
                f"model.vocab_size {config.model.vocab_size} is not that of "
                f"{config.data.tokenizer}, which has {tokenizer.vocab_size} words: "
                f"set model.vocab_size={tokenizer.vocab_size}"
            )
        for corpus in (*self.texts.corpora, *self.pairs.corpora):
            _check_words(corpus, tokenizer.fingerprint, config)
        pictures = [*self.images.corpora, *(corpus.images for corpus in self.pairs.corpora)]
        for images in pictures:
            _check_regions(images, pictures[0], config)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.texts), len(self.images), len(self.pairs)

    def sample(self, draw: Draw) -> Sample:
        """The segments of ``draw``; a pure function of it and the run's seed."""
        key = (self.config.seed, draw.kind, draw.epoch, draw.index)
        rng = np.random.default_rng(key)
        if draw.kind == Kind.TEXT:
            corpus, row = self.texts[draw.index]
            text = self._corrupted(corpus.tokens(row), rng)
            return Sample(_name(corpus, row), [Segment(Kind.TEXT, None, text)])
        if draw.kind == Kind.IMAGE:
            images, row = self.images[draw.index]
            image = ImageRef(images, row, (*key, 1))
            return Sample(_name(images, row), [Segment(Kind.IMAGE, image, NO_WORDS)])
        return self._pair(draw, key, rng)

    def _pair(self, draw: Draw, key: tuple[int, ...], rng: np.random.Generator) -> Sample:
        """A masked joint pass for the reconstruction objectives, unmasked ones for the contrast."""
        corpus, row = self.pairs[draw.index]
        image = ImageRef(corpus.images, corpus.image_row(row), ())
        captions = corpus.captions(row)
        order = rng.permutation(len(captions))
        first = captions[order[0]]
        masked = image._replace(mask_key=(*key, 1))
        segments = [Segment(Kind.PAIR, masked, self._corrupted_caption(first, rng))]
        cmcl = self.config.cmcl
        if cmcl.captions:
            segments.append(Segment(Kind.ENCODED_IMAGE, image, NO_WORDS, draw.index))
        for which in order[: cmcl.captions]:
            text = plain_text(captions[which])
            segments.append(Segment(Kind.ENCODED_TEXT, None, text, draw.index))
        if cmcl.joint_positives + cmcl.joint_negatives:
            scored = [captions[which] for which in order[: 1 + cmcl.joint_positives]]
            scored += [self._other_caption(draw.index, rng) for _ in range(cmcl.joint_negatives)]
            positives = len(scored) - cmcl.joint_negatives
            for i, caption in enumerate(scored):
                text = plain_text(caption)
                segments.append(
                    Segment(Kind.SCORED_PAIR, image, text, draw.index, positive=i < positives)
                )
        return Sample(_name(corpus, row), segments)

    def _corrupted(self, tokens: np.ndarray, rng: np.random.Generator) -> TextSegment:
        corrupt = (
            cut_fragments if rng.random() < self.config.corruption.seq2seq_share else mask_spans
        )
        return corrupt(tokens, self.words, self.config.corruption, rng)

    def _corrupted_caption(self, tokens: np.ndarray, rng: np.random.Generator) -> TextSegment:
        # A caption is too short to cut from: its sequence-to-sequence form is captioning.
        if rng.random() < self.config.corruption.seq2seq_share:
            return caption_target(tokens)
        return mask_spans(tokens, self.words, self.config.corruption, rng)

    def _other_caption(self, index: int, rng: np.random.Generator) -> np.ndarray:
        other = (index + 1 + int(rng.integers(max(1, len(self.pairs) - 1)))) % len(self.pairs)
        corpus, row = self.pairs[other]
        captions = corpus.captions(row)
        return captions[int(rng.integers(len(captions)))]


def _name(corpus: TextCorpus | ImageCorpus | PairCorpus, row: int) -> str:
    return f"{corpus.folder}:{corpus.row_id(row)}"


def _check_words(corpus: TextCorpus | PairCorpus, fingerprint: str, config: RunConfig) -> None:
    manifest = corpus.manifest
    if manifest.tokenizer != fingerprint:
        raise ValueError(
            f"{corpus.folder} was built with tokenizer {manifest.tokenizer}, this run uses "
            f"{fingerprint} ({config.data.tokenizer}): rebuild it with unimo-prep, or set "
            "data.tokenizer"
        )
    if manifest.max_tokens + 2 > config.data.max_tokens:
        raise ValueError(
            f"{corpus.folder} holds sequences of up to {manifest.max_tokens} tokens + [CLS] and "
            f"[SEP], data.max_tokens is {config.data.max_tokens}: rebuild with --max-tokens "
            f"{config.data.max_tokens - 2}, or raise data.max_tokens"
        )


def _check_regions(images: ImageCorpus, first: ImageCorpus, config: RunConfig) -> None:
    source, model = images.source, config.model
    if source.fingerprint != first.source.fingerprint:
        raise ValueError(
            f"{images.folder} has regions {source.fingerprint}, {first.folder} has "
            f"{first.source.fingerprint}: all images of a run need one region source with the same "
            "parameters and visual words (unimo-prep --visual-words)"
        )
    for name, corpus_has, run_has in (
        ("model.image_feature_size", source.feature_size, model.image_feature_size),
        ("model.image_class_size", source.num_classes, model.image_class_size),
    ):
        if corpus_has != run_has:
            raise ValueError(f"{images.folder} needs {name} {corpus_has}, it is {run_has}: set it")
    if source.max_regions > config.data.max_regions:
        raise ValueError(
            f"{images.folder} has up to {source.max_regions} regions an image, data.max_regions is "
            f"{config.data.max_regions}: raise it, or rebuild with --max-regions"
        )
