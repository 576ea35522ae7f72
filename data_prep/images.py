"""Builds an images corpus."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.engine import (
    Options,
    Receipt,
    build_shards,
    cut,
    finish,
    is_complete,
    refuse_empty,
    remove_receipts,
    start,
)
from data_prep.quarantine import Bad
from data_prep.regions.pixels import PixelReader
from data_prep.regions.precomputed import table_reader
from data_prep.regions.rows import RegionMaker, RegionReader, sample_features
from data_prep.regions.visual_words import (
    MAX_CLASSES,
    VISUAL_WORDS_NAME,
    fit_visual_words,
    load_visual_words,
    sha256_of,
)
from data_prep.writer import array_bytes, write_bytes
from unimo_ds.data.schema import IMAGES, Manifest, RegionSource
from unimo_ds.pixels import PixelGrid

PIXELS, PRECOMPUTED = "pixels", "precomputed"


class RegionPlan(NamedTuple):
    """What the images commands are told about regions."""

    regions: str = PIXELS
    grid: int = 7
    patch: int = 16
    num_classes: int = 1601
    visual_words: Path | None = None
    max_regions: int = 100
    kept_classes: int = 8
    rows_per_shard: int = 8192

    def check(self) -> None:
        """Refuses what cannot work.

        Raises:
            ValueError: with the value and what it may be.
        """
        if self.regions not in (PIXELS, PRECOMPUTED):
            raise ValueError(f"--regions {self.regions}: expected {PIXELS} or {PRECOMPUTED}")
        if not 2 <= self.num_classes <= MAX_CLASSES:
            raise ValueError(f"--num-classes {self.num_classes} is not within 2 and {MAX_CLASSES}")
        for name in ("max_regions", "kept_classes", "rows_per_shard"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: 1 at least")


class Images(NamedTuple):
    """What is to be made into an images corpus: pictures, or rows of feature tables."""

    records: Sequence[Any]
    bad: Sequence[Bad]


def build_images(
    folder: Path, images: Images, plan: RegionPlan, options: Options
) -> Manifest | None:
    """Fills ``folder`` with regions of the images; None if it was complete already.

    Raises:
        ValueError: bad arguments, or a folder that holds something else.
        TooManyBad: see `data_prep.engine.finish`.
    """
    if is_complete(folder, options):
        return None
    manifest, _ = make_images(folder, images, plan, options)
    remove_receipts(folder)
    return manifest


def make_images(
    folder: Path, images: Images, plan: RegionPlan, options: Options
) -> tuple[Manifest, list[Receipt]]:
    """`build_images` that leaves the receipts where they are."""
    plan.check()
    if not images.records:
        refuse_empty(folder, images.bad)
    reader, source = _reader_and_source(images, plan)
    parameters = plan._asdict() | {"seed": options.seed}
    parameters["visual_words"] = sha256_of(plan.visual_words) if plan.visual_words else ""
    start(folder, parameters)
    words_path = ""
    if not source["num_classes"]:
        path = folder / VISUAL_WORDS_NAME
        if not path.exists():
            words = _visual_words(reader, source["feature_size"], images.records, plan, options)
            write_bytes(path, array_bytes(words))
        source["num_classes"] = len(load_visual_words(str(path)))
        source["visual_words_sha256"] = sha256_of(path)
        words_path = str(path)
    maker = RegionMaker(reader, words_path)
    pieces = cut(images.records, images.bad, plan.rows_per_shard)
    receipts = build_shards(folder, maker, pieces, parameters, options)
    manifest = finish(folder, receipts, options, kind=IMAGES, regions=RegionSource(**source))
    return manifest, receipts


def _reader_and_source(images: Images, plan: RegionPlan) -> tuple[RegionReader, dict[str, Any]]:
    """The reader, and fields of the manifest's region source; 0 classes: take visual words."""
    if plan.regions == PIXELS:
        grid = PixelGrid(grid=plan.grid, patch=plan.patch)
        return PixelReader(grid), {
            "name": PIXELS,
            "feature_size": grid.feature_size,
            "num_classes": 0,
            "kept_classes": 1,
            "max_regions": grid.num_regions,
            "parameters": {"grid": plan.grid, "patch": plan.patch},
        }
    reader = table_reader(images.records, plan.num_classes, plan.kept_classes, plan.max_regions)
    return reader, {
        "name": PRECOMPUTED,
        "feature_size": reader.feature_size,
        "num_classes": reader.num_classes,
        "kept_classes": reader.kept_classes or 1,
        "max_regions": plan.max_regions,
    }


def _visual_words(
    reader: RegionReader,
    feature_size: int,
    records: Sequence[Any],
    plan: RegionPlan,
    options: Options,
) -> np.ndarray:
    """float32 [K, F]: those of another corpus, or fitted on a sample of this one."""
    if not plan.visual_words:
        seed, workers = options.seed, options.workers
        sample = sample_features(reader, records, plan.num_classes, seed, workers)
        return fit_visual_words(sample, plan.num_classes, seed)
    words = load_visual_words(str(plan.visual_words))
    if words.shape[1] != feature_size:
        raise ValueError(
            f"the visual words of {plan.visual_words} are {words.shape[1]} wide, the features here "
            f"{feature_size}: they belong to regions of another kind"
        )
    return words
