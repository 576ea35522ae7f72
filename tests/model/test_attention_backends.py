"""The backend that a model's configuration asks for runs, with the dtype that attention will see.

Legend: T positions
"""

from typing import Any

import pytest
import torch

from unimo_ds.model import body
from unimo_ds.model.body import UnimoModel
from unimo_ds.model.configuration import UnimoConfig


@pytest.fixture
def model(config: UnimoConfig) -> UnimoModel:
    torch.manual_seed(0)
    return UnimoModel(config).eval()


@pytest.mark.parametrize("backend", ["reference", "sdpa"])
def test_the_layout_carries_the_backend(
    model: UnimoModel, samples: list[Any], packed: Any, backend: str
) -> None:
    model.config.attention_backend = backend
    assert model.view_of(packed(samples)).layout.backend == backend


def test_a_backend_that_cannot_run_here_is_refused_before_the_first_layer(
    model: UnimoModel, samples: list[Any], packed: Any
) -> None:
    model.config.attention_backend = "flash_attn"
    with pytest.raises(ValueError, match="flash_attn needs CUDA tensors, not cpu"):
        model(packed(samples))


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("autocast", [False, True], ids=["plain", "autocast"])
@torch.no_grad()
def test_the_layout_is_made_for_the_dtype_of_the_projections(
    model: UnimoModel,
    samples: list[Any],
    packed: Any,
    weights: torch.dtype,
    autocast: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked, seen = [], []

    def layout(*row: Any, **case: Any) -> Any:
        asked.append((case["dtype"], case["head_width"]))
        return body_layout(*row, **case)

    body_layout = body.attention_layout
    monkeypatch.setattr(body, "attention_layout", layout)
    model.to(weights)
    for layer in model.encoder.layers:
        query = layer.attention.query
        query.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    batch = packed(samples).to(torch.device("cpu"), weights)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        model(batch)
    width = model.config.hidden_size // model.config.num_attention_heads
    assert asked == [(seen[0], width)]
    assert seen == [torch.bfloat16 if autocast else weights] * len(seen)


def test_an_unknown_backend_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="'fast' is unknown, known are auto, reference, sdpa, fla"):
        UnimoConfig(attention_backend="fast")
    assert UnimoConfig(attention_backend="triton").attention_backend == "triton"
