"""Attention over a packed row with torch's scaled_dot_product_attention, in padded buckets.

Segments of similar length are gathered into one padded batch, a bucket, so that the work follows
the sum of the squared lengths and any device can do it.

Legend: T positions · H heads · K head width · P slots (positions and blanks of all buckets) ·
S segments of a bucket · L its length
"""

import contextlib
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from unimo_kernels.gather import Move, move
from unimo_kernels.integers import PADDING_SEGMENT
from unimo_kernels.nonfinite import unhidden

SHORTEST_SHARE = 0.8
"""A bucket takes segments down to this share of its longest one: at most a fifth of it is blank."""

# cuDNN's masked attention gives NaN gradients on Hopper since torch 2.11.
_CUDA_KERNELS = [
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]


class Bucket(NamedTuple):
    """Segments of similar length, padded to one."""

    segments: int  # S
    length: int  # L
    mask: Tensor | None  # bool, broadcastable to [S, 1, L, L]; None: everybody sees everybody


class SdpaLayout(NamedTuple):
    """Where the positions of a row lie in its buckets; the same for all layers of a forward."""

    to_slots: Move  # from [T] to [P]
    buckets: tuple[Bucket, ...]


def sdpa_layout(segment: Tensor, order: Tensor) -> SdpaLayout:
    """How the row is cut into buckets; computed on the host, which waits for a GPU.

    Args:
        segment: int [T], -1 = padding; the positions of a segment need not be neighbours.
        order: int [T].
    """
    device = segment.device
    segment, order = segment.detach().cpu().long(), order.detach().cpu().long()
    padding = torch.nonzero(segment == PADDING_SEGMENT).flatten()
    by_segment = torch.sort(segment, stable=True).indices
    by_segment = by_segment[segment[by_segment] != PADDING_SEGMENT]
    _, lengths = torch.unique_consecutive(segment[by_segment], return_counts=True)
    starts = lengths.cumsum(0) - lengths
    longest_first = torch.sort(lengths, descending=True, stable=True).indices
    slot_positions, blanks, buckets, start = [], [], [], 0
    for members in _group_by_length(lengths[longest_first].tolist()):
        chosen = longest_first[members]
        column = torch.arange(int(lengths[chosen[0]]))
        held_SL = column < lengths[chosen, None]
        rank_SL = torch.where(held_SL, starts[chosen, None] + column, 0)
        position_SL = by_segment[rank_SL].masked_fill(~held_SL, 0)
        buckets.append(_bucket(held_SL, order[position_SL], device))
        slot_positions.append(position_SL.flatten())
        blanks.append(torch.nonzero(~held_SL.flatten()).flatten() + start)
        start += held_SL.numel()
    empty = torch.empty(0, dtype=torch.long)
    slot_position, blank_slots = torch.cat([empty, *slot_positions]), torch.cat([empty, *blanks])
    held = torch.ones(start, dtype=torch.bool).index_fill_(0, blank_slots, False)
    position_slot = torch.zeros(len(segment), dtype=torch.long)
    position_slot[slot_position[held]] = torch.nonzero(held).flatten()
    to_slots = Move(slot_position, blank_slots, position_slot, padding)
    return SdpaLayout(to_slots.to(device), tuple(buckets))


def _group_by_length(lengths: list[int]) -> list[slice]:
    """Runs of ``lengths`` (descending) whose shortest is at least SHORTEST_SHARE of the longest."""
    groups, first = [], 0
    for i in range(1, len(lengths) + 1):
        if i == len(lengths) or lengths[i] < SHORTEST_SHARE * lengths[first]:
            groups.append(slice(first, i))
            first = i
    return groups


def _bucket(held_SL: Tensor, order_SL: Tensor, device: torch.device) -> Bucket:
    segments, length = held_SL.shape
    own_first = order_SL[:, :1]  # a segment holds at least one position, and it comes first
    one_order = bool(((order_SL == own_first) | ~held_SL).all())
    mask: Tensor | None = held_SL[:, None, None, :]
    if not one_order:
        sees = order_SL[:, None, :] <= order_SL[:, :, None]
        # A blank sees the first position, so that no softmax is empty.
        sees = (sees | ~held_SL[:, :, None]) & held_SL[:, None, :]
        mask = sees[:, None]
    elif bool(held_SL.all()):
        mask = None
    return Bucket(segments, length, None if mask is None else mask.to(device))


def attention_sdpa(q: Tensor, k: Tensor, v: Tensor, layout: SdpaLayout, dropout_p: float) -> Tensor:
    """The formula of unimo_kernels.attention on any device and in any float dtype.

    Args:
        q, k, v: float [T, H, K].
        layout: sdpa_layout(segment, order).
        dropout_p: drawn from torch's own generator.

    Returns:
        [T, H, K] in the dtype of q.
    """
    if q.device.type != "cpu" or q.dtype == torch.float64:
        return _in_buckets(q, k, v, layout, dropout_p)
    # torch's CPU kernel takes 12 times as long for a backward in bfloat16 as in float32.
    return _in_buckets(q.float(), k.float(), v.float(), layout, dropout_p).to(q.dtype)


def _in_buckets(q: Tensor, k: Tensor, v: Tensor, layout: SdpaLayout, dropout_p: float) -> Tensor:
    to_row = layout.to_slots.inverse
    q_PHK, k_PHK, v_PHK = (move(x, layout.to_slots) for x in (q, k, v))
    if not layout.buckets:  # all three stay in the graph: on no rank may a weight miss its gradient
        return move(q_PHK + k_PHK + v_PHK, to_row)
    # The backward of split is one concatenation; that of a slice would fill all slots with zeros.
    sizes = [bucket.segments * bucket.length for bucket in layout.buckets]
    pieces = zip(q_PHK.split(sizes), k_PHK.split(sizes), v_PHK.split(sizes), strict=True)
    outputs = []
    for bucket, qkv in zip(layout.buckets, pieces, strict=True):
        q_SHLK, k_SHLK, v_SHLK = (
            x.unflatten(0, (bucket.segments, bucket.length)).transpose(1, 2) for x in qkv
        )
        # Only masks meet cuDNN's fault, but a bucket of equal lengths is not worth another kernel.
        kernels = sdpa_kernel(_CUDA_KERNELS) if q.is_cuda else contextlib.nullcontext()
        with kernels:
            out_SHLK = F.scaled_dot_product_attention(
                q_SHLK, k_SHLK, v_SHLK, attn_mask=bucket.mask, dropout_p=dropout_p
            )
        outputs.append(out_SHLK.transpose(1, 2).flatten(0, 1))
    return move(unhidden(torch.cat(outputs), q_PHK, k_PHK), to_row)
