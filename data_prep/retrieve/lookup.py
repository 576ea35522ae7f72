"""The neighbours of pairs, looked up in indices that are there."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.retrieve import image_vectors
from data_prep.retrieve.image_vectors import overlap
from data_prep.retrieve.index import AUTO, load_vectors, search
from data_prep.retrieve.sentence_encoder import Encoder
from data_prep.retrieve.text_vectors import Analysis
from data_prep.stages import Made
from data_prep.writer import Folder, Version, read_batches, version_of

_SPARE = 16  # neighbours more than wanted, for those that are left out


@dataclass(frozen=True, kw_only=True)
class Retrieval:
    """What is retrieved and how."""

    top_k: int = 10
    dimensions: int = 256  # of the vectors that are searched
    text_model: str = ""  # a sentence encoder's folder; empty: TF-IDF and its singular vectors
    min_text_score: float = 0.3  # cosine
    image_by: str = image_vectors.CLASSES
    min_image_score: float = 0.5  # cosine
    max_image_score: float = 0.9999  # more than that is the same picture
    min_overlap: float = 0.0  # of the classes' probabilities: Σ min / Σ max
    index: str = AUTO


class Searched(NamedTuple):
    """A corpus that neighbours are looked up in."""

    shards: tuple[Folder, ...]
    fingerprint: str  # of its manifest: another corpus may lie there later


NOTHING = Searched((), "")


class Lookup(NamedTuple):
    """Looks up the neighbours of the pairs of a record batch."""

    work: Path
    retrieval: Retrieval
    text_vectors: Analysis | Encoder | None
    texts: Searched
    images: Searched
    own: list[Path]  # vectors of the pairs' own images

    def __call__(self, first_row: int, batch: pa.RecordBatch) -> Made:
        counts: Counter[str] = Counter()
        texts: Iterator[list[tuple[int, str, float]]] = iter([])
        images: Iterator[list[tuple[int, str, float]]] = iter([])
        if self.text_vectors:
            texts = iter(self._texts(batch, counts))
        if self.images.shards:
            images = iter(self._images(batch, counts))
        rows = []
        for _ in range(batch.num_rows):
            near_texts, near_images = next(texts, []), next(images, [])
            counts["texts"] += len(near_texts)
            counts["images"] += len(near_images)
            counts["pairs without a text"] += not near_texts
            counts["pairs without an image"] += not near_images
            rows.append(_columns("text", near_texts) | _columns("image", near_images))
        return Made(rows, counts)

    def _texts(
        self, batch: pa.RecordBatch, counts: Counter[str]
    ) -> Iterator[list[tuple[int, str, float]]]:
        assert self.text_vectors
        told = [" ".join(texts) for texts in batch.column("caption_texts").to_pylist()]
        queries = self.text_vectors.vectors(told)
        found = search(self.work / "texts.index", queries, self.retrieval.top_k)
        names = _ids(self.texts)
        least = self.retrieval.min_text_score
        for rows, scores in zip(found.rows.tolist(), found.scores.tolist(), strict=True):
            kept = [(r, names[r], s) for r, s in zip(rows, scores, strict=True) if r >= 0]
            near = [one for one in kept if one[2] >= least]
            counts["text below --min-text-score"] += len(kept) - len(near)
            yield near

    def _images(
        self, batch: pa.RecordBatch, counts: Counter[str]
    ) -> Iterator[list[tuple[int, str, float]]]:
        own = batch.column("image_row").to_numpy()
        found = search(
            self.work / "images.index",
            _vectors(_versions(self.own))[own],
            self.retrieval.top_k + _SPARE,
        )
        names = _ids(self.images)
        own_names = batch.column("image_id").to_pylist()
        for i, (rows, scores) in enumerate(zip(found.rows, found.scores, strict=True)):
            shares = self._overlaps(int(own[i]), rows)
            near = []
            for row, score, share in zip(rows.tolist(), scores.tolist(), shares, strict=True):
                reason = self._unfit(score, share, row < 0 or names[row] == own_names[i])
                if reason:
                    counts[f"image {reason}"] += 1
                elif len(near) < self.retrieval.top_k:
                    near.append((row, names[row], score))
            yield near

    def _unfit(self, score: float, share: float, is_own: bool) -> str:
        if is_own:
            return "is the pair's own"
        if score > self.retrieval.max_image_score:
            return "above --max-image-score"
        if score < self.retrieval.min_image_score:
            return "below --min-image-score"
        return "below --min-overlap" if share < self.retrieval.min_overlap else ""

    def _overlaps(self, own: int, rows: np.ndarray) -> list[float]:
        if not self.retrieval.min_overlap:
            return [1.0] * len(rows)
        masses = _masses(_versions(map(masses_of, self.own)))[own].astype(np.float32)
        count = len(self.images.shards)
        parts = (masses_of(self.work / f"images-{n:05d}.npy") for n in range(count))
        others = _masses(_versions(parts))[np.maximum(rows, 0)].astype(np.float32)
        return overlap(masses, others).tolist()


def masses_of(vectors: Path) -> Path:
    """The file of class masses beside a file of vectors."""
    return vectors.with_suffix(".masses.npy")


def _versions(paths: Iterable[Path]) -> tuple[tuple[Path, Version], ...]:
    return tuple((path, version_of(path)) for path in paths)


@lru_cache(maxsize=2)
def _ids(searched: Searched) -> list[str]:
    batches = chain.from_iterable(read_batches(shard, [0]) for shard in searched.shards)
    return [name for batch in batches for name in batch.column(0).to_pylist()]


@lru_cache(maxsize=1)
def _vectors(paths: tuple[tuple[Path, Version], ...]) -> np.ndarray:
    return load_vectors([path for path, _ in paths])


@lru_cache(maxsize=2)
def _masses(paths: tuple[tuple[Path, Version], ...]) -> np.ndarray:
    return load_vectors([path for path, _ in paths])


def _columns(kind: str, near: Sequence[tuple[int, str, float]]) -> dict[str, Any]:
    return {
        f"{kind}_rows": [row for row, _, _ in near],
        f"{kind}_ids": [name for _, name, _ in near],
        f"{kind}_scores": [score for _, _, score in near],
    }
