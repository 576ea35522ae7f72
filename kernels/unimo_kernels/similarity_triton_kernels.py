"""Triton kernels over tiles of the similarity matrix; similarity_triton launches them.

A program owns one tile of S, computed from whole rows of a and b into float32 and never stored.
``similarity_statistics`` reduces it to log-sum-exps of its rows and of its columns, which
``combine`` merges over tiles; ``similarity_gradients`` computes it again and stores dLoss/dS,
the one thing that two matrix multiplications then need. Each program writes places of its own,
hence no atomics: the same inputs give the same bits.

One exponential per entry is enough where no score can exceed a bound B that is small: then
e = exp(s - B) serves rows and columns, with log-weights as plain factors, and neither overflows
nor vanishes. Elsewhere each direction has its own exponent. Positives always have: they may lie
far below the others, and few tiles hold any.

``plan`` holds [scale, B in base 2, highest log-weight of a, of b]; the sides ``rows`` and
``columns`` hold vectors, padded to whole tiles.

Legend: M rows · N columns, both padded · D width · T tiles
"""

import triton
import triton.language as tl

from unimo_kernels.triton_ops import matmul, narrow

LOG2_E: tl.constexpr = tl.constexpr(1.4426950408889634)
LN_2: tl.constexpr = tl.constexpr(0.6931471805599453)

ONE_EXPONENT_BOUND: tl.constexpr = tl.constexpr(50.0)
"""Up to this B, in base 2, exp(s - B) is at least 2^-100, far inside float32."""

STRIPS: tl.constexpr = tl.constexpr(4)
"""A tile is handled in so many strips of columns: work on all at once would not fit registers."""

WEIGHT: tl.constexpr = tl.constexpr(0)  # log-weight, -inf in the padding
SHARE: tl.constexpr = tl.constexpr(1)  # exp(log-weight - highest log-weight)
LSE: tl.constexpr = tl.constexpr(2)  # over all; +inf, which every share of is 0, over nothing
LSE_POSITIVE: tl.constexpr = tl.constexpr(3)
GRAD: tl.constexpr = tl.constexpr(4)  # the loss's gradients to both
GRAD_POSITIVE: tl.constexpr = tl.constexpr(5)
FACTOR: tl.constexpr = tl.constexpr(6)  # GRAD * exp(B + the other side's highest log-weight - LSE)
"""The vectors of a side."""


@triton.jit
def _place(tiles_m, tiles_n, BAND: tl.constexpr):
    """The tile of this program: bands of BAND tile rows, so that neighbours in time share L2."""
    program = tl.program_id(0)
    first = program // (BAND * tiles_n) * BAND
    height = tl.minimum(tiles_m - first, BAND)
    within = program % (BAND * tiles_n)
    return first + within % height, within // height


@triton.jit
def _same_group(group_m, group_n):
    return tl.load(group_m)[:, None] == tl.load(group_n)[None, :]


@triton.jit
def _holds_positives(
    group_a, group_b, reach_a, reach_b, tile_m, tile_n, BM: tl.constexpr, BN: tl.constexpr
):
    """Whether a group is on both sides of the tile; lowest and highest groups often rule it out."""
    found = 0
    if (tl.load(reach_a + 2 * tile_m) <= tl.load(reach_b + 2 * tile_n + 1)) & (
        tl.load(reach_b + 2 * tile_n) <= tl.load(reach_a + 2 * tile_m + 1)
    ):
        group_m = group_a + tile_m * BM + tl.arange(0, BM)
        group_n = group_b + tile_n * BN + tl.arange(0, BN)
        found = tl.max(_same_group(group_m, group_n).to(tl.int32))
    return found > 0


@triton.jit
def _halves(x):
    """The left and the right half of its columns."""
    halves = tl.reshape(x, [x.shape[0], 2, x.shape[1] // 2])
    return tl.split(tl.permute(halves, [0, 2, 1]))


@triton.jit
def _load(
    rows, row, k,
    D: tl.constexpr, SIZE: tl.constexpr, BK: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """[SIZE, BK] of ``rows`` from (row, k) on: through a descriptor, or at once from [.., D]."""
    if DESCRIPTORS:
        tile = rows.load([row, k])
    else:
        place = (row + tl.arange(0, SIZE)).to(tl.int64)[:, None] * D + tl.arange(0, BK)[None, :]
        tile = tl.load(rows + place + k)
    return tile


@triton.jit
def _product_strips(
    a_rows, b_rows, row, column,
    D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """The strips of a tile of a @ b.T."""
    acc = tl.zeros([BM, BN], tl.float32)
    for k in range(0, D, BK):
        a = _load(a_rows, row, k, D, BM, BK, DESCRIPTORS)
        b = _load(b_rows, column, k, D, BN, BK, DESCRIPTORS)
        acc = matmul(a, tl.trans(b), acc, PRECISION, WIDEN)
    left, right = _halves(acc)
    first, second = _halves(left)
    third, fourth = _halves(right)
    return first, second, third, fourth


@triton.jit
def _column_sums(x):
    """tl.sum(x, 0), which would give every sum to every warp, by half the exchanges of values."""
    # On Hopper a warp holds 16 rows; splitting what is left deals it out among all threads.
    by_warp = tl.sum(tl.reshape(x, [x.shape[0] // 16, 16, x.shape[1]]), 1)
    halves = tl.reshape(by_warp, [2, by_warp.shape[0] // 2, x.shape[1]])
    lower, upper = tl.split(tl.permute(halves, [1, 2, 0]))
    return tl.sum(lower + upper, 0)


@triton.jit
def _log_sum_exp_columns(scores):
    """Over the rows; -inf where all scores are."""
    highest = tl.max(scores, 0)
    highest = tl.where(highest == -float("inf"), 0.0, highest)  # -inf - -inf would be NaN
    total = _column_sums(tl.exp2((scores - highest[None, :]) * LOG2_E))
    # Zero alone is a sum over nothing; NaN, and infinity less itself, must come through.
    logarithm = tl.log2(tl.where(total == 0, 1.0, total)) * LN_2
    return tl.where(total == 0, -float("inf"), highest + logarithm)


@triton.jit
def _nothing(SIZE: tl.constexpr):
    """The maxima and the sums that ``_accumulate`` starts from."""
    return tl.full([SIZE], -float("inf"), tl.float32), tl.zeros([SIZE], tl.float32)


@triton.jit
def _accumulate(highest, total, scores, AXIS: tl.constexpr):
    """The maxima, and the sums of exp(score - maximum), with more scores."""
    higher = tl.maximum(highest, tl.max(scores, AXIS))
    shift = tl.where(higher == -float("inf"), 0.0, higher)  # -inf - -inf would be NaN
    shares = tl.exp2((scores - tl.expand_dims(shift, AXIS)) * LOG2_E)
    return higher, total * tl.exp2((highest - shift) * LOG2_E) + tl.sum(shares, AXIS)


@triton.jit
def _log_sum(highest, total):
    """highest + log(total), for no scores -inf."""
    return highest + tl.log2(tl.where(total == 0, 1.0, total)) * LN_2


@triton.jit(do_not_specialize=["rows_stride", "columns_stride", "tiles_m", "tiles_n"])
def similarity_statistics(
    a_rows, b_rows, group_a, group_b, reach_a, reach_b, rows, columns, plan,
    row_partials, column_partials, rows_stride, columns_stride, tiles_m, tiles_n,
    D: tl.constexpr, BOTH: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BAND: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Program -> its part of row_partials [2, tiles_n, M] and column_partials [2, tiles_m, N].

    The first of both is over all: sums of e where one exponent serves, else log-sum-exps.
    The second is over positives: log-sum-exps.
    """
    tile_m, tile_n = _place(tiles_m, tiles_n, BAND)
    # Asked first, while the products do not fill the registers yet.
    positives = _holds_positives(group_a, group_b, reach_a, reach_b, tile_m, tile_n, BM, BN)
    strips = _product_strips(
        a_rows, b_rows, tile_m * BM, tile_n * BN,
        D, BM, BN, BK, PRECISION, WIDEN, DESCRIPTORS,
    )  # fmt: skip
    STRIP: tl.constexpr = BN // STRIPS
    row, column = tile_m * BM + tl.arange(0, BM), tile_n * BN + tl.arange(0, STRIP)
    scale, bound = tl.load(plan), tl.load(plan + 1)
    one_exponent = bound <= ONE_EXPONENT_BOUND
    side_m, side_n, group_n = rows + row, columns + column, group_b + column
    to_columns = column_partials + tile_m.to(tl.int64) * tiles_n * BN + column
    highest_m, total_m = _nothing(BM)
    highest_positive_m, total_positive_m = _nothing(BM)
    for i in tl.static_range(STRIPS):
        # Branches within the strip also keep the compiler from working on several at once.
        if one_exponent:
            e = tl.exp2(strips[i] * (scale * LOG2_E) - bound)
            share_n = tl.load(side_n + SHARE * columns_stride + i * STRIP)
            total_m += tl.sum(e * share_n[None, :], 1)
            if BOTH:
                share_m = tl.load(side_m + SHARE * rows_stride)
                tl.store(to_columns + i * STRIP, _column_sums(e * share_m[:, None]))
        else:
            scores = strips[i] * scale
            weight_n = tl.load(side_n + WEIGHT * columns_stride + i * STRIP)
            highest_m, total_m = _accumulate(highest_m, total_m, scores + weight_n[None, :], 1)
            if BOTH:
                weight_m = tl.load(side_m + WEIGHT * rows_stride)
                scores = scores + weight_m[:, None]
                tl.store(to_columns + i * STRIP, _log_sum_exp_columns(scores))
        positive_n = tl.full([STRIP], -float("inf"), tl.float32)
        if positives:
            same = _same_group(group_a + row, group_n + i * STRIP)
            scores = tl.where(same, strips[i] * scale, -float("inf"))
            weight_n = tl.load(side_n + WEIGHT * columns_stride + i * STRIP)
            highest_positive_m, total_positive_m = _accumulate(
                highest_positive_m, total_positive_m, scores + weight_n[None, :], 1
            )
            if BOTH:
                weight_m = tl.load(side_m + WEIGHT * rows_stride)
                positive_n = _log_sum_exp_columns(scores + weight_m[:, None])
        if BOTH:
            to_positives = to_columns + tiles_m.to(tl.int64) * tiles_n * BN
            tl.store(to_positives + i * STRIP, positive_n)
    to_rows = row_partials + tile_n.to(tl.int64) * tiles_m * BM + row
    if not one_exponent:
        total_m = _log_sum(highest_m, total_m)
    tl.store(to_rows, total_m)
    to_positives = to_rows + tiles_n.to(tl.int64) * tiles_m * BM
    tl.store(to_positives, _log_sum(highest_positive_m, total_positive_m))


@triton.jit(do_not_specialize=["T", "length", "stride"])
def combine(
    partials, plan, out, T, length, stride,
    TOP: tl.constexpr, BT: tl.constexpr, BL: tl.constexpr,
):  # fmt: skip
    """Program (block of ``length``, kind) -> log-sum-exps over T of partials [2, T, length].

    TOP is the place in plan of the highest log-weight, which sums of e lack; -1: no sums of e.
    """
    kind = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * BL + tl.arange(0, BL)
    bound = tl.load(plan + 1)
    sums = (TOP >= 0) & (kind == 0) & (bound <= ONE_EXPONENT_BOUND)
    highest, total = _nothing(BL)
    for first in range(0, T, BT):
        row = first + tl.arange(0, BT)
        place = (kind * T + row)[:, None] * length + column[None, :]
        known = (row < T)[:, None] & (column < length)[None, :]
        if sums:
            total += tl.sum(tl.load(partials + place, known, other=0.0), 0)
        else:
            x = tl.load(partials + place, known, other=-float("inf"))
            highest, total = _accumulate(highest, total, x, 0)
    result = _log_sum(highest, total)
    if sums:
        # In float64, for B and what is left of it may cancel.
        log2_sum = tl.log2(tl.where(total == 0, 1.0, total)).to(tl.float64) + bound
        found = (log2_sum * LN_2 + tl.load(plan + tl.maximum(TOP, 0))).to(tl.float32)
        result = tl.where(total == 0, -float("inf"), found)
    tl.store(out + kind * stride + column, result, column < length)


@triton.jit
def _shares(
    scores, side_m, side_n, rows_stride, columns_stride,
    OF: tl.constexpr, GRAD_TO: tl.constexpr, AXIS: tl.constexpr,
):  # fmt: skip
    """What the vectors OF of log-sum-exps over AXIS pass on: GRAD_TO * exp(score - lse)."""
    if AXIS == 1:
        lse = tl.load(side_m + OF * rows_stride)
        grad = tl.load(side_m + GRAD_TO * rows_stride)
        weight = tl.load(side_n + WEIGHT * columns_stride)[None, :]
    else:
        lse = tl.load(side_n + OF * columns_stride)
        grad = tl.load(side_n + GRAD_TO * columns_stride)
        weight = tl.load(side_m + WEIGHT * rows_stride)[:, None]
    exponent = scores + weight - tl.expand_dims(lse, AXIS)
    return tl.exp2(exponent * LOG2_E) * tl.expand_dims(grad, AXIS)


@triton.jit(do_not_specialize=["rows_stride", "columns_stride", "tiles_m", "tiles_n"])
def similarity_gradients(
    a_rows, b_rows, g_rows, group_a, group_b, reach_a, reach_b, rows, columns, plan,
    scale_partials, weight_a_partials, weight_b_partials,
    rows_stride, columns_stride, tiles_m, tiles_n,
    D: tl.constexpr, BOTH: tl.constexpr, WEIGHTS: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, BAND: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """Program -> its tile of g [M, N] = dLoss/dS, and its parts of three sums over tiles.

    scale_partials [tiles_n, M] sum to dLoss/dscale, weight_a_partials [tiles_n, M] and
    weight_b_partials [tiles_m, N] to those of the log-weights.
    """
    tile_m, tile_n = _place(tiles_m, tiles_n, BAND)
    positives = _holds_positives(group_a, group_b, reach_a, reach_b, tile_m, tile_n, BM, BN)
    strips = _product_strips(
        a_rows, b_rows, tile_m * BM, tile_n * BN,
        D, BM, BN, BK, PRECISION, WIDEN, DESCRIPTORS,
    )  # fmt: skip
    STRIP: tl.constexpr = BN // STRIPS
    row, column = tile_m * BM + tl.arange(0, BM), tile_n * BN + tl.arange(0, STRIP)
    scale, bound = tl.load(plan), tl.load(plan + 1)
    side_m, group_n = rows + row, group_b + column
    scale_sum_m, column_sum_m = tl.zeros([BM], tl.float32), tl.zeros([BM], tl.float32)
    for i in tl.static_range(STRIPS):
        products = strips[i]
        side_n = columns + column + i * STRIP
        if bound <= ONE_EXPONENT_BOUND:
            e = tl.exp2(products * (scale * LOG2_E) - bound)
            factor_m = tl.load(side_m + FACTOR * rows_stride)
            share_n = tl.load(side_n + SHARE * columns_stride)
            factors = factor_m[:, None] * share_n[None, :]
            by_rows = e * factors
            if BOTH:
                share_m = tl.load(side_m + SHARE * rows_stride)
                factor_n = tl.load(side_n + FACTOR * columns_stride)
                factors += share_m[:, None] * factor_n[None, :]
            g = e * factors
        else:
            by_rows = _shares(
                products * scale, side_m, side_n, rows_stride, columns_stride, LSE, GRAD, 1
            )
            g = by_rows
            if BOTH:
                g += _shares(
                    products * scale, side_m, side_n, rows_stride, columns_stride, LSE, GRAD, 0
                )
        if positives:
            same = _same_group(group_a + row, group_n + i * STRIP)
            scores = tl.where(same, products * scale, -float("inf"))
            more = _shares(
                scores, side_m, side_n, rows_stride, columns_stride, LSE_POSITIVE, GRAD_POSITIVE, 1
            )
            g += more
            if WEIGHTS:
                by_rows += more
            if BOTH:
                g += _shares(
                    scores, side_m, side_n, rows_stride, columns_stride,
                    LSE_POSITIVE, GRAD_POSITIVE, 0,
                )  # fmt: skip
        # All terms of an entry are summed before it is rounded: they may cancel.
        if DESCRIPTORS:
            g_rows.store([tile_m * BM, tile_n * BN + i * STRIP], narrow(g, g_rows.dtype, WIDEN))
        else:
            place = row.to(tl.int64)[:, None] * (tiles_n * BN) + (column + i * STRIP)[None, :]
            tl.store(g_rows + place, narrow(g, g_rows.dtype.element_ty, WIDEN))
        scale_sum_m += tl.sum(g * products, 1)
        if WEIGHTS:
            to_columns = weight_b_partials + tile_m.to(tl.int64) * tiles_n * BN + column
            tl.store(to_columns + i * STRIP, _column_sums(by_rows))
            if BOTH:
                column_sum_m += tl.sum(g - by_rows, 1)
    to_rows = tile_n.to(tl.int64) * tiles_m * BM + row
    tl.store(scale_partials + to_rows, scale_sum_m)
    if WEIGHTS and BOTH:
        tl.store(weight_a_partials + to_rows, column_sum_m)
