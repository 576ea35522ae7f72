"""A second device for machines without one: tensors that are not the CPU's, and lie in its memory.

Their operations run on the CPU, but they mix with the CPU's tensors as little as a GPU's do, and
come from it and go to it only by a copy that the code asks for.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("meta")
"""A name that torch knows and that nothing else here uses."""
COPIES = ("copy_", "index.Tensor", "index_put", "_index_put_impl_")
"""Take tensors of both devices, on a GPU too: copies, and indices on the CPU."""


class OtherTensor(Tensor):
    """Says that it is on `DEVICE`; ``host`` holds its values."""

    host: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, host: Tensor) -> "OtherTensor":
        tensor = Tensor._make_wrapper_subclass(
            cls, host.size(), host.stride(), host.storage_offset(), dtype=host.dtype, device=DEVICE
        )
        tensor.host = host
        return tensor

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OtherTensor({self.host})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class OtherDevice(TorchDispatchMode):
    """While it is on, what is made on or copied to `DEVICE` is an `OtherTensor`."""

    def __enter__(self) -> "OtherDevice":
        # These three copy between devices out of sight of all modes.
        make, to_list = torch.tensor, Tensor.tolist
        self._originals = (torch, "tensor", make), (Tensor, "tolist", to_list)
        self._originals += ((Tensor, "new_tensor", Tensor.new_tensor),)

        def tensor(*args: Any, device: Any = None, **kwargs: Any) -> Tensor:
            made: Tensor = make(*args, **kwargs)
            return made if device is None else made.to(device)

        def new_tensor(x: Tensor, data: Any, **kwargs: Any) -> Tensor:
            return tensor(data, **({"dtype": x.dtype, "device": x.device} | kwargs))

        torch.tensor = tensor
        Tensor.tolist = lambda x: to_list(on_host(x.detach()))  # type: ignore[method-assign]
        Tensor.new_tensor = new_tensor  # type: ignore[method-assign]
        super().__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)
        for owner, name, original in self._originals:
            setattr(owner, name, original)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


def on_host(value: Any) -> Any:
    return value.host if isinstance(value, OtherTensor) else value


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    others = [x for x in tensors if isinstance(x, OtherTensor)]
    strays = [x for x in tensors if not isinstance(x, OtherTensor) and x.dim()]
    if others and strays and not any(name in str(func) for name in COPIES):
        raise RuntimeError(f"{func}: its tensors are on two devices")
    device = kwargs.get("device")
    made_there = device is not None and torch.device(device) == DEVICE
    host_kwargs = tree_map(on_host, kwargs) | ({"device": "cpu"} if made_there else {})
    out = func(*tree_map(on_host, args), **host_kwargs)
    stays = device is None and bool(others) and (not args or not _is_host_tensor(args[0]))
    if made_there or stays:
        out = tree_map(lambda x: OtherTensor(x) if isinstance(x, Tensor) else x, out)
        return return_and_correct_aliasing(func, args, kwargs, out) if stays else out
    return args[0] if str(func).startswith("aten.copy_") else out


def _is_host_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) and not isinstance(value, OtherTensor)
