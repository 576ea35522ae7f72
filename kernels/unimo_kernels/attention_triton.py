"""FlashAttention over a packed row in Triton: forward kernel, launches, autograd.

A program owns OWN queries of one head and visits the blocks of keys that attention_blocks lists,
with the softmax computed online (Dao et al. 2022; Milakov and Gimelshein 2018): running maximum m,
running sum l, accumulator rescaled when m grows. What is kept for the backward is the output and
one log-sum-exp per position and head, in base 2; +inf where a position sees nobody, so that every
weight computed from it is 0. The backward (attention_triton_backward) has one program per block it
writes, hence no atomics: the same inputs give the same bits.

Legend: T positions · H heads · K head width
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from unimo_kernels.attention_blocks import BlockLayout
from unimo_kernels.attention_triton_backward import (
    Saved,
    attention_gradients,
)
from unimo_kernels.attention_triton_ops import (
    Dropout,
    any_nan,
    constants,
    dense,
    keep_mask,
    launch_contained,
    load_rows,
    load_runs,
    readable,
    seen_keys,
    sound_rows,
    store_rows,
    tiles,
)
from unimo_kernels.once import first_derivative_only
from unimo_kernels.philox import drop_threshold, keep_scale
from unimo_kernels.triton_ops import (
    capability,
    has_descriptors,
    launch_options,
    matmul,
    narrow,
)

_LOG2_E = math.log2(math.e)

LARGEST_SCORE: tl.constexpr = tl.constexpr(65536.0)
"""Base 2, 45,426 in all. Above it float32 holds scores to no better than 2^-8, so that the weights
which the backward computes again would be wrong by a percent or more: its gradients are NaN."""


@triton.jit
def _visit(
    acc, m, total, q, k_rows, v_rows, segment, order, segment_q, order_q, row_q,
    first, last, head, T, H, seed, threshold, scale,
    MASKED: tl.constexpr, CONTAINED: tl.constexpr, DROPOUT: tl.constexpr,
    OWN: tl.constexpr, VISITED: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """The online softmax over the blocks of keys from ``first`` to ``last``.

    CONTAINED, and MASKED: only positions that see a value of NaN or infinity get it.
    """
    for block in range(first, last):
        start = block * VISITED
        k = load_rows(k_rows, start, head, T, H, VISITED, K, DESCRIPTORS)
        s = matmul(q, tl.trans(k), tl.zeros([OWN, VISITED], tl.float32), PRECISION, WIDEN)
        if MASKED:
            row_k = start + tl.arange(0, VISITED)
            seen = seen_keys(segment, order, segment_q, order_q, row_k, T)
            s = tl.where(seen, s, -float("inf"))
        highest = tl.maximum(m, tl.max(s, 1) * scale)
        # A position that has seen nobody yet keeps -inf; exp2 must not meet -inf - -inf.
        shift = tl.where(highest == -float("inf"), 0.0, highest)
        p = tl.exp2(s * scale - shift[:, None])
        v = load_rows(v_rows, start, head, T, H, VISITED, K, DESCRIPTORS)
        if CONTAINED:
            v, broken = sound_rows(v)
            p = tl.where(seen & broken[None, :], float("nan"), p)
        decay = tl.exp2(m - shift)
        total = total * decay + tl.sum(p, 1)
        acc = acc * decay[:, None]
        m = highest
        if DROPOUT:
            keep = keep_mask(seed, head, row_q, start, threshold, OWN, VISITED)
            p = tl.where(keep, p, 0.0)
        acc = matmul(narrow(p, v.dtype, WIDEN), v, acc, PRECISION, WIDEN)
    return acc, m, total


@triton.jit(do_not_specialize=["T", "seed", "threshold"])
def attention_forward(
    q_rows, k_rows, v_rows, segment, order, runs, out, lse, broken,
    T, H, seed, threshold, keep_scale, scale,
    CONTAINED: tl.constexpr, DROPOUT: tl.constexpr,
    OWN: tl.constexpr, VISITED: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Program (block of queries, head) -> its rows of out [T, H, K] and of lse [H, T].

    CONTAINED: once more where NaN came out, see attention_triton_ops.launch_contained.
    """
    own, head = tl.program_id(0), tl.program_id(1)
    broken += head * tl.num_programs(0) + own
    if CONTAINED:  # noqa: SIM102, for this one is decided by the compiler
        if tl.load(broken) == 0:
            return
    row_q = own * OWN + tl.arange(0, OWN)
    segment_q = tl.load(segment + row_q, row_q < T, other=-1)
    order_q = tl.load(order + row_q, row_q < T, other=0)
    ends = load_runs(runs, own, T, OWN, VISITED)
    q = load_rows(q_rows, own * OWN, head, T, H, OWN, K, DESCRIPTORS)
    acc = tl.zeros([OWN, K], tl.float32)
    m = tl.full([OWN], -float("inf"), tl.float32)
    total = tl.zeros([OWN], tl.float32)
    if CONTAINED:
        acc, m, total = _visit(
            acc, m, total, q, k_rows, v_rows, segment, order, segment_q, order_q, row_q,
            ends[0], ends[3], head, T, H, seed, threshold, scale,
            True, True, DROPOUT, OWN, VISITED, K, PRECISION, WIDEN, DESCRIPTORS,
        )  # fmt: skip
    else:
        for part in tl.static_range(3):  # only the middle one needs no mask
            acc, m, total = _visit(
                acc, m, total, q, k_rows, v_rows, segment, order, segment_q, order_q, row_q,
                ends[part], ends[part + 1], head, T, H, seed, threshold, scale,
                part != 1, False, DROPOUT, OWN, VISITED, K, PRECISION, WIDEN, DESCRIPTORS,
            )  # fmt: skip
        tl.store(broken, any_nan(acc))
    # Padding alone sees nobody. A position whose scores are all -inf divides by zero, and is NaN.
    nobody = segment_q == -1
    acc = acc * (keep_scale / tl.where(nobody, 1.0, total))[:, None]
    store_rows(out, acc, row_q, head, T, H, K, WIDEN)
    log_sum = tl.where(nobody, float("inf"), m + tl.log2(tl.where(nobody, 1.0, total)))
    log_sum = tl.where(nobody | (tl.abs(m) <= LARGEST_SCORE), log_sum, float("nan"))
    tl.store(lse + head * T.to(tl.int64) + row_q, log_sum, row_q < T)


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        segment: Tensor,
        order: Tensor,
        layout: BlockLayout,
        dropout: Dropout,
    ) -> Tensor:
        length, heads, width = q.shape
        q, k, v = (dense(x) for x in (q, k, v))
        out = torch.empty_like(q)
        lse = torch.empty(heads, length, dtype=torch.float32, device=q.device)
        target = capability(q.device)
        size = tiles(q.dtype, width, target, dropout.threshold > 0, backward=False)
        descriptors = has_descriptors(target)
        launch_contained(
            attention_forward, (triton.cdiv(length, size.own), heads),
            readable(q, size.own, descriptors),
            readable(k, size.visited, descriptors),
            readable(v, size.visited, descriptors),
            segment, order, layout.by_query, out, lse,
            numbers=(length, heads, *dropout, _LOG2_E / math.sqrt(width)),
            compiled={
                **constants(q.dtype, width, size, target, dropout.threshold > 0),
                **launch_options(size.num_warps, size.num_stages),
            },
        )  # fmt: skip
        ctx.save_for_backward(q, k, v, segment, order, *layout, out, lse)
        ctx.dropout, ctx.target = dropout, target
        return out

    @staticmethod
    @first_derivative_only("attention on triton")
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        grads = attention_gradients(Saved(*ctx.saved_tensors), grad, ctx.dropout, ctx.target)
        return *grads, None, None, None, None


def attention_triton(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segment: Tensor,
    order: Tensor,
    layout: BlockLayout,
    dropout_p: float,
    seed: int,
) -> Tensor:
    """The formula of unimo_kernels.attention, by our kernels.

    Args:
        q, k, v: float16, bfloat16 or float32 [T, H, K], K in 32, 64, 128.
        segment, order: int32 [T], as unimo_kernels.integers numbers them.
        layout: block_layout(segment, order).
        dropout_p, seed: see unimo_kernels.philox.

    Returns:
        [T, H, K] in the dtype of q.
    """
    if q.numel() == 0:
        return q + k + v  # all three stay in the graph, with gradients of length zero
    dropout = Dropout(seed, drop_threshold(dropout_p), keep_scale(dropout_p))
    with torch.cuda.device_of(q):  # Triton launches on the current device
        out: Tensor = _PackedAttention.apply(q, k, v, segment, order, layout, dropout)
    return out
