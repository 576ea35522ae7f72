"""Regions out of feature tables: checked, boxes made relative, soft labels cut to their top."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.tables.rows import RawRegions, TableRow
from data_prep.readers.tables.scan import read_row
from data_prep.regions.boxes import as_float16, check_finite, likeliest, relative_boxes
from data_prep.regions.class_names import load_vocabulary
from data_prep.regions.rows import Regions, one_by_one

# R regions, F features, K classes, k kept classes

_SUM_TOLERANCE = 0.02  # of probabilities that somebody rounded


class TableReader(NamedTuple):
    """What all rows of a corpus have in common."""

    feature_size: int
    num_classes: int  # K; 0: the tables know no classes
    kept_classes: int  # k
    max_regions: int
    class_names: str = ""  # file that gives ids to classes by name; "": the tables have ids
    wants_gpu = False

    def regions_of(self, records: Sequence[TableRow]) -> Iterator[Regions | BadRecord]:
        """See `RegionReader`."""
        return one_by_one(self.regions, records)

    def regions(self, record: TableRow) -> Regions:
        """The first ``max_regions`` regions of a row.

        Raises:
            BadRecord: its numbers are not what the format promises.
        """
        raw = read_row(record)
        features = _matrix(raw.features, len(raw.boxes), self.feature_size, "features")
        kept = slice(self.max_regions)
        features = as_float16(features)
        check_finite("boxes", raw.boxes)
        check_finite("probs", raw.probs)
        ids, probs = self._classes(raw)
        return Regions(
            width=round(raw.width),
            height=round(raw.height),
            features=features[kept],
            boxes=relative_boxes(raw.boxes, raw.width, raw.height)[kept],
            class_ids=ids[kept],
            class_probs=probs[kept],
        )

    def _classes(self, raw: RawRegions) -> tuple[np.ndarray, np.ndarray]:
        """uint16 and float16 [R, k]: the k likeliest classes of every region, likeliest first."""
        count = len(raw.boxes)
        if not self.num_classes:
            return np.empty((count, 0), np.uint16), np.empty((count, 0), np.float16)
        if self.class_names:
            vocabulary = load_vocabulary(self.class_names)
            if len(raw.names) != count:
                raise BadRecord(Reason.MISSING_FIELD, "no names of classes, other rows have them")
            ids = np.array([vocabulary.id_of(name) for name in raw.names])
            return _detected(ids, raw.probs)
        if len(raw.classes):
            if raw.classes.min() < 0 or raw.classes.max() >= self.num_classes:
                detail = f"class {raw.classes.max()}, but --num-classes is {self.num_classes}"
                raise BadRecord(Reason.BAD_RECORD, detail)
            return _detected(raw.classes, raw.probs)
        probs = _matrix(raw.probs, count, self.num_classes, "probabilities")
        _check_probabilities(probs)
        return likeliest(probs, self.kept_classes)


def table_reader(
    rows: Sequence[TableRow],
    num_classes: int,
    kept_classes: int,
    max_regions: int,
    class_names: str = "",
) -> TableReader:
    """The reader for tables like the first readable row of ``rows``.

    ``num_classes`` counts where the table has detected classes without a distribution.
    ``class_names``: file that gives ids to classes that the tables have by name.

    Raises:
        ValueError: no row is readable.
    """
    last = ""
    for row in rows:
        try:
            raw = read_row(row)
        except BadRecord as error:
            last = f": {row.source}, line {row.line}: {error}"
            continue
        count = len(raw.boxes)
        if not count or not len(raw.features) or len(raw.features) % count:
            continue
        feature_size = len(raw.features) // count
        if raw.names and class_names:
            classes = len(load_vocabulary(class_names).lines)
            return TableReader(feature_size, classes, 1, max_regions, class_names)
        if raw.names:
            return TableReader(feature_size, 0, 0, max_regions)
        if len(raw.classes):
            return TableReader(feature_size, num_classes, 1, max_regions)
        found = len(raw.probs) // count
        return TableReader(feature_size, found, min(kept_classes, found), max_regions)
    raise ValueError(f"none of the {len(rows)} rows of the tables can be read{last}")


def _matrix(numbers: np.ndarray, count: int, width: int, name: str) -> np.ndarray:
    if not count or len(numbers) != count * width:
        detail = f"{len(numbers)} {name} for {count} boxes, the first row has {width} for each"
        raise BadRecord(Reason.WRONG_FEATURE_SIZE, detail)
    return numbers.reshape(count, width)


def _detected(ids: np.ndarray, probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One class for each region, with its probability."""
    if probs.min() < 0 or probs.max() > 1 + _SUM_TOLERANCE:
        raise BadRecord(Reason.BAD_RECORD, f"a confidence of {probs.min():g} or {probs.max():g}")
    return ids[:, None].astype(np.uint16), probs[:, None].astype(np.float16)


def _check_probabilities(probs: np.ndarray) -> None:
    if probs.min() < 0 or probs.sum(axis=1).max() > 1 + _SUM_TOLERANCE:
        raise BadRecord(Reason.BAD_RECORD, "probabilities below 0 or with a sum above 1")
