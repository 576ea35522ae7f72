"""What is hidden from the model: whole-word spans, fragments, overlapping regions.

All randomness comes from the generator that is passed in; in brackets sections of Li et al. 2021.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from unimo_ds.batch import FIRST_POSITION, IGNORED_LABEL
from unimo_ds.config import CorruptionConfig
from unimo_ds.data.units import NONE
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
    n = len(tokens) + 2
    segment = _empty(n)
    segment.word_ids[0], segment.word_ids[1:-1], segment.word_ids[-1] = CLS_ID, tokens, SEP_ID
    segment.position_ids[:] = np.arange(FIRST_POSITION, FIRST_POSITION + n)
    segment.order.fill(0)
    return segment


def mask_spans(
    tokens: np.ndarray,
    words: Words,
    config: CorruptionConfig,
    rng: np.random.Generator,
    unit_begins: np.ndarray = NONE,
) -> TextSegment:
    """Masked language modelling over spans of whole units: words, and phrases if any [2.3].

    Spans of Geo(p) units, cut off at ``span_max_words``, are chosen until the budget of tokens is
    used; of the chosen tokens 80 % become [MASK], 10 % a random word, 10 % stay; all are asked for.
    The last span may pass the budget by the rest of its last unit: units are never cut. A [SEP]
    between the documents of a row stays as it is.

    Args:
        unit_begins: bool [n]: which tokens begin a unit; length zero: those that begin a word.
    """
    segment = plain_text(tokens)
    begins = unit_begins if len(unit_begins) else _word_starts(tokens, words)
    first_of_unit = np.flatnonzero(begins)
    if not len(first_of_unit):
        return segment
    chosen = _choose_spans(first_of_unit, len(tokens), config, rng)
    at = np.flatnonzero(chosen & (tokens != SEP_ID)) + 1  # [CLS] stands in front
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
    """Sequence to sequence over fragments of one text [2.3].

    Fragments of U(fragment_min, fragment_max) tokens, widened to whole words, are cut until
    ``seq2seq_ratio`` of the tokens is used. Source: [CLS] rest [SEP], bidirectional. Target: [CLS]
    fragment [SEP] for each fragment in the order of the text, causal, seeing the source. Words keep
    their places in the text as position ids; the [CLS] of a fragment takes the place before it. A
    text too short to leave a source becomes the target of an empty one.
    """
    return lay_out(tokens, choose_fragments(tokens, words, config, rng))


def laid_out_length(tokens: np.ndarray, fragments: Sequence[tuple[int, int]]) -> int:
    """Positions that `lay_out` fills."""
    return len(tokens) + 2 + 2 * len(fragments)


def lay_out(tokens: np.ndarray, fragments: Sequence[tuple[int, int]]) -> TextSegment:
    """The source and the targets of `cut_fragments`, whose fragments `choose_fragments` gave."""
    n = len(tokens)
    places = np.arange(FIRST_POSITION, FIRST_POSITION + n + 2)
    in_source = np.ones(n + 2, bool)
    for start, end in fragments:
        in_source[1 + start : 1 + end] = False
    segment = _empty(laid_out_length(tokens, fragments))
    word_ids, position_ids, order, labels = segment
    at = n + 2 - sum(end - start for start, end in fragments)
    word_ids[0], word_ids[1 : at - 1], word_ids[at - 1] = CLS_ID, tokens[in_source[1:-1]], SEP_ID
    position_ids[:at] = places[in_source]
    order[:at] = 0
    order[at:] = np.arange(1, len(order) - at + 1)
    for start, end in fragments:
        after = at + end - start + 2
        word_ids[at], word_ids[after - 1] = CLS_ID, SEP_ID
        word_ids[at + 1 : after - 1] = tokens[start:end]
        position_ids[at:after] = places[start : end + 2]
        labels[at : after - 1] = word_ids[at + 1 : after]
        at = after
    return segment


def choose_fragments(
    tokens: np.ndarray, words: Words, config: CorruptionConfig, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Which parts of a text `cut_fragments` cuts out, as (first token, one past the last)."""
    n = len(tokens)
    budget = left = round(config.seq2seq_ratio * n)
    if budget < config.fragment_min:
        return [(0, n)]
    starts = np.flatnonzero(_word_starts(tokens, words)).tolist()
    cut = np.zeros(n + 2, bool)  # with an end on both sides
    while left >= config.fragment_min:
        size = int(rng.integers(config.fragment_min, min(config.fragment_max, left) + 1))
        at = int(rng.integers(0, n - size + 1))
        begin = starts[bisect_right(starts, at) - 1]
        next_word = bisect_left(starts, at + size)
        end = starts[next_word] if next_word < len(starts) else n
        fragment = cut[1 + begin : 1 + end]
        new = end - begin - np.count_nonzero(fragment)
        if not new:
            break  # a rare full overlap ends the search rather than looping for a free place
        fragment[:] = True
        left -= new
    borders = np.flatnonzero(cut[1:] != cut[:-1]).tolist()
    return list(zip(borders[::2], borders[1::2], strict=True))


def caption_target(tokens: np.ndarray) -> TextSegment:
    """[CLS] words [SEP], causal; each word is asked for at the position before it, [SEP] never."""
    segment = plain_text(tokens)
    segment.labels[:-1] = segment.word_ids[1:]
    return segment._replace(order=np.arange(1, len(tokens) + 3, dtype=np.int32))


def mask_regions(
    boxes: np.ndarray, config: CorruptionConfig, rng: np.random.Generator
) -> np.ndarray:
    """bool [R]: random anchors, and all regions that overlap one, until the share is reached [2.2].

    Overlap is intersection over union, compared with ``region_overlap``; at least one region is
    masked.

    Args:
        boxes: [R, 5] as (x1/W, y1/H, x2/W, y2/H, area share).
    """
    masked = np.zeros(len(boxes), bool)
    budget = max(1, round(config.region_probability * len(boxes)))
    corners = np.ascontiguousarray(boxes.T[:4])
    for anchor in rng.permutation(len(boxes)).tolist():
        if np.count_nonzero(masked) >= budget:
            break
        if not masked[anchor]:
            masked |= _overlaps(corners[:, anchor], corners) > config.region_overlap
            masked[anchor] = True
    return masked


def intersection_over_union(box: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """float [R]: of ``box`` [5] with each of ``boxes`` [R, 5]; 0 where both are empty."""
    return _overlaps(box[:4], np.ascontiguousarray(boxes.T[:4]))


def _overlaps(box: np.ndarray, corners: np.ndarray) -> np.ndarray:
    """`intersection_over_union` of corners [4] with corners [4, R]: x1, y1, x2, y2."""
    x1, y1, x2, y2 = corners
    wide = np.minimum(box[2], x2) - np.maximum(box[0], x1)
    high = np.minimum(box[3], y2) - np.maximum(box[1], y1)
    intersection = np.maximum(wide, 0) * np.maximum(high, 0)
    area = (box[2] - box[0]) * (box[3] - box[1])
    union = area + (x2 - x1) * (y2 - y1) - intersection
    return np.divide(intersection, union, out=np.zeros_like(intersection), where=union > 0)


def _word_starts(tokens: np.ndarray, words: Words) -> np.ndarray:
    starts = words.starts[tokens]
    starts[:1] = True
    return starts


def _choose_spans(
    first_of_unit: np.ndarray, num_tokens: int, config: CorruptionConfig, rng: np.random.Generator
) -> np.ndarray:
    """bool [num_tokens]: the spans of whole units that `mask_spans` asks for."""
    bounds = [*first_of_unit.tolist(), num_tokens]
    num_units = len(bounds) - 1
    chosen = np.zeros(num_tokens, bool)
    is_chosen = bytearray(num_units)
    left = max(1, round(config.mlm_probability * num_tokens))
    for anchor in rng.permutation(num_units).tolist():
        span = min(int(rng.geometric(config.span_geometric_p)), config.span_max_words)
        for unit in range(anchor, min(anchor + span, num_units)):
            if not is_chosen[unit]:
                is_chosen[unit] = True
                chosen[bounds[unit] : bounds[unit + 1]] = True
                left -= bounds[unit + 1] - bounds[unit]
                if left <= 0:
                    return chosen
    return chosen


def _empty(n: int) -> TextSegment:
    """To be filled, but that nothing is asked yet."""
    labels = np.empty(n, np.int64)
    labels.fill(IGNORED_LABEL)
    return TextSegment(np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int32), labels)
