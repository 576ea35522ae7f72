"""Log-sum-exps of a similarity matrix, over everything and over those of the same group.

    S_ij = scale * a_i . b_j

    rows:     all_i      = log sum_j exp(S_ij + log_weight_b_j)
              positive_i = the same over { j : group_b_j = group_a_i }
    columns:  all_j      = log sum_i exp(S_ij + log_weight_a_i)
              positive_j = the same over { i : group_a_i = group_b_j }

CMCL, InfoNCE and multi-positive SupCon are (all - positive) over what has a positive. A sum over
nothing is -inf and passes no gradient; a log-weight of -inf hides padding, whose vectors need only
be finite.

Legend: M rows · N columns · D width
"""

import importlib
import math
import os
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unimo_kernels import similarity_chunked
from unimo_kernels.dispatch import check_capability, choose_backend, has_triton, is_old
from unimo_kernels.integers import check_whole
from unimo_kernels.once import first_derivative_only
from unimo_kernels.similarity_types import Gradients, Lse, Operands, Statistics

BACKENDS = ("reference", "chunked", "triton")
BACKEND_VARIABLE = "UNIMO_SIMILARITY"
_OPERATION = "similarity"


class Backend(NamedTuple):
    """How a matrix is computed: two functions, of which autograd sees neither's inside.

    The last argument of ``gradients`` says whether those of the log-weights are wanted; a backend
    may leave them zero where they are not.
    """

    statistics: Callable[[Operands, bool], Statistics]
    gradients: Callable[[Operands, Statistics, Statistics, bool], Gradients]


def similarity_logsumexp_reference(operands: Operands, both: bool) -> Statistics:
    """The specification, with all M x N entries in memory; float64 operands stay float64."""
    rows_MN, columns_NM, same_MN = _materialised(operands)
    rows = Lse(_logsumexp(rows_MN), _logsumexp(rows_MN.masked_fill(~same_MN, -math.inf)))
    if not both:
        return Statistics(rows, None)
    same_NM = same_MN.T
    hidden_NM = columns_NM.masked_fill(~same_NM, -math.inf)
    return Statistics(rows, Lse(_logsumexp(columns_NM), _logsumexp(hidden_NM)))


def reference_gradients(
    operands: Operands, statistics: Statistics, upstream: Statistics, weights: bool
) -> Gradients:
    """Gradients where the log-sum-exps may be over more than these operands.

    d lse / d S = exp(S - lse), so they are those of sum(upstream * exp(S - lse)) with lse held.
    """
    a, b, group_a, group_b, scale, weight_a, weight_b = operands
    wide = weight_b.dtype
    leaves = [x.detach().to(wide).requires_grad_() for x in (a, b, scale, weight_a, weight_b)]
    with torch.enable_grad():
        held = Operands(leaves[0], leaves[1], group_a, group_b, *leaves[2:])
        rows_MN, columns_NM, same_MN = _materialised(held)
        total = _shares(rows_MN, same_MN, statistics.rows, upstream.rows)
        if statistics.columns is not None and upstream.columns is not None:
            total = total + _shares(columns_NM, same_MN.T, statistics.columns, upstream.columns)
        else:
            total = total + 0 * columns_NM[:0].sum()
    return Gradients(*torch.autograd.grad(total, leaves))


def _materialised(operands: Operands) -> tuple[Tensor, Tensor, Tensor]:
    """What rows look at [M, N], what columns look at [N, M], and where the groups are equal."""
    a, b, group_a, group_b, scale, weight_a, weight_b = operands
    wide = weight_b.dtype
    scores_MN = scale * (a.to(wide) @ b.to(wide).T)
    return scores_MN + weight_b, scores_MN.T + weight_a, group_a[:, None] == group_b[None, :]


def _logsumexp(scores_MN: Tensor) -> Tensor:
    if scores_MN.shape[1] == 0:
        return scores_MN.sum(dim=1) - math.inf
    highest = scores_MN.detach().amax(dim=1)
    highest = highest.masked_fill(highest == -math.inf, 0)
    total = (scores_MN - highest[:, None]).exp().sum(dim=1)
    empty = total == 0
    # The logarithm never meets a zero: its gradient there would be inf * 0.
    return (total.masked_fill(empty, 1).log() + highest).masked_fill(empty, -math.inf)


def _shares(scores_MN: Tensor, same_MN: Tensor, lse: Lse, upstream: Lse) -> Tensor:
    total = scores_MN.new_zeros(())
    for of, grad, seen_MN in zip(lse, upstream, (torch.ones_like(same_MN), same_MN), strict=True):
        relative_MN = scores_MN - of.masked_fill(of == -math.inf, math.inf)[:, None]
        shares_MN = relative_MN.masked_fill(~seen_MN, -math.inf).exp()
        total = total + (shares_MN * grad[:, None]).sum()
    return total


def similarity_logsumexp(
    a: Tensor,
    b: Tensor,
    group_a: Tensor,
    group_b: Tensor,
    *,
    scale: Tensor | float,
    log_weight_a: Tensor | None = None,
    log_weight_b: Tensor | None = None,
    both_directions: bool = False,
    backend: str = "auto",
) -> Lse | Statistics:
    """Log-sum-exps of all rows, or of all rows and all columns; the formula tops this file.

    Args:
        a: float [M, D]. b: [N, D] of the same dtype. Gradients flow to both.
        group_a: int [M]. group_b: int [N].
        scale: number or one-element tensor (1 / temperature); a tensor gets its gradient.
        log_weight_a: float [M], added to what the columns see; gets its gradient.
        log_weight_b: float [N], added to what the rows see; gets its gradient.
        both_directions: also over the columns, from the same pass over the matrix.
        backend: ``reference``, ``chunked``, ``triton`` or ``auto`` (environment UNIMO_SIMILARITY,
            then triton on a GPU of compute capability 8.0 or later, chunked elsewhere).

    Returns:
        ``Lse(all [M], positive [M])``, or with both directions ``Statistics(rows, columns)``, an
        Lse each; float32, for float64 inputs float64.

    Raises:
        ValueError: shapes or dtypes that do not fit, an unknown backend, or one that cannot run
            here.
        RuntimeError: a second derivative of chunked or triton.
    """
    operands = check_operands(a, b, group_a, group_b, scale, log_weight_a, log_weight_b)
    name = choose(operands, backend)
    if name == "reference":
        with exact_products(a):
            statistics = similarity_logsumexp_reference(operands, both_directions)
    else:
        statistics = differentiable(load_backend(name, operands), operands, both_directions)
    return statistics if both_directions else statistics.rows


def check_operands(
    a: Tensor,
    b: Tensor,
    group_a: Tensor,
    group_b: Tensor,
    scale: Tensor | float,
    log_weight_a: Tensor | None,
    log_weight_b: Tensor | None,
) -> Operands:
    """The operands as backends take them: wide scale and weights, zeros for absent weights.

    Raises:
        ValueError: shapes or dtypes that do not fit.
    """
    where = "similarity_logsumexp takes"
    if not (a.ndim == b.ndim == 2 and a.shape[1] == b.shape[1]):
        raise ValueError(f"{where} a [M, D] and b [N, D], not {list(a.shape)} and {list(b.shape)}")
    if not (a.dtype == b.dtype and a.dtype.is_floating_point):
        raise ValueError(
            f"{where} a and b of one floating dtype, not {a.dtype} and {b.dtype}: convert one"
        )
    if group_a.shape != a.shape[:1] or group_b.shape != b.shape[:1]:
        raise ValueError(
            f"{where} group_a [{len(a)}] and group_b [{len(b)}], not "
            f"{list(group_a.shape)} and {list(group_b.shape)}"
        )
    check_whole("similarity_logsumexp's group_a", group_a)
    check_whole("similarity_logsumexp's group_b", group_b)
    wide = torch.promote_types(a.dtype, torch.float32)
    scale = torch.as_tensor(scale, dtype=None if torch.is_tensor(scale) else wide, device=a.device)
    if scale.numel() != 1:
        raise ValueError(f"{where} one scale, not {list(scale.shape)}")
    weights = []
    for side, weight, of in (("a", log_weight_a, a), ("b", log_weight_b, b)):
        if weight is None:
            weight = of.new_zeros(len(of), dtype=wide)
        elif weight.shape != of.shape[:1]:
            raise ValueError(
                f"{where} log_weight_{side} [{len(of)}], one per row of {side}, not "
                f"{list(weight.shape)}"
            )
        weights.append(weight.to(wide))
    groups = group_a.long(), group_b.long()
    return Operands(a, b, *groups, scale.reshape(()).to(wide), *weights)


def choose(operands: Operands, requested: str) -> str:
    """The name of the backend that runs; ``requested`` may be ``auto``."""
    a = operands.a
    by_triton = a.is_cuda and a.dtype != torch.float64 and has_triton() and not is_old(a.device)
    return choose_backend(
        _OPERATION,
        requested,
        variable=BACKEND_VARIABLE,
        known=BACKENDS,
        automatic="triton" if by_triton else "chunked",
    )


def load_backend(name: str, operands: Operands) -> Backend:
    """The two functions of a backend.

    Raises:
        ValueError: it is ``triton``, which is not installed or cannot run where the operands are or
            on so old a GPU.
    """
    if name == "reference":
        return Backend(similarity_logsumexp_reference, reference_gradients)
    if name == "chunked":
        return Backend(similarity_chunked.statistics, similarity_chunked.gradients)
    if not has_triton():
        raise ValueError(
            f"{_OPERATION}: backend triton needs the package triton, which is not installed: "
            "pip install triton (Linux only), or take backend chunked"
        )
    device = operands.a.device.type
    if device != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        raise ValueError(
            f"{_OPERATION}: backend triton runs on CUDA tensors, these are on {device}: take "
            "backend chunked, or set TRITON_INTERPRET=1 before triton is imported to interpret "
            "its kernels, which is slow and for tests"
        )
    check_capability("similarity on triton", operands.a.device, "chunked")
    module = importlib.import_module("unimo_kernels.similarity_triton")
    return Backend(module.statistics, module.gradients)


def differentiable(backend: Backend, operands: Operands, both: bool) -> Statistics:
    """The statistics of a backend, with its gradients behind them."""
    values = _Differentiable.apply(backend, both, *operands)
    return Statistics(Lse(*values[:2]), Lse(*values[2:]) if both else None)


def exact_products(a: Tensor) -> torch.autocast:
    """Autocast would round the logits to half precision, so it is off where they are computed."""
    return torch.autocast(a.device.type, enabled=False)


class _Differentiable(torch.autograd.Function):
    """Log-sum-exps forward; the backward hands the gradients to each of them to the backend."""

    @staticmethod
    def forward(ctx: Any, backend: Backend, both: bool, *operands: Tensor) -> tuple[Tensor, ...]:
        # Triton launches on the current device, whose own the operands need not be.
        with exact_products(operands[0]), torch.cuda.device_of(operands[0]):
            rows, columns = backend.statistics(Operands(*operands), both)
        values = (*rows, *(columns or ()))
        ctx.backend = backend
        ctx.save_for_backward(*operands, *values)
        return values

    @staticmethod
    @first_derivative_only("similarity_logsumexp")
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        operands, values = Operands(*saved[:7]), saved[7:]
        # A sum over nothing cannot change, whatever the loss makes of its -inf.
        passed = [
            grad.masked_fill(value == -math.inf, 0)
            for grad, value in zip(upstream, values, strict=True)
        ]
        with exact_products(operands.a):
            grads = ctx.backend.gradients(
                operands, _statistics(values), _statistics(passed), any(ctx.needs_input_grad[-2:])
            )
        return (
            None,
            None,
            grads.a.to(operands.a.dtype),
            grads.b.to(operands.b.dtype),
            None,
            None,
            grads.scale,
            grads.log_weight_a,
            grads.log_weight_b,
        )


def _statistics(values: Any) -> Statistics:
    return Statistics(Lse(*values[:2]), Lse(*values[2:]) if len(values) > 2 else None)
