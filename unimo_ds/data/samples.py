"""What a drawn sample becomes: the segments that the model reads for it.

Every rank plans all samples of a step, to pack them alike, and lays out its own: a plan draws what
the lengths depend on and leaves the rest to `PlannedText.lay_out`.
"""

from functools import partial

import numpy as np

from unimo_ds.batch import Kind
from unimo_ds.config import RunConfig
from unimo_ds.data.contrast import Contrast, Drawn
from unimo_ds.data.corruption import (
    Words,
    caption_target,
    choose_fragments,
    laid_out_length,
    lay_out,
    mask_spans,
)
from unimo_ds.data.mixture import Draw
from unimo_ds.data.segments import ImageRef, PlannedText, Sample, Segment
from unimo_ds.data.shards import (
    Collection,
    ImageCorpus,
    PairCorpus,
    TextCorpus,
    open_collection,
)
from unimo_ds.data.units import NONE
from unimo_ds.tokenizer import WordTokenizer, load_tokenizer


class Samples:
    """The corpora of a run, and how a draw from them becomes segments."""

    def __init__(self, config: RunConfig, pairs: Collection[PairCorpus]) -> None:
        self.config = config
        tokenizer = load_tokenizer(config.data.tokenizer)
        self.words = Words(tokenizer.word_starts(), tokenizer.mask_id)
        self.texts = open_collection(config.data.texts, TextCorpus, config.data.cache)
        self.images = open_collection(config.data.images, ImageCorpus, config.data.cache)
        self.pairs = pairs
        if tokenizer.vocab_size != config.model.vocab_size:
            raise ValueError(
                f"model.vocab_size {config.model.vocab_size} is not that of "
                f"{config.data.tokenizer}, which has {tokenizer.vocab_size} words: "
                f"set model.vocab_size={tokenizer.vocab_size}"
            )
        for corpus in (*self.texts.corpora, *self.pairs.corpora):
            _check_words(corpus, tokenizer, config)
        pictures = [*self.images.corpora, *(corpus.images for corpus in self.pairs.corpora)]
        for images in pictures:
            _check_regions(images, pictures[0], config)
        self.contrast = Contrast(config.cmcl, pairs, self.texts, self.images)

    @property
    def sizes(self) -> tuple[int, int, int]:
        return len(self.texts), len(self.images), len(self.pairs)

    def sample(self, draw: Draw, step: int) -> Sample:
        """The segments of ``draw`` in ``step``; a pure function of them and the run's seed."""
        key = (self.config.seed, draw.kind, draw.epoch, draw.index)
        rng = np.random.default_rng(key)
        if draw.kind == Kind.TEXT:
            corpus, row = self.texts[draw.index]
            units = corpus.unit_begins(row) if self.config.corruption.phrases else NONE
            text = self._corrupted(corpus.tokens(row), units, rng)
            return Sample(corpus, row, [Segment(Kind.TEXT, None, text)])
        if draw.kind == Kind.IMAGE:
            images, row = self.images[draw.index]
            image = ImageRef(images, row, (*key, 1))
            return Sample(images, row, [Segment(Kind.IMAGE, image, None)])
        return self._pair(draw, step, key, rng)

    def _pair(
        self, draw: Draw, step: int, key: tuple[int, ...], rng: np.random.Generator
    ) -> Sample:
        """A masked joint pass for the reconstruction objectives, unmasked ones for the contrast."""
        corpus, row = self.pairs[draw.index]
        image = ImageRef(corpus.images, corpus.image_row(row), (*key, 1))
        captions = corpus.captions(row)
        order = rng.permutation(len(captions)).tolist()
        units = corpus.unit_begins(row)[order[0]] if self.config.corruption.phrases else NONE
        text = self._corrupted_caption(captions[order[0]], units, rng)
        drawn = Drawn(corpus, row, draw.index, draw.number, captions, order, (*key, 2), step)
        segments = [Segment(Kind.PAIR, image, text), *self.contrast.segments(drawn)]
        return Sample(corpus, row, segments)

    def _corrupted(
        self, tokens: np.ndarray, units: np.ndarray, rng: np.random.Generator
    ) -> PlannedText:
        if rng.random() < self.config.corruption.seq2seq_share:
            fragments = choose_fragments(tokens, self.words, self.config.corruption, rng)
            length = laid_out_length(tokens, fragments)
            return PlannedText(length, partial(lay_out, tokens, fragments))
        return self._masked(tokens, units, rng)

    def _corrupted_caption(
        self, tokens: np.ndarray, units: np.ndarray, rng: np.random.Generator
    ) -> PlannedText:
        # A caption is too short to cut from: its sequence-to-sequence form is captioning.
        if rng.random() < self.config.corruption.seq2seq_share:
            return PlannedText(len(tokens) + 2, partial(caption_target, tokens))
        return self._masked(tokens, units, rng)

    def _masked(
        self, tokens: np.ndarray, units: np.ndarray, rng: np.random.Generator
    ) -> PlannedText:
        mask = partial(mask_spans, tokens, self.words, self.config.corruption, rng, units)
        return PlannedText(len(tokens) + 2, mask)


def _check_words(
    corpus: TextCorpus | PairCorpus, tokenizer: WordTokenizer, config: RunConfig
) -> None:
    manifest = corpus.manifest
    if manifest.tokenizer != tokenizer.fingerprint:
        raise ValueError(
            f"{corpus.folder} was built with tokenizer {manifest.tokenizer}, this run uses "
            f"{tokenizer.fingerprint} ({tokenizer.source}): rebuild it with unimo-prep, or set "
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
