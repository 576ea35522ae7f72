"""Attention over one packed row, where two integers per position say who sees whom.

    out_i = sum_j p_ij v_j,   p_i = softmax over { j : segment_j = segment_i, order_j <= order_i }
                                    of q_i . k_j / sqrt(K)

with dropout on p. A position of segment -1 (padding) sees nothing and is seen by nothing: its
output and its gradients are zero.

Legend: T positions · H heads · K head width · P slots (positions and blanks of all buckets) ·
S segments of a bucket · L its length
"""

import contextlib
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.attention import SDPBackend, sdpa_kernel

from unimo_kernels.dispatch import choose_backend

BACKENDS = ("reference", "sdpa")
BACKEND_VARIABLE = "UNIMO_ATTENTION"
PADDING_SEGMENT = -1

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


class AttentionLayout(NamedTuple):
    """Where the positions of a row lie in its buckets; the same for all layers of a forward."""

    slot_position: Tensor  # int64 [P], the position in each slot, 0 in a blank
    blank_slots: Tensor  # int64, slots that hold no position
    position_slot: Tensor  # int64 [T], the slot of each position, 0 for padding
    padding_positions: Tensor  # int64, positions in no slot
    buckets: tuple[Bucket, ...]


def attention_reference(
    q: Tensor, k: Tensor, v: Tensor, segment: Tensor, order: Tensor, dropout_p: float, seed: int
) -> Tensor:
    """The specification, with all T x T scores in memory; float64 inputs stay float64."""
    wide = torch.promote_types(q.dtype, torch.float32)
    sees = (segment[:, None] == segment[None, :]) & (order[None, :] <= order[:, None])
    filled = segment != PADDING_SEGMENT
    # A padding row sees everybody, so that its softmax is finite; its output is blanked below.
    sees = (sees & filled[None, :]) | ~filled[:, None]
    scores_HTT = torch.einsum("ihk,jhk->hij", q.to(wide), k.to(wide)) / math.sqrt(q.shape[-1])
    p_HTT = scores_HTT.masked_fill(~sees, -math.inf).softmax(dim=-1)
    if dropout_p > 0:
        generator = torch.Generator(q.device).manual_seed(seed)
        kept = torch.rand(p_HTT.shape, generator=generator, device=q.device) >= dropout_p
        p_HTT = p_HTT * kept / (1 - dropout_p)
    out_THK = torch.einsum("hij,jhk->ihk", p_HTT, v.to(wide))
    return out_THK.masked_fill(~filled[:, None, None], 0).to(q.dtype)


def attention_layout(segment: Tensor, order: Tensor) -> AttentionLayout:
    """How the row is cut into buckets; computed on the host, one transfer each way on a GPU.

    Args:
        segment: int [T], -1 = padding; the positions of a segment need not be neighbours.
        order: int [T].
    """
    device = segment.device
    segment, order = segment.detach().cpu().long(), order.detach().cpu().long()
    padding = torch.nonzero(segment == PADDING_SEGMENT).flatten()
    by_segment = torch.sort(segment, stable=True).indices[len(padding) :]  # -1 sorts first
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
    moved = (t.to(device) for t in (slot_position, blank_slots, position_slot, padding))
    return AttentionLayout(*moved, tuple(buckets))


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


class _Move(torch.autograd.Function):
    """Rows of x at ``index``, zeros at ``blank``; the backward gathers with the inverse index.

    Every row of x goes to at most one place and blanks carry no gradient, so that the scattered
    addition of index_select's own backward is not needed.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, index: Tensor, blank: Tensor, back_index: Tensor, back_blank: Tensor
    ) -> Tensor:
        ctx.save_for_backward(back_index, back_blank)
        return _take(x, index, blank)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        back_index, back_blank = ctx.saved_tensors
        return _take(grad, back_index, back_blank), None, None, None, None


def _take(x: Tensor, index: Tensor, blank: Tensor) -> Tensor:
    if x.shape[0] == 0:
        return x.new_zeros(len(index), *x.shape[1:])
    return x.index_select(0, index).index_fill_(0, blank, 0)


def _attention_sdpa(
    q: Tensor, k: Tensor, v: Tensor, layout: AttentionLayout, dropout_p: float
) -> Tensor:
    to_slots = layout[:4]
    to_row = (*layout[2:4], *layout[:2])
    q_PHK, k_PHK, v_PHK = (_Move.apply(x, *to_slots) for x in (q, k, v))
    if not layout.buckets:  # all three stay in the graph: on no rank may a weight miss its gradient
        return _Move.apply(q_PHK + k_PHK + v_PHK, *to_row)
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
    return _Move.apply(torch.cat(outputs), *to_row)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segment: Tensor,
    order: Tensor,
    *,
    dropout_p: float = 0.0,
    seed: int = 0,
    backend: str = "auto",
    layout: AttentionLayout | None = None,
) -> Tensor:
    """Attention over one packed row; see the formula at the top of this file.

    Args:
        q, k, v: float [T, H, K], one dtype.
        segment: int [T], -1 = padding.
        order: int [T], only compared within a segment.
        dropout_p: probability that a weight is dropped; the kept ones are scaled by 1/(1-p).
        seed: the reference draws its dropout mask from this key; sdpa draws from torch's own
            generator, which torch.manual_seed and activation checkpointing replay.
        backend: ``reference``, ``sdpa`` or ``auto`` (environment UNIMO_ATTENTION, then sdpa).
        layout: what attention_layout(segment, order) gave, to share it among layers.

    Returns:
        float [T, H, K] in the dtype of q; zeros at padding.

    Raises:
        ValueError: shapes that do not fit, or an unknown backend.
    """
    if not (q.ndim == 3 and q.shape == k.shape == v.shape):
        raise ValueError(
            f"attention takes q, k, v [T, H, K] of one shape, not {_sizes(q)}, {_sizes(k)}, "
            f"{_sizes(v)}"
        )
    if not (segment.shape == order.shape == q.shape[:1]):
        raise ValueError(
            f"attention takes segment and order [{q.shape[0]}], one per position of q, not "
            f"{_sizes(segment)} and {_sizes(order)}"
        )
    name = choose_backend(
        "attention", backend, variable=BACKEND_VARIABLE, known=BACKENDS, automatic="sdpa"
    )
    if name == "reference":
        return attention_reference(q, k, v, segment, order, dropout_p, seed)
    layout = layout or attention_layout(segment, order)
    if q.device.type != "cpu" or q.dtype == torch.float64:
        return _attention_sdpa(q, k, v, layout, dropout_p)
    # torch's CPU kernel takes 12 times as long for a backward in bfloat16 as in float32.
    with torch.autocast("cpu", enabled=False):
        return _attention_sdpa(q.float(), k.float(), v.float(), layout, dropout_p).to(q.dtype)


def _sizes(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
