"""Log-sum-exps of a similarity matrix: the tiles against the specification in float64.

Legend: M rows · N columns · D width
"""

import math
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from unimo_kernels import similarity_chunked
from unimo_kernels.similarity import (
    check_operands,
    differentiable,
    load_backend,
    similarity_logsumexp,
    similarity_logsumexp_reference,
)

INF = math.inf
OUTPUTS = ("rows.all", "rows.positive", "columns.all", "columns.positive")
LEAVES = ("a", "b", "scale", "log_weight_a", "log_weight_b")
SHAPES = [(1, 1, 8), (5, 9, 8), (33, 17, 64), (7, 0, 8), (0, 7, 8), (0, 0, 8)]
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
BOTH = pytest.mark.parametrize("backend", ["reference", "chunked"])


class Case(NamedTuple):
    """What a matrix is computed from, and the gradients to its log-sum-exps."""

    a: Tensor
    b: Tensor
    scale: Tensor
    log_weight_a: Tensor
    log_weight_b: Tensor
    group_a: Tensor
    group_b: Tensor
    upstream: list[Tensor]

    def to(self, dtype: torch.dtype) -> "Case":
        return Case(*(x.to(dtype) for x in self[:5]), *self[5:7], [x.to(dtype) for x in self[7]])


def make_case(rows: int, columns: int, width: int = 8, groups: int = 5, seed: int = 0) -> Case:
    """Random values; with few groups some rows have several positives, some one, some none."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    group_a, group_b = (torch.randint(groups, (n,), generator=generator) for n in (rows, columns))
    upstream = [normal(n) for n in (rows, rows, columns, columns)]
    a, b = normal(rows, width) / width**0.25, normal(columns, width) / width**0.25
    values = a, b, torch.tensor(1.7), normal(rows)
    return Case(*values, normal(columns), group_a * 7, group_b * 7, upstream)


def run(case: Case, backend: str, both: bool = True) -> dict[str, Tensor]:
    """Every output and every gradient by name."""
    leaves = [x.detach().clone().requires_grad_() for x in case[:5]]
    a, b, scale, log_weight_a, log_weight_b = leaves
    found = similarity_logsumexp(
        a,
        b,
        case.group_a,
        case.group_b,
        scale=scale,
        log_weight_a=log_weight_a,
        log_weight_b=log_weight_b,
        both_directions=both,
        backend=backend,
    )
    outputs = [lse for direction in found for lse in direction] if both else list(found)
    upstream = [grad.to(out.dtype) for grad, out in zip(case.upstream, outputs, strict=False)]
    grads = torch.autograd.grad(outputs, leaves, upstream, allow_unused=not both)
    named = dict(zip(OUTPUTS, (out.detach() for out in outputs), strict=False))
    return named | {f"grad {k}": g for k, g in zip(LEAVES, grads, strict=True) if g is not None}


def error(found: Tensor, exact: Tensor) -> float:
    assert not found.isnan().any() and found.shape == exact.shape
    assert torch.equal(found == -INF, exact == -INF)
    finite = exact != -INF
    return float((found.double() - exact)[finite].abs().max()) if finite.any() else 0.0


def assert_as_exact_as_the_reference(case: Case, both: bool = True, slack: float = 1e-5) -> None:
    exact = run(case.to(torch.float64), "reference", both)
    reference, found = (run(case, backend, both) for backend in ("reference", "chunked"))
    for name in exact:
        allowed = 2 * error(reference[name], exact[name]) + slack
        assert error(found[name], exact[name]) <= allowed, name


@pytest.mark.parametrize("both", [True, False], ids=["both", "rows"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("tile", [1, 4, 1024], ids=lambda n: f"tile{n}")
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}".format(*s))
def test_tiles_are_as_exact_as_the_reference(shape, tile, dtype, both, monkeypatch):
    monkeypatch.setitem(similarity_chunked.TILE, "cpu", tile)
    assert_as_exact_as_the_reference(make_case(*shape).to(DTYPES[dtype]), both)


@settings(derandomize=True, deadline=None, max_examples=150)
@given(
    rows=st.integers(0, 12),
    columns=st.integers(0, 12),
    tile=st.integers(1, 8),
    groups=st.integers(1, 20),
    scale=st.sampled_from([-3.0, 0.0, 0.5, 14.3, 100.0]),
    hidden_a=st.sets(st.integers(0, 11)),
    hidden_b=st.sets(st.integers(0, 11)),
    seed=st.integers(0, 2**32),
)
def test_any_matrix_is_that_of_the_reference(
    rows, columns, tile, groups, scale, hidden_a, hidden_b, seed
):
    case = make_case(rows, columns, groups=groups, seed=seed)
    case = case._replace(scale=torch.tensor(scale, dtype=torch.float64))
    for weight, hidden in ((case.log_weight_a, hidden_a), (case.log_weight_b, hidden_b)):
        weight[[i for i in hidden if i < len(weight)]] = -INF
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(similarity_chunked.TILE, "cpu", tile)
        found, exact = run(case, "chunked"), run(case, "reference")
    for name in exact:
        assert error(found[name], exact[name]) <= 1e-10, name


@BOTH
def test_it_is_the_formula(backend):
    case = make_case(5, 9)
    found = run(case, backend)
    products = (case.scale * case.a @ case.b.T).tolist()
    weight_a, weight_b = case.log_weight_a.tolist(), case.log_weight_b.tolist()

    def check(name, i, terms):
        expected = math.log(sum(map(math.exp, terms))) if terms else -INF
        assert float(found[name][i]) == pytest.approx(expected, abs=1e-12)

    same = (case.group_a[:, None] == case.group_b).tolist()
    for i in range(5):
        terms = [s + w for s, w in zip(products[i], weight_b, strict=True)]
        check("rows.all", i, terms)
        check("rows.positive", i, [t for t, p in zip(terms, same[i], strict=True) if p])
    for j in range(9):
        terms = [products[i][j] + weight_a[i] for i in range(5)]
        check("columns.all", j, terms)
        check("columns.positive", j, [t for i, t in enumerate(terms) if same[i][j]])


@BOTH
def test_columns_are_the_rows_of_the_matrix_turned_around(backend):
    case = make_case(6, 4)
    there = run(case, backend)
    back = similarity_logsumexp(
        case.b,
        case.a,
        case.group_b,
        case.group_a,
        scale=case.scale,
        log_weight_b=case.log_weight_a,
        backend=backend,
    )
    torch.testing.assert_close(back.all, there["columns.all"])
    torch.testing.assert_close(back.positive, there["columns.positive"])


@pytest.mark.parametrize("form", ["specification", "reference", "chunked"])
def test_gradients_are_those_of_finite_differences(form):
    case = make_case(4, 5, width=3, groups=1)
    leaves = [x.clone().requires_grad_() for x in case.to(torch.float64)[:5]]

    def outputs(a, b, scale, *weights):
        operands = check_operands(a, b, case.group_a, case.group_b, scale, *weights)
        if form == "specification":
            found = similarity_logsumexp_reference(operands, True)
        else:
            found = differentiable(load_backend(form, operands), operands, both=True)
        return *found.rows, *found.columns

    assert torch.autograd.gradcheck(outputs, leaves)


@BOTH
@pytest.mark.parametrize("hidden", [slice(2, 4), slice(None)], ids=["some", "all"])
def test_padding_changes_nothing_and_gets_nothing(backend, hidden):
    case = make_case(5, 6, groups=2).to(torch.float32)
    case.log_weight_a[hidden], case.log_weight_b[hidden] = -INF, -INF
    for i, weight in enumerate((case.log_weight_a, case.log_weight_b)):
        for grad in case.upstream[2 * i : 2 * i + 2]:
            grad[weight == -INF] = 0  # nobody asks about padding itself
    found = run(case, backend)
    assert not any(x.isnan().any() for x in found.values())
    seen_a, seen_b = case.log_weight_a != -INF, case.log_weight_b != -INF
    without = Case(
        case.a[seen_a],
        case.b[seen_b],
        case.scale,
        case.log_weight_a[seen_a],
        case.log_weight_b[seen_b],
        case.group_a[seen_a],
        case.group_b[seen_b],
        [x[seen] for x, seen in zip(case.upstream, [seen_a] * 2 + [seen_b] * 2, strict=True)],
    )
    for name, expected in run(without, backend).items():
        side = seen_a if name.startswith("rows") or name.endswith("a") else seen_b
        kept = found[name] if name == "grad scale" else found[name][side]
        torch.testing.assert_close(kept, expected, msg=name)
        if name.startswith("grad") and name != "grad scale":
            assert (found[name][~side] == 0).all(), name


@BOTH
@pytest.mark.parametrize("rows, columns", [(3, 4), (3, 0), (0, 4)])
def test_a_sum_over_nothing_is_minus_infinity_without_gradient(rows, columns, backend):
    case = make_case(rows, columns)
    case = case._replace(group_a=case.group_a + 1)  # between those of b, never one of them
    for i in (1, 3):
        case.upstream[i].fill_(math.nan)  # as losses of -inf tend to make it
    for i in (0, 2):
        case.upstream[i].zero_()
    found = run(case, backend)
    assert (found["rows.positive"] == -INF).all() and (found["columns.positive"] == -INF).all()
    assert ((found["rows.all"] == -INF) == (columns == 0)).all()
    assert ((found["columns.all"] == -INF) == (rows == 0)).all()
    assert all((found[f"grad {name}"] == 0).all() for name in LEAVES)


@BOTH
def test_positives_far_below_the_maximum_keep_their_own(backend):
    # Temperature 0.01: the positives lie 200 below the highest score, the next case 20,000.
    for scale in (100.0, 10_000.0):
        a = torch.tensor([[1.0, 0.0], [-1.0, 0.0]], requires_grad=True)
        groups = torch.tensor([0, 1]), torch.tensor([1, 0])
        rows, columns = similarity_logsumexp(
            a, a.detach(), *groups, scale=scale, both_directions=True, backend=backend
        )
        for lse in (rows, columns):
            assert lse.all.tolist() == [scale, scale]
            assert lse.positive.tolist() == [-scale, -scale]
        grad = torch.autograd.grad((rows.all - rows.positive).sum(), a)[0]
        assert grad.tolist() == [[2 * scale, 0.0], [-2 * scale, 0.0]]


def test_small_temperatures_are_as_exact_as_the_reference(monkeypatch):
    monkeypatch.setitem(similarity_chunked.TILE, "cpu", 7)
    case = make_case(30, 40, width=16).to(torch.float32)
    a, b = (torch.nn.functional.normalize(x, dim=1) for x in case[:2])
    b[:10] = a[:10]  # scores of 100 beside those of others
    for temperature in (0.07, 0.01):
        scale = torch.tensor(1 / temperature)
        # Logits and gradients carry the factor scale, hence so does what is allowed.
        assert_as_exact_as_the_reference(
            case._replace(a=a, b=b, scale=scale), slack=1e-5 * float(scale)
        )


@BOTH
@pytest.mark.parametrize("wanted", LEAVES)
@pytest.mark.parametrize("output", range(4), ids=OUTPUTS)
def test_one_gradient_of_one_output_is_that_of_all_together(backend, wanted, output):
    case = make_case(4, 6, groups=2)
    chosen = [grad * (i == output) for i, grad in enumerate(case.upstream)]
    expected = run(case._replace(upstream=chosen), backend)[f"grad {wanted}"]
    given = {name: getattr(case, name).clone() for name in LEAVES}
    given[wanted].requires_grad_()
    groups = {"group_a": case.group_a, "group_b": case.group_b}
    rows, columns = similarity_logsumexp(**given, **groups, both_directions=True, backend=backend)
    lse = (*rows, *columns)[output]
    if lse.requires_grad:
        grad = torch.autograd.grad(lse, given[wanted], case.upstream[output])[0]
        torch.testing.assert_close(grad, expected)
    else:
        assert (expected == 0).all()


@BOTH
def test_half_precision_is_summed_in_float32_whatever_autocast_says(backend):
    case = make_case(5, 9).to(torch.bfloat16)
    outside = run(case, backend)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = run(case, backend)
    assert outside["rows.all"].dtype == torch.float32
    assert outside["grad a"].dtype == torch.bfloat16
    # The backward of the specification is autograd's own, which autocast reaches.
    for name in outside if backend == "chunked" else OUTPUTS:
        assert torch.equal(inside[name], outside[name]), name
    exact = run(case.to(torch.float64), backend)
    for name in OUTPUTS:
        assert error(outside[name], exact[name]) < 1e-5


def test_autocast_reaches_no_backend():
    case = make_case(5, 9).to(torch.float32)
    operands = check_operands(*case[:2], *case[5:7], *case[2:5])
    leaf = operands.a.requires_grad_()
    plain = load_backend("reference", operands)  # its products are those that autocast casts

    def grad_and_lse() -> tuple[Tensor, Tensor]:
        lse = differentiable(plain, operands, both=False).rows.all
        return torch.autograd.grad(lse.sum(), leaf)[0], lse

    outside = grad_and_lse()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = grad_and_lse()
    assert all(map(torch.equal, inside, outside))


@BOTH
def test_results_are_the_same_to_the_bit_every_time(backend):
    case = make_case(70, 90, width=16).to(torch.float32)
    first, second = run(case, backend), run(case, backend)
    assert all(torch.equal(first[name], second[name]) for name in first)
