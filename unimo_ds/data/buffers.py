"""Memory for the features of batches, used again once nobody holds it."""

import weakref
from collections.abc import Callable

import numpy as np
import torch

_SPARE = 1.25
"""Room in new memory: steps differ in size, and the next may be larger."""


def lent(memory: np.ndarray, give_back: Callable[..., object], *arguments: object) -> torch.Tensor:
    """``memory`` as a tensor; when that and all its views are gone, ``give_back(*arguments)`` is
    called, in whatever thread."""
    # By way of a memoryview: views of an array would refer to ``memory`` past the array.
    array = np.frombuffer(memoryview(memory), memory.dtype)
    weakref.finalize(array, give_back, *arguments).atexit = False
    return torch.from_numpy(array)


class Buffers:
    """Hands out uninitialised float16 tensors in memory that earlier ones have left.

    Every page of fresh memory is mapped and cleared before its first use, which takes longer than
    to copy regions into it. A tensor and its views keep its memory; when the last of them is gone,
    in whatever thread, the memory may be handed out again. ``pinned`` memory is page-locked, for
    copies to a GPU, and torch's own allocator keeps it.
    """

    def __init__(self, *, pinned: bool) -> None:
        self.pinned = pinned
        self._free: list[np.ndarray] = []

    def empty(self, rows: int, columns: int) -> torch.Tensor:
        """float16 [rows, columns] with anything in it."""
        if self.pinned:
            return torch.empty(rows, columns, dtype=torch.float16, pin_memory=True)
        size = rows * columns
        memory = self._take(size)
        return lent(memory, self._free.append, memory)[:size].view(rows, columns)

    def _take(self, size: int) -> np.ndarray:
        try:
            memory = self._free.pop()
        except IndexError:
            memory = np.empty(0, np.float16)
        return memory if len(memory) >= size else np.empty(int(size * _SPARE) + 1, np.float16)
