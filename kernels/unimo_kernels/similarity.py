"""Log-sum-exp over the rows of a similarity matrix, over all columns and over those of one group.

    S_ij = scale * a_i . b_j + w_j
    lse_all_i      = log sum_j exp S_ij
    lse_positive_i = log sum_{j : group_b_j = group_a_i} exp S_ij

CMCL, InfoNCE and multi-positive SupCon are (lse_all - lse_positive) over the rows that have a
positive. A sum over nothing is -inf and passes no gradient.

Legend: M rows · N columns · D width
"""

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unimo_kernels.dispatch import choose_backend

BACKENDS = ("reference", "chunked")
BACKEND_VARIABLE = "UNIMO_SIMILARITY"

CHUNK_ELEMENTS = 1 << 22
"""Entries of S that `chunked` holds at a time (16 MiB in float32)."""


def similarity_logsumexp_reference(
    a: Tensor, b: Tensor, group_a: Tensor, group_b: Tensor, scale: Tensor, log_weight_b: Tensor
) -> tuple[Tensor, Tensor]:
    """The specification, with all M x N entries in memory; float64 inputs stay float64."""
    wide = torch.promote_types(a.dtype, torch.float32)
    scores_MN = scale.to(wide) * (a.to(wide) @ b.to(wide).T) + log_weight_b.to(wide)
    same_MN = group_a[:, None] == group_b[None, :]
    return _logsumexp(scores_MN), _logsumexp(scores_MN.masked_fill(~same_MN, -math.inf))


def _logsumexp(scores_MN: Tensor) -> Tensor:
    # A column of -inf, so that there is a maximum where N = 0.
    padded = torch.cat([scores_MN, scores_MN.new_full((len(scores_MN), 1), -math.inf)], dim=1)
    highest = padded.detach().amax(dim=1)
    highest = highest.masked_fill(highest == -math.inf, 0)
    total = (padded - highest[:, None]).exp().sum(dim=1)
    empty = total == 0
    # The logarithm never meets a zero: its gradient there would be inf * 0.
    return (total.masked_fill(empty, 1).log() + highest).masked_fill(empty, -math.inf)


class _Chunked(torch.autograd.Function):
    """Block of rows by block of rows; the backward computes the block's entries again."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        group_a: Tensor,
        group_b: Tensor,
        scale: Tensor,
        weight: Tensor,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.promote_types(a.dtype, torch.float32)
        lse_all, lse_positive = a.new_empty(2, len(a), dtype=wide).unbind()
        for rows in _blocks(len(a), len(b)):
            block = a[rows], b, group_a[rows], group_b, scale, weight
            lse_all[rows], lse_positive[rows] = similarity_logsumexp_reference(*block)
        ctx.save_for_backward(a, b, group_a, group_b, scale, weight, lse_all, lse_positive)
        return lse_all, lse_positive

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_all: Tensor, grad_positive: Tensor) -> tuple[Tensor | None, ...]:
        a, b, group_a, group_b, scale, weight, lse_all, lse_positive = ctx.saved_tensors
        wide = lse_all.dtype
        grad_a = torch.empty_like(a, dtype=wide)
        grad_b = torch.zeros_like(b, dtype=wide)
        grad_scale = torch.zeros_like(scale, dtype=wide)
        grad_weight = torch.zeros_like(weight, dtype=wide)
        b_ND = b.to(wide)
        for rows in _blocks(len(a), len(b)):
            a_mD = a[rows].to(wide)
            products_mN = a_mD @ b_ND.T
            scores_mN = scale.to(wide) * products_mN + weight.to(wide)
            same_mN = group_a[rows, None] == group_b[None, :]
            grad_mN = _softmax_gradient(scores_mN, lse_all[rows], grad_all[rows])
            positive = _softmax_gradient(scores_mN, lse_positive[rows], grad_positive[rows])
            grad_mN += positive.masked_fill_(~same_mN, 0)
            grad_scale += (grad_mN * products_mN).sum()
            grad_weight += grad_mN.sum(dim=0)
            grad_mN *= scale.to(wide)
            grad_a[rows] = grad_mN @ b_ND
            grad_b += grad_mN.T @ a_mD
        return (
            grad_a.to(a.dtype),
            grad_b.to(b.dtype),
            None,
            None,
            grad_scale.to(scale.dtype),
            grad_weight.to(weight.dtype),
        )


def _blocks(rows: int, columns: int) -> list[slice]:
    step = max(1, CHUNK_ELEMENTS // max(1, columns))
    return [slice(i, min(i + step, rows)) for i in range(0, rows, step)]


def _softmax_gradient(scores_mN: Tensor, lse_m: Tensor, grad_m: Tensor) -> Tensor:
    empty = lse_m == -math.inf
    share = (scores_mN - lse_m.masked_fill(empty, math.inf)[:, None]).exp()
    return share * grad_m.masked_fill(empty, 0)[:, None]


def similarity_logsumexp(
    a: Tensor,
    b: Tensor,
    group_a: Tensor,
    group_b: Tensor,
    *,
    scale: Tensor | float,
    log_weight_b: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Both row-wise log-sum-exps; see the formula at the top of this file.

    Args:
        a: float [M, D]. b: float [N, D]. Gradients flow to both.
        group_a: int [M]. group_b: int [N].
        scale: number or one-element tensor (1 / temperature); a tensor gets its gradient.
        log_weight_b: float [N], added to every row (-inf hides a column); gets its gradient.
        backend: ``reference``, ``chunked`` or ``auto`` (environment UNIMO_SIMILARITY, then
            chunked).

    Returns:
        lse_all [M] and lse_positive [M], float32 (float64 for float64 inputs).

    Raises:
        ValueError: shapes that do not fit, or an unknown backend.
    """
    if not (a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1]):
        raise ValueError(
            f"similarity_logsumexp takes a [M, D] and b [N, D], not {list(a.shape)} and "
            f"{list(b.shape)}"
        )
    if group_a.shape != a.shape[:1] or group_b.shape != b.shape[:1]:
        raise ValueError(
            f"similarity_logsumexp takes group_a [{len(a)}] and group_b [{len(b)}], not "
            f"{list(group_a.shape)} and {list(group_b.shape)}"
        )
    wide = torch.promote_types(a.dtype, torch.float32)
    scale = torch.as_tensor(scale, dtype=None if torch.is_tensor(scale) else wide, device=a.device)
    if scale.numel() != 1:
        raise ValueError(f"similarity_logsumexp takes one scale, not {list(scale.shape)}")
    if log_weight_b is None:
        log_weight_b = a.new_zeros(len(b), dtype=wide)
    elif log_weight_b.shape != b.shape[:1]:
        raise ValueError(f"log_weight_b is {list(log_weight_b.shape)}, b has {len(b)} rows")
    name = choose_backend(
        "similarity", backend, variable=BACKEND_VARIABLE, known=BACKENDS, automatic="chunked"
    )
    run = similarity_logsumexp_reference if name == "reference" else _Chunked.apply
    return run(a, b, group_a, group_b, scale, log_weight_b)
