"""Which blocks the kernels visit: all that hold a visible pair, few that hold none.

Legend: T positions
"""

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.kernels.packed_rows import ROWS, Row, any_rows, packed, prefix_rows
from unimo_kernels import attention_blocks
from unimo_kernels.attention_blocks import OWN, VISITED, BlockLayout, block_layout
from unimo_kernels.integers import PADDING_SEGMENT, numbered_orders, numbered_segments


def _layout(segment: Tensor, order: Tensor) -> BlockLayout:
    return block_layout(numbered_segments(segment), numbered_orders(order))


def _seen(row: Row) -> Tensor:
    """bool [T, T], who sees whom."""
    segment, order = row.tensors()
    same = (segment[:, None] == segment) & (segment != PADDING_SEGMENT)
    return same & (order <= order[:, None])


def _covered(table: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """bool [T, T] owned x visited: pairs in visited blocks, and in those without a mask."""
    visited = torch.zeros(length, length, dtype=torch.bool)
    unmasked = torch.zeros(length, length, dtype=torch.bool)
    for own, (first, whole_first, whole_last, last) in enumerate(table.T.tolist()):
        assert first <= whole_first <= whole_last <= last
        rows = slice(own * OWN, (own + 1) * OWN)
        visited[rows, first * VISITED : last * VISITED] = True
        unmasked[rows, whole_first * VISITED : whole_last * VISITED] = True
    return visited, unmasked


def _check(row: Row) -> None:
    seen, layout = _seen(row), _layout(*row.tensors())
    for table, pairs in ((layout.by_query, seen), (layout.by_key, seen.T)):
        visited, unmasked = _covered(table, len(row.segment))
        assert not (pairs & ~visited).any()
        assert not (unmasked & ~pairs).any()


@pytest.mark.parametrize("name", ROWS)
def test_every_visible_pair_is_visited(name: str) -> None:
    _check(ROWS[name])


@settings(max_examples=60, deadline=None, derandomize=True)
@given(any_row=any_rows(), mix=prefix_rows())
def test_every_visible_pair_of_any_row_is_visited(any_row: Row, mix: Row) -> None:
    # Repeated, so that rows are longer than a block.
    for row in (any_row, mix):
        _check(Row(row.segment * 12, row.order * 12))


TEXTS = packed(*[(512, 0)] * 16)
PAIRS = packed(*[(165, 0)] * 40)
CAPTIONS = packed(*[(101, 64)] * 40)
MOST_PER_VISIBLE_PAIR = {"texts": (TEXTS, 1.01), "pairs": (PAIRS, 2.2), "captions": (CAPTIONS, 3.3)}


@pytest.mark.parametrize("name", MOST_PER_VISIBLE_PAIR)
def test_cost_follows_the_visible_area(name: str) -> None:
    row, most = MOST_PER_VISIBLE_PAIR[name]
    visible = int(_seen(row).sum())
    for table in _layout(*row.tensors()):
        blocks = int((table[3] - table[0]).sum())
        assert visible <= blocks * OWN * VISITED <= most * visible


@pytest.mark.parametrize("name", MOST_PER_VISIBLE_PAIR)
def test_twice_the_row_costs_twice_as_much_whatever_the_ids(name: str) -> None:
    row, _ = MOST_PER_VISIBLE_PAIR[name]
    segment, order = row.tensors()
    ids = torch.randperm(1000, generator=torch.Generator().manual_seed(0)).int()
    twice = _layout(ids[torch.cat([segment, segment + 500])], torch.cat([order, order]))
    for once, long in zip(_layout(segment, order), twice, strict=True):
        assert int((long[3] - long[0]).sum()) <= 2.05 * int((once[3] - once[0]).sum())


def test_long_texts_are_mostly_read_without_a_mask() -> None:
    for table in _layout(*TEXTS.tensors()):
        assert torch.equal(table[1], table[0])
        assert torch.equal(table[2], table[3])


def test_looking_at_few_blocks_at_a_time_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _layout(*CAPTIONS.tensors())
    monkeypatch.setattr(attention_blocks, "_CHUNK", 7)
    for table, expected in zip(_layout(*CAPTIONS.tensors()), whole, strict=True):
        assert torch.equal(table, expected)
