"""Columns that later stages left beside the shards of a pairs corpus: rewrites and neighbours."""

from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from unimo_ds.data.blocks import Block, Directory
from unimo_ds.data.columns import ListColumn
from unimo_ds.data.schema import RELATED, REWRITES, STAGES, Manifest

_NO_ROWS = np.empty(0, np.int64)
_NO_BYTES = np.empty(0, np.uint8)


class Rewrites(NamedTuple):
    """The n rewritten captions of a pair, views into the memory map."""

    caption: np.ndarray  # uint16 [n], which caption each is of
    level: np.ndarray  # uint8 [n], a `unimo_ds.data.schema.Level`
    positive: np.ndarray  # uint8 [n], 1: says the same
    column: ListColumn | None  # of the tokens of all rewrites
    first: int  # where those of the pair begin in it

    def tokens(self, i: int) -> np.ndarray:
        """uint16 [m], without [CLS] and [SEP]."""
        assert self.column is not None and self.column.inner is not None
        return self.column.inner.row(self.first + i)


class Related(NamedTuple):
    """Rows of the corpora that `stages["related"]` of the manifest names, nearest first."""

    text_rows: np.ndarray  # int64
    image_rows: np.ndarray  # int64


NO_REWRITES = Rewrites(_NO_BYTES, _NO_BYTES, _NO_BYTES, None, 0)
NO_RELATED = Related(_NO_ROWS, _NO_ROWS)


class _Columns:
    """The columns of one stage; nothing is opened before it is asked for."""

    stage: str

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self._shards = folder, manifest.shards
        self.has = self.stage in manifest.stages
        self._starts = [0, *accumulate(shard.rows for shard in manifest.shards)]
        self._directory = Directory(self._starts[:-1], self._open)

    def at(self, row: int) -> tuple[Block, int]:
        """The record batch that holds ``row``, and its place there."""
        block = self._directory.block(row)
        return block, row - block.start

    def _open(self, shard: int) -> list[Block]:
        path = self._folder / getattr(self._shards[shard], self.stage)
        if not path.is_file():
            raise ValueError(f"{path} is missing: copy the corpus again; `unimo-prep verify`")
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if not reader.schema.equals(STAGES[self.stage]):
            raise ValueError(f"{path} has columns {reader.schema.names}, not those of {self.stage}")
        blocks, start = [], self._starts[shard]
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            blocks.append(Block(start, batch))
            start += batch.num_rows
        if start != self._starts[shard + 1]:
            raise ValueError(
                f"{path} has {start - self._starts[shard]} rows, its shard "
                f"{self._shards[shard].rows}: make the columns again with --replace"
            )
        return blocks


class RewriteColumns(_Columns):
    """Of `unimo-prep rewrite`."""

    stage = REWRITES

    def row(self, row: int) -> Rewrites:
        """Those of one pair."""
        if not self.has:
            return NO_REWRITES
        block, i = self.at(row)
        columns = block.columns
        numbers = (columns[name].row(i) for name in ("caption", "level", "positive"))
        return Rewrites(*numbers, columns["tokens"], columns["tokens"].offsets[i])

    def hows(self, row: int) -> list[str]:
        """What was replaced in each of them, or where a sentence came from."""
        block, i = self.at(row)
        return block.batch.column("how")[i].as_py()


class RelatedColumns(_Columns):
    """Of `unimo-prep retrieve`."""

    stage = RELATED

    def row(self, row: int) -> Related:
        """Those of one pair."""
        if not self.has:
            return NO_RELATED
        block, i = self.at(row)
        columns = block.columns
        return Related(columns["text_rows"].row(i), columns["image_rows"].row(i))
