"""Which Triton the kernels' tests need where there is no GPU."""

import importlib.metadata

import pytest
import torch

INTERPRETER = (3, 7)
"""Before it, loops over tensor bounds fail in the interpreter with numpy 2.4 and later."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    version = importlib.metadata.version("triton")
    if torch.cuda.is_available() or tuple(map(int, version.split(".")[:2])) >= INTERPRETER:
        return
    old = pytest.mark.skip(reason=f"triton {version} interprets no loops over tensors")
    for item in items:
        if item.path.stem in ("test_attention_triton", "test_similarity_triton"):
            item.add_marker(old)
