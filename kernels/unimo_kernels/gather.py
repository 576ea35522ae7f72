"""Rows of a tensor at other places, each at most once: a gather whose backward is one as well."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


class Move(NamedTuple):
    """Which row of one tensor stands at which place of another, in both directions."""

    rows: Tensor  # int64 [places], the row at each place, 0 at a blank
    blanks: Tensor  # int64, places without a row
    places: Tensor  # int64 [rows], the place of each row, 0 where it has none
    left_out: Tensor  # int64, rows without a place

    @property
    def inverse(self) -> "Move":
        return Move(self.places, self.left_out, self.rows, self.blanks)

    def to(self, device: torch.device) -> "Move":
        return Move(*(indices.to(device) for indices in self))


def choice(rows: Tensor, length: int) -> Move:
    """The move of int64 [places] ``rows``, no two of them equal, out of ``length``."""
    places, left_out = torch.zeros(length, dtype=torch.long), torch.ones(length, dtype=torch.bool)
    places[rows] = torch.arange(len(rows))
    left_out[rows] = False
    return Move(rows, rows[:0], places, torch.nonzero(left_out).flatten())


def move(x: Tensor, where: Move) -> Tensor:
    """``x`` [rows, ...] at its new places [places, ...]; zeros at blanks."""
    moved: Tensor = _Move.apply(x, *where)
    return moved


class _Move(torch.autograd.Function):
    """The scattered addition of index_select's own backward is not needed: no row comes twice."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, rows: Tensor, blanks: Tensor, places: Tensor, left_out: Tensor
    ) -> Tensor:
        ctx.save_for_backward(rows, blanks, places, left_out)
        return _take(x, rows, blanks)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        rows, blanks, places, left_out = ctx.saved_tensors
        return move(grad, Move(places, left_out, rows, blanks)), None, None, None, None


def _take(x: Tensor, rows: Tensor, blanks: Tensor) -> Tensor:
    if x.shape[0] == 0:
        return x.new_zeros(len(rows), *x.shape[1:])
    return x.index_select(0, rows).index_fill_(0, blanks, 0)
