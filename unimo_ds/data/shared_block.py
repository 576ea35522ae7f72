"""Memory that two processes map."""

import mmap
import os
import weakref
from multiprocessing.resource_sharer import DupFd

import numpy as np
import torch

NAME = "unimo_batch"


class SharedBlock:
    """Bytes that go to another process by their file descriptor.

    They lie in no file system (memfd_create(2)): /dev/shm, where torch puts what it shares, is
    64 MB in a container, and who writes beyond that is killed by SIGBUS. Pages are taken when they
    are reserved, so that a machine without memory for them refuses instead.
    """

    def __init__(self, size: int, descriptor: int) -> None:
        """Of ``size`` bytes behind ``descriptor``, which is closed with it."""
        weakref.finalize(self, os.close, descriptor).atexit = False
        self.size, self._descriptor, self._reserved = size, descriptor, 0
        array = np.frombuffer(mmap.mmap(descriptor, size), np.uint8)
        self.content = torch.from_numpy(array)  # uint8 [size]; it outlives the block

    @classmethod
    def new(cls, size: int) -> "SharedBlock":
        """A block of which nothing is reserved.

        Raises:
            OSError: the system refuses one of that size.
        """
        descriptor = os.memfd_create(NAME)
        try:
            os.ftruncate(descriptor, size)
        except OSError:
            os.close(descriptor)
            raise
        return cls(size, descriptor)

    def reserve(self, size: int) -> None:
        """Takes memory for the first ``size`` bytes, of which only these may be written to.

        Raises:
            OSError: the system has none.
        """
        if size > self._reserved:
            os.posix_fallocate(self._descriptor, 0, size)
            self._reserved = size

    def __reduce__(self) -> tuple[object, ...]:
        return _arrived, (self.size, DupFd(self._descriptor))


def _arrived(size: int, sent: DupFd) -> SharedBlock:
    return SharedBlock(size, sent.detach())
