"""Our attention kernels against the specification; in the interpreter where there is no GPU.

Legend: T positions · H heads · K head width
"""

import math

import pytest
import torch
from hypothesis import given, settings
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels.packed_rows import (
    ROWS,
    Result,
    Row,
    any_rows,
    attend,
    inputs_for,
    packed,
    prefix_rows,
    result_of,
    shuffled,
)
from unimo_kernels import attention_triton, attention_triton_backward
from unimo_kernels.attention_triton_ops import Tiles

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LONG = {
    "T203-one-text": packed((200, 0), padding=3),
    "T320-pairs": packed((100, 60), (100, 60)),
    "T291-causal": packed((0, 270), padding=21),
    "T260-mixed-scattered": shuffled(packed((100, 30), (60, 0), (0, 50), padding=20)),
}


def _result(
    row: Row, inputs: list[Tensor], backend: str, dtype: torch.dtype, p: float = 0.0, seed: int = 0
) -> Result:
    segment, order = (x.to(DEVICE) for x in row.tensors())

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attend(q, k, v, segment, order, dropout_p=p, seed=seed, backend=backend)

    return result_of(function, [x.to(DEVICE, dtype) for x in inputs])


def _assert_as_exact(
    row: Row, inputs: list[Tensor], dtype: torch.dtype, p: float = 0.0, seed: int = 0
) -> None:
    """Root mean square errors against float64 at most twice the reference's, single ones 4 times.

    The reference rounds its results to ``dtype`` once; kernels round weights before they multiply.
    """
    inputs = [x.to(dtype) for x in inputs]
    exact = _result(row, inputs, "reference", torch.float64, p, seed)
    reference = _result(row, inputs, "reference", dtype, p, seed)
    found = _result(row, inputs, "triton", dtype, p, seed)
    for field, x, near, best in zip(Result._fields, found, reference, exact, strict=True):
        if best.numel():
            off, allowed = x.double() - best, near.double() - best
            assert off.square().mean().sqrt() <= 2 * allowed.square().mean().sqrt() + 1e-5, field
            assert off.abs().max() <= 4 * allowed.abs().max() + 1e-5, field


LARGE, SMALL = Tiles(128, 64, 4, 1), Tiles(64, 32, 4, 1)


@pytest.fixture(params=[(90, LARGE), (80, SMALL)], ids=["descriptors-128x64", "pointers-64x32"])
def target(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter both ways to load and both sizes of tiles; a GPU keeps its own."""
    if DEVICE == "cuda":
        if request.param[0] == 80:
            pytest.skip("a GPU runs what it is made for")
        return
    capability, size = request.param
    monkeypatch.setattr(attention_triton, "capability", lambda device: capability)
    for module in (attention_triton, attention_triton_backward):
        monkeypatch.setattr(module, "tiles", lambda *kind, backward: size)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ROWS)
def test_kernels_are_as_exact_as_the_reference(name: str, dtype: str, target: None) -> None:
    _assert_as_exact(ROWS[name], inputs_for(ROWS[name], 2, 64), DTYPES[dtype])


@pytest.mark.parametrize("width, dtype", [(32, "fp32"), (64, "bf16"), (128, "fp16")])
@pytest.mark.parametrize("name", LONG)
def test_rows_of_many_blocks_are_as_exact(name: str, width: int, dtype: str, target: None) -> None:
    _assert_as_exact(LONG[name], inputs_for(LONG[name], 1, width), DTYPES[dtype])


@pytest.mark.parametrize("p, seed", [(0.1, 7), (0.5, 2**40 + 3)], ids=["p0.1", "p0.5-long-seed"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dropout_is_the_references_in_forward_and_backward(
    dtype: str, p: float, seed: int, target: None
) -> None:
    row = packed((60, 20), (70, 0))  # the second segment lies in two blocks
    _assert_as_exact(row, inputs_for(row, 2, 32), DTYPES[dtype], p, seed)


def test_another_seed_drops_others() -> None:
    row = ROWS["T48-equal-bidirectional"]
    inputs = inputs_for(row, 1, 32)
    once, other = (_result(row, inputs, "triton", torch.float32, 0.1, seed) for seed in (5, 6))
    assert not torch.equal(once.out, other.out)


def _longer(row: Row) -> Row:
    """Over several blocks, all of whose copies see each other."""
    copies = 1 + 129 // max(1, len(row.segment))
    return Row(row.segment * copies, row.order * copies)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(row=any_rows())
def test_any_segments_and_orders_are_right(row: Row) -> None:
    row = _longer(row)
    _assert_as_exact(row, inputs_for(row, 1, 32), torch.float32)


@settings(max_examples=8, deadline=None, derandomize=True)
@given(row=prefix_rows())
def test_any_mix_of_sources_and_targets_is_right(row: Row) -> None:
    row = _longer(row)
    _assert_as_exact(row, inputs_for(row, 1, 32), torch.float32)


def test_ids_of_segments_may_be_any() -> None:
    row = ROWS["T97-prefix-lm"]
    names = {-1: -1, 0: -2, 1: 2**31 - 1, 2: -(2**31), 3: 7}
    renamed = Row([names[i] for i in row.segment], row.order)
    inputs = inputs_for(row, 2, 32)
    for backend in ("triton", "sdpa", "reference"):
        once, again = (_result(r, inputs, backend, torch.float32) for r in (row, renamed))
        for field, x, y in zip(Result._fields, once, again, strict=True):
            torch.testing.assert_close(x, y, atol=1e-6, rtol=1e-6, msg=f"{backend} {field}")


def test_the_same_inputs_give_the_same_bits() -> None:
    # On a GPU; the interpreter is serial, and tests of the compiled code look for atomics.
    row = LONG["T320-pairs"]
    inputs = inputs_for(row, 2, 64)
    once, again = (_result(row, inputs, "triton", torch.float16, 0.1, 5) for _ in range(2))
    for field, x, y in zip(Result._fields, once, again, strict=True):
        assert torch.equal(x, y), field


def test_only_what_was_written_is_read(monkeypatch: pytest.MonkeyPatch, target: None) -> None:
    """Rows behind the inputs hold NaN, and so does all memory that is asked for."""
    row = LONG["T203-one-text"]
    inputs = inputs_for(row, 2, 32)
    clean = _result(row, inputs, "triton", torch.float32, 0.1, 5)
    guarded = [
        torch.cat([x, torch.full((200, *x.shape[1:]), math.nan)]).to(DEVICE)[: len(x)]
        for x in inputs
    ]
    empty_like = torch.empty_like

    def poisoned(x: Tensor, **kwargs: object) -> Tensor:
        return empty_like(x, **kwargs).fill_(math.nan)

    monkeypatch.setattr(torch, "empty_like", poisoned)
    monkeypatch.setattr(
        torch,
        "empty",
        lambda *size, dtype, device: torch.full(size, math.nan, dtype=dtype, device=device),
    )
    segment, order = (x.to(DEVICE) for x in row.tensors())
    *leaves, grad = guarded
    leaves = [x.requires_grad_() for x in leaves]
    out = attend(*leaves, segment, order, dropout_p=0.1, seed=5, backend="triton")
    found = Result(out.detach(), *torch.autograd.grad(out, leaves, grad))
    for field, x, y in zip(Result._fields, found, clean, strict=True):
        assert torch.equal(x, y), field


def test_a_gradient_at_padding_goes_nowhere() -> None:
    row = ROWS["T97-prefix-lm"]
    inputs = inputs_for(row, 2, 32)
    clean = _result(row, inputs, "triton", torch.float32)
    for x in inputs:
        x[row.padding()] = 1e4
    found = _result(row, inputs, "triton", torch.float32)
    for field, x, y in zip(Result._fields, found, clean, strict=True):
        assert torch.equal(x, y), field
        assert not x[row.padding()].any(), field


@pytest.mark.parametrize("spread", ["transposed", "shifted"])
def test_inputs_may_lie_anyhow_in_memory(spread: str) -> None:
    row = ROWS["T97-prefix-lm"]
    inputs = inputs_for(row, 2, 32)
    segment, order = (x.to(DEVICE) for x in row.tensors())
    q, k, v = (x.to(DEVICE) for x in inputs[:3])
    expected = attend(q, k, v, segment, order, backend="triton")
    if spread == "transposed":
        moved = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (q, k, v)]
    else:  # starts 4 bytes behind a multiple of 16
        moved = [torch.cat([x.new_zeros(1), x.flatten()])[1:].view(x.shape) for x in (q, k, v)]
    assert torch.equal(attend(*moved, segment, order, backend="triton"), expected)


def test_nothing_quadratic_is_allocated() -> None:
    class Largest(TorchDispatchMode):
        numel = 0

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            for x in result if isinstance(result, (tuple, list)) else [result]:
                if isinstance(x, Tensor):
                    self.numel = max(self.numel, x.numel())
            return result

    row = packed((700, 0), (0, 68))
    inputs = inputs_for(row, 1, 32)
    with Largest() as largest:
        _result(row, inputs, "triton", torch.float16)
    assert largest.numel < 768 * 768 / 8
