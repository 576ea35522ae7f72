"""Attention in padded buckets: as exact as the reference, and little of it is blank."""

import pytest
import torch
from hypothesis import given, settings

from tests.kernels.packed_rows import (
    ROWS,
    Row,
    any_rows,
    assert_as_exact,
    assert_equal_in_float64,
    inputs_for,
    packed,
    run,
)
from unimo_kernels.attention_sdpa import sdpa_layout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("heads, width", [(1, 32), (3, 64)], ids=["H1-K32", "H3-K64"])
@pytest.mark.parametrize("name", ROWS)
def test_sdpa_is_as_exact_as_the_reference(
    name: str, heads: int, width: int, dtype: torch.dtype
) -> None:
    # Backends that keep the softmax in half precision round once more than the reference does.
    slack = 1e-5 if dtype == torch.float32 else 2e-2
    assert_as_exact(ROWS[name], inputs_for(ROWS[name], heads, width), "sdpa", dtype, slack)


@settings(max_examples=40, derandomize=True, deadline=None)
@given(any_rows())
def test_sdpa_is_the_reference_on_any_row(row: Row) -> None:
    inputs = inputs_for(row, 2, 4)
    exact = run(row, inputs, "reference", torch.float64)
    assert_equal_in_float64(run(row, inputs, "sdpa", torch.float64), exact)


def test_a_usual_row_wastes_little_and_masks_only_where_it_must() -> None:
    lengths = [15 + i * 45 // 99 for i in range(100)]
    usual = sdpa_layout(*packed(*[(n, 0) for n in lengths]).tensors())
    assert len(usual.to_slots.rows) <= 1.2 * sum(lengths)
    assert len(usual.buckets) <= 8
    equal = sdpa_layout(*packed((40, 0), (40, 0), (12, 0), padding=7).tensors())
    assert [(b.segments, b.length, b.mask) for b in equal.buckets] == [(2, 40, None), (1, 12, None)]
