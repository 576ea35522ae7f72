"""The similarity matrix of 2 and 4 real ranks against that of one process in float64.

Legend: M rows of a · N rows of b, of all ranks · D width
"""

import functools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from tests.cluster.gloo import run_ranks
from unimo_kernels.similarity import similarity_logsumexp
from unimo_kernels.similarity_across_ranks import EXCHANGES, similarity_logsumexp_across_ranks

WIDTH = 6
OUTPUTS = ("rows.all", "rows.positive", "columns.all", "columns.positive")
SHARED = "grad scale"  # the one leaf that all ranks hold
LEAVES = ("grad a", "grad b", "grad log_weight_a", "grad log_weight_b")


class Case(NamedTuple):
    """How many rows each rank holds, and how they are computed."""

    sizes_a: tuple[int, ...]
    sizes_b: tuple[int, ...]
    dtype: torch.dtype = torch.float64
    backend: str = "chunked"
    hidden_rank: int = -1  # all of its log-weights are -inf
    scale: float = 1.7
    broken: float = 0.0  # stands in the last row of a, on the last rank that has any


CASES = {
    2: {
        "even": Case((4, 4), (3, 3)),
        "uneven": Case((3, 6), (5, 2)),
        "float32": Case((3, 6), (5, 2), torch.float32),
        "bfloat16": Case((3, 6), (5, 2), torch.bfloat16),
        "reference": Case((3, 6), (5, 2), backend="reference"),
        "one-has-no-a": Case((0, 4), (3, 2)),
        "one-has-no-b": Case((3, 4), (0, 4)),
        "one-has-nothing": Case((4, 0), (5, 0)),
        "nobody-has-b": Case((2, 3), (0, 0)),
        "nobody-has-a": Case((0, 0), (2, 3)),
        "nobody-has-anything": Case((0, 0), (0, 0)),
        "one-is-hidden": Case((4, 3), (3, 5), hidden_rank=1),
        "cold": Case((3, 6), (5, 2), scale=100.0),
    },
    4: {
        "uneven": Case((3, 0, 2, 5), (1, 4, 0, 3)),
        "float32": Case((3, 0, 2, 5), (1, 4, 0, 3), torch.float32),
        "reference": Case((3, 1, 2, 5), (1, 4, 2, 3), backend="reference"),
        "one-has-nothing": Case((2, 3, 0, 1), (4, 2, 0, 3)),
        "one-has-everything": Case((0, 5, 0, 0), (0, 0, 6, 0)),
        "one-is-hidden": Case((2, 3, 2, 1), (4, 2, 1, 3), hidden_rank=2),
    },
}

BROKEN = {
    2: {"nan": Case((3, 6), (5, 2), broken=math.nan)},
    4: {"nan": Case((4, 2, 3, 0), (4, 2, 0, 3), torch.float32, broken=math.nan)},
}
BROKEN[2]["inf"] = BROKEN[2]["nan"]._replace(broken=math.inf)


class Whole(NamedTuple):
    """Everything that the ranks hold together, in float64."""

    a: Tensor
    b: Tensor
    log_weight_a: Tensor
    log_weight_b: Tensor
    group_a: Tensor
    group_b: Tensor
    scale: Tensor
    upstream: list[Tensor]  # the gradient of the loss to each output


def make_whole(case: Case) -> Whole:
    generator = torch.Generator().manual_seed(1)
    rows, columns = sum(case.sizes_a), sum(case.sizes_b)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    a, b = normal(rows, WIDTH).to(case.dtype).double(), normal(columns, WIDTH).to(case.dtype)
    if case.broken:
        a[-1, 2] = case.broken
    weights = [normal(rows), normal(columns)]
    for weight, sizes in zip(weights, (case.sizes_a, case.sizes_b), strict=True):
        weight[0:1] = -math.inf
        if case.hidden_rank >= 0:
            weight[own(sizes, case.hidden_rank)] = -math.inf
    # Three groups: positives lie on several ranks, and every anchor has many.
    groups = [torch.randint(3, (n,), generator=generator) for n in (rows, columns)]
    upstream = [normal(n) for n in (rows, rows, columns, columns)]
    scale = torch.tensor(case.scale, dtype=torch.float64)
    return Whole(a, b.double(), *weights, *groups, scale, upstream)


def own(sizes: tuple[int, ...], rank: int) -> slice:
    return slice(sum(sizes[:rank]), sum(sizes[: rank + 1]))


def run(case: Case, whole: Whole, dtype: torch.dtype, call: Any) -> dict[str, np.ndarray]:
    """Every output and gradient of ``call`` on what one process holds."""
    values = (whole.a.to(dtype), whole.b.to(dtype), *whole[2:4], whole.scale)
    leaves = [x.clone().requires_grad_() for x in values]
    a, b, weight_a, weight_b, scale = leaves
    weights = {"log_weight_a": weight_a, "log_weight_b": weight_b}
    rows, columns = call(a, b, *whole[4:6], scale=scale, **weights)
    outputs = (*rows, *columns)
    # Sums over nothing are left out, as a loss over anchors does.
    losses = [
        (torch.where(lse == -math.inf, 0, lse) * grad.to(lse.dtype)).sum()
        for lse, grad in zip(outputs, whole.upstream, strict=True)
    ]
    sum(losses).backward()
    found = dict(zip(OUTPUTS, (lse.detach() for lse in outputs), strict=True))
    found |= {name: leaf.grad for name, leaf in zip((*LEAVES, SHARED), leaves, strict=True)}
    return {name: value.double().numpy() for name, value in found.items()}


def part_of(case: Case, whole: Whole, rank: int) -> Whole:
    """What the rank holds."""
    of_a, of_b = own(case.sizes_a, rank), own(case.sizes_b, rank)
    sides = (of_a, of_b) * 3
    values = [x[side] for x, side in zip(whole[:6], sides, strict=True)]
    upstream = [
        grad[side] for grad, side in zip(whole.upstream, (of_a, of_a, of_b, of_b), strict=True)
    ]
    return Whole(*values, whole.scale, upstream)


def _of_rank(rank: int, world_size: int, results: "mp.Queue") -> None:
    """All cases of this world in one go: starting the ranks is what takes the time."""
    torch.set_num_threads(1)
    found: dict[tuple[str, str], Any] = {}
    for exchange in EXCHANGES:
        across = functools.partial(similarity_logsumexp_across_ranks, exchange=exchange)
        for name, case in (CASES[world_size] | BROKEN[world_size]).items():
            mine = part_of(case, make_whole(case), rank)
            call = functools.partial(across, backend=case.backend)
            found[exchange, name] = run(case, mine, case.dtype, call)
            again = run(case, mine, case.dtype, call)
            for key, value in again.items():
                first = found[exchange, name][key]
                assert np.array_equal(value, first, equal_nan=True), f"{name}: {key} varies"
        found[exchange, "subgroup"] = _in_a_group_of_two(rank, across)
        with pytest.raises(ValueError, match="widths"):
            x, group = torch.zeros(2, 3 + rank), torch.arange(2)
            across(x, x, group, group, scale=1.0)
    results.put((rank, found))


def _in_a_group_of_two(rank: int, across: Any) -> dict[str, np.ndarray]:
    """The last two ranks of the world by themselves; the others get nothing."""
    first = dist.get_world_size() - 2
    group = dist.new_group([first, first + 1])
    if rank < first:
        return {}
    case = CASES[2]["uneven"]
    mine = part_of(case, make_whole(case), rank - first)
    return run(case, mine, case.dtype, functools.partial(across, process_group=group))


@functools.cache
def found_by_ranks(world_size: int) -> list[dict[tuple[str, str], dict[str, np.ndarray]]]:
    return [found for _, found in run_ranks(_of_rank, world_size)]


def joined(world_size: int, exchange: str, name: str) -> dict[str, np.ndarray]:
    """What the ranks found, put together: rows one behind the other, shares of scale summed."""
    ranks = [found[exchange, name] for found in found_by_ranks(world_size)]
    ranks = [found for found in ranks if found]
    whole = {key: np.concatenate([found[key] for found in ranks]) for key in (*OUTPUTS, *LEAVES)}
    return whole | {SHARED: sum(found[SHARED] for found in ranks)}


def error(found: np.ndarray, exact: np.ndarray) -> float:
    assert found.shape == exact.shape and not np.isnan(found).any()
    finite = exact != -math.inf
    assert np.array_equal(found == -math.inf, ~finite)
    return float(np.abs(found[finite] - exact[finite]).max(initial=0.0))


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    "world_size, name", [(world, name) for world in CASES for name in (*CASES[world], "subgroup")]
)
def test_ranks_find_what_one_process_finds(world_size, name, exchange):
    case = CASES[2]["uneven"] if name == "subgroup" else CASES[world_size][name]
    whole = make_whole(case)
    alone = functools.partial(similarity_logsumexp, both_directions=True, backend="reference")
    exact = run(case, whole, torch.float64, alone)
    found = joined(world_size, exchange, name)
    for key, value in exact.items():
        allowed = 1e-10
        if case.dtype != torch.float64:
            reference = run(case, whole, case.dtype, alone)
            allowed = 2 * error(reference[key], value) + 1e-5
        assert error(found[key], value) <= allowed, key


@pytest.mark.parametrize("exchange", EXCHANGES)
@pytest.mark.parametrize(
    "world_size, name", [(world, name) for world in BROKEN for name in BROKEN[world]]
)
def test_nan_and_infinity_reach_all_ranks_that_one_process_gives_them_to(
    world_size, name, exchange
):
    alone = functools.partial(similarity_logsumexp, both_directions=True, backend="reference")
    case = BROKEN[world_size][name]
    exact = run(case, make_whole(case), torch.float64, alone)
    found = joined(world_size, exchange, name)
    assert np.isnan(exact["columns.all"]).any() and np.isnan(exact["grad b"]).all()
    for key, value in exact.items():
        assert not np.isfinite(found[key][~np.isfinite(value)]).any(), key


@pytest.mark.parametrize("world_size", CASES)
def test_gather_and_ring_differ_by_rounding_only(world_size):
    for name, case in CASES[world_size].items():
        if case.dtype == torch.float64:
            gathered, ring = (joined(world_size, exchange, name) for exchange in EXCHANGES)
            for key in gathered:
                assert error(ring[key], gathered[key]) <= 1e-11, (name, key)


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_one_process_computes_its_own_matrix_to_the_bit(exchange):
    case = CASES[2]["uneven"]
    whole = make_whole(case)
    across = functools.partial(similarity_logsumexp_across_ranks, exchange=exchange)
    alone = functools.partial(similarity_logsumexp, both_directions=True)
    found, expected = (run(case, whole, torch.float32, call) for call in (across, alone))
    assert all(np.array_equal(found[key], expected[key]) for key in expected)


def test_an_unknown_exchange_is_refused():
    x, group = torch.zeros(2, 3), torch.arange(2)
    with pytest.raises(ValueError, match="unknown exchange 'mail', known are gather, ring"):
        similarity_logsumexp_across_ranks(x, x, group, group, scale=1.0, exchange="mail")
