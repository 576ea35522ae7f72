"""Rows of an images corpus, wherever its regions come from, and samples of their features."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_prep.engine import Options
from data_prep.quarantine import Bad, BadRecord
from data_prep.regions.visual_words import sample_size
from data_prep.regions.word_search import load_word_search
from data_prep.sources import bring
from unimo_ds.data.schema import IMAGES

# R regions, F features, k kept classes

_SAMPLED_IMAGES = 1024
_IMAGES_PER_TASK = 64


class Regions(NamedTuple):
    """The regions of one image, checked and ready to be stored."""

    width: int
    height: int
    features: np.ndarray  # float16 [R, F]
    boxes: np.ndarray  # float32 [R, 5]
    class_ids: np.ndarray  # uint16 [R, k]; k = 0: the source knows no classes
    class_probs: np.ndarray  # float16 [R, k]


class RegionReader(Protocol):
    """Where regions come from; picklable. Its records have an id, a source and a line.

    One with a model loads it in the first `regions_of` of a process.
    """

    @property
    def wants_gpu(self) -> bool:
        """Does it run a model that a GPU, where there is one, makes faster?"""

    def regions_of(self, records: Sequence[Any]) -> Iterator[Regions | BadRecord]:
        """The regions of each record, in their order, or why it has none that can be used.

        The same records give the same regions, whatever was asked before.
        """


def one_by_one(
    regions: Callable[[Any], Regions], records: Sequence[Any]
) -> Iterator[Regions | BadRecord]:
    """`RegionReader.regions_of` of a source that gains nothing by batches."""
    for record in records:
        try:
            yield regions(record)
        except BadRecord as error:
            yield error


class RegionMaker(NamedTuple):
    """Records -> rows; where the source knows no classes, a region's class is its visual word."""

    reader: RegionReader
    visual_words: str = ""  # path; empty if the source knows classes
    kind: str = IMAGES

    @property
    def wants_gpu(self) -> bool:
        """See `RegionReader`."""
        return self.reader.wants_gpu

    def rows(self, records: Sequence[Any], bad: list[Bad]) -> Iterator[dict[str, Any]]:
        words = load_word_search(self.visual_words) if self.visual_words else None
        for record, regions in zip(records, self.reader.regions_of(records), strict=True):
            if isinstance(regions, BadRecord):
                bad.append(regions.at(record.source, record.line, record.id))
                continue
            ids, probs = regions.class_ids, regions.class_probs
            if words is not None:
                ids = words.nearest(regions.features)
                probs = np.ones(len(ids), dtype=np.float16)
            yield {
                "id": record.id,
                "width": regions.width,
                "height": regions.height,
                "num_regions": len(regions.features),
                "features": regions.features.reshape(-1),
                "boxes": regions.boxes.reshape(-1),
                "class_ids": ids.reshape(-1),
                "class_probs": probs.reshape(-1),
            }


class _Sample(NamedTuple):
    number: int
    reader: RegionReader
    records: Sequence[Any]
    most: int  # regions to take of each record
    seed: int


class Sampled(NamedTuple):
    """Features of some regions of some records."""

    features: np.ndarray  # float16 [N, F]
    bad: list[Bad]  # records that were tried and have none


def sample_features(
    reader: RegionReader, records: Sequence[Any], num_classes: int, options: Options
) -> Sampled:
    """A sample of which only the seed decides."""
    seed = options.seed
    rng = np.random.default_rng([seed, len(records)])
    count = min(len(records), _SAMPLED_IMAGES)
    chosen = sorted(rng.choice(len(records), size=count, replace=False).tolist())
    most = -(-sample_size(num_classes) // max(count, 1))
    tasks = [
        _Sample(i, reader, [records[k] for k in chosen[i : i + _IMAGES_PER_TASK]], most, seed)
        for i in range(0, count, _IMAGES_PER_TASK)
    ]
    found = sorted(options.run(_features_of, tasks, reader.wants_gpu), key=lambda part: part[0])
    features = [array for _, arrays, _ in found for array in arrays]
    lost = [entry for *_, bad in found for entry in bad]
    empty = np.empty((0, 0), dtype=np.float16)
    return Sampled(np.concatenate(features) if features else empty, lost)


def _features_of(sample: _Sample) -> tuple[int, list[np.ndarray], list[Bad]]:
    rng = np.random.default_rng([sample.seed, sample.number, sample.most])
    found, bad = [], []
    bring(sample.records)
    read = sample.reader.regions_of(sample.records)
    for record, regions in zip(sample.records, read, strict=True):
        if isinstance(regions, BadRecord):  # other records still make a corpus
            bad.append(regions.at(record.source, record.line, record.id))
            continue
        features = regions.features
        rows = rng.choice(len(features), size=min(sample.most, len(features)), replace=False)
        found.append(features[rows])
    return sample.number, found, bad
