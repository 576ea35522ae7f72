"""NaN and infinity in the similarity matrix: into every operand, through tiles, out of every sum.

Legend: M rows · N columns · D width
"""

import math

import pytest
import torch
from torch import Tensor

from unimo_kernels import similarity_chunked
from unimo_kernels.similarity import (
    check_operands,
    differentiable,
    load_backend,
    similarity_logsumexp,
)
from unimo_kernels.similarity_types import Operands

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
VALUES = {"nan": math.nan, "inf": math.inf}
PLACES = {  # in one row or column of 40 and 37, which three tiles of the interpreter hold
    "a": (0, (33, 2)),
    "b": (1, (3, 0)),
    "scale": (4, ()),
    "log_weight_a": (5, (7,)),
    "log_weight_b": (6, (36,)),
}
NAMES = ("rows.all", "rows.positive", "columns.all", "columns.positive")
NAMES += ("grad a", "grad b", "grad scale", "grad log_weight_a", "grad log_weight_b")

pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the interpreter's, about NaN


def _operands(scale: float = 3.0) -> Operands:
    """Rows 0 to 8 have a positive each, the others none; ids need 64 bits."""
    generator = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator) / 2

    groups = torch.arange(40) << 33, (torch.arange(37) << 33).where(torch.arange(37) < 9, -1)
    values = torch.tensor(scale), normal(40), normal(37)
    a, b = (torch.nn.functional.normalize(normal(n, 8), dim=1) for n in (40, 37))
    return Operands(a, b, *groups, *values)


def _run(operands: Operands, backend: str) -> dict[str, Tensor]:
    """Every sum and every gradient of the contrastive loss of what has a positive."""
    device = DEVICE if backend == "triton" else "cpu"
    leaves = [x.detach().clone().to(device) for x in operands]
    held = check_operands(*leaves[:4], *(x.requires_grad_() for x in leaves[4:]))
    held = held._replace(a=leaves[0].requires_grad_(), b=leaves[1].requires_grad_())
    rows, columns = differentiable(load_backend(backend, held), held, both=True)
    seen = slice(0, 9)
    loss = sum((x.all - x.positive)[seen].sum() for x in (rows, columns))
    grads = torch.autograd.grad(loss, [leaves[i] for i in (0, 1, 4, 5, 6)])
    outputs = (*rows, *columns, *grads)
    return {name: x.detach().cpu() for name, x in zip(NAMES, outputs, strict=True)}


def _assert_nothing_hidden(found: dict[str, Tensor], exact: dict[str, Tensor]) -> None:
    broken = 0
    for name, best in exact.items():
        at = best.isnan() | (best == math.inf)
        at |= (best == -math.inf) & name.startswith("grad")  # among sums it means nothing summed
        assert not found[name][at].isfinite().any(), f"{name} hides it"
        broken += int(at.sum())
    assert broken


@pytest.fixture
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(similarity_chunked.TILE, "cpu", 16)


CASES = [(place, value, 3.0) for place in PLACES for value in VALUES]
CASES += [(place, value, 200.0) for place in "ab" for value in VALUES]


@pytest.mark.parametrize("place, value, scale", CASES)
@pytest.mark.parametrize("backend", ["chunked", "triton"])
def test_it_comes_out_of_every_sum_and_gradient_of_the_reference(
    backend: str, place: str, value: str, scale: float, small_tiles: None
) -> None:
    operands, (operand, at) = _operands(scale), PLACES[place]
    operands[operand][at] = VALUES[value]
    _assert_nothing_hidden(_run(operands, backend), _run(operands, "reference"))


@pytest.mark.parametrize("backend", ["reference", "chunked", "triton"])
def test_a_gradient_that_comes_back_broken_stays_so(backend: str, small_tiles: None) -> None:
    for value in (math.nan, math.inf):
        operands = _operands()
        leaves = [x.to(DEVICE if backend == "triton" else "cpu") for x in operands]
        a, b = (x.requires_grad_() for x in leaves[:2])
        found = similarity_logsumexp(a, b, *leaves[2:4], scale=2.0, backend=backend)
        upstream = torch.ones_like(found.all)
        upstream[11] = value
        grad_a, grad_b = torch.autograd.grad(found.all, (a, b), upstream)
        assert not grad_a[11].isfinite().any()
        assert not grad_b.isfinite().any()
