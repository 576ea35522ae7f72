"""Packed attention: what every backend promises, what is refused, and which backend runs.

Legend: T positions · H heads · K head width
"""

import importlib.util
import logging
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.kernels.packed_rows import ROWS, assert_as_exact, attend, inputs_for, packed
from unimo_kernels.attention import AUTOMATIC, BACKENDS, attention, attention_layout
from unimo_kernels.attention_flash import flash_form
from unimo_kernels.dispatch import announce
from unimo_kernels.philox import keep_mask

ON_CPU = ["reference", "sdpa", "flex"]
WITH_BACKWARD_ON_CPU = ["reference", "sdpa"]

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_position_sees_its_own_segment_up_to_its_own_order(backend: str) -> None:
    row = ROWS["T97-scattered-segments"]
    q, k, v, _ = inputs_for(row, 2, 8)
    out = attend(q, k, v, *row.tensors(), backend=backend)
    for i, (segment, order) in enumerate(zip(*row, strict=True)):
        if row.padding()[i]:
            assert not out[i].any()
            continue
        seen = [
            j
            for j in range(len(row.segment))
            if row.segment[j] == segment and row.order[j] <= order
        ]
        scores_HJ = torch.einsum("hk,jhk->hj", q[i], k[seen]) / math.sqrt(8)
        expected_HK = torch.einsum("hj,jhk->hk", scores_HJ.softmax(-1), v[seen])
        torch.testing.assert_close(out[i], expected_HK, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("name", ["T97-scattered-segments", "T5-padding-only"])
def test_nothing_is_read_from_padding(name: str, backend: str) -> None:
    row = ROWS[name]
    inputs = inputs_for(row, 2, 8)[:3]
    poisoned = [x.clone() for x in inputs]
    for x in poisoned:
        x[row.padding()] = math.nan
    out = attend(*poisoned, *row.tensors(), backend=backend)
    assert torch.equal(out, attend(*inputs, *row.tensors(), backend=backend))
    assert not out[row.padding()].any()


@pytest.mark.parametrize("backend", WITH_BACKWARD_ON_CPU)
@pytest.mark.parametrize("name", ["T97-scattered-segments", "T5-padding-only"])
def test_no_gradient_passes_through_padding(name: str, backend: str) -> None:
    row = ROWS[name]
    q, k, v, grad = (x.double() for x in inputs_for(row, 2, 8))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    clean = torch.autograd.grad(
        attend(*leaves, *row.tensors(), backend=backend), leaves, grad, retain_graph=True
    )
    for x in (q, k, v, grad):
        x.data[row.padding()] = math.nan
    found = torch.autograd.grad(attend(*leaves, *row.tensors(), backend=backend), leaves, grad)
    for x, expected in zip(found, clean, strict=True):
        assert torch.equal(x, expected)
        assert not x[row.padding()].any()


@pytest.mark.parametrize("backend", ON_CPU)
def test_a_row_without_positions_gives_none(backend: str) -> None:
    row = ROWS["T0-nothing"]
    q, k, v, _ = inputs_for(row, 2, 8)
    out = attend(q, k, v, *row.tensors(), backend=backend)
    assert out.shape == (0, 2, 8)


@pytest.mark.parametrize("backend", [*ON_CPU, "triton"])
def test_autocast_changes_nothing(backend: str) -> None:
    row = ROWS["T97-prefix-lm"]
    q, k, v, _ = inputs_for(row, 2, 32)
    with torch.autocast("cpu", torch.bfloat16):
        out = attend(q, k, v, *row.tensors(), backend=backend)
    assert out.dtype == torch.float32
    assert torch.equal(out, attend(q, k, v, *row.tensors(), backend=backend))


def test_a_seed_may_be_any_whole_number() -> None:
    row = ROWS["T48-equal-bidirectional"]
    q, k, v, _ = inputs_for(row, 1, 32)
    outs = [
        attend(q, k, v, *row.tensors(), dropout_p=0.3, seed=seed, backend="triton")
        for seed in (5, torch.tensor(5))
    ]
    assert torch.equal(*outs)
    with pytest.raises(ValueError, match=r"whole seed .* not 5\.0"):
        attend(q, k, v, *row.tensors(), seed=5.0)


def test_the_reference_drops_what_the_specification_drops() -> None:
    row = ROWS["T97-scattered-segments"]
    q, k, *_ = (x.double() for x in inputs_for(row, 3, 8))
    seed, p = 2**40 + 77, 0.3
    # With the unit vectors for values the output is the weights.
    ones = torch.eye(len(row.segment), dtype=torch.double)[:, None].expand(-1, 3, -1)
    wide = [torch.nn.functional.pad(x, (0, ones.shape[-1] - 8)) for x in (q, k)]
    whole, dropped = (
        attend(*wide, ones, *row.tensors(), dropout_p=x, seed=seed, backend="reference")
        for x in (0.0, p)
    )
    threshold = round(256 * p)
    kept_HTT = keep_mask(seed, 3, len(row.segment), p)
    expected = whole.transpose(0, 1) * kept_HTT * 256 / (256 - threshold)
    torch.testing.assert_close(dropped.transpose(0, 1), expected, atol=1e-15, rtol=1e-12)
    assert not torch.equal(
        dropped,
        attend(*wide, ones, *row.tensors(), dropout_p=p, seed=seed - 2**40, backend="reference"),
    )


@pytest.mark.parametrize("backend", WITH_BACKWARD_ON_CPU)
def test_dropout_keeps_the_mean(backend: str) -> None:
    torch.manual_seed(0)
    row = packed(*[(16, 0)] * 8)
    q, k, _, _ = inputs_for(row, 8, 8)
    ones = torch.ones_like(q)
    outs = [
        attend(q, k, ones, *row.tensors(), dropout_p=0.2, seed=i, backend=backend)
        for i in range(20)
    ]
    weights_kept = torch.stack(outs)
    assert float(weights_kept.std()) > 0.05
    assert float(weights_kept.mean()) == pytest.approx(1.0, abs=0.02)


def _attend(change: dict[str, Any]) -> Tensor:
    q = torch.zeros(4, 2, 8)
    four = torch.zeros(4, dtype=torch.int32)
    arguments = {"q": q, "k": q, "v": q, "segment": four, "order": four} | change
    return attend(**arguments)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": torch.zeros(3, 2, 8)}, r"\[4, 2, 8\], \[3, 2, 8\], \[4, 2, 8\]"),
        ({"v": torch.zeros(4, 2, 8).half()}, r"one dtype, not .*float32, .*float32, .*float16"),
        ({"order": torch.zeros(3).int()}, r"segment and order \[T\], not \[4\] and \[3\]"),
        ({"k": torch.zeros(4, 2, 8, device="meta")}, r"one device, not cpu, meta, cpu"),
        ({"order": torch.zeros(4, device="meta").int()}, r"order on one device, not cpu and meta"),
        ({"dropout_p": 1.0}, r"dropout_p 1.0 is no probability from 0 to below 1"),
        ({"dropout_p": -0.1}, r"dropout_p -0.1 is no probability"),
        ({"seed": -1}, r"seed from 0 to below 2\*\*63, not -1"),
        ({"seed": 2**63}, r"seed from 0 to below 2\*\*63, not 9223372036854775808"),
        ({"backend": "fast"}, r"'fast' \(argument\), known are auto, reference, sdpa, flash_attn"),
        ({"backend": "flash_attn"}, r"flash_attn needs CUDA tensors, not cpu: use backend sdpa"),
        ({"backend": "flex", "dropout_p": 0.1}, r"flex has no dropout, dropout_p is 0.1: set it"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_run_is_refused_with_its_remedy(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _attend(change)


@pytest.mark.parametrize("backend", ["reference", "sdpa", "triton"])
def test_a_second_derivative_is_right_or_refused(backend: str) -> None:
    """``out.sum()`` hands down a gradient that requires none: nothing else may look like it."""
    row = ROWS["T48-equal-bidirectional"]
    leaves = [x.requires_grad_() for x in inputs_for(row, 1, 32)[:3]]
    refusal = {
        "sdpa": "not implemented|not differentiable",  # torch's own
        "triton": "attention on triton has no second derivative, and its gradient was asked for",
    }

    def penalty() -> Tensor:
        out = attend(*leaves, *row.tensors(), backend=backend)
        grads = torch.autograd.grad(out.sum(), leaves, create_graph=True)
        return sum((x.square().sum() for x in grads), torch.zeros(()))

    if backend in refusal:
        with pytest.raises(RuntimeError, match=refusal[backend]):
            penalty().backward()
    else:
        penalty().backward()
        assert all(x.grad is not None and x.grad.any() for x in leaves)


@pytest.mark.parametrize("backend", ["reference", "triton"])
def test_dropout_that_would_drop_nothing_is_refused_or_goes_to_who_can(
    backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = ROWS["T48-equal-bidirectional"].tensors()
    case = {"dtype": torch.float32, "head_width": 32, "dropout_p": 0.0015}
    with pytest.raises(ValueError, match=r"0.0015 rounds to 0/256 and would drop no weight: the "):
        attention_layout(*row, **case, backend=backend)
    monkeypatch.setitem(AUTOMATIC, "cpu", (backend, "sdpa"))
    monkeypatch.delenv("UNIMO_ATTENTION", raising=False)
    assert attention_layout(*row, **case).backend == "sdpa"
    layout = attention_layout(*row, **case | {"dropout_p": 0.1}, backend=backend)
    q = torch.zeros(48, 1, 32)
    with pytest.raises(ValueError, match=r"0\.0001 rounds to 0/256"):
        attention(q, q, q, layout, dropout_p=0.0001)


def test_sdpa_drops_as_little_as_it_is_asked_to() -> None:
    row = ROWS["T48-equal-bidirectional"]
    q, k, _, _ = inputs_for(row, 400, 32)
    torch.manual_seed(0)
    out = attend(q, k, torch.ones_like(q), *row.tensors(), dropout_p=0.001, backend="sdpa")
    assert 0 < float((out < 0.9999).double().mean()) < 0.05


def test_triton_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("triton"):
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        with pytest.raises(ValueError, match=r"needs CUDA tensors, not cpu: .*TRITON_INTERPRET=1"):
            _attend({"backend": "triton"})
        monkeypatch.setenv("TRITON_INTERPRET", "1")
        with pytest.raises(ValueError, match="head widths 32, 64, 128, not 8: use backend sdpa"):
            _attend({"backend": "triton"})
        double = torch.zeros(4, 2, 32).double()
        with pytest.raises(ValueError, match=r"float32.*, not torch.float64: use backend sdpa"):
            _attend({"backend": "triton", "q": double, "k": double, "v": double})
    monkeypatch.setattr("unimo_kernels.attention.has_triton", lambda: False)
    with pytest.raises(ValueError, match="triton, which is not installed: install it"):
        _attend({"backend": "triton"})


def test_the_variable_is_asked_where_the_argument_is_auto(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNIMO_ATTENTION", "fastest")
    with pytest.raises(ValueError, match=r"'fastest' \(UNIMO_ATTENTION\)"):
        _attend({})
    _attend({"backend": "sdpa"})  # the argument wins over the variable
    monkeypatch.setenv("UNIMO_ATTENTION", "flash_attn")
    with pytest.raises(ValueError, match="flash_attn needs CUDA tensors"):
        _attend({})


def test_a_cpu_gets_sdpa_and_it_is_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("UNIMO_ATTENTION", raising=False)
    announce.cache_clear()
    with caplog.at_level(logging.INFO):
        for _ in range(3):
            _attend({})
    assert [r.getMessage() for r in caplog.records] == ["attention runs on backend sdpa (auto)"]


def _automatic(row: str, dtype: torch.dtype, width: int) -> str:
    layout = attention_layout(*ROWS[row].tensors(), dtype=dtype, head_width=width)
    return layout.backend


def test_auto_goes_on_to_the_next_backend(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A CPU is treated like CUDA here: what is at stake is the order and the falling through."""
    monkeypatch.delenv("UNIMO_ATTENTION", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setitem(AUTOMATIC, "cpu", AUTOMATIC["cuda"])
    triton = "triton" if importlib.util.find_spec("triton") else "sdpa"
    assert _automatic("T97-prefix-lm", torch.float16, 64) == triton  # flash refuses the CPU
    monkeypatch.setattr("unimo_kernels.attention_flash.check_capability", lambda *of: None)
    monkeypatch.setattr("torch.backends.cuda.is_flash_attention_available", lambda: True)
    monkeypatch.setattr("unimo_kernels.attention.check_flash", _as_if_on_cuda)
    announce.cache_clear()
    with caplog.at_level(logging.INFO):
        assert _automatic("T97-prefix-lm", torch.float16, 64) == "flash_attn"
    assert caplog.messages == [
        f"attention runs on backend flash_attn through {flash_form()} (auto)"
    ]
    assert _automatic("T97-prefix-lm", torch.bfloat16, 48) == "flash_attn"
    assert _automatic("T97-prefix-lm", torch.float32, 64) == triton
    assert _automatic("T97-prefix-lm", torch.float32, 48) == "sdpa"
    assert _automatic("T97-prefix-lm", torch.float64, 64) == "sdpa"
    ties = torch.tensor([0, 1, 1])
    for width, expected in ((64, triton), (48, "sdpa")):
        layout = attention_layout(ties * 0, ties, dtype=torch.float16, head_width=width)
        assert layout.backend == expected
    with pytest.raises(ValueError, match="order 1 stands more than once in segment 0"):
        attention_layout(ties * 0, ties, dtype=torch.float16, head_width=64, backend="flash_attn")


def _as_if_on_cuda(device: torch.device, dtype: torch.dtype, head_width: int) -> None:
    from unimo_kernels.attention_flash import check_flash

    check_flash(torch.device("cuda"), dtype, head_width)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("backend", [b for b in BACKENDS if b != "reference"])
@pytest.mark.parametrize("name", ROWS)
def test_every_backend_agrees_with_the_reference_on_a_gpu(name: str, backend: str) -> None:
    inputs = [x.cuda() for x in inputs_for(ROWS[name], 3, 64)]
    # Their softmax is rounded to half precision once more than the reference's.
    assert_as_exact(ROWS[name], inputs, backend, torch.float16, slack=1e-2)
