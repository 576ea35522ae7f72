"""Packed rows for attention tests, and what a backend makes of them.

Legend: T positions · H heads · K head width
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from hypothesis import strategies as st
from torch import Tensor

from unimo_kernels.attention import attention, attention_layout
from unimo_kernels.integers import PADDING_SEGMENT


class Row(NamedTuple):
    """Who is in a row, position by position."""

    segment: list[int]
    order: list[int]

    def tensors(self) -> tuple[Tensor, Tensor]:
        segment, order = torch.tensor([self.segment, self.order], dtype=torch.int32)
        return segment, order

    def padding(self) -> Tensor:
        return torch.tensor(self.segment) == PADDING_SEGMENT


def packed(*parts: tuple[int, int], padding: int = 0) -> Row:
    """Segments of (prefix, target) positions, then padding."""
    segment, order = [], []
    for i, (prefix, target) in enumerate(parts):
        segment += [i] * (prefix + target)
        order += [0] * prefix + list(range(1, target + 1))
    return Row(segment + [PADDING_SEGMENT] * padding, order + [0] * padding)


def shuffled(row: Row) -> Row:
    at = torch.randperm(len(row.segment), generator=torch.Generator().manual_seed(3)).tolist()
    return Row([row.segment[i] for i in at], [row.order[i] for i in at])


ROWS = {
    "T0-nothing": packed(),
    "T5-padding-only": packed(padding=5),
    "T1-one-word": packed((1, 0)),
    "T48-equal-bidirectional": packed((16, 0), (16, 0), (16, 0)),
    "T60-ragged-bidirectional": packed((1, 0), (17, 0), (31, 0), (2, 0), padding=9),
    "T64-causal": packed((0, 33), (0, 31)),
    "T97-prefix-lm": packed((20, 7), (1, 30), (0, 12), (9, 5), padding=13),
    "T97-scattered-segments": shuffled(packed((20, 7), (1, 30), (0, 12), (9, 5), padding=13)),
    "T270-many": packed(*[(3 + i % 7, i % 4) for i in range(36)], padding=3),
}


class Result(NamedTuple):
    """An output and its gradients."""

    out: Tensor
    grad_q: Tensor
    grad_k: Tensor
    grad_v: Tensor


def inputs_for(row: Row, heads: int, width: int) -> list[Tensor]:
    """Random q, k, v and a gradient of the output, float32 [T, H, K]."""
    generator = torch.Generator().manual_seed(len(row.segment))
    return [torch.randn(len(row.segment), heads, width, generator=generator) for _ in range(4)]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segment: Tensor,
    order: Tensor,
    *,
    dropout_p: float = 0.0,
    seed: int = 0,
    backend: str = "auto",
) -> Tensor:
    """Attention over a row that is used once."""
    layout = attention_layout(
        segment,
        order,
        dtype=q.dtype,
        head_width=q.shape[-1],
        dropout_p=dropout_p,
        backend=backend,
    )
    return attention(q, k, v, layout, dropout_p=dropout_p, seed=seed)


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


def result_of(function: Attend, inputs: list[Tensor]) -> Result:
    *qkv, grad = inputs
    leaves = [x.detach().clone().requires_grad_() for x in qkv]
    out = function(*leaves)
    return Result(out.detach(), *torch.autograd.grad(out, leaves, grad))


def run(row: Row, inputs: list[Tensor], backend: str, dtype: torch.dtype) -> Result:
    """``backend`` on ``inputs`` in ``dtype``."""

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, *(x.to(q.device) for x in row.tensors()), backend=backend)

    return result_of(function, [x.to(dtype) for x in inputs])


def assert_as_exact(
    row: Row, inputs: list[Tensor], backend: str, dtype: torch.dtype, slack: float
) -> None:
    """Errors against float64 are at most twice those of the reference in ``dtype``, plus slack."""
    inputs = [x.to(dtype) for x in inputs]  # what is lost by rounding the inputs is nobody's error
    exact = run(row, inputs, "reference", torch.float64)
    reference = run(row, inputs, "reference", dtype)
    found = run(row, inputs, backend, dtype)
    for field in Result._fields:
        error = _error(getattr(found, field), getattr(exact, field))
        allowed = 2 * _error(getattr(reference, field), getattr(exact, field)) + slack
        assert error <= allowed, f"{field}: {error} > {allowed}"


def assert_equal_in_float64(found: Result, exact: Result) -> None:
    for field in Result._fields:
        error = _error(getattr(found, field), getattr(exact, field))
        assert error <= 1e-12, f"{field}: {error}"


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).abs().max()) if exact.numel() else 0.0


@st.composite
def any_rows(draw: st.DrawFn) -> Row:
    """Any segment and any order at any position."""
    length = draw(st.integers(0, 40))
    ids = st.lists(st.integers(PADDING_SEGMENT, 4), min_size=length, max_size=length)
    orders = st.lists(st.integers(-3, 3), min_size=length, max_size=length)
    return Row(draw(ids), draw(orders))


@st.composite
def prefix_rows(draw: st.DrawFn) -> Row:
    """Sources and targets of any number, orders with gaps, positions and padding anywhere."""
    cells = [(PADDING_SEGMENT, 0)] * draw(st.integers(0, 6))
    for segment in draw(st.lists(st.integers(0, 99), max_size=5, unique=True)):
        lowest = draw(st.integers(-5, 5))
        above = draw(st.lists(st.integers(1, 50), max_size=12, unique=True))
        sources = [lowest] * draw(st.integers(1, 12))
        cells += [(segment, order) for order in sources + [lowest + step for step in above]]
    cells = draw(st.permutations(cells)) if draw(st.booleans()) else cells
    return Row([segment for segment, _ in cells], [order for _, order in cells])
