"""Row-wise log-sum-exps of a similarity matrix: the blocks against the specification in float64.

Legend: M rows · N columns · D width
"""

import math
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

import unimo_kernels.similarity
from unimo_kernels.similarity import similarity_logsumexp


class Result(NamedTuple):
    """Both outputs and all gradients."""

    lse_all: Tensor
    lse_positive: Tensor
    grad_a: Tensor
    grad_b: Tensor
    grad_scale: Tensor
    grad_weight: Tensor


SHAPES = [(1, 1, 8), (5, 9, 8), (33, 17, 64), (7, 0, 8), (0, 7, 8), (0, 0, 8)]


def _groups(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    # Some rows have several positives, some one, some none.
    return torch.arange(rows) % 5, torch.arange(columns) * 2 % 7


def _inputs(rows: int, columns: int, width: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(rows * 100 + columns)
    a, b = (torch.randn(n, width, generator=generator) for n in (rows, columns))
    weight = torch.randn(columns, generator=generator)
    return [a, b, torch.tensor([1.7]), weight, *torch.randn(2, rows, generator=generator)]


def _run(inputs: list[Tensor], backend: str, dtype: torch.dtype) -> Result:
    a, b, scale, weight, grad_all, grad_positive = (x.to(dtype) for x in inputs)
    leaves = [x.requires_grad_() for x in (a, b, scale, weight)]
    outputs = similarity_logsumexp(
        a, b, *_groups(len(a), len(b)), scale=scale, log_weight_b=weight, backend=backend
    )
    grads = torch.autograd.grad(outputs, leaves, [grad_all, grad_positive])
    return Result(*(x.detach() for x in outputs), *grads)


def _error(found: Tensor, exact: Tensor) -> float:
    assert torch.equal(found == -math.inf, exact == -math.inf)
    finite = exact != -math.inf
    return float((found.double() - exact)[finite].abs().max()) if finite.any() else 0.0


@pytest.mark.parametrize("rows_per_block", [1, 3, 100], ids=lambda n: f"block{n}")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}".format(*s))
def test_chunked_is_as_exact_as_the_reference(
    shape: tuple[int, int, int], rows_per_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        unimo_kernels.similarity, "CHUNK_ELEMENTS", rows_per_block * max(1, shape[1])
    )
    inputs = _inputs(*shape)
    exact = _run(inputs, "reference", torch.float64)
    reference = _run(inputs, "reference", torch.float32)
    found = _run(inputs, "chunked", torch.float32)
    for field in Result._fields:
        error = _error(getattr(found, field), getattr(exact, field))
        allowed = 2 * _error(getattr(reference, field), getattr(exact, field)) + 1e-5
        assert error <= allowed, f"{field}: {error} > {allowed}"


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_it_is_the_formula(backend: str) -> None:
    a, b, scale, weight, *_ = _inputs(5, 9, 8)
    group_a, group_b = _groups(5, 9)
    found = similarity_logsumexp(
        a, b, group_a, group_b, scale=scale, log_weight_b=weight, backend=backend
    )
    for i in range(5):
        scores = [1.7 * float(a[i] @ b[j]) + float(weight[j]) for j in range(9)]
        same = [s for j, s in enumerate(scores) if group_a[i] == group_b[j]]
        expected_all = math.log(sum(map(math.exp, scores)))
        expected_positive = math.log(sum(map(math.exp, same))) if same else -math.inf
        assert float(found[0][i]) == pytest.approx(expected_all, abs=1e-4)
        assert float(found[1][i]) == pytest.approx(expected_positive, abs=1e-4)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
@pytest.mark.parametrize("rows, columns", [(3, 4), (3, 0), (0, 4)], ids=lambda n: str(n))
def test_a_sum_over_nothing_is_minus_infinity_without_gradient(
    rows: int, columns: int, backend: str
) -> None:
    a = torch.randn(rows, 8, requires_grad=True)
    b = torch.randn(columns, 8, requires_grad=True)
    scale = torch.ones((), requires_grad=True)
    nobody = torch.arange(rows) + 100
    lse_all, lse_positive = similarity_logsumexp(
        a, b, nobody, torch.arange(columns), scale=scale, backend=backend
    )
    assert bool((lse_positive == -math.inf).all())
    assert bool(((lse_all == -math.inf) == (columns == 0)).all())
    grads = torch.autograd.grad(lse_positive.sum(), [a, b, scale])
    assert all(bool((grad == 0).all()) for grad in grads)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_scores_beyond_the_range_of_exp_stay_exact(backend: str) -> None:
    a = torch.eye(3) * 100
    lse_all, lse_positive = similarity_logsumexp(
        a, a, torch.arange(3), torch.arange(3), scale=10.0, backend=backend
    )
    torch.testing.assert_close(lse_all, torch.full((3,), 100_000.0))
    torch.testing.assert_close(lse_positive, lse_all)


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_half_precision_inputs_are_summed_in_float32(backend: str) -> None:
    a, b, *_ = _inputs(5, 9, 8)
    a, b = a.bfloat16().requires_grad_(), b.bfloat16()
    groups = _groups(5, 9)
    lse_all, _ = similarity_logsumexp(a, b, *groups, scale=2.0, backend=backend)
    exact, _ = similarity_logsumexp(a.double(), b.double(), *groups, scale=2.0)
    assert lse_all.dtype == torch.float32
    assert float((lse_all - exact).abs().max().detach()) < 1e-5
    assert torch.autograd.grad(lse_all.sum(), a)[0].dtype == torch.bfloat16


def test_the_matrix_is_not_kept_for_the_backward() -> None:
    saved: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        saved.append(tensor.numel())
        return tensor

    a, b = torch.randn(64, 4, requires_grad=True), torch.randn(96, 4, requires_grad=True)
    groups = torch.arange(64), torch.arange(96)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        similarity_logsumexp(a, b, *groups, scale=1.0, backend="chunked")
    assert max(saved) < 64 * 96
    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        similarity_logsumexp(a, b, *groups, scale=1.0, backend="reference")
    assert max(saved) >= 64 * 96  # which the specification does keep


def test_what_does_not_fit_is_refused() -> None:
    a, b = torch.zeros(3, 8), torch.zeros(4, 8)
    groups = torch.arange(3), torch.arange(4)
    with pytest.raises(ValueError, match=r"\[3, 8\] and \[4, 7\]"):
        similarity_logsumexp(a, b[:, :7], *groups, scale=1.0)
    with pytest.raises(ValueError, match=r"group_a \[3\] and group_b \[4\], not \[3\] and \[3\]"):
        similarity_logsumexp(a, b, groups[0], groups[0], scale=1.0)
    with pytest.raises(ValueError, match=r"one scale, not \[2\]"):
        similarity_logsumexp(a, b, *groups, scale=torch.ones(2))
    with pytest.raises(ValueError, match=r"log_weight_b is \[3\], b has 4 rows"):
        similarity_logsumexp(a, b, *groups, scale=1.0, log_weight_b=torch.zeros(3))
    with pytest.raises(ValueError, match="known are auto, reference, chunked"):
        similarity_logsumexp(a, b, *groups, scale=1.0, backend="sdpa")
