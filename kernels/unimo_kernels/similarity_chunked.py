"""The similarity matrix tile by tile: log-sum-exps and gradients without ever holding all of it.

Every tile is computed once per pass and serves rows and columns alike. Rows and columns are sorted
by group first: positives then lie in few tiles, and only those are looked through for them.

Legend: M rows · N columns · D width · m, n those of a tile
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from unimo_kernels.similarity_types import Gradients, Lse, Operands, Statistics

TILE = {"cpu": 1024, "cuda": 4096}
"""Rows and columns of a tile. Two buffers of this square are held: 8 MiB on a CPU, in float32."""


class _Tile(NamedTuple):
    rows: slice
    columns: slice
    scores_mn: Tensor  # scale * a . b; the caller may overwrite it
    spare_mn: Tensor
    same_mn: Tensor | None  # where the groups are equal; None where no positive can lie


class _Sorted(NamedTuple):
    """The operands, wide, both sides in the order of their groups."""

    order_a: Tensor
    order_b: Tensor
    operands: Operands

    def tiles(self) -> Iterator[_Tile]:
        a_MD, b_ND, group_a, group_b, scale, *_ = self.operands
        size = TILE.get(a_MD.device.type, TILE["cuda"])
        scores, spare = a_MD.new_empty(2, min(size, len(a_MD)) * min(size, len(b_ND))).unbind()
        columns_of = _blocks(group_b, size)
        for rows, first_a, last_a in _blocks(group_a, size):
            for columns, first_b, last_b in columns_of:
                shape = rows.stop - rows.start, columns.stop - columns.start
                scores_mn, spare_mn = (x[: math.prod(shape)].view(shape) for x in (scores, spare))
                torch.mm(a_MD[rows], b_ND[columns].T, out=scores_mn).mul_(scale)
                same_mn = None
                if first_a <= last_b and first_b <= last_a:
                    same_mn = group_a[rows, None] == group_b[None, columns]
                yield _Tile(rows, columns, scores_mn, spare_mn, same_mn)


class _Running(NamedTuple):
    """log Σ exp, as a maximum and the sum relative to it."""

    highest: Tensor
    total: Tensor

    def add(self, at: slice, scores_mn: Tensor, dim: int) -> None:
        """Takes in the scores, summed over ``dim``; they are overwritten."""
        old = self.highest[at]
        new = torch.maximum(old, scores_mn.amax(dim))
        finite = new.masked_fill(new == -math.inf, 0)
        summed = scores_mn.sub_(finite.unsqueeze(dim)).exp_().sum(dim)
        self.total[at] = self.total[at] * (old - finite).exp() + summed
        self.highest[at] = new


def statistics(operands: Operands, both: bool) -> Statistics:
    """Log-sum-exps over rows, and over columns if ``both``, from one pass; see similarity.py."""
    matrix = _sort(operands)
    weight_a, weight_b = matrix.operands[-2:]
    rows = _nothing_yet(weight_a), _nothing_yet(weight_a)
    columns = _nothing_yet(weight_b), _nothing_yet(weight_b)
    for tile in matrix.tiles():
        spare_mn = torch.add(tile.scores_mn, weight_b[tile.columns], out=tile.spare_mn)
        _add(rows, tile.rows, spare_mn, tile.same_mn, 1)
        if both:
            tile.scores_mn.add_(weight_a[tile.rows, None])
            _add(columns, tile.columns, tile.scores_mn, tile.same_mn, 0)
    return Statistics(_lse(rows, matrix.order_a), _lse(columns, matrix.order_b) if both else None)


def gradients(
    operands: Operands, statistics: Statistics, upstream: Statistics, weights: bool
) -> Gradients:
    """Gradients from one pass that computes every tile again.

    Args:
        statistics: the log-sum-exps, possibly over more rows and columns than the operands hold.
        upstream: of the same shapes, the gradient of the loss to each of them; finite, zero to
            one of -inf.
        weights: whether the log-weights' are wanted; they cost little and are always there.
    """
    matrix = _sort(operands)
    a_MD, b_ND, _, _, scale, weight_a, weight_b = matrix.operands
    rows = _terms(statistics.rows, upstream.rows, matrix.order_a)
    columns = None
    if statistics.columns is not None and upstream.columns is not None:
        columns = _terms(statistics.columns, upstream.columns, matrix.order_b)
    grad_a, grad_b, grad_weight_a, grad_weight_b = map(
        torch.zeros_like, (a_MD, b_ND, weight_a, weight_b)
    )
    for tile in matrix.tiles():
        grad_mn = torch.add(tile.scores_mn, weight_b[tile.columns], out=tile.spare_mn)
        own = [(lse[tile.rows, None], grad[tile.rows, None]) for lse, grad in rows]
        _softmax_gradient(grad_mn, tile.same_mn, own)
        grad_weight_b[tile.columns] += grad_mn.sum(0)
        if columns is not None:
            column_mn = tile.scores_mn.add_(weight_a[tile.rows, None])
            own = [(lse[tile.columns], grad[tile.columns]) for lse, grad in columns]
            _softmax_gradient(column_mn, tile.same_mn, own)
            grad_weight_a[tile.rows] += column_mn.sum(1)
            grad_mn += column_mn
        grad_a[tile.rows].addmm_(grad_mn, b_ND[tile.columns])
        grad_b[tile.columns].addmm_(grad_mn.T, a_MD[tile.rows])
    return Gradients(
        a=_unsorted(grad_a, matrix.order_a).mul_(scale),
        b=_unsorted(grad_b, matrix.order_b).mul_(scale),
        scale=(grad_a * a_MD).sum(),
        log_weight_a=_unsorted(grad_weight_a, matrix.order_a),
        log_weight_b=_unsorted(grad_weight_b, matrix.order_b),
    )


def _sort(operands: Operands) -> _Sorted:
    a, b, group_a, group_b, scale, weight_a, weight_b = operands
    group_a, order_a = torch.sort(group_a, stable=True)
    group_b, order_b = torch.sort(group_b, stable=True)
    wide = weight_b.dtype
    a_MD, b_ND = a[order_a].to(wide), b[order_b].to(wide)
    weights = weight_a[order_a], weight_b[order_b]
    return _Sorted(order_a, order_b, Operands(a_MD, b_ND, group_a, group_b, scale, *weights))


def _unsorted(x: Tensor, order: Tensor) -> Tensor:
    return torch.empty_like(x).index_copy_(0, order, x)


def _blocks(group: Tensor, size: int) -> list[tuple[slice, int, int]]:
    """Slices of a sorted ``group``, each with its first and last value."""
    starts = range(0, len(group), size)
    stops = [min(start + size, len(group)) for start in starts]
    firsts, lasts = group[::size].tolist(), group[[stop - 1 for stop in stops]].tolist()
    return list(zip(map(slice, starts, stops), firsts, lasts, strict=True))


def _nothing_yet(like: Tensor) -> _Running:
    return _Running(torch.full_like(like, -math.inf), torch.zeros_like(like))


def _add(
    running: tuple[_Running, _Running],
    at: slice,
    scores_mn: Tensor,
    same_mn: Tensor | None,
    dim: int,
) -> None:
    everything, positive = running
    if same_mn is not None:
        positive.add(at, scores_mn.masked_fill(~same_mn, -math.inf), dim)
    everything.add(at, scores_mn, dim)


def _lse(running: tuple[_Running, _Running], order: Tensor) -> Lse:
    return Lse(*(_unsorted(part.highest + part.total.log(), order) for part in running))


def _terms(lse: Lse, upstream: Lse, order: Tensor) -> list[tuple[Tensor, Tensor]]:
    """(log-sum-exp, gradient to it) of everything and of positives; one over nothing as +inf.

    Every share of that, exp(score - lse), is zero.
    """
    return [
        (value.masked_fill(value == -math.inf, math.inf)[order], grad[order])
        for value, grad in zip(lse, upstream, strict=True)
    ]


def _softmax_gradient(
    scores_mn: Tensor, same_mn: Tensor | None, terms: list[tuple[Tensor, Tensor]]
) -> None:
    """Puts Σ grad * exp(scores - lse) in the place of the scores."""
    (lse, grad), (lse_positive, grad_positive) = terms
    positive_mn = None
    if same_mn is not None:
        positive_mn = (scores_mn - lse_positive).masked_fill_(~same_mn, -math.inf)
        positive_mn.exp_().mul_(grad_positive)
    scores_mn.sub_(lse).exp_().mul_(grad)
    if positive_mn is not None:
        scores_mn += positive_mn
