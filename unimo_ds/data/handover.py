"""How batches come from worker processes: in shared memory that both sides keep and use again.

Fresh shared memory is cleared page by page, mapped by both sides and copied into, which takes as
long as building the batch; here features are built where the reader finds them. The first byte of a
block of shared memory tells whether somebody holds what lies in it: the worker sets it, the reader
clears it when the last tensor of the batch is gone.

A worker comes to keep as many blocks as batches of its own are held at once. `handed_over_bytes` is
what a batch takes of them.
"""

import itertools
import math
import mmap
from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch

from unimo_ds.batch import Batch
from unimo_ds.data.buffers import Buffers, lent
from unimo_ds.data.shared_block import SharedBlock

_SPARE = 1.25
"""Room in a new block: steps differ in size, and the next may be larger. Only what is used of it
is reserved."""
_LINE = 64
"""Bytes: what lies in a block begins at multiples of it, the first after the byte that tells."""


class _Place(NamedTuple):
    """Where a tensor lies."""

    block: int
    begin: int  # byte
    dtype: torch.dtype
    shape: tuple[int, ...]


class Parcel(NamedTuple):
    """A batch on its way."""

    worker: int
    places: list[_Place]  # of the fields of the batch
    fresh: dict[int, SharedBlock]  # blocks that come for the first time, by their number
    gone: list[int]  # blocks that the worker has given up


class _Pool:
    """Blocks of like size."""

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = iter(numbers)
        self.blocks: dict[int, SharedBlock] = {}
        self.fresh: dict[int, SharedBlock] = {}
        self.gone: list[int] = []

    def take(self, size: int) -> int:
        """The number of a block with room for ``size`` bytes behind the first line; it is held.

        Raises:
            ValueError: the system has no memory for it.
        """
        free = [number for number, block in self.blocks.items() if not block.content[0]]
        try:
            for number in free:
                if self.blocks[number].size >= _LINE + size:
                    return self._hold(number, size)
            for number in free:  # too small
                del self.blocks[number]
                self.gone.append(number)
            number = next(self._numbers)
            self.blocks[number] = SharedBlock.new(_LINE + int(size * _SPARE))
            self.fresh[number] = self.blocks[number]
            return self._hold(number, size)
        except OSError as error:
            raise ValueError(
                f"no {size / 1e6:,.1f} MB of shared memory for a batch that is built ahead "
                f"({error.strerror}): lower data.workers (1 is a thread, which shares nothing), or "
                "give the job more memory"
            ) from error

    def _hold(self, number: int, size: int) -> int:
        self.blocks[number].reserve(_LINE + size)
        self.blocks[number].content[0] = 1
        return number

    def news(self) -> tuple[dict[int, SharedBlock], list[int]]:
        """The blocks that are new and those given up since the last call."""
        fresh, self.fresh = self.fresh, {}
        gone, self.gone = self.gone, []
        return fresh, gone


class Sender(Buffers):
    """The end of a worker: features are built in shared memory, the rest is copied there."""

    def __init__(self, worker: int) -> None:
        super().__init__(pinned=False)
        self._worker = worker
        numbers = itertools.count()
        self._features, self._others = _Pool(numbers), _Pool(numbers)

    def empty(self, rows: int, columns: int) -> torch.Tensor:
        """float16 [rows, columns] with anything in it, in a block of its own."""
        size = rows * columns * 2
        block = self._features.blocks[self._features.take(size)].content
        return block[_LINE : _LINE + size].view(torch.float16).view(rows, columns)

    def parcel(self, batch: Batch) -> Parcel:
        """``batch``, whose features `empty` gave out; it must not be written to any more."""
        others = self._others.take(sum(map(_room, batch)) - _room(batch.features))
        places, begin = [], _LINE
        for field in batch:
            if field is batch.features:
                places.append(_place(self._block_of(field), _LINE, field))
                continue
            places.append(_place(others, begin, field))
            _tensor(self._others.blocks[others].content, places[-1]).copy_(field)
            begin += _room(field)
        found = [pool.news() for pool in (self._features, self._others)]
        fresh = {n: block for some, _ in found for n, block in some.items()}
        gone = [n for _, some in found for n in some]
        return Parcel(self._worker, places, fresh, gone)

    def _block_of(self, features: torch.Tensor) -> int:
        address = features.untyped_storage().data_ptr()
        blocks = self._features.blocks.items()
        return next(n for n, block in blocks if block.content.data_ptr() == address)


class Receiver:
    """The end of the training process. Parcels of a worker come in the order they were sent in."""

    def __init__(self) -> None:
        self._blocks: dict[tuple[int, int], torch.Tensor] = {}

    def batch(self, parcel: Parcel) -> Batch:
        """The batch in ``parcel``, whose memory is the worker's again once nobody holds it."""
        for number in parcel.gone:
            self._blocks.pop((parcel.worker, number), None)
        self._blocks |= {(parcel.worker, n): block.content for n, block in parcel.fresh.items()}
        numbers = {place.block for place in parcel.places}
        held = {n: _held(self._blocks[parcel.worker, n]) for n in numbers}
        return Batch(*(_tensor(held[place.block], place) for place in parcel.places))


def _held(block: torch.Tensor) -> torch.Tensor:
    """``block`` as a tensor that gives it back when it and its views are gone."""
    return lent(block.numpy(), block.__setitem__, 0, 0)


def handed_over_bytes(fields: Mapping[str, int]) -> int:
    """Memory for a batch on its way, in whole pages, of the bytes of its fields."""
    others = sum(_lines(size) for name, size in fields.items() if name != "features")
    return _pages(_LINE + fields["features"]) + _pages(_LINE + others)


def _pages(size: int) -> int:
    return -(-size // mmap.PAGESIZE) * mmap.PAGESIZE


def _lines(size: int) -> int:
    return -(-size // _LINE) * _LINE


def _room(field: torch.Tensor) -> int:
    """Bytes, in whole lines."""
    return _lines(field.nbytes)


def _place(block: int, begin: int, field: torch.Tensor) -> _Place:
    return _Place(block, begin, field.dtype, tuple(field.shape))


def _tensor(block: torch.Tensor, place: _Place) -> torch.Tensor:
    size = math.prod(place.shape) * place.dtype.itemsize
    return block[place.begin : place.begin + size].view(place.dtype).view(place.shape)
