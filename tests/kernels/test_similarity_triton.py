"""Our similarity kernels against the specification; in the interpreter where there is no GPU.

Legend: M rows · N columns · D width
"""

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from unimo_kernels import similarity_triton, similarity_triton_launch
from unimo_kernels.similarity import check_operands, differentiable, load_backend
from unimo_kernels.similarity_types import Gradients, Lse, Operands, Statistics

INF = math.inf
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
SHAPES = [(1, 1, 8), (1, 65, 24), (33, 17, 9), (65, 33, 96), (64, 96, 32)]
SHAPES += [(300, 520, 136)] if DEVICE == "cuda" else []
BOTH = pytest.mark.parametrize("both", [True, False], ids=["both", "rows"])
DTYPE = pytest.mark.parametrize("dtype", DTYPES)


def groups_of(kind: str, rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """Numbers of groups far beyond 32 bits, so that none may be cut off."""
    group_a, group_b = {
        "several": (torch.arange(rows) % 5, torch.arange(columns) * 2 % 7),  # some rows have none
        "pairs": (torch.arange(rows), torch.arange(columns)),  # most tiles hold no positive
        "none": (torch.arange(rows) * 2, torch.arange(columns) * 2 + 1),
        "all": (torch.zeros(rows), torch.zeros(columns)),
    }[kind]
    return group_a.long() << 33, group_b.long() << 33


def make(
    rows: int, columns: int, width: int, *, scale: float = 14.0, groups: str = "several"
) -> Operands:
    """Unit vectors in float64, random log-weights, of which some are -inf."""
    generator = torch.Generator().manual_seed(rows * 100 + columns)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a, b = (F.normalize(normal(n, width), dim=1) for n in (rows, columns))
    weight_a, weight_b = normal(rows), normal(columns)
    weight_a[5::7], weight_b[3::5] = -INF, -INF
    values = *groups_of(groups, rows, columns), torch.tensor(scale).double(), weight_a, weight_b
    return Operands(*(x.to(DEVICE) for x in (a, b, *values)))


def cast(operands: Operands, dtype: torch.dtype) -> Operands:
    """As similarity_logsumexp hands it over, with the same values in every precision."""
    a, b, group_a, group_b, *values = operands
    wide = torch.promote_types(dtype, torch.float32)
    return Operands(a.to(dtype), b.to(dtype), group_a, group_b, *(x.to(wide) for x in values))


def upstream_for(operands: Operands, both: bool) -> Statistics:
    generator = torch.Generator().manual_seed(7)

    def side(length: int) -> Lse:
        values = torch.randn(2, length, generator=generator, dtype=torch.float64)
        return Lse(*values.float().to(DEVICE))

    rows, columns = side(len(operands.a)), side(len(operands.b))
    return Statistics(rows, columns if both else None)


def flat(*parts: Any) -> list[Tensor]:
    """All tensors of statistics and gradients."""
    found = []
    for part in parts:
        found += [part] if torch.is_tensor(part) else flat(*(x for x in part if x is not None))
    return found


def through_autograd(operands: Operands, backend: str, both: bool) -> list[Tensor]:
    leaves = [x.detach().clone().requires_grad_(x.is_floating_point()) for x in operands]
    held = check_operands(*leaves[:4], *leaves[4:])
    outputs = flat(differentiable(load_backend(backend, held), held, both))
    upstream = [x.to(outputs[0].dtype) for x in flat(upstream_for(operands, both))]
    upstream = [g.masked_fill(x == -INF, 0) for g, x in zip(upstream, outputs, strict=True)]
    floats = [x for x in leaves if x.is_floating_point()]
    return [x.detach() for x in outputs] + list(torch.autograd.grad(outputs, floats, upstream))


def assert_as_exact(operands: Operands, dtype: torch.dtype, both: bool = True) -> None:
    """Errors against float64 at most twice those of the reference, plus 1e-5.

    For half precision that is meant of root mean squares, single ones may be 4 times as large: the
    reference rounds its gradients once, the kernels round the terms of a sum.
    """
    rounded = cast(operands, dtype)
    exact = through_autograd(cast(rounded, torch.float64), "reference", both)
    near = through_autograd(rounded, "reference", both)
    found = through_autograd(rounded, "triton", both)
    for index, (x, reference, best) in enumerate(zip(found, near, exact, strict=True)):
        assert x.dtype == reference.dtype and x.shape == best.shape
        assert torch.equal(x == -INF, best == -INF), index
        finite = best != -INF
        off, allowed = ((y.double() - best)[finite] for y in (x, reference))
        if off.numel():
            assert off.square().mean().sqrt() <= 2 * allowed.square().mean().sqrt() + 1e-5, index
            single = 2 if dtype == torch.float32 else 4
            assert off.abs().max() <= single * allowed.abs().max() + 1e-5, index


@pytest.fixture(params=["descriptors", "pointers"])
def loads(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the interpreter both ways to load; a GPU keeps its own."""
    if DEVICE == "cuda" and request.param == "pointers":
        pytest.skip("a GPU runs what it is made for")
    if DEVICE == "cpu":
        chosen = request.param == "descriptors"
        monkeypatch.setattr(similarity_triton_launch, "has_descriptors", lambda target: chosen)


@DTYPE
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: "M{}-N{}-D{}".format(*s))
def test_kernels_are_as_exact_as_the_reference(shape: Any, dtype: str, loads: None) -> None:
    assert_as_exact(make(*shape), DTYPES[dtype])


@BOTH
@DTYPE
@pytest.mark.parametrize("scale", [-100.0, 33.0, 100.0, 500.0], ids=lambda s: f"scale{s:g}")
def test_large_and_negative_scales_are_as_exact(scale: float, dtype: str, both: bool) -> None:
    assert_as_exact(make(33, 65, 40, scale=scale), DTYPES[dtype], both)


@BOTH
@pytest.mark.parametrize("scale", [14.0, 100.0], ids=lambda s: f"scale{s:g}")
@pytest.mark.parametrize("groups", ["pairs", "none", "all"])
def test_any_number_of_positives_is_as_exact(groups: str, scale: float, both: bool) -> None:
    assert_as_exact(make(40, 70, 16, scale=scale, groups=groups), torch.float32, both)


@pytest.mark.parametrize("scale", [14.0, 500.0], ids=["one-exponent", "two-exponents"])
def test_positives_far_below_the_others_keep_their_sums(scale: float) -> None:
    operands = make(40, 40, 16, scale=scale, groups="pairs")
    operands.log_weight_b[1::2] = -200.0  # exp(-200) is not a float32
    assert_as_exact(operands, torch.float32)
    found = similarity_triton.statistics(cast(operands, torch.float32), True)
    assert found.rows.positive[1] < -200 + scale


@pytest.mark.parametrize("dtype", ["fp16", "bf16"])
def test_what_differs_little_from_zero_is_not_lost_in_half_precision(dtype: str) -> None:
    """The loss's gradient is tiny, as under a mean over many; so are most of the shares."""
    operands = cast(make(32, 200, 16), DTYPES[dtype])
    operands = operands._replace(log_weight_b=torch.zeros(200, device=DEVICE))
    statistics = similarity_triton.statistics(operands, True)
    upstream = [Lse(*(x * 1e-9 for x in side)) for side in upstream_for(operands, True)]
    found = similarity_triton.gradients(operands, statistics, Statistics(*upstream), True)
    exact = load_backend("reference", operands).gradients(
        operands, statistics, Statistics(*upstream), True
    )
    for x, best in zip(found[:2], exact[:2], strict=True):
        assert float((x - best).norm() / best.norm()) < 2**-8


@pytest.mark.parametrize("shape", [(5, 0, 8), (0, 5, 8), (0, 0, 8)], ids=str)
def test_nothing_has_no_sum_and_no_gradient(shape: Any) -> None:
    operands = cast(make(*shape), torch.float32)
    statistics = similarity_triton.statistics(operands, True)
    assert all(bool((x == -INF).all()) for x in flat(statistics))
    grads = similarity_triton.gradients(operands, statistics, upstream_for(operands, True), True)
    assert [x.shape for x in grads] == [x.shape for x in (*operands[:2], *operands[4:])]
    assert all(bool((x == 0).all()) for x in grads)


@pytest.mark.parametrize("scale", [14.0, 500.0], ids=["one-exponent", "two-exponents"])
def test_where_everything_is_hidden_nothing_passes(scale: float) -> None:
    operands = cast(make(33, 40, 8, scale=scale), torch.float32)
    hidden = torch.full_like(operands.log_weight_b, -INF)
    operands = operands._replace(log_weight_b=hidden)
    statistics = similarity_triton.statistics(operands, False)
    assert all(bool((x == -INF).all()) for x in flat(statistics))
    upstream = upstream_for(operands, False)
    # Second, as for columns of another rank which that rank alone sees, with sums far below.
    low = Lse(*(torch.full_like(x, -1000.0) for x in statistics.rows))
    for lse in (statistics, Statistics(low, None)):
        grads = similarity_triton.gradients(operands, lse, upstream, True)
        assert all(bool((x == 0).all()) for x in grads)


def test_gradients_to_sums_over_nothing_do_not_count() -> None:
    operands = cast(make(33, 40, 8, groups="none"), torch.float32)
    statistics = similarity_triton.statistics(operands, True)
    upstream = Statistics(
        *(Lse(x.all, x.positive * math.nan) for x in upstream_for(operands, True))
    )
    grads = similarity_triton.gradients(operands, statistics, upstream, True)
    assert all(bool(x.isfinite().all()) for x in grads)


@BOTH
@pytest.mark.parametrize("scale", [14.0, 100.0], ids=lambda s: f"scale{s:g}")
def test_parts_of_the_columns_add_up_to_the_whole(scale: float, both: bool) -> None:
    operands = cast(make(40, 70, 16, scale=scale), torch.float32)
    upstream = upstream_for(operands, both)
    whole = similarity_triton.statistics(operands, both)
    expected = similarity_triton.gradients(operands, whole, upstream, True)
    found, row_sums = [], []
    for part in (slice(0, 37), slice(37, 70)):
        b, group, weight = operands.b[part], operands.group_b[part], operands.log_weight_b[part]
        block = operands._replace(b=b, group_b=group, log_weight_b=weight)
        row_sums.append(torch.stack(similarity_triton.statistics(block, both).rows))
        columns = (
            Lse(*(x[part] for x in side)) if side else None
            for side in (whole.columns, upstream.columns)
        )
        lse, grad = (Statistics(x.rows, y) for x, y in zip((whole, upstream), columns, strict=True))
        found.append(similarity_triton.gradients(block, lse, grad, True))
    torch.testing.assert_close(torch.logaddexp(*row_sums), torch.stack(whole.rows))
    joined = Gradients(
        found[0].a + found[1].a,
        torch.cat([found[0].b, found[1].b]),
        found[0].scale + found[1].scale,
        found[0].log_weight_a + found[1].log_weight_a,
        torch.cat([found[0].log_weight_b, found[1].log_weight_b]),
    )
    for x, y in zip(joined, expected, strict=True):
        torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)


def in_nan(x: Tensor) -> Tensor:
    """x with NaN behind each row and behind the last, aligned as descriptors need it."""
    rows, width = x.shape
    around = x.new_full((rows + 40, width + 40 + -width % 8), math.nan)
    around[:rows, :width] = x
    return around[:rows, :width]


@DTYPE
@pytest.mark.parametrize("width", [9, 40], ids=["D9", "D40"])
def test_only_what_was_given_or_written_is_read(
    width: int, dtype: str, loads: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    operands = cast(make(33, 65, width), DTYPES[dtype])
    upstream = upstream_for(operands, True)

    def run(operands: Operands) -> list[Tensor]:
        statistics = similarity_triton.statistics(operands, True)
        return flat(statistics, similarity_triton.gradients(operands, statistics, upstream, True))

    expected = run(operands)
    empty = torch.empty

    def poisoned(*shape: Any, **options: Any) -> Tensor:
        return empty(*shape, **options).fill_(math.nan)

    monkeypatch.setattr(torch, "empty", poisoned)
    found = run(operands._replace(a=in_nan(operands.a), b=in_nan(operands.b)))
    for x, y in zip(found, expected, strict=True):
        assert torch.equal(x, y)


def test_the_same_operands_give_the_same_bits() -> None:
    operands = make(65, 97, 16)
    once, again = (through_autograd(cast(operands, torch.float32), "triton", True) for _ in "ab")
    assert all(torch.equal(x, y) for x, y in zip(once, again, strict=True))


@BOTH
def test_slabs_of_rows_change_nothing_and_bound_memory(
    both: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if DEVICE == "cuda":
        pytest.skip("tiles of a GPU are as large as this matrix")
    operands = make(100, 130, 16)
    sizes, empty = [], torch.empty

    def noted(*shape: Any, **options: Any) -> Tensor:
        tensor = empty(*shape, **options)
        sizes.append(tensor.numel())
        return tensor

    monkeypatch.setattr(similarity_triton_launch, "SLAB_BYTES", 1)
    monkeypatch.setattr(torch, "empty", noted)
    assert_as_exact(operands, torch.float32, both)
    assert max(sizes) < 100 * 130 / 2


def test_gradients_of_log_weights_are_left_out_on_demand() -> None:
    operands = cast(make(33, 65, 16), torch.float32)
    statistics = similarity_triton.statistics(operands, True)
    upstream = upstream_for(operands, True)
    whole = similarity_triton.gradients(operands, statistics, upstream, True)
    less = similarity_triton.gradients(operands, statistics, upstream, False)
    for x, y in zip(whole[:3], less[:3], strict=True):
        torch.testing.assert_close(x, y)
    assert bool((less.log_weight_a == 0).all()) and bool((less.log_weight_b == 0).all())


def test_what_kernels_cannot_take_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    operands = make(3, 4, 8)
    with pytest.raises(ValueError, match=r"not torch\.float64 and torch\.float64: use backend"):
        similarity_triton.statistics(operands, True)
    monkeypatch.setattr(similarity_triton, "interpreted", lambda: False)
    with pytest.raises(ValueError, match="needs CUDA tensors, not cpu"):
        similarity_triton.statistics(cast(Operands(*(x.cpu() for x in operands)), torch.half), True)
