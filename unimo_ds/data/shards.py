"""A corpus as arrays: memory-mapped Arrow shards read through numpy views, row by global row."""

from bisect import bisect_right
from collections.abc import Sequence
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
import pyarrow as pa

from unimo_ds.data.blocks import Block, Directory, PairBlock, RegionBlock, Regions
from unimo_ds.data.cache import local_corpus
from unimo_ds.data.schema import (
    IMAGES,
    PAIRS,
    SCHEMAS,
    TEXTS,
    Manifest,
    RegionSource,
    read_manifest,
)
from unimo_ds.data.stages import Related, RelatedColumns, RewriteColumns, Rewrites
from unimo_ds.data.units import open_units

B = TypeVar("B", bound=Block)


class Corpus(Generic[B]):
    """A corpus of one kind. Cheap to open: nothing is read before it is asked for."""

    kind: str
    token_column: str  # of texts and pairs

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.name = str(folder)
        self.manifest = manifest
        self._starts = [0, *accumulate(shard.rows for shard in manifest.shards)]
        self._rows = self._starts[-1]
        self._directory = Directory(self._starts[:-1], self._open)

    def __len__(self) -> int:
        return self._rows

    @cached_property
    def lengths(self) -> np.ndarray:
        """int32 [rows]: tokens of a text, regions of an image, tokens of all captions of a pair."""
        parts = [np.load(self.folder / s.lengths, allow_pickle=False) for s in self.manifest.shards]
        return np.concatenate([np.empty(0, np.int32), *parts])

    def _block(self, row: int) -> B:
        """The record batch that holds ``row``."""
        if not 0 <= row < self._rows:
            raise IndexError(f"row {row} of {self.folder}, which has {len(self)}")
        return self._directory.block(row)

    def _open(self, shard: int) -> list[B]:
        record = self.manifest.shards[shard]
        path = self.folder / record.name
        found = path.stat().st_size if path.is_file() else 0
        if found != record.bytes:  # a short file under a memory map would kill the process (SIGBUS)
            raise ValueError(
                f"{path} has {found} bytes, its manifest says {record.bytes}: rebuild the corpus "
                "or copy it again; `unimo-prep verify` checks all of it"
            )
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if not reader.schema.equals(SCHEMAS[self.kind]):
            raise ValueError(f"{path} has columns {reader.schema.names}, not those of {self.kind}")
        blocks, start = [], self._starts[shard]
        units = open_units(self.folder / record.units, record.length_sum) if record.units else None
        first_unit = 0
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            try:
                blocks.append(self._view(start, batch))
            except ValueError as error:
                raise ValueError(f"{path}: {error}: rebuild the corpus") from error
            start += batch.num_rows
            if units is not None:
                blocks[-1].units, blocks[-1].first_unit = units, first_unit
                first_unit += blocks[-1].columns[self.token_column].leaf(batch.num_rows)
        if start != self._starts[shard + 1]:
            raise ValueError(
                f"{path} has {start - self._starts[shard]} rows, its manifest says {record.rows}: "
                "rebuild the corpus"
            )
        return blocks

    def _view(self, start: int, batch: pa.RecordBatch) -> B:
        return Block(start, batch)  # type: ignore[return-value]

    def row_id(self, row: int) -> str:
        block = self._block(row)
        return str(block.batch.column("id")[row - block.start].as_py())


class TextCorpus(Corpus[Block]):
    """Unpaired texts."""

    kind = TEXTS
    token_column = "tokens"

    def tokens(self, row: int) -> np.ndarray:
        """uint16 [n], without [CLS] and [SEP]."""
        block = self._block(row)
        return block.columns["tokens"].row(row - block.start)

    def unit_begins(self, row: int) -> np.ndarray:
        """bool [n]: which tokens begin a word or phrase; length zero where nothing says so."""
        block = self._block(row)
        return block.unit_begins("tokens", row - block.start)


class ImageCorpus(Corpus[RegionBlock]):
    """Images as sets of regions."""

    kind = IMAGES

    def _view(self, start: int, batch: pa.RecordBatch) -> RegionBlock:
        return RegionBlock(start, batch, self.source)

    @property
    def source(self) -> RegionSource:
        assert self.manifest.regions is not None
        return self.manifest.regions

    def image_id(self, row: int) -> str:
        return self.row_id(row)

    def size(self, row: int) -> tuple[int, int]:
        """Width and height of the picture, in pixels."""
        block = self._block(row)
        width, height = (block.batch.column(n)[row - block.start] for n in ("width", "height"))
        return width.as_py(), height.as_py()

    def regions(self, row: int) -> Regions:
        arrays, of_row = self.region_rows(row)
        return Regions(*(array[of_row] for array in arrays))

    def region_rows(self, row: int) -> tuple[Regions, slice]:
        """The regions of all images of a record batch, and which of them are those of ``row``.

        `regions` for the innermost loop: who takes two of the columns pays for two views.
        """
        block = self._block(row)
        i = row - block.start
        bounds = block.bounds
        return block.regions, slice(bounds[i], bounds[i + 1])


class PairCorpus(Corpus[PairBlock]):
    """Images with their captions; the images are a corpus of their own beside it."""

    kind = PAIRS
    token_column = "captions"

    def _view(self, start: int, batch: pa.RecordBatch) -> PairBlock:
        return PairBlock(start, batch)

    @cached_property
    def images(self) -> ImageCorpus:
        corpus = open_corpus(self.folder / self.manifest.images)
        assert isinstance(corpus, ImageCorpus)
        return corpus

    def pair_id(self, row: int) -> str:
        return self.row_id(row)

    def image_row(self, row: int) -> int:
        block = self._block(row)
        return block.image_rows[row - block.start]

    def captions(self, row: int) -> list[np.ndarray]:
        """uint16 arrays, without [CLS] and [SEP]."""
        block = self._block(row)
        return block.columns["captions"].rows(row - block.start)

    def unit_begins(self, row: int) -> list[np.ndarray]:
        """For each caption which tokens begin a word or phrase; length zero where nothing does."""
        block = self._block(row)
        sizes = block.columns["captions"].sizes(row - block.start)
        begins = block.unit_begins("captions", row - block.start)
        ends = [0, *accumulate(sizes)]
        return [begins[a:b] for a, b in pairwise(ends)]

    def rewrites(self, row: int) -> Rewrites:
        """The rewritten captions of a pair; none where `unimo-prep rewrite` was not run."""
        return self._rewrites.row(row)

    def rewrite_hows(self, row: int) -> list[str]:
        """What was replaced in each of `rewrites`: an object, an attribute, a relation, ..."""
        return self._rewrites.hows(row)

    def related(self, row: int) -> Related:
        """Rows of the texts and images that `unimo-prep retrieve` found for a pair, or none."""
        return self._related.row(row)

    @cached_property
    def _rewrites(self) -> RewriteColumns:
        return RewriteColumns(self.folder, self.manifest)

    @cached_property
    def _related(self) -> RelatedColumns:
        return RelatedColumns(self.folder, self.manifest)

    def caption_texts(self, row: int) -> list[str]:
        block = self._block(row)
        return block.batch.column("caption_texts")[row - block.start].as_py()


C = TypeVar("C", bound=Corpus)
_CLASSES = {cls.kind: cls for cls in (TextCorpus, ImageCorpus, PairCorpus)}


def open_corpus(folder: str | Path, cache: str = "") -> TextCorpus | ImageCorpus | PairCorpus:
    """The corpus in ``folder``, of whatever kind it is; of one at a URL the copy in ``cache``.

    Raises:
        ValueError: no corpus there, or one this release cannot read.
        StorageError: see `unimo_ds.data.cache.local_corpus`.
    """
    local = local_corpus(folder, cache)
    manifest = read_manifest(local)
    return _CLASSES[manifest.kind](local, manifest)


class Collection(Generic[C]):
    """Several corpora of one kind as one list of (corpus, row)."""

    def __init__(self, corpora: Sequence[C]) -> None:
        self.corpora = corpora
        self._starts = [0, *accumulate(len(corpus) for corpus in corpora)]

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> tuple[C, int]:
        which = bisect_right(self._starts, index) - 1
        return self.corpora[which], index - self._starts[which]


def open_collection(folders: Sequence[str], kind: type[C], cache: str = "") -> Collection[C]:
    """The corpora in ``folders``, all of which must be of ``kind``.

    Raises:
        ValueError: one of them is of another kind, or empty.
    """
    corpora = []
    for folder in folders:
        corpus = open_corpus(folder, cache)
        if not isinstance(corpus, kind):
            raise ValueError(
                f"{folder} holds {corpus.kind}, expected {kind.kind}: check data.* again"
            )
        if not len(corpus):
            raise ValueError(
                f"{folder} has no rows: everything was quarantined, see quarantine.jsonl"
            )
        corpora.append(corpus)
    return Collection(corpora)
