"""Packed attention: every backend against the specification in float64, and what the mask promises.

Legend: T positions · H heads · K head width
"""

import logging
import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from unimo_kernels.attention import PADDING_SEGMENT, attention, attention_layout
from unimo_kernels.dispatch import choose_backend


class Row(NamedTuple):
    """Who is in a row, position by position."""

    segment: list[int]
    order: list[int]


def _row(*parts: tuple[int, int], padding: int = 0) -> Row:
    """Segments of (prefix, target) positions, then padding."""
    segment, order = [], []
    for i, (prefix, target) in enumerate(parts):
        segment += [i] * (prefix + target)
        order += [0] * prefix + list(range(1, target + 1))
    return Row(segment + [PADDING_SEGMENT] * padding, order + [0] * padding)


def _shuffled(row: Row) -> Row:
    at = torch.randperm(len(row.segment), generator=torch.Generator().manual_seed(3)).tolist()
    return Row([row.segment[i] for i in at], [row.order[i] for i in at])


ROWS = {
    "T0-nothing": _row(),
    "T5-padding-only": _row(padding=5),
    "T1-one-word": _row((1, 0)),
    "T48-equal-bidirectional": _row((16, 0), (16, 0), (16, 0)),
    "T60-ragged-bidirectional": _row((1, 0), (17, 0), (31, 0), (2, 0), padding=9),
    "T64-causal": _row((0, 33), (0, 31)),
    "T97-prefix-lm": _row((20, 7), (1, 30), (0, 12), (9, 5), padding=13),
    "T97-scattered-segments": _shuffled(_row((20, 7), (1, 30), (0, 12), (9, 5), padding=13)),
    "T257-many": _row(*[(3 + i % 7, i % 4) for i in range(36)], padding=3),
}


class Result(NamedTuple):
    """An output and its gradients."""

    out: Tensor
    grad_q: Tensor
    grad_k: Tensor
    grad_v: Tensor


def _inputs(row: Row, heads: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(len(row.segment))
    return [torch.randn(len(row.segment), heads, width, generator=generator) for _ in range(4)]


def _tensors(row: Row) -> tuple[Tensor, Tensor]:
    return torch.tensor(row.segment, dtype=torch.int32), torch.tensor(row.order, dtype=torch.int32)


def _run(row: Row, inputs: list[Tensor], backend: str, dtype: torch.dtype) -> Result:
    *qkv, grad = (x.to(dtype) for x in inputs)
    leaves = [x.requires_grad_() for x in qkv]
    out = attention(*leaves, *_tensors(row), backend=backend)
    return Result(out.detach(), *torch.autograd.grad(out, leaves, grad))


def _error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).abs().max()) if exact.numel() else 0.0


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("heads, width", [(1, 32), (3, 64)], ids=["H1-K32", "H3-K64"])
@pytest.mark.parametrize("name", ROWS)
def test_sdpa_is_as_exact_as_the_reference(
    name: str, heads: int, width: int, dtype: torch.dtype
) -> None:
    row, inputs = ROWS[name], _inputs(ROWS[name], heads, width)
    inputs = [x.to(dtype) for x in inputs]  # what is lost by rounding the inputs is nobody's error
    exact = _run(row, inputs, "reference", torch.float64)
    reference = _run(row, inputs, "reference", dtype)
    found = _run(row, inputs, "sdpa", dtype)
    # Backends that keep the softmax in half precision round once more than the reference does.
    slack = 1e-5 if dtype == torch.float32 else 2e-2
    for field in Result._fields:
        error = _error(getattr(found, field), getattr(exact, field))
        allowed = 2 * _error(getattr(reference, field), getattr(exact, field)) + slack
        assert error <= allowed, f"{field}: {error} > {allowed}"


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_a_position_sees_its_own_segment_up_to_its_own_order(backend: str) -> None:
    row = ROWS["T97-scattered-segments"]
    q, k, v, _ = _inputs(row, 2, 8)
    out = attention(q, k, v, *_tensors(row), backend=backend)
    for i, (segment, order) in enumerate(zip(*row, strict=True)):
        seen = [
            j
            for j in range(len(row.segment))
            if segment != PADDING_SEGMENT and row.segment[j] == segment and row.order[j] <= order
        ]
        scores_HJ = torch.einsum("hk,jhk->hj", q[i], k[seen]) / math.sqrt(8)
        expected_HK = torch.einsum("hj,jhk->hk", scores_HJ.softmax(-1), v[seen])
        torch.testing.assert_close(out[i], expected_HK, atol=1e-5, rtol=1e-5)


def test_sdpa_never_reads_padding() -> None:
    row = ROWS["T97-prefix-lm"]
    inputs = _inputs(row, 2, 8)
    clean = _run(row, inputs, "sdpa", torch.float32)
    poisoned = [x.clone() for x in inputs]
    for x in poisoned:
        x[torch.tensor(row.segment) == PADDING_SEGMENT] = math.nan
    for field, found in zip(
        Result._fields, _run(row, poisoned, "sdpa", torch.float32), strict=True
    ):
        assert torch.equal(found, getattr(clean, field)), field
        assert not found[torch.tensor(row.segment) == PADDING_SEGMENT].any()


def test_a_shared_layout_changes_nothing() -> None:
    row = ROWS["T257-many"]
    q, k, v, _ = _inputs(row, 2, 8)
    layout = attention_layout(*_tensors(row))
    shared = attention(q, k, v, *_tensors(row), backend="sdpa", layout=layout)
    assert torch.equal(shared, attention(q, k, v, *_tensors(row), backend="sdpa"))


def test_a_usual_row_wastes_little_and_masks_only_where_it_must() -> None:
    lengths = [15 + i * 45 // 99 for i in range(100)]
    usual = attention_layout(*_tensors(_row(*[(n, 0) for n in lengths])))
    assert len(usual.slot_position) <= 1.2 * sum(lengths)
    assert len(usual.buckets) <= 8
    equal = attention_layout(*_tensors(_row((40, 0), (40, 0), (12, 0), padding=7)))
    assert [(b.segments, b.length, b.mask) for b in equal.buckets] == [(2, 40, None), (1, 12, None)]


def test_the_references_dropout_is_keyed_by_the_seed() -> None:
    row = ROWS["T48-equal-bidirectional"]
    q, k, v, _ = _inputs(row, 2, 8)

    def drop(seed: int) -> Tensor:
        return attention(q, k, v, *_tensors(row), dropout_p=0.3, seed=seed, backend="reference")

    assert torch.equal(drop(5), drop(5))
    assert not torch.equal(drop(5), drop(6))


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_dropout_keeps_the_mean(backend: str) -> None:
    torch.manual_seed(0)
    row = _row(*[(16, 0)] * 8)
    q, k, _, _ = _inputs(row, 8, 8)
    ones = torch.ones_like(q)
    outs = [
        attention(q, k, ones, *_tensors(row), dropout_p=0.2, seed=i, backend=backend)
        for i in range(20)
    ]
    weights_kept = torch.stack(outs)
    assert float(weights_kept.std()) > 0.05
    assert float(weights_kept.mean()) == pytest.approx(1.0, abs=0.02)


def test_shapes_that_do_not_fit_are_refused() -> None:
    q = torch.zeros(4, 2, 8)
    four = torch.zeros(4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"\[4, 2, 8\], \[3, 2, 8\], \[4, 2, 8\]"):
        attention(q, q[:3], q, four, four)
    with pytest.raises(ValueError, match=r"segment and order \[4\].*\[4\] and \[3\]"):
        attention(q, q, q, four, four[:3])


def test_an_unknown_backend_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    q, four = torch.zeros(4, 2, 8), torch.zeros(4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"'fast' \(argument\), known are auto, reference, sdpa"):
        attention(q, q, q, four, four, backend="fast")
    monkeypatch.setenv("UNIMO_ATTENTION", "fastest")
    with pytest.raises(ValueError, match=r"'fastest' \(UNIMO_ATTENTION\)"):
        attention(q, q, q, four, four)
    attention(q, q, q, four, four, backend="sdpa")  # the argument wins over the variable


def test_the_choice_is_argument_then_variable_then_automatic_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def choose(requested: str) -> str:
        return choose_backend(
            "operation", requested, variable="UNIMO_TEST", known=("a", "b", "c"), automatic="c"
        )

    monkeypatch.delenv("UNIMO_TEST", raising=False)
    with caplog.at_level(logging.INFO):
        assert choose("auto") == "c"
        monkeypatch.setenv("UNIMO_TEST", "b")
        assert [choose("auto"), choose("auto"), choose("a")] == ["b", "b", "a"]
    said = [record.getMessage() for record in caplog.records]
    assert said == [
        "operation runs on backend c (auto)",
        "operation runs on backend b (UNIMO_TEST)",
        "operation runs on backend a (argument)",
    ]
