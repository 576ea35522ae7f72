"""NaN and infinity in attention: into every input, out of it, and to nobody who does not see them.

Legend: T positions · H heads · K head width
"""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tests.kernels.packed_rows import ROWS, Result, Row, attend, inputs_for, packed, result_of, run
from tests.kernels.test_attention_flash import plain_varlen
from unimo_kernels.attention_flash import attention_flash, flash_layout

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
ROW = packed((12, 0), (7, 0), (1, 0), (20, 0), padding=4)
BROKEN = 1
"""The segment that holds the value, and the head."""
PLACES = {"q": 0, "k": 1, "v": 2, "the gradient of the output": 3}
VALUES = {"nan": math.nan, "inf": math.inf}

pytestmark = [
    pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),  # the interpreter's, about NaN
]


def _flash(row: Row, inputs: list[Tensor], backend: str, dtype: torch.dtype) -> Result:
    layout = flash_layout(*row.tensors())

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return attention_flash(q, k, v, layout, 0.0, plain_varlen)

    return result_of(function, [x.to(dtype) for x in inputs])


RUNS: dict[str, Callable[[Row, list[Tensor], str, torch.dtype], Result]] = {
    "reference": run,
    "sdpa": run,
    "triton": run,
    "flash_attn": _flash,  # the calls; its kernels need a GPU
}
BACKEND = pytest.mark.parametrize("backend", RUNS)


def _results(row: Row, inputs: list[Tensor], backend: str) -> Result:
    device = DEVICE if backend == "triton" else "cpu"
    found = RUNS[backend](row, [x.to(device) for x in inputs], backend, torch.float32)
    return Result(*(x.cpu() for x in found))


def _with(inputs: list[Tensor], place: str, at: int, value: float) -> list[Tensor]:
    changed = [x.clone() for x in inputs]
    changed[PLACES[place]][at, BROKEN, 3] = value
    return changed


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("place", PLACES)
@BACKEND
def test_it_comes_out_where_it_is_seen_and_nowhere_else(
    backend: str, place: str, value: str
) -> None:
    inputs = inputs_for(ROW, 2, 32)
    clean = _results(ROW, inputs, backend)
    inputs = _with(inputs, place, 15, VALUES[value])
    found, exact = _results(ROW, inputs, backend), _results(ROW, inputs, "reference")
    elsewhere = torch.tensor(ROW.segment) != BROKEN
    assert any(not x.isfinite().all() for x in exact)
    for field, x, best, before in zip(Result._fields, found, exact, clean, strict=True):
        assert not x[~best.isfinite()].isfinite().any(), f"{field} hides it"
        assert torch.equal(x[elsewhere], before[elsewhere]), f"{field} of another segment"
        assert torch.equal(x[:, 1 - BROKEN], before[:, 1 - BROKEN]), f"{field} of another head"


@pytest.mark.parametrize("p", [0.0, 0.4], ids=["p0", "p0.4"])
@pytest.mark.parametrize("backend", ["reference", "sdpa", "triton"])
def test_positions_that_see_it_are_broken_in_a_row_of_prefixes_and_targets(
    backend: str, p: float
) -> None:
    row, at = ROWS["T97-scattered-segments"], 50
    inputs = [x.to(DEVICE) for x in inputs_for(row, 1, 32)]
    segment, order = (x.to(DEVICE) for x in row.tensors())
    same = segment == segment[at]
    sees = same & (order >= order[at])
    inputs[1][at] = math.nan
    out = attend(*inputs[:3], segment, order, dropout_p=p, seed=3, backend=backend)
    assert out[sees].isnan().all()
    assert out[~same].isfinite().all()


@BACKEND
def test_scores_that_are_all_minus_infinity_or_nan_give_no_number(backend: str) -> None:
    """torch's own kernels take such a position for one that sees nobody, and give zeros."""
    inputs = inputs_for(ROW, 2, 32)
    own = torch.tensor(ROW.segment) == BROKEN
    inputs[1][own, :, 3] = -1.0
    inputs[0][15, BROKEN, 3] = math.inf
    inputs[0][19] = math.nan  # alone in its segment
    inputs[1][40:] = -math.inf  # padding
    found = _results(ROW, inputs, backend)
    for at in (15, 19):
        for field, x in zip(Result._fields[:2], found[:2], strict=True):
            assert not x[at, BROKEN].isfinite().any(), field
    assert found.out[~own & (torch.arange(44) != 19)].isfinite().all()


@pytest.mark.parametrize("place", ["q", "k", "v"])
def test_flex_hides_nothing_going_forward(place: str) -> None:
    inputs = inputs_for(ROW, 2, 32)
    for at in (15, 19):
        inputs[PLACES[place]][at, BROKEN] = math.nan
    with torch.no_grad():
        out = attend(*inputs[:3], *ROW.tensors(), backend="flex")
    exact = _results(ROW, inputs, "reference").out
    assert not out[~exact.isfinite()].isfinite().any()
    assert out[40:].eq(0).all()


def test_triton_gives_nan_where_float32_cannot_compute_the_weights_again() -> None:
    """Above 2^16 float32 holds a score to 2^-8; at 1e6 the gradient of v was 5 % off."""
    row = packed((20, 7), (30, 0), padding=3)
    q, k, v, grad = inputs_for(row, 1, 32)
    exact = run(row, [q * 300, k, v, grad], "reference", torch.float64)
    found = run(row, [q.to(DEVICE) * 300, *(x.to(DEVICE) for x in (k, v, grad))], "triton", q.dtype)
    torch.testing.assert_close(found.grad_v.cpu().double(), exact.grad_v, atol=2e-3, rtol=2e-3)
    large = [x.to(DEVICE) for x in (q * 1e6, k, v, grad)]
    found = run(row, large, "triton", torch.float32)
    assert found.out[:57].isfinite().all()
    assert found.grad_q[:57].isnan().all() and found.grad_v[:57].isnan().all()
    assert found.grad_v[57:].eq(0).all()
