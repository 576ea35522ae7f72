"""Which blocks of a packed row may meet, so that the kernels visit few others.

A block of queries and a block of keys can only meet where their ranges of segments overlap and the
lowest order among the keys is not above the highest among the queries. Where both lie in one
segment and the highest order of the keys is not above the lowest of the queries, every pair is
visible and nothing has to be masked. Blocks are visited in one run from the first that may meet to
the last, and without a mask in one run inside it. Where the positions of every segment are
neighbours, sources before targets, that is what has to be visited; a row of all sources before all
targets, or of scattered segments, costs up to T x T.

Legend: T positions · O blocks of the side that a program owns · V blocks of the side it visits
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unimo_kernels.integers import PADDING_SEGMENT

OWN = 128
"""Positions in a block that a program owns: queries in forward and dQ, keys in dK and dV."""

VISITED = 64
"""Positions in a block that a program visits on its way."""

_CHUNK = 1 << 22
"""Pairs of blocks looked at together: memory stays linear in T."""


class BlockLayout(NamedTuple):
    """Per owned block, the runs of visited blocks; the same for all layers of a forward.

    Each table is int32 [4, O]: from row 0 to row 3 blocks are visited, from row 1 to row 2 without
    a mask.
    """

    by_query: Tensor
    by_key: Tensor


class _Bounds(NamedTuple):
    """Of every block, over its positions that are no padding."""

    lowest_segment: Tensor
    highest_segment: Tensor
    lowest_order: Tensor
    highest_order: Tensor
    filled: Tensor  # bool, no padding in it


def block_layout(segment: Tensor, order: Tensor) -> BlockLayout:
    """The tables for a row as unimo_kernels.integers numbers it, without a transfer."""
    own, visited = _bounds(segment, order, OWN), _bounds(segment, order, VISITED)
    return BlockLayout(_runs(own, visited, owner_asks=True), _runs(own, visited, owner_asks=False))


def _bounds(segment: Tensor, order: Tensor, size: int) -> _Bounds:
    missing = -len(segment) % size
    padded_segment = F.pad(segment, (0, missing), value=PADDING_SEGMENT).view(-1, size)
    padded_order = F.pad(order, (0, missing)).view(-1, size)
    hidden = padded_segment == PADDING_SEGMENT
    top = torch.iinfo(torch.int32).max
    return _Bounds(
        padded_segment.masked_fill(hidden, top).amin(1),
        padded_segment.masked_fill(hidden, -top).amax(1),
        padded_order.masked_fill(hidden, top).amin(1),
        padded_order.masked_fill(hidden, -top).amax(1),
        ~hidden.any(1),
    )


def _runs(own: _Bounds, visited: _Bounds, *, owner_asks: bool) -> Tensor:
    """int32 [4, O]; ``owner_asks``: the owned block holds queries, else keys."""
    count = len(visited.filled)
    if count == 0:
        return own.filled.new_empty(4, 0, dtype=torch.int32)
    parts = zip(*(column.split(max(1, _CHUNK // count)) for column in own), strict=True)
    tables = [_chunk_runs(_Bounds(*part), visited, owner_asks) for part in parts]
    return torch.cat(tables, dim=1)


def _chunk_runs(own: _Bounds, visited: _Bounds, owner_asks: bool) -> Tensor:
    own_O1 = _Bounds(*(column[:, None] for column in own))
    queries, keys = (own_O1, visited) if owner_asks else (visited, own_O1)
    meet_OV = (
        (queries.lowest_segment <= keys.highest_segment)
        & (keys.lowest_segment <= queries.highest_segment)
        & (keys.lowest_order <= queries.highest_order)
    )
    whole_OV = (
        (queries.lowest_segment == keys.highest_segment)
        & (keys.lowest_segment == queries.highest_segment)
        & (keys.highest_order <= queries.lowest_order)
        & (queries.filled & keys.filled)
    )
    first, last = _first(meet_OV), _past_last(meet_OV)
    whole_first = torch.where(whole_OV.any(1), _first(whole_OV), last)
    index = torch.arange(meet_OV.shape[1], device=meet_OV.device)
    broken_OV = ~whole_OV & (index >= whole_first[:, None])
    whole_end = torch.minimum(last, _first(broken_OV))
    return torch.stack([first, whole_first, torch.maximum(whole_first, whole_end), last]).int()


def _first(flags_OV: Tensor) -> Tensor:
    """Index of each row's first True; the number of columns where there is none."""
    some = flags_OV.any(1)
    return torch.where(some, flags_OV.int().argmax(1), flags_OV.shape[1])


def _past_last(flags_OV: Tensor) -> Tensor:
    """One past each row's last True; the number of columns where there is none."""
    columns = flags_OV.shape[1]
    return torch.where(flags_OV.any(1), columns - flags_OV.flip(1).int().argmax(1), columns)
