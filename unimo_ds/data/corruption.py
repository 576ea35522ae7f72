"""What is hidden from the model: whole-word spans, fragments, overlapping regions.

All randomness comes from the generator that is passed in; PAPER sections 3.1 and 3.2 in brackets.
"""

from typing import NamedTuple

import numpy as np

from unimo_ds.batch import FIRST_POSITION, IGNORED_LABEL
from unimo_ds.config import CorruptionConfig
from unimo_ds.tokenizer import CLS_ID, NUM_LEADING_SPECIALS, SEP_ID


class Words(NamedTuple):
    """What a tokenizer says of its words, as far as corruption needs it."""

    starts: np.ndarray  # bool [vocab_size]: begins a word
    mask_id: int


class TextSegment(NamedTuple):
    """The words of one segment. n positions."""

    word_ids: np.ndarray  # int64 [n]
    position_ids: np.ndarray  # int64 [n]
    order: np.ndarray  # int32 [n]
    labels: np.ndarray  # int64 [n]


def plain_text(tokens: np.ndarray) -> TextSegment:
    """[CLS] words [SEP], bidirectional, nothing asked."""
    word_ids = np.concatenate([[CLS_ID], tokens.astype(np.int64), [SEP_ID]])
    n = len(word_ids)
    return TextSegment(
        word_ids,
        np.arange(FIRST_POSITION, FIRST_POSITION + n),
        np.zeros(n, np.int32),
        np.full(n, IGNORED_LABEL, np.int64),
    )


def mask_spans(
    tokens: np.ndarray, words: Words, config: CorruptionConfig, rng: np.random.Generator
) -> TextSegment:
    """Masked language modelling over spans of whole words [3.2].

    Spans of Geo(p) words, cut off at ``span_max_words``, are chosen until the budget of tokens is
    used; of the chosen tokens 80 % become [MASK], 10 % a random word, 10 % stay; all are asked for.
    The last span may pass the budget by the rest of its last word: words are never cut.
    """
    segment = plain_text(tokens)
    first_of_word = np.flatnonzero(_word_starts(tokens, words))
    if not len(first_of_word):
        return segment
    ends = np.append(first_of_word[1:], len(tokens))
    budget = max(1, round(config.mlm_probability * len(tokens)))
    chosen = np.zeros(len(tokens), bool)
    for anchor in rng.permutation(len(first_of_word)):
        span = min(int(rng.geometric(config.span_geometric_p)), config.span_max_words)
        for word in range(anchor, min(anchor + span, len(first_of_word))):
            if chosen.sum() >= budget:
                break
            chosen[first_of_word[word] : ends[word]] = True
        if chosen.sum() >= budget:
            break
    at = np.flatnonzero(chosen) + 1  # [CLS] stands in front
    segment.labels[at] = segment.word_ids[at]
    dice = rng.random(len(at))
    random_words = rng.integers(NUM_LEADING_SPECIALS, words.mask_id, len(at))
    segment.word_ids[at[dice < 0.8]] = words.mask_id
    replaced = (dice >= 0.8) & (dice < 0.9)
    segment.word_ids[at[replaced]] = random_words[replaced]
    return segment


def cut_fragments(
    tokens: np.ndarray, words: Words, config: CorruptionConfig, rng: np.random.Generator
) -> TextSegment:
    """Sequence to sequence over fragments of one text [3.2].

    Fragments of U(fragment_min, fragment_max) tokens, widened to whole words, are cut until
    ``seq2seq_ratio`` of the tokens is used. Source: [CLS] rest [SEP], bidirectional. Target: [CLS]
    fragment [SEP] for each fragment in the order of the text, causal, seeing the source. Words keep
    their places in the text as position ids; the [CLS] of a fragment takes the place before it. A
    text too short to leave a source becomes the target of an empty one.
    """
    cut = _choose_fragments(tokens, words, config, rng)
    if cut is None:
        source = TextSegment(*(field[[0, -1]] for field in plain_text(tokens)))
        return join(source, caption_target(tokens))
    source = plain_text(tokens)
    kept = np.concatenate([[True], ~cut, [True]])
    parts = [TextSegment(*(field[kept] for field in source))]
    borders = np.flatnonzero(np.diff(np.concatenate([[0], cut.astype(np.int8), [0]])))
    for start, end in borders.reshape(-1, 2):
        fragment = caption_target(tokens[start:end])
        parts.append(fragment._replace(position_ids=fragment.position_ids + start))
    return join(*parts)


def caption_target(tokens: np.ndarray) -> TextSegment:
    """[CLS] words [SEP], causal; each word is asked for at the position before it, [SEP] never."""
    segment = plain_text(tokens)
    segment.labels[:-1] = segment.word_ids[1:]
    return segment._replace(order=np.arange(1, len(tokens) + 3, dtype=np.int32))


def join(*parts: TextSegment) -> TextSegment:
    """Parts one behind the other; causal ones go on counting where the one before ended."""
    orders, reached = [], 0
    for part in parts:
        orders.append(np.where(part.order > 0, part.order + reached, 0).astype(np.int32))
        reached = max(reached, int(orders[-1].max(initial=0)))
    joined = TextSegment(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    return joined._replace(order=np.concatenate(orders))


def mask_regions(
    boxes: np.ndarray, config: CorruptionConfig, rng: np.random.Generator
) -> np.ndarray:
    """bool [R]: random anchors, and all regions that overlap one, until the share is reached [3.1].

    Overlap is intersection over union, compared with ``region_overlap``; at least one region is
    masked.

    Args:
        boxes: [R, 5] as (x1/W, y1/H, x2/W, y2/H, area share).
    """
    masked = np.zeros(len(boxes), bool)
    budget = max(1, round(config.region_probability * len(boxes)))
    for anchor in rng.permutation(len(boxes)):
        if masked.sum() >= budget:
            break
        if not masked[anchor]:
            masked |= intersection_over_union(boxes[anchor], boxes) > config.region_overlap
            masked[anchor] = True
    return masked


def intersection_over_union(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """float [R]: of ``box`` [5] with each of ``boxes`` [R, 5]; 0 where both are empty."""
    sides = np.minimum(box[2:4], boxes[:, 2:4]) - np.maximum(box[:2], boxes[:, :2])
    intersection = sides.clip(min=0).prod(axis=1)
    union = _area(box) + _area(boxes) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def _word_starts(tokens: np.ndarray, words: Words) -> np.ndarray:
    starts = words.starts[tokens]
    starts[:1] = True
    return starts


def _choose_fragments(
    tokens: np.ndarray, words: Words, config: CorruptionConfig, rng: np.random.Generator
) -> np.ndarray | None:
    n = len(tokens)
    budget = round(config.seq2seq_ratio * n)
    if budget < config.fragment_min:
        return None
    starts = np.append(np.flatnonzero(_word_starts(tokens, words)), n)
    cut = np.zeros(n, bool)
    while (left := budget - int(cut.sum())) >= config.fragment_min:
        size = int(rng.integers(config.fragment_min, min(config.fragment_max, left) + 1))
        at = int(rng.integers(0, n - size + 1))
        begin = starts[np.searchsorted(starts, at, side="right") - 1]
        end = starts[np.searchsorted(starts, at + size, side="left")]
        if cut[begin:end].all():
            break  # a rare full overlap ends the search rather than looping for a free place
        cut[begin:end] = True
    return None if cut.all() else cut
