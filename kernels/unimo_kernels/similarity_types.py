"""What the backends of the similarity matrix take and give.

    S_ij = scale * a_i . b_j

Rows look at S_ij + log_weight_b_j over the columns j, columns at S_ij + log_weight_a_i over the
rows i. Legend: M rows · N columns · D width
"""

from typing import NamedTuple

from torch import Tensor


class Operands(NamedTuple):
    """One similarity matrix, as yet not computed."""

    a: Tensor  # float [M, D]
    b: Tensor  # float [N, D], same dtype as a
    group_a: Tensor  # int64 [M]
    group_b: Tensor  # int64 [N]; same group = positive
    scale: Tensor  # one element
    log_weight_a: Tensor  # wide [M], -inf hides a row from the columns
    log_weight_b: Tensor  # wide [N], -inf hides a column from the rows


class Lse(NamedTuple):
    """Log-sum-exps, wide (float32, or float64 for float64 inputs), -inf over nothing."""

    all: Tensor  # over everything
    positive: Tensor  # over those of the own group


class Statistics(NamedTuple):
    """Log-sum-exps of one matrix, or, of the same shapes, what a loss's gradient is to them."""

    rows: Lse  # [M]
    columns: Lse | None  # [N]; None where only rows are asked for


class Gradients(NamedTuple):
    """To every operand; ``log_weight_a`` is zero where only rows are asked for."""

    a: Tensor  # wide [M, D]
    b: Tensor  # wide [N, D]
    scale: Tensor  # wide []
    log_weight_a: Tensor  # wide [M]
    log_weight_b: Tensor  # wide [N]
