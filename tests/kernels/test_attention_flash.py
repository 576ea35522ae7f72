"""Prefix-LM in two variable-length calls: exact on a CPU with a plain kernel, then the real ones.

Legend: T positions · H heads · K head width
"""

import math
import sys
from types import ModuleType

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from tests.kernels.packed_rows import (
    ROWS,
    Row,
    assert_as_exact,
    assert_equal_in_float64,
    attend,
    inputs_for,
    packed,
    prefix_rows,
    result_of,
    run,
    shuffled,
)
from unimo_kernels.attention_flash import (
    ATEN,
    PACKAGE,
    Call,
    FlashLayout,
    _kernel,
    aten_varlen,
    attention_flash,
    check_flash,
    flash_form,
    flash_layout,
)

MIXES = ROWS | {
    "T19-one-target": packed((5, 1), (12, 0), (1, 0)),
    "T14-one-source": packed((1, 1), (1, 4), (1, 6)),
    "T27-causal-only": packed((0, 1), (0, 9), (0, 17)),
    "T33-padding-in-the-middle": Row(
        [0] * 8 + [-1] * 5 + [2] * 9 + [-1] + [1] * 10,
        [0, 0, 0, 0, 1, 2, 3, 4]
        + [7] * 5
        + [0] * 8
        + [3, 9]
        + [-2, -2, -2, 5, 6, 8, 9, 20, 21, 30],
    ),
    "T61-padding-first": Row([-1] * 3 + [4] * 58, [0] * 3 + [0] * 30 + list(range(1, 29))),
}


def plain_varlen(q: Tensor, k: Tensor, v: Tensor, call: Call, dropout_p: float) -> Tensor:
    """What the kernels compute, sequence by sequence; causal is aligned at the last key."""
    assert dropout_p == 0
    starts_q, starts_k = (s.starts.tolist() for s in (call.sequences_q, call.sequences_k))
    assert (starts_q[-1], starts_k[-1]) == (len(q), len(k))
    outputs = []
    for i in range(len(starts_q) - 1):
        q_THK = q[starts_q[i] : starts_q[i + 1]]
        k_THK, v_THK = (x[starts_k[i] : starts_k[i + 1]] for x in (k, v))
        assert 0 < len(q_THK) <= call.sequences_q.longest
        assert len(q_THK) <= len(k_THK) <= call.sequences_k.longest
        scores = torch.einsum("ihk,jhk->hij", q_THK, k_THK) / math.sqrt(q.shape[-1])
        if call.causal:
            seen = torch.ones(scores.shape[1:], dtype=torch.bool).tril(len(k_THK) - len(q_THK))
            scores = scores.masked_fill(~seen, -math.inf)
        outputs.append(torch.einsum("hij,jhk->ihk", scores.softmax(-1), v_THK))
    return torch.cat(outputs)


def _layout(row: Row) -> FlashLayout:
    return flash_layout(*row.tensors())


def _assert_exact(row: Row, heads: int, width: int) -> None:
    layout, inputs = _layout(row), [x.double() for x in inputs_for(row, heads, width)]
    exact = run(row, inputs, "reference", torch.float64)

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_flash(q, k, v, layout, 0.0, plain_varlen)

    assert_equal_in_float64(result_of(function, inputs), exact)
    for x in inputs:
        x[row.padding()] = math.nan
    assert_equal_in_float64(result_of(function, inputs), exact)


@pytest.mark.parametrize("name", MIXES)
def test_two_calls_are_the_reference_and_never_read_padding(name: str) -> None:
    _assert_exact(MIXES[name], 3, 16)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(prefix_rows())
def test_two_calls_are_the_reference_on_any_prefix_row(row: Row) -> None:
    _assert_exact(row, 2, 4)


@pytest.mark.parametrize(
    "name, causal",
    [
        ("T0-nothing", []),
        ("T5-padding-only", []),
        ("T60-ragged-bidirectional", [False]),
        ("T64-causal", [True]),
        ("T19-one-target", [False, True]),
        ("T14-one-source", [True]),
        ("T97-prefix-lm", [False, True]),
    ],
)
def test_a_row_takes_no_more_calls_than_it_must(name: str, causal: list[bool]) -> None:
    assert [call.causal for call in _layout(MIXES[name]).calls] == causal


def test_only_segments_with_targets_are_read_for_targets() -> None:
    _, targets = _layout(packed((5, 1), (12, 0), (3, 2))).calls
    assert targets.part_q.length == 3
    assert targets.part_k.length == 11
    assert targets.sequences_k.starts.tolist() == [0, 6, 11]
    assert targets.sequences_k.longest == 6


@pytest.mark.parametrize("name", ["T60-ragged-bidirectional", "T64-causal", "T14-one-source"])
def test_nothing_is_gathered_where_the_row_lies_right(name: str) -> None:
    layout = _layout(MIXES[name])
    (call,) = layout.calls
    assert call.part_q.move is call.part_k.move is layout.outputs.move is None
    moved = _layout(shuffled(MIXES[name]))
    assert moved.outputs.move is not None


def test_orders_that_two_calls_cannot_express_are_refused_by_name() -> None:
    segment = torch.tensor([7, 7, 7, 7, 2, 2])
    order = torch.tensor([0, 4, 4, 5, 1, 1])  # two lowest ones are sources, in any number
    with pytest.raises(ValueError, match=r"order 4 stands more than once in segment 7.*triton"):
        flash_layout(segment, order)
    flash_layout(segment, torch.tensor([0, 4, 3, 5, 1, 1]))


@pytest.mark.parametrize(
    "device, dtype, width, message",
    [
        ("cpu", torch.float16, 64, "needs CUDA tensors, not cpu: use backend sdpa"),
        ("cuda", torch.float32, 64, "takes float16 and bfloat16, not torch.float32"),
        ("cuda", torch.float16, 264, "head widths up to 256 .* multiples of 8, not 264"),
        ("cuda", torch.float16, 60, "head widths up to 256 .* multiples of 8, not 60"),
        ("cuda", torch.float16, 64, r"needs compute capability 8.0, cuda has 7.5"),
    ],
    ids=["cpu", "fp32", "wide", "odd", "old"],
)
def test_where_the_kernels_do_not_run_it_is_said(
    device: str, dtype: torch.dtype, width: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    with pytest.raises(ValueError, match=message):
        check_flash(torch.device(device), dtype, width)


def test_a_torch_without_the_kernels_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    if flash_form() != ATEN:
        pytest.skip("flash-attn is installed")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("torch.backends.cuda.is_flash_attention_available", lambda: False)
    with pytest.raises(ValueError, match="built without FlashAttention; install the extra `gpu`"):
        check_flash(torch.device("cuda"), torch.bfloat16, 64)
    monkeypatch.setattr("torch.backends.cuda.is_flash_attention_available", lambda: True)
    check_flash(torch.device("cuda"), torch.bfloat16, 64)


def test_torchs_operator_has_the_arguments_and_the_derivative_that_are_used() -> None:
    q, k, v = (torch.empty(6, 2, 64, device="meta", dtype=torch.half) for _ in range(3))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    (call,) = _layout(packed((4, 0), (2, 0))).calls
    out = aten_varlen(*leaves, call, 0.1)
    assert out.shape == q.shape
    grads = torch.autograd.grad(out, leaves, torch.empty_like(out))
    assert [x.shape for x in grads] == [q.shape] * 3


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("width", [64, 128], ids=["K64", "K128"])
@pytest.mark.parametrize("name", MIXES)
def test_flash_is_as_exact_as_the_reference(name: str, width: int, dtype: torch.dtype) -> None:
    inputs = [x.cuda() for x in inputs_for(MIXES[name], 3, width)]
    # The softmax is rounded to half precision once more than in the reference.
    slack = 1e-2 if dtype == torch.float16 else 6e-2
    assert_as_exact(MIXES[name], inputs, "flash_attn", dtype, slack)


@pytest.mark.gpu
@needs_cuda
def test_dropout_is_replayed_from_torchs_generator_and_keeps_the_mean() -> None:
    row = packed(*[(20, 12)] * 8)
    q, k, _, _ = (x.cuda().bfloat16() for x in inputs_for(row, 8, 64))
    segment, order = (x.cuda() for x in row.tensors())

    def drop(seed: int) -> Tensor:
        torch.manual_seed(seed)
        ones = torch.ones_like(q)
        return attend(q, k, ones, segment, order, dropout_p=0.2, backend="flash_attn")

    assert torch.equal(drop(1), drop(1))
    assert not torch.equal(drop(1), drop(2))
    outs = torch.stack([drop(i).float() for i in range(20)])
    assert float(outs.std()) > 0.05
    assert float(outs.mean()) == pytest.approx(1.0, abs=0.02)


class _Package(torch.autograd.Function):
    """As those of flash-attn: the backward fills a buffer that autograd knows nothing of."""

    @staticmethod
    def forward(ctx, q, k, v):
        return 2 * q + k + v

    @staticmethod
    def backward(ctx, grad):
        return (2 * grad).detach(), grad.detach(), grad.detach()


def test_the_gradient_of_the_package_is_no_constant_in_silence(monkeypatch) -> None:
    package = ModuleType("flash_attn")
    package.flash_attn_varlen_func = lambda q, k, v, **_: _Package.apply(q, k, v)
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    _kernel.cache_clear()
    try:
        assert flash_form() == PACKAGE
        row = ROWS["T48-equal-bidirectional"]
        leaves = [x.requires_grad_() for x in inputs_for(row, 1, 32)[:3]]
        out = attention_flash(*leaves, flash_layout(*row.tensors()), 0.0)
        torch.autograd.grad(out.sum(), leaves, retain_graph=True)
        with pytest.raises(RuntimeError, match="attention on flash_attn has no second derivative"):
            torch.autograd.grad(out.sum(), leaves, create_graph=True)
    finally:
        _kernel.cache_clear()
