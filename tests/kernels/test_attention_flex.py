"""FlexAttention: the reference's values on a CPU, its gradients on a GPU."""

import pytest
import torch

from tests.kernels.packed_rows import ROWS, assert_as_exact, attend, inputs_for

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")


@pytest.mark.parametrize("name", ROWS)
def test_flex_is_the_reference_on_a_cpu(name: str) -> None:
    row = ROWS[name]
    q, k, v, _ = inputs_for(row, 3, 32)
    exact = attend(*(x.double() for x in (q, k, v)), *row.tensors(), backend="reference")
    found = attend(q, k, v, *row.tensors(), backend="flex")
    torch.testing.assert_close(found.double(), exact, atol=1e-5, rtol=1e-5)


def test_a_backward_on_a_cpu_is_refused() -> None:
    row = ROWS["T97-prefix-lm"]
    q, k, v, _ = (x.requires_grad_() for x in inputs_for(row, 2, 8))
    with pytest.raises(NotImplementedError, match="does not support backward on CPU"):
        attend(q, k, v, *row.tensors(), backend="flex")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ROWS)
def test_flex_is_as_exact_as_the_reference_on_a_gpu(name: str) -> None:
    inputs = [x.cuda() for x in inputs_for(ROWS[name], 3, 64)]
    assert_as_exact(ROWS[name], inputs, "flex", torch.bfloat16, slack=6e-2)
