"""The layout of a row: it holds the row, whatever its whole numbers are, and belongs to its case.

Legend: T positions · H heads · K head width
"""

from typing import Any

import pytest
import torch

from tests.kernels.packed_rows import ROWS, Row, attend, inputs_for
from unimo_kernels.attention import attention, attention_layout

BACKENDS = ["reference", "sdpa", "flex", "triton"]

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.mark.parametrize("backend", BACKENDS[:3])
def test_a_shared_layout_changes_nothing(backend: str) -> None:
    row = ROWS["T270-many"]
    q, k, v, _ = inputs_for(row, 2, 32)
    layout = attention_layout(*row.tensors(), dtype=q.dtype, head_width=32, backend=backend)
    assert layout.backend == backend
    shared = attention(q, k, v, layout)
    assert torch.equal(shared, attend(q, k, v, *row.tensors(), backend=backend))


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layout_of_another_row_is_refused(backend: str) -> None:
    row, other = ROWS["T97-prefix-lm"], ROWS["T270-many"]
    q, k, v, _ = inputs_for(row, 2, 32)
    layout = attention_layout(*other.tensors(), dtype=q.dtype, head_width=32, backend=backend)
    with pytest.raises(ValueError, match="97 positions on cpu and a layout for 270 on cpu"):
        attention(q, k, v, layout)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_layout_holds_its_row(backend: str) -> None:
    """Whatever becomes of the tensors it was built from, as in a buffer that is filled again."""
    row = ROWS["T97-prefix-lm"]
    q, k, v, _ = inputs_for(row, 2, 32)
    segment, order = row.tensors()
    layout = attention_layout(segment, order, dtype=q.dtype, head_width=32, backend=backend)
    once = attention(q, k, v, layout)
    segment.copy_(torch.arange(97) // 50)
    order.copy_(torch.arange(97))
    assert torch.equal(attention(q, k, v, layout), once)
    assert not torch.equal(attend(q, k, v, segment, order, backend=backend), once)


LARGE = {
    "mod-2**32": ({0: 5, 1: 5 + 2**32, 2: 5 - 2**32, 3: 2**40}, {}),
    "like-padding": ({0: 2**32 - 1, 1: -(2**32) - 1, 2: 2**63 - 1, 3: -(2**63)}, {}),
    "orders": ({}, {i: 2**31 - 32 + i if i < 31 else 2**32 + i for i in range(64)}),
}
"""What other numbers ids and orders get; they stay as different and as far up."""


@pytest.mark.parametrize("change", LARGE)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ids_and_orders_may_be_any_whole_numbers(backend: str, change: str) -> None:
    row = ROWS["T97-prefix-lm"]
    ids, orders = LARGE[change]
    large = (
        torch.tensor([ids.get(i, i) for i in row.segment]),
        torch.tensor([orders.get(i, i) for i in row.order]),
    )
    q, k, v, _ = inputs_for(row, 2, 32)
    expected = attend(q, k, v, *row.tensors(), backend=backend)
    assert torch.equal(attend(q, k, v, *large, backend=backend), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_highest_order_there_is_sees_no_padding(backend: str) -> None:
    segment = torch.tensor([0] * 20 + [-1] * 5, dtype=torch.int32)
    order = torch.full((25,), 2**31 - 1, dtype=torch.int32)
    q, k, v, _ = inputs_for(Row([0] * 25, [0] * 25), 2, 32)
    out = attend(q, k, v, segment, order, backend=backend)
    assert not out[20:].any()
    assert torch.equal(out, attend(q, k, v, segment, order * 0, backend=backend))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"segment": torch.zeros(4)}, r"segment takes int8, .*, int64, not torch.float32"),
        ({"order": torch.zeros(4).half()}, r"order takes int8, .*, int64, not torch.float16"),
        ({"segment": torch.ones(4).bool()}, r"segment takes .* not torch.bool: .* \.long\(\)"),
        ({"order": torch.zeros(4, dtype=torch.uint64)}, r"order takes .* not torch.uint64"),
    ],
    ids=["fraction", "half", "bool", "uint64"],
)
def test_a_row_of_no_whole_numbers_is_refused(change: dict[str, Any], message: str) -> None:
    zeros = torch.zeros(4, dtype=torch.int32)
    row = {"segment": zeros, "order": zeros} | change
    with pytest.raises(ValueError, match=message):
        attention_layout(**row, dtype=torch.float32, head_width=8)


def test_a_layout_belongs_to_its_case() -> None:
    four, q = torch.zeros(4, dtype=torch.int32), torch.zeros(4, 2, 8)
    flex = attention_layout(four, four, dtype=torch.float32, head_width=8, backend="flex")
    with pytest.raises(ValueError, match="flex has no dropout"):
        attention(q, q, q, flex, dropout_p=0.5)
    with pytest.raises(ValueError, match=r"segment and order \[T\], not \[4\] and \[3\]"):
        attention_layout(four, four[:3], dtype=torch.float32, head_width=8)
