"""Record batches of shards as numpy views, and which of them holds a row."""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from unimo_ds.data.columns import ListColumn
from unimo_ds.data.schema import RegionSource
from unimo_ds.data.units import NONE, unit_begins


class Regions(NamedTuple):
    """The regions of one image, views into the memory map: R regions, F features, k classes."""

    features: np.ndarray  # float16 [R, F]
    boxes: np.ndarray  # float32 [R, 5]
    class_ids: np.ndarray  # uint16 [R, k]
    class_probs: np.ndarray  # float16 [R, k]


class Block:
    """One record batch: its columns, and the corpus row that it starts with."""

    units: np.ndarray | None = None  # of the shard; None: it has none
    first_unit: int = 0  # the token of the shard that this batch starts with

    def __init__(self, start: int, batch: pa.RecordBatch) -> None:
        self.start, self.batch = start, batch
        self.columns = {
            name: ListColumn(batch.column(name))
            for name, type_ in zip(batch.schema.names, batch.schema.types, strict=True)
            if pa.types.is_nested(type_) and not pa.types.is_string(type_.value_type)
        }

    def unit_begins(self, column: str, i: int) -> np.ndarray:
        """bool: for all tokens of row ``i``; length zero: the shard has no units."""
        if self.units is None:
            return NONE
        tokens = self.columns[column]
        first, end = tokens.leaf(i), tokens.leaf(i + 1)
        return unit_begins(self.units, self.first_unit + first, end - first)


class PairBlock(Block):
    """A record batch of pairs."""

    def __init__(self, start: int, batch: pa.RecordBatch) -> None:
        super().__init__(start, batch)
        self.image_rows = memoryview(batch.column("image_row").to_numpy())


class RegionBlock(Block):
    """A record batch of images, every column as one array over the regions of all its rows."""

    def __init__(self, start: int, batch: pa.RecordBatch, source: RegionSource) -> None:
        super().__init__(start, batch)
        widths = (source.feature_size, 5, source.kept_classes, source.kept_classes)
        columns = [self.columns[name] for name in Regions._fields]
        bounds = np.asarray(columns[0].offsets) // widths[0]
        for name, column, width in zip(Regions._fields, columns, widths, strict=True):
            if not np.array_equal(column.offsets, bounds * width):
                raise ValueError(f"the rows of {name} are not {width} values a region")
        self.bounds = memoryview(bounds)
        used = int(bounds[-1])
        self.regions = Regions(
            *(
                column.values[: used * width].reshape(used, width)
                for column, width in zip(columns, widths, strict=True)
            )
        )


B = TypeVar("B", bound=Block)


class Directory(Generic[B]):
    """Which record batch holds a row; a shard is opened when one of its rows is asked for.

    Args:
        starts: the first row of each shard.
        open_shard: number of a shard that has rows -> its record batches.
    """

    def __init__(self, starts: Sequence[int], open_shard: Callable[[int], list[B]]) -> None:
        self._first_rows, self._open_shard = starts, open_shard
        # First rows, and record batches or, of shards not yet opened, numbers.
        self._found: tuple[list[int], list[Any]] = list(starts), list(range(len(starts)))
        self._opening = Lock()

    def block(self, row: int) -> B:
        """The record batch that holds ``row``, which must be one of the corpus."""
        # Lists and bisect: np.searchsorted costs ten times as much on the few numbers there are.
        starts, blocks = self._found
        block = blocks[bisect_right(starts, row) - 1]
        if type(block) is int:
            self._enter(block)
            return self.block(row)
        return block

    def _enter(self, shard: int) -> None:
        """Opens a shard; other threads see what is found before or after it."""
        with self._opening:
            starts, blocks = self._found
            at = bisect_right(starts, self._first_rows[shard]) - 1  # it has rows: it is the last
            if type(blocks[at]) is int:  # otherwise another thread was first
                opened = self._open_shard(shard)
                self._found = (
                    [*starts[:at], *(block.start for block in opened), *starts[at + 1 :]],
                    [*blocks[:at], *opened, *blocks[at + 1 :]],
                )
