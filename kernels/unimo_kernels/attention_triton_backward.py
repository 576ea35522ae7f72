"""The backward of our attention kernels: one for dQ, one for dK and dV, nothing added atomically.

With p the softmax, z the kept weights' scale (0 where dropped) and g the output's gradient,

    delta_i = g_i . out_i        dv_j = sum_i z_ij p_ij g_i
    ds_ij = p_ij (z_ij g_i . v_j - delta_i)
    dq_i = sum_j ds_ij k_j / sqrt(K)        dk_j = sum_i ds_ij q_i / sqrt(K)

and p_ij = 2^(s_ij - lse_i) is computed again from q, k and the forward's log-sum-exp (Dao et al.
2022, appendix B). Legend: T positions · H heads · K head width
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from unimo_kernels.attention_triton_ops import (
    Dropout,
    any_nan,
    constants,
    dense,
    keep_mask,
    launch_contained,
    load_key_order,
    load_rows,
    load_runs,
    readable,
    seen_keys,
    sound_rows,
    store_rows,
    tiles,
)
from unimo_kernels.triton_ops import (
    has_descriptors,
    launch_options,
    matmul,
    narrow,
)

_LOG2_E = math.log2(math.e)
DELTA_ROWS = 128


class Saved(NamedTuple):
    """What the forward leaves for the backward."""

    q: Tensor  # [T, H, K]
    k: Tensor
    v: Tensor
    segment: Tensor  # int32 [T]
    order: Tensor  # int32 [T]
    by_query: Tensor  # BlockLayout
    by_key: Tensor
    out: Tensor  # [T, H, K]
    lse: Tensor  # float32 [H, T], base 2


@triton.jit(do_not_specialize=["T"])
def attention_delta(out, grad, delta, T, H, K: tl.constexpr, ROWS: tl.constexpr):
    """Program (rows, head) -> delta [H, T], of contiguous out and grad [T, H, K]."""
    start, head = tl.program_id(0) * ROWS, tl.program_id(1)
    product = load_rows(out, start, head, T, H, ROWS, K, False).to(tl.float32)
    product *= load_rows(grad, start, head, T, H, ROWS, K, False).to(tl.float32)
    row = start + tl.arange(0, ROWS)
    tl.store(delta + head * T.to(tl.int64) + row, tl.sum(product, 1), row < T)


@triton.jit
def _query_step(
    dq, q, grad, lse_q, delta_q, k_rows, v_rows, segment, order, segment_q, order_q, row_q,
    first, last, head, T, H, seed, threshold, keep_scale, scale,
    MASKED: tl.constexpr, CONTAINED: tl.constexpr, DROPOUT: tl.constexpr,
    OWN: tl.constexpr, VISITED: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    for block in range(first, last):
        start = block * VISITED
        k = load_rows(k_rows, start, head, T, H, VISITED, K, DESCRIPTORS)
        v = load_rows(v_rows, start, head, T, H, VISITED, K, DESCRIPTORS)
        s = matmul(q, tl.trans(k), tl.zeros([OWN, VISITED], tl.float32), PRECISION, WIDEN)
        p = tl.exp2(s * scale - lse_q[:, None])
        dp = matmul(grad, tl.trans(v), tl.zeros([OWN, VISITED], tl.float32), PRECISION, WIDEN)
        if DROPOUT:
            keep = keep_mask(seed, head, row_q, start, threshold, OWN, VISITED)
            dp = tl.where(keep, dp * keep_scale, 0.0)
        ds = p * (dp - delta_q[:, None])
        if MASKED:  # last, for what is not seen may hold NaN
            row_k = start + tl.arange(0, VISITED)
            seen = seen_keys(segment, order, segment_q, order_q, row_k, T)
            ds = tl.where(seen, ds, 0.0)
        if CONTAINED:
            k, broken = sound_rows(k)
            ds = tl.where(seen & broken[None, :], float("nan"), ds)
        dq = matmul(narrow(ds, k.dtype, WIDEN), k, dq, PRECISION, WIDEN)
    return dq


@triton.jit(do_not_specialize=["T", "seed", "threshold"])
def attention_dq(
    q_rows, k_rows, v_rows, grad_rows, segment, order, runs, lse, delta, dq_out, broken,
    T, H, seed, threshold, keep_scale, scale, softmax_scale,
    CONTAINED: tl.constexpr, DROPOUT: tl.constexpr,
    OWN: tl.constexpr, VISITED: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Program (block of queries, head) -> its rows of dq [T, H, K].

    CONTAINED: once more where NaN came out, see attention_triton_ops.launch_contained.
    """
    own, head = tl.program_id(0), tl.program_id(1)
    broken += head * tl.num_programs(0) + own
    if CONTAINED:  # noqa: SIM102, for this one is decided by the compiler
        if tl.load(broken) == 0:
            return
    row_q = own * OWN + tl.arange(0, OWN)
    inside = row_q < T
    segment_q = tl.load(segment + row_q, inside, other=-1)
    order_q = tl.load(order + row_q, inside, other=0)
    lse_q = tl.load(lse + head * T.to(tl.int64) + row_q, inside, other=float("inf"))
    delta_q = tl.load(delta + head * T.to(tl.int64) + row_q, inside, other=0.0)
    q = load_rows(q_rows, own * OWN, head, T, H, OWN, K, DESCRIPTORS)
    grad = load_rows(grad_rows, own * OWN, head, T, H, OWN, K, DESCRIPTORS)
    ends = load_runs(runs, own, T, OWN, VISITED)
    dq = tl.zeros([OWN, K], tl.float32)
    if CONTAINED:
        dq = _query_step(
            dq, q, grad, lse_q, delta_q, k_rows, v_rows, segment, order, segment_q, order_q, row_q,
            ends[0], ends[3], head, T, H, seed, threshold, keep_scale, scale,
            True, True, DROPOUT, OWN, VISITED, K, PRECISION, WIDEN, DESCRIPTORS,
        )  # fmt: skip
    else:
        for part in tl.static_range(3):  # only the middle one needs no mask
            dq = _query_step(
                dq, q, grad, lse_q, delta_q, k_rows, v_rows, segment, order, segment_q, order_q,
                row_q,
                ends[part], ends[part + 1], head, T, H, seed, threshold, keep_scale, scale,
                part != 1, False, DROPOUT, OWN, VISITED, K, PRECISION, WIDEN, DESCRIPTORS,
            )  # fmt: skip
        tl.store(broken, any_nan(dq))
    store_rows(dq_out, dq * softmax_scale, row_q, head, T, H, K, WIDEN)


@triton.jit
def _key_step(
    dk, dv, k, v, q_rows, grad_rows, lse, delta, segment, order, segment_k, order_k, first_key,
    first, last, head, T, H, seed, threshold, keep_scale, scale,
    MASKED: tl.constexpr, CONTAINED: tl.constexpr, DROPOUT: tl.constexpr,
    OWN: tl.constexpr, VISITED: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    for block in range(first, last):
        start = block * VISITED
        row_q = start + tl.arange(0, VISITED)
        inside = row_q < T
        q = load_rows(q_rows, start, head, T, H, VISITED, K, DESCRIPTORS)
        grad = load_rows(grad_rows, start, head, T, H, VISITED, K, DESCRIPTORS)
        lse_q = tl.load(lse + head * T.to(tl.int64) + row_q, inside, other=float("inf"))
        delta_q = tl.load(delta + head * T.to(tl.int64) + row_q, inside, other=0.0)
        s = matmul(k, tl.trans(q), tl.zeros([OWN, VISITED], tl.float32), PRECISION, WIDEN)
        p = tl.exp2(s * scale - lse_q[None, :])
        if MASKED:
            segment_q = tl.load(segment + row_q, inside, other=-1)
            order_q = tl.load(order + row_q, inside, other=0)
            seen = (segment_k[:, None] == segment_q[None, :]) & (
                order_k[:, None] <= order_q[None, :]
            )
            p = tl.where(seen, p, 0.0)
        dp = matmul(v, tl.trans(grad), tl.zeros([OWN, VISITED], tl.float32), PRECISION, WIDEN)
        kept = p
        if DROPOUT:
            keep = tl.trans(keep_mask(seed, head, row_q, first_key, threshold, VISITED, OWN))
            kept = tl.where(keep, p, 0.0)
            dp = tl.where(keep, dp * keep_scale, 0.0)
        if CONTAINED:
            grad, broken = sound_rows(grad)
            kept = tl.where(seen & broken[None, :], float("nan"), kept)
        dv = matmul(narrow(kept, grad.dtype, WIDEN), grad, dv, PRECISION, WIDEN)
        ds = p * (dp - delta_q[None, :])
        if MASKED:  # again, for what is not seen may hold NaN
            ds = tl.where(seen, ds, 0.0)
        if CONTAINED:
            q, broken = sound_rows(q)
            ds = tl.where(seen & broken[None, :], float("nan"), ds)
        dk = matmul(narrow(ds, q.dtype, WIDEN), q, dk, PRECISION, WIDEN)
    return dk, dv


@triton.jit(do_not_specialize=["T", "seed", "threshold"])
def attention_dkdv(
    q_rows, k_rows, v_rows, grad_rows, segment, order, runs, lse, delta, dk_out, dv_out, broken,
    T, H, seed, threshold, keep_scale, scale, softmax_scale,
    CONTAINED: tl.constexpr, DROPOUT: tl.constexpr,
    OWN: tl.constexpr, VISITED: tl.constexpr, K: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Program (block of keys, head) -> its rows of dk and dv [T, H, K].

    CONTAINED: once more where NaN came out, see attention_triton_ops.launch_contained.
    """
    own, head = tl.program_id(0), tl.program_id(1)
    broken += head * tl.num_programs(0) + own
    if CONTAINED:  # noqa: SIM102, for this one is decided by the compiler
        if tl.load(broken) == 0:
            return
    row_k = own * OWN + tl.arange(0, OWN)
    inside = row_k < T
    segment_k = tl.load(segment + row_k, inside, other=-1)
    order_k = load_key_order(order, segment_k, row_k, T)
    k = load_rows(k_rows, own * OWN, head, T, H, OWN, K, DESCRIPTORS)
    v = load_rows(v_rows, own * OWN, head, T, H, OWN, K, DESCRIPTORS)
    ends = load_runs(runs, own, T, OWN, VISITED)
    dk, dv = tl.zeros([OWN, K], tl.float32), tl.zeros([OWN, K], tl.float32)
    if CONTAINED:
        dk, dv = _key_step(
            dk, dv, k, v, q_rows, grad_rows, lse, delta, segment, order, segment_k, order_k,
            own * OWN,
            ends[0], ends[3], head, T, H, seed, threshold, keep_scale, scale,
            True, True, DROPOUT, OWN, VISITED, K, PRECISION, WIDEN, DESCRIPTORS,
        )  # fmt: skip
    else:
        for part in tl.static_range(3):  # only the middle one needs no mask
            dk, dv = _key_step(
                dk, dv, k, v, q_rows, grad_rows, lse, delta, segment, order, segment_k, order_k,
                own * OWN,
                ends[part], ends[part + 1], head, T, H, seed, threshold, keep_scale, scale,
                part != 1, False, DROPOUT, OWN, VISITED, K, PRECISION, WIDEN, DESCRIPTORS,
            )  # fmt: skip
        tl.store(broken, tl.maximum(any_nan(dk), any_nan(dv)))
    store_rows(dk_out, dk * softmax_scale, row_k, head, T, H, K, WIDEN)
    store_rows(dv_out, dv * keep_scale, row_k, head, T, H, K, WIDEN)


def attention_gradients(
    saved: Saved, grad: Tensor, dropout: Dropout, target: int
) -> tuple[Tensor, Tensor, Tensor]:
    """dq, dk, dv [T, H, K] for ``grad`` [T, H, K] of the output, on a GPU of capability target."""
    q, k, v, segment, order, by_query, by_key, out, lse = saved
    length, heads, width = out.shape
    grad = dense(grad)
    delta = torch.empty_like(lse)
    attention_delta[triton.cdiv(length, DELTA_ROWS), heads](
        out, grad, delta, length, heads, K=width, ROWS=DELTA_ROWS, **launch_options(4, 1)
    )
    size = tiles(out.dtype, width, target, dropout.threshold > 0, backward=True)
    descriptors = has_descriptors(target)
    own_q, own_k, own_v, own_grad, visited_q, visited_k, visited_v, visited_grad = (
        readable(x, block, descriptors) for block in size[:2] for x in (q, k, v, grad)
    )
    numbers = length, heads, *dropout, _LOG2_E / math.sqrt(width), 1 / math.sqrt(width)
    compiled = {
        **constants(out.dtype, width, size, target, dropout.threshold > 0),
        **launch_options(size.num_warps, size.num_stages),
    }
    grid = triton.cdiv(length, size.own), heads
    dq, dk, dv = (torch.empty_like(out) for _ in range(3))
    launch_contained(
        attention_dq, grid,
        own_q, visited_k, visited_v, own_grad, segment, order, by_query, lse, delta, dq,
        numbers=numbers, compiled=compiled,
    )  # fmt: skip
    launch_contained(
        attention_dkdv, grid,
        visited_q, own_k, own_v, visited_grad, segment, order, by_key, lse, delta, dk, dv,
        numbers=numbers, compiled=compiled,
    )  # fmt: skip
    return dq, dk, dv
