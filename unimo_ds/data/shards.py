"""A corpus as arrays: memory-mapped Arrow shards read through numpy views, row by global row."""

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from unimo_ds.data.schema import (
    IMAGES,
    PAIRS,
    SCHEMAS,
    TEXTS,
    Manifest,
    RegionSource,
    read_manifest,
)


class Regions(NamedTuple):
    """The regions of one image, views into the memory map: R regions, F features, k classes."""

    features: np.ndarray  # float16 [R, F]
    boxes: np.ndarray  # float32 [R, 5]
    class_ids: np.ndarray  # uint16 [R, k]
    class_probs: np.ndarray  # float16 [R, k]


class _Block(NamedTuple):
    """One record batch: its columns and the corpus row that it starts with."""

    start: int
    batch: pa.RecordBatch
    columns: dict[str, "_List"]


class _List:
    """A list column as two numpy views: where each row begins, and the values."""

    def __init__(self, array: pa.Array) -> None:
        self.offsets = array.offsets.to_numpy()
        # .values ignores the slice of the array, as the offsets do.
        values = array.values
        nested = pa.types.is_nested(values.type)
        self.inner = _List(values) if nested else None
        self.values = None if nested else values.to_numpy(zero_copy_only=True)

    def row(self, i: int) -> np.ndarray:
        assert self.values is not None
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def rows(self, i: int) -> list[np.ndarray]:
        """The inner lists of row ``i``."""
        assert self.inner is not None
        return [self.inner.row(j) for j in range(self.offsets[i], self.offsets[i + 1])]


class Corpus:
    """A corpus of one kind. Cheap to open: nothing is read before it is asked for."""

    kind: str

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder = folder
        self.manifest = manifest
        self._starts = np.cumsum([0, *(shard.rows for shard in manifest.shards)])
        self._shards: list[list[_Block] | None] = [None] * len(manifest.shards)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @cached_property
    def lengths(self) -> np.ndarray:
        """int32 [rows]: tokens of a text, regions of an image, tokens of all captions of a pair."""
        parts = [np.load(self.folder / s.lengths, allow_pickle=False) for s in self.manifest.shards]
        return np.concatenate([np.empty(0, np.int32), *parts])

    def _locate(self, row: int) -> tuple[_Block, int]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {self.folder}, which has {len(self)}")
        shard = int(np.searchsorted(self._starts, row, side="right")) - 1
        blocks = self._shards[shard]
        if blocks is None:
            blocks = self._shards[shard] = self._open(shard)
        first = [block.start for block in blocks]
        block = blocks[int(np.searchsorted(first, row, side="right")) - 1]
        return block, row - block.start

    def _open(self, shard: int) -> list[_Block]:
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
        blocks, start = [], int(self._starts[shard])
        for i in range(reader.num_record_batches):
            batch = reader.get_batch(i)
            columns = {
                name: _List(batch.column(name))
                for name, type_ in zip(batch.schema.names, batch.schema.types, strict=True)
                if pa.types.is_nested(type_) and not pa.types.is_string(type_.value_type)
            }
            blocks.append(_Block(start, batch, columns))
            start += batch.num_rows
        return blocks

    def _list(self, row: int, column: str) -> np.ndarray:
        block, i = self._locate(row)
        return block.columns[column].row(i)

    def _scalar(self, row: int, column: str) -> object:
        block, i = self._locate(row)
        return block.batch.column(column)[i].as_py()

    def row_id(self, row: int) -> str:
        return str(self._scalar(row, "id"))


class TextCorpus(Corpus):
    """Unpaired texts."""

    kind = TEXTS

    def tokens(self, row: int) -> np.ndarray:
        """uint16 [n], without [CLS] and [SEP]."""
        return self._list(row, "tokens")


class ImageCorpus(Corpus):
    """Images as sets of regions."""

    kind = IMAGES

    @property
    def source(self) -> RegionSource:
        assert self.manifest.regions is not None
        return self.manifest.regions

    def image_id(self, row: int) -> str:
        return self.row_id(row)

    def regions(self, row: int) -> Regions:
        block, i = self._locate(row)
        features = block.columns["features"].row(i).reshape(-1, self.source.feature_size)
        kept = (len(features), self.source.kept_classes)
        return Regions(
            features,
            block.columns["boxes"].row(i).reshape(-1, 5),
            block.columns["class_ids"].row(i).reshape(kept),
            block.columns["class_probs"].row(i).reshape(kept),
        )


class PairCorpus(Corpus):
    """Images with their captions; the images are a corpus of their own beside it."""

    kind = PAIRS

    @cached_property
    def images(self) -> ImageCorpus:
        corpus = open_corpus(self.folder / self.manifest.images)
        assert isinstance(corpus, ImageCorpus)
        return corpus

    def pair_id(self, row: int) -> str:
        return self.row_id(row)

    def image_row(self, row: int) -> int:
        return int(str(self._scalar(row, "image_row")))

    def captions(self, row: int) -> list[np.ndarray]:
        """uint16 arrays, without [CLS] and [SEP]."""
        block, i = self._locate(row)
        return block.columns["captions"].rows(i)

    def caption_texts(self, row: int) -> list[str]:
        block, i = self._locate(row)
        return block.batch.column("caption_texts")[i].as_py()


C = TypeVar("C", bound=Corpus)
_CLASSES = {cls.kind: cls for cls in (TextCorpus, ImageCorpus, PairCorpus)}


def open_corpus(folder: str | Path) -> TextCorpus | ImageCorpus | PairCorpus:
    """The corpus in ``folder``, of whatever kind it is.

    Raises:
        ValueError: no corpus there, or one this release cannot read.
    """
    manifest = read_manifest(Path(folder))
    return _CLASSES[manifest.kind](Path(folder), manifest)


class Collection(Generic[C]):
    """Several corpora of one kind as one list of (corpus, row)."""

    def __init__(self, corpora: Sequence[C]) -> None:
        self.corpora = corpora
        self._starts = np.cumsum([0, *(len(corpus) for corpus in corpora)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> tuple[C, int]:
        which = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self.corpora[which], index - int(self._starts[which])


def open_collection(folders: Sequence[str], kind: type[C]) -> Collection[C]:
    """The corpora in ``folders``, all of which must be of ``kind``.

    Raises:
        ValueError: one of them is of another kind, or empty.
    """
    corpora = []
    for folder in folders:
        corpus = open_corpus(folder)
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
