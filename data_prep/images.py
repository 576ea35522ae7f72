"""Builds an images corpus."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.engine import (
    Options,
    Receipt,
    ShardMaker,
    build_shards,
    cut,
    finish,
    is_complete,
    remove_receipts,
    start,
)
from data_prep.quarantine import Bad
from data_prep.readers.images import Picture
from data_prep.regions.pixels import PixelMaker, sample_patches
from data_prep.regions.visual_words import (
    MAX_CLASSES,
    VISUAL_WORDS_NAME,
    fit_visual_words,
    load_visual_words,
    sha256_of,
    words_bytes,
)
from data_prep.writer import write_bytes
from unimo_ds.data.schema import IMAGES, Manifest, RegionSource
from unimo_ds.pixels import PixelGrid


class RegionPlan(NamedTuple):
    """What the images commands are told about regions."""

    regions: str = "pixels"
    grid: int = 7
    patch: int = 16
    num_classes: int = 1601
    visual_words: Path | None = None
    max_regions: int = 100
    kept_classes: int = 8
    rows_per_shard: int = 8192

    def check(self) -> None:
        """Refuses numbers that cannot work.

        Raises:
            ValueError: with the number and its bounds.
        """
        if not 2 <= self.num_classes <= MAX_CLASSES:
            raise ValueError(f"--num-classes {self.num_classes} is not within 2 and {MAX_CLASSES}")
        for name in ("max_regions", "kept_classes"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: 1 at least")


class Images(NamedTuple):
    """What is to be made into an images corpus."""

    records: Sequence[Picture]
    bad: Sequence[Bad]


def build_images(
    folder: Path, images: Images, plan: RegionPlan, options: Options
) -> Manifest | None:
    """Fills ``folder`` with regions of the pictures; None if it was complete already.

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
    grid = PixelGrid(grid=plan.grid, patch=plan.patch)
    parameters: dict[str, Any] = {"regions": "pixels", "grid": plan.grid, "patch": plan.patch}
    parameters |= {"rows_per_shard": plan.rows_per_shard, "seed": options.seed}
    words = str(plan.visual_words) if plan.visual_words else None
    parameters |= {
        "visual_words": sha256_of(plan.visual_words) if plan.visual_words else plan.num_classes
    }
    start(folder, parameters)
    words_path = folder / VISUAL_WORDS_NAME
    if not words_path.exists():
        if words:
            centres = load_visual_words(words)
        else:
            sample = sample_patches(
                images.records, grid, plan.num_classes, options.seed, options.workers
            )
            centres = fit_visual_words(sample, plan.num_classes, options.seed)
        write_bytes(words_path, words_bytes(centres)[0])
    centres = _checked(load_visual_words(str(words_path)), grid.feature_size, words)
    maker: ShardMaker = PixelMaker(plan.grid, plan.patch, str(words_path))
    source = RegionSource(
        name="pixels",
        feature_size=grid.feature_size,
        num_classes=len(centres),
        kept_classes=1,
        max_regions=grid.num_regions,
        parameters={"grid": plan.grid, "patch": plan.patch},
        visual_words_sha256=sha256_of(words_path),
    )
    pieces = cut(images.records, images.bad, plan.rows_per_shard)
    receipts = build_shards(folder, maker, pieces, parameters, options)
    return finish(folder, receipts, options, kind=IMAGES, regions=source), receipts


def _checked(words: np.ndarray, feature_size: int, path: str | None) -> np.ndarray:
    if words.shape[1] != feature_size:
        raise ValueError(
            f"the visual words of {path} are {words.shape[1]} wide, the features here {feature_size}: they "
            "belong to regions of another kind"
        )
    return words
