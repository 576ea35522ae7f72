"""The data-parallel group: who we are, sums over it, and what all of it holds."""

import os
import socket
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from unimo_ds.storage import StorageError

T = TypeVar("T")


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def launched_ranks() -> int:
    """Ranks that the launcher announced (`unimo_ds.launch`); 1 for a plain process."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def uses_gpu() -> bool:
    """Whether ranks compute on GPUs; ``DS_ACCELERATOR=cpu`` keeps a machine's GPUs out of it."""
    return torch.cuda.is_available() and os.environ.get("DS_ACCELERATOR", "cuda") == "cuda"


def barrier() -> None:
    if dist.is_initialized():
        dist.barrier()


def summed(values: Sequence[float], device: torch.device) -> list[float]:
    """Each value summed over the ranks, in float64, on the device that the ranks compute on."""
    tensor = torch.tensor(values, dtype=torch.float64, device=device)
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return [float(value) for value in tensor.tolist()]


def gather_objects(value: Any) -> list[Any]:
    """``value`` of every rank, in rank order. For small things: our own ranks pickle it."""
    if not dist.is_initialized():
        return [value]
    gathered: list[Any] = [None] * world_size()
    dist.all_gather_object(gathered, value)
    return gathered


def on_rank_0(decide: Callable[[], T]) -> T:
    """What ``decide`` returns on rank 0, on every rank; it is called nowhere else.

    Raises:
        ValueError: raised by ``decide``, on every rank; in place of a StorageError, too.
    """
    answer: list[Any] = [None, None]
    if rank() == 0:
        try:
            answer[0] = decide()
        except (ValueError, StorageError) as error:
            answer[1] = str(error)
    if dist.is_initialized():
        dist.broadcast_object_list(answer)
    decided, refusal = answer
    if refusal is not None:
        raise ValueError(refusal)
    return decided


def agree(check: Callable[[], object]) -> None:
    """Calls ``check`` on every rank and returns on all of them or none.

    Raises:
        ValueError: raised by ``check`` on some rank, or a StorageError; all ranks raise what the
            first one says.
    """
    refusal = ""
    try:
        check()
    except (ValueError, StorageError) as error:
        refusal = f"rank {rank()} on {socket.gethostname()}: {error}"
        if not dist.is_initialized():
            raise
    for each in gather_objects(refusal):
        if each:
            raise ValueError(each)


def gather_rows(x: Tensor) -> Tensor:
    """``x`` [n_r, ...] of all ranks, one behind the other, without gradients.

    The ranks may hold different numbers of rows, zero included.
    """
    if not dist.is_initialized() or world_size() == 1:
        return x
    sizes = torch.zeros(world_size(), dtype=torch.int64, device=x.device)
    sizes[rank()] = len(x)
    dist.all_reduce(sizes)
    padded = x.new_zeros(int(sizes.max()), *x.shape[1:])
    padded[: len(x)] = x
    parts = [torch.empty_like(padded) for _ in range(world_size())]
    dist.all_gather(parts, padded)
    return torch.cat([part[:size] for part, size in zip(parts, sizes.tolist(), strict=True)])
