"""Which Triton the kernels' tests need where there is no GPU."""

import importlib.metadata

import pytest
import torch

INTERPRETER, NUMPY = (3, 7), (2, 4)
"""Before this Triton the interpreter fails at loops over tensor bounds with this numpy or later."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    triton, numpy = _version("triton"), _version("numpy")
    if torch.cuda.is_available() or triton >= INTERPRETER or numpy < NUMPY:
        return
    old = pytest.mark.skip(reason="this triton interprets no loops over tensors with this numpy")
    for item in items:
        backend = getattr(item, "callspec", None) and item.callspec.params.get("backend")
        if "triton" in (backend, *item.path.stem.split("_"), *item.name.split("_")):
            item.add_marker(old)


def _version(package: str) -> tuple[int, ...]:
    return tuple(map(int, importlib.metadata.version(package).split(".")[:2]))
