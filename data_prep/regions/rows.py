"""Rows of an images corpus, wherever its regions come from, and samples of their features."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from data_prep.pool import run_tasks
from data_prep.quarantine import Bad, BadRecord
from data_prep.regions.visual_words import load_visual_words, nearest_words, sample_size
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
    """Where regions come from; picklable. Its records have an id, a source and a line."""

    def regions(self, record: Any) -> Regions:
        """The regions of one record.

        Raises:
            BadRecord: it has none that can be used.
        """


class RegionMaker(NamedTuple):
    """Records -> rows; where the source knows no classes, a region's class is its visual word."""

    reader: RegionReader
    visual_words: str = ""  # path; empty if the source knows classes
    kind: str = IMAGES

    def rows(self, records: Sequence[Any], bad: list[Bad]) -> Iterator[dict[str, Any]]:
        for record in records:
            try:
                regions = self.reader.regions(record)
            except BadRecord as error:
                bad.append(error.at(record.source, record.line, record.id))
                continue
            ids, probs = regions.class_ids, regions.class_probs
            if self.visual_words:
                ids = nearest_words(regions.features, load_visual_words(self.visual_words))
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


def sample_features(
    reader: RegionReader, records: Sequence[Any], num_classes: int, seed: int, workers: int
) -> np.ndarray:
    """float16 [N, F]: features of some regions of some records; ``workers`` changes none."""
    rng = np.random.default_rng([seed, len(records)])
    count = min(len(records), _SAMPLED_IMAGES)
    chosen = sorted(rng.choice(len(records), size=count, replace=False).tolist())
    most = -(-sample_size(num_classes) // max(count, 1))
    tasks = [
        _Sample(i, reader, [records[k] for k in chosen[i : i + _IMAGES_PER_TASK]], most, seed)
        for i in range(0, count, _IMAGES_PER_TASK)
    ]
    found = dict(run_tasks(_features_of, tasks, workers))
    features = [array for task in tasks for array in found[task.number]]
    return np.concatenate(features) if features else np.empty((0, 0), dtype=np.float16)


def _features_of(sample: _Sample) -> tuple[int, list[np.ndarray]]:
    rng = np.random.default_rng([sample.seed, sample.number, sample.most])
    found = []
    for record in sample.records:
        try:
            features = sample.reader.regions(record).features
        except BadRecord:  # it is put into quarantine when the shards are made
            continue
        rows = rng.choice(len(features), size=min(sample.most, len(features)), replace=False)
        found.append(features[rows])
    return sample.number, found
