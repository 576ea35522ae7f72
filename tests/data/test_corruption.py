"""What is hidden: whole words, the share that was asked for, and nothing lost."""

import numpy as np
import pytest

from unimo_ds.batch import IGNORED_LABEL
from unimo_ds.config import CorruptionConfig
from unimo_ds.data.corruption import (
    Words,
    caption_target,
    choose_fragments,
    cut_fragments,
    intersection_over_union,
    laid_out_length,
    lay_out,
    mask_regions,
    mask_spans,
)
from unimo_ds.tokenizer import CLS_ID, SEP_ID

VOCABULARY, MASK = 200, 199
# Even ids begin a word, odd ones go on with it.
WORDS = Words(np.arange(VOCABULARY) % 2 == 0, MASK)
CONFIG = CorruptionConfig()


def text(rng, n=120):
    return rng.integers(4, MASK, n).astype(np.uint16)


def word_of(tokens):
    starts = WORDS.starts[tokens].copy()
    starts[0] = True
    return np.cumsum(starts)


@pytest.mark.parametrize("seed", range(5))
def test_masked_language_modelling_hides_whole_words(seed):
    rng = np.random.default_rng(seed)
    tokens = text(rng)
    segment = mask_spans(tokens, WORDS, CONFIG, rng)
    asked = segment.labels[1:-1] != IGNORED_LABEL
    words = word_of(tokens)
    assert not set(words[asked]) & set(words[~asked]), "a word was cut"
    assert np.array_equal(segment.labels[1:-1][asked], tokens[asked])
    assert np.array_equal(segment.word_ids[1:-1][~asked], tokens[~asked])
    assert (segment.word_ids[0], segment.word_ids[-1]) == (CLS_ID, SEP_ID)
    assert np.array_equal(segment.position_ids, np.arange(2, 2 + len(tokens) + 2))
    assert not segment.order.any()


def test_shares_are_those_of_the_paper():
    asked = masked = kept = total = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        tokens = text(rng)
        segment = mask_spans(tokens, WORDS, CONFIG, rng)
        at = segment.labels != IGNORED_LABEL
        asked += at.sum()
        masked += (segment.word_ids[at] == MASK).sum()
        kept += (segment.word_ids[at] == segment.labels[at]).sum()
        total += len(tokens)
    assert asked / total == pytest.approx(0.155, abs=0.01)  # 15 % and the rest of the last word
    assert masked / asked == pytest.approx(0.8, abs=0.02)
    assert kept / asked == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_fragments_and_source_make_up_the_text(seed):
    rng = np.random.default_rng(seed)
    tokens = text(rng)
    segment = cut_fragments(tokens, WORDS, CONFIG, rng)
    source = segment.order == 0
    assert np.all(np.diff(np.flatnonzero(source)) == 1), "the source comes first, in one piece"
    assert np.array_equal(segment.order[~source], np.arange(1, (~source).sum() + 1))
    # Put back by their places in the text, source and target words give the text.
    special = np.isin(segment.word_ids, [CLS_ID, SEP_ID])
    back = np.full(len(tokens), -1)
    back[segment.position_ids[~special] - 3] = segment.word_ids[~special]
    assert np.array_equal(back, tokens)
    target = (~source & ~special).sum()
    assert 0.15 <= target / len(tokens) <= 0.45


def test_every_target_position_is_asked_for_the_word_after_it():
    rng = np.random.default_rng(1)
    segment = cut_fragments(text(rng), WORDS, CONFIG, rng)
    at = np.flatnonzero(segment.labels != IGNORED_LABEL)
    assert np.array_equal(segment.labels[at], segment.word_ids[at + 1])
    ends = (segment.order > 0) & (segment.word_ids == SEP_ID)
    assert np.array_equal(segment.labels[ends], np.full(ends.sum(), IGNORED_LABEL))
    starts = np.flatnonzero((segment.order > 0) & (segment.word_ids == CLS_ID))
    assert np.array_equal(segment.position_ids[starts] + 1, segment.position_ids[starts + 1])


def test_a_short_text_becomes_the_target_of_an_empty_source():
    tokens = np.array([10, 12, 14], np.uint16)
    segment = cut_fragments(tokens, WORDS, CONFIG, np.random.default_rng(0))
    assert segment.word_ids.tolist() == [CLS_ID, SEP_ID, CLS_ID, 10, 12, 14, SEP_ID]
    assert segment.order.tolist() == [0, 0, 1, 2, 3, 4, 5]
    assert segment.labels.tolist()[2:] == [10, 12, 14, SEP_ID, IGNORED_LABEL]


def test_captioning_is_causal_from_cls():
    segment = caption_target(np.array([7, 8], np.uint16))
    assert segment.order.tolist() == [1, 2, 3, 4]
    assert segment.labels.tolist() == [7, 8, SEP_ID, IGNORED_LABEL]


def grid(n):
    row, column = np.divmod(np.arange(n * n), n)
    edges = np.stack([column, row, column + 1, row + 1], axis=1) / n
    return np.concatenate([edges, np.full((n * n, 1), 1 / n**2)], axis=1).astype(np.float32)


def test_region_masking_takes_the_share_and_what_overlaps():
    apart = mask_regions(grid(10), CONFIG, np.random.default_rng(0))
    assert apart.sum() == 15
    twice = np.repeat(grid(10), 2, axis=0)  # every box lies on another one
    masked = mask_regions(twice, CONFIG, np.random.default_rng(0))
    assert np.array_equal(masked[::2], masked[1::2]) and masked.sum() == 30


def test_overlap_is_intersection_over_union():
    boxes = np.array([[0, 0, 0.5, 1, 0.5], [0.25, 0, 0.75, 1, 0.5], [0.5, 0, 1, 1, 0.5]])
    assert intersection_over_union(boxes[0], boxes) == pytest.approx([1, 1 / 3, 0])
    point = np.array([[0.5, 0.5, 0.5, 0.5, 0]])
    assert intersection_over_union(point[0], point).tolist() == [0]


@pytest.mark.parametrize("n", [0, 1, 3, 16, 17, 120, 500])
def test_the_length_of_what_is_laid_out_is_known_before(n):
    for seed in range(20):
        rng = np.random.default_rng([n, seed])
        tokens = text(rng, n)
        fragments = choose_fragments(tokens, WORDS, CONFIG, rng)
        assert len(lay_out(tokens, fragments).word_ids) == laid_out_length(tokens, fragments)
