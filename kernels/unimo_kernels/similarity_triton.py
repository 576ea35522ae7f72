"""Log-sum-exps of a similarity matrix and their gradients, by Triton kernels.

    S_ij = scale * a_i . b_j,   G_ij = dLoss/dS_ij
    dLoss/da = scale * G b,     dLoss/db = scale * G^T a,     dLoss/dscale = sum_ij G_ij a_i . b_j

G sums up to four softmaxes, of rows and of columns, over all and over positives. Forward and
backward of both directions take 8 M N D floating-point operations: S for the statistics, S again
for G, and two matrix multiplications by torch. S is never in memory, G a slab of rows at a time in
the dtype of a and b; everything else is float32. Sums over tiles have a fixed order.

Legend: M rows · N columns · D width · m rows of a slab
"""

import math

import torch
from torch import Tensor

from unimo_kernels.similarity_triton_launch import (
    NO_SUMS,
    TOP_A,
    TOP_B,
    Sources,
    launch_combine,
    launch_gradients,
    launch_statistics,
    pad,
    round_up,
    slabs,
    sources,
)
from unimo_kernels.similarity_types import Gradients, Lse, Operands, Statistics
from unimo_kernels.triton_ops import TYPE_NAMES, interpreted

LARGEST_TERM = 8192.0
"""G is scaled so that none of its terms exceeds this: float16 then keeps shares down to 2^-37."""

LARGEST_EXPONENT = 100.0
"""Base 2. What is larger cannot be: its share's other factor is 0, and must not meet infinity."""


def statistics(operands: Operands, both: bool) -> Statistics:
    """Log-sum-exps of the rows and, with ``both``, of the columns.

    Args:
        operands: a and b float16, bfloat16 or float32 on a GPU (or under Triton's interpreter).
        both: whether columns are wanted; they cost no second matrix multiplication.

    Returns:
        float32 [M] and [N].

    Raises:
        ValueError: a dtype or a device that the kernels do not take.
    """
    _check(operands)
    M, N = len(operands.a), len(operands.b)
    if M == 0 or N == 0:
        rows, columns = (_wide(operands.a, 2, n).fill_(-math.inf) for n in (M, N))
        return Statistics(Lse(*rows), Lse(*columns) if both else None)
    s = sources(operands, False)
    tiles_n, length_n = len(s.reach_b), s.columns.shape[1]
    rows, columns = (_wide(operands.a, 2, side.shape[1]) for side in (s.rows, s.columns))
    row_bytes = 2 * 4 * tiles_n + both * 2 * 4 * length_n // s.tiles.rows
    parts = slabs(M, row_bytes, s.tiles)
    by_slab = _wide(operands.a, 2, len(parts) if both else 0, length_n)
    for index, part in enumerate(parts):
        slab = s.slab(part)
        row_partials = _wide(operands.a, 2, tiles_n, slab.rows.shape[1])
        column_partials = _wide(operands.a, 2, len(slab.reach_a) if both else 0, length_n)
        launch_statistics(slab, row_partials, column_partials, both)
        launch_combine(row_partials, s.plan, rows[:, part.start :], TOP_B)
        if both:
            launch_combine(column_partials, s.plan, by_slab[:, index], TOP_A)
    if both:
        launch_combine(by_slab, s.plan, columns, NO_SUMS)
    return Statistics(Lse(*rows[:, :M]), Lse(*columns[:, :N]) if both else None)


def gradients(
    operands: Operands, statistics: Statistics, upstream: Statistics, weights: bool = True
) -> Gradients:
    """Gradients to every operand.

    Args:
        operands: as for ``statistics``.
        statistics: final log-sum-exps, possibly over more than these operands; without columns,
            only rows are asked for.
        upstream: of the same shapes, the loss's gradients to them; those to -inf do not count.
        weights: whether gradients to the log-weights are wanted; without, they are zeros.

    Returns:
        float32, all of them.

    Raises:
        ValueError: as ``statistics``.
    """
    _check(operands)
    a, b = operands.a, operands.b
    M, N, D = len(a), len(b), a.shape[1]
    both = statistics.columns is not None
    grad_a, grad_b = _wide(a, M, D), _wide(a, N, D)
    grad_scale, weight_a, weight_b = (_wide(a, n).zero_() for n in (1, M, N))
    if M == 0 or N == 0:
        return Gradients(grad_a.zero_(), grad_b.zero_(), grad_scale[0], weight_a, weight_b)
    upstream = _without_empty(statistics, upstream)
    unit = _largest(upstream) / LARGEST_TERM
    s = _with_upstream(sources(operands, weights), statistics, upstream, unit)
    tiles_n, length_n = len(s.reach_b), s.columns.shape[1]
    parts = slabs(M, length_n * a.element_size(), s.tiles)
    height = round_up(parts[0].stop, s.tiles.rows)
    g_slab = torch.empty(height, length_n, dtype=a.dtype, device=a.device)
    for index, part in enumerate(parts):
        slab, g_mN = s.slab(part), g_slab[: part.stop - part.start, :N]
        length_m = slab.rows.shape[1]
        scale_partials = _wide(a, tiles_n, length_m)
        weight_a_partials = _wide(a, tiles_n if weights and both else 0, length_m)
        weight_b_partials = _wide(a, len(slab.reach_a) if weights else 0, length_n)
        partials = scale_partials, weight_a_partials, weight_b_partials
        launch_gradients(slab, g_mN, partials, both, weights)
        _multiply(grad_a[part], g_mN, b, keep=0)
        _multiply(grad_b, g_mN.T, a[part], keep=min(index, 1))
        grad_scale += scale_partials.sum()
        weight_a[part] = weight_a_partials.sum(0)[: len(g_mN)]
        weight_b += weight_b_partials.sum(0)[:N]
    factor = unit * s.plan[0]
    return Gradients(
        grad_a.mul_(factor),
        grad_b.mul_(factor),
        grad_scale[0] * unit,
        weight_a.mul_(unit),
        weight_b.mul_(unit),
    )


def _check(operands: Operands) -> None:
    dtype, device = operands.a.dtype, operands.a.device
    if dtype not in TYPE_NAMES or operands.b.dtype != dtype:
        raise ValueError(
            f"similarity on triton takes a and b of one dtype out of "
            f"{', '.join(TYPE_NAMES.values())}, not {dtype} and {operands.b.dtype}: use backend "
            "reference or chunked"
        )
    if device.type != "cuda" and not interpreted():
        raise ValueError(
            f"similarity on triton needs CUDA tensors, not {device.type}: use backend chunked, or "
            "set TRITON_INTERPRET=1 before triton is imported to run the kernels in its interpreter"
        )


def _wide(like: Tensor, *shape: int) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=like.device)


def _without_empty(statistics: Statistics, upstream: Statistics) -> Statistics:
    """Upstream gradients, zero where the sum was over nothing."""
    pairs = zip(statistics, upstream, strict=True)
    return Statistics(
        *(
            None
            if lse is None or grad is None
            else Lse(*(g.masked_fill(x == -math.inf, 0) for x, g in zip(lse, grad, strict=True)))
            for lse, grad in pairs
        )
    )


def _largest(upstream: Statistics) -> Tensor:
    found = [grad.abs().amax() for lse in upstream if lse is not None for grad in lse]
    return torch.stack(found).amax().float().clamp(min=1e-30)


def _with_upstream(
    s: Sources, statistics: Statistics, upstream: Statistics, unit: Tensor
) -> Sources:
    """The sides with all vectors that the gradients need."""
    _, bound, top_a, top_b = s.plan
    tile = s.tiles
    rows = _side(s.rows, statistics.rows, upstream.rows, unit, bound, top_b, tile.rows)
    columns = s.columns
    if statistics.columns is not None and upstream.columns is not None:
        columns = _side(
            columns, statistics.columns, upstream.columns, unit, bound, top_a, tile.columns
        )
    return s._replace(rows=rows, columns=columns)


def _side(
    side: Tensor, lse: Lse, upstream: Lse, unit: Tensor, bound: Tensor, top: Tensor, size: int
) -> Tensor:
    """Adds LSE, LSE_POSITIVE, GRAD, GRAD_POSITIVE, FACTOR of similarity_triton_kernels."""
    lses = [pad(x.masked_fill(x == -math.inf, math.inf).float(), size, math.inf) for x in lse]
    grads = [pad((grad / unit).float(), size, 0.0) for grad in upstream]
    # In float64, since exponents that nearly cancel are large.
    exponent = (top.double() - lses[0].double()) * math.log2(math.e) + bound.double()
    factor = grads[0] * exponent.clamp(max=LARGEST_EXPONENT).exp2().float()
    return torch.cat([side, torch.stack([*lses, *grads, factor])])


def _multiply(out: Tensor, x: Tensor, y: Tensor, *, keep: int) -> None:
    """out = x @ y + keep * out, summed in float32."""
    wide = {} if x.dtype == torch.float32 else {"out_dtype": torch.float32}
    if wide and not x.is_cuda:
        x, y, wide = x.float(), y.float(), {}
    with torch.autocast(x.device.type, enabled=False):
        torch.addmm(out, x, y, beta=keep, out=out, **wide)
