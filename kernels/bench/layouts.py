"""Packed rows as UNIMO's training makes them: who sees whom, and how many pairs that are."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

PADDING_SEGMENT = -1


class PackedRow(NamedTuple):
    """One row of T positions."""

    name: str
    segment: Tensor  # int32 [T], -1 = padding, at the end
    order: Tensor  # int32 [T]
    pairs: int  # (query, key) that see each other
    prefix_lm: bool  # holds segments with a source and a target


class Segment(NamedTuple):
    """``source`` positions that see one another, then ``target`` positions that see backwards."""

    source: int
    target: int = 0


def _texts() -> Iterator[Segment]:
    while True:
        yield Segment(512)


def _regions() -> Iterator[Segment]:
    while True:
        yield Segment(100)


def _pairs() -> Iterator[Segment]:
    while True:
        yield Segment(100 + 64)


def _captions() -> Iterator[Segment]:
    drawn = random.Random(0)
    while True:
        yield Segment(100, drawn.randint(16, 64))


def _text_seq2seq() -> Iterator[Segment]:
    while True:
        yield Segment(384, 128)


def _mix() -> Iterator[Segment]:
    """A third each of texts, images and pairs; half of texts and pairs as prefix-LM."""
    drawn = random.Random(0)
    while True:
        kind = drawn.choice(["text", "image", "pair"])
        target = drawn.random() < 0.5
        if kind == "text":
            length = drawn.randint(64, 512)
            yield Segment(length - length // 4, length // 4) if target else Segment(length)
        elif kind == "image":
            yield Segment(100)
        else:
            caption = drawn.randint(16, 64)
            yield Segment(100, caption) if target else Segment(100 + caption)


TEXTS, REGIONS, PAIRS = "512-token texts", "100 regions", "100 + 64 pairs"
CAPTIONS, SEQ2SEQ, MIX = "prefix-LM 100 + 16..64", "prefix-LM 384 + 128", "mix"
_SEGMENTS = {
    TEXTS: _texts,
    REGIONS: _regions,
    PAIRS: _pairs,
    CAPTIONS: _captions,
    SEQ2SEQ: _text_seq2seq,
    MIX: _mix,
}
NAMES = tuple(_SEGMENTS)


def packed_row(name: str, length: int) -> PackedRow:
    """As many segments as fit ``length`` positions, then padding."""
    segment: list[int] = []
    order: list[int] = []
    pairs, prefix_lm = 0, False
    for index, (source, target) in enumerate(_SEGMENTS[name]()):
        if len(segment) + source + target > length:
            break
        segment += [index] * (source + target)
        order += [0] * source + list(range(1, target + 1))
        pairs += source * source + target * source + target * (target + 1) // 2
        prefix_lm |= target > 0
    padding = length - len(segment)
    return PackedRow(
        name,
        torch.tensor(segment + [PADDING_SEGMENT] * padding, dtype=torch.int32),
        torch.tensor(order + [0] * padding, dtype=torch.int32),
        pairs,
        prefix_lm,
    )
