"""What the images commands are told about regions."""

from pathlib import Path
from typing import Any, NamedTuple

from data_prep.regions.visual_words import MAX_CLASSES
from data_prep.writer import Folder, sha256_of

PIXELS, GRID, DETECTOR, PRECOMPUTED = "pixels", "grid", "detector", "precomputed"
SOURCES = (PIXELS, GRID, DETECTOR, PRECOMPUTED)
_SIDE_OF_PIXELS = 7
# What belongs to some sources only: name -> those that read it.
_BELONGS_TO = {
    "grid": (PIXELS, GRID),
    "model": (GRID, DETECTOR),
    "preprocessor": (GRID, DETECTOR),
    "boxes": (GRID,),
    "class_names": (GRID, PRECOMPUTED),
}


class RegionPlan(NamedTuple):
    """The options of the images and pairs commands that tell what a region is."""

    regions: str = PIXELS
    grid: int | None = None
    patch: int = 16
    model: Path | None = None
    preprocessor: Path | None = None
    device: str = "auto"
    precision: str = "auto"
    batch_size: int = 32
    boxes: Path | None = None
    class_names: Path | None = None
    min_score: float = 0.2
    min_regions: int = 10
    num_classes: int = 1601
    visual_words: Folder | None = None
    max_regions: int = 100
    kept_classes: int = 8
    rows_per_shard: int = 8192

    def check(self) -> None:
        """Refuses what cannot work.

        Raises:
            ValueError: with the value and what it may be.
        """
        if self.regions not in SOURCES:
            raise ValueError(f"--regions {self.regions}: expected one of {', '.join(SOURCES)}")
        for name, sources in _BELONGS_TO.items():
            if getattr(self, name) is not None and self.regions not in sources:
                raise ValueError(
                    f"--{name.replace('_', '-')} belongs to --regions {' or '.join(sources)}, "
                    f"not to {self.regions}"
                )
        if self.regions == GRID and self.class_names and not self.boxes:
            raise ValueError("--class-names needs --boxes FILE with the classes of boxes")
        if not 2 <= self.num_classes <= MAX_CLASSES:
            raise ValueError(f"--num-classes {self.num_classes} is not within 2 and {MAX_CLASSES}")
        if not 0 <= self.min_score <= 1:
            raise ValueError(f"--min-score {self.min_score} is not within 0 and 1")
        for name in ("max_regions", "min_regions", "kept_classes", "rows_per_shard", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} {getattr(self, name)}: 1 at least")
        if self.regions == DETECTOR and self.min_regions > self.max_regions:
            told = f"--min-regions {self.min_regions} is more than --max-regions {self.max_regions}"
            raise ValueError(told)

    @property
    def pixel_grid(self) -> int:
        """Patches of pixels a side."""
        return _SIDE_OF_PIXELS if self.grid is None else self.grid

    def parameters(self) -> dict[str, Any]:
        """All that a build's bytes depend on, files by their content, JSON-able.

        The model is told by the region source, boxes are told by the records that have them.
        """
        values = self._asdict()
        for name in ("model", "preprocessor", "boxes", "device"):
            del values[name]
        for name in ("visual_words", "class_names"):
            values[name] = sha256_of(values[name]) if values[name] else ""
        return values
