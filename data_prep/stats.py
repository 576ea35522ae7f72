"""What a corpus holds, in numbers."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from unimo_ds.data.schema import IMAGES, PAIRS, read_manifest

_BINS = 8


class Stats(NamedTuple):
    """One corpus. Lengths are tokens of a text, regions of an image, caption tokens of a pair."""

    folder: str
    kind: str
    rows: int
    shards: int
    bytes: int
    length_name: str
    length_sum: int
    length_mean: float
    length_max: int
    histogram: list[tuple[int, int, int]]  # from, to (both included), rows
    quarantined: dict[str, int]
    regions: dict[str, Any]  # of images: where they come from


def corpus_stats(folder: Path) -> list[Stats]:
    """Of the corpus in ``folder``, and of the images corpus in it.

    Raises:
        ValueError: no corpus there, or without its lengths.
    """
    manifest = read_manifest(folder)
    try:
        found = [np.load(folder / s.lengths, allow_pickle=False) for s in manifest.shards]
    except OSError as error:
        raise ValueError(f"{folder} is damaged: {error}; see `unimo-prep verify`") from error
    lengths = np.concatenate(found)
    source = manifest.regions
    stats = Stats(
        folder=str(folder),
        kind=manifest.kind,
        rows=manifest.rows,
        shards=len(manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
        length_name="regions" if manifest.kind == IMAGES else "tokens",
        length_sum=int(lengths.sum()),
        length_mean=round(float(lengths.mean()), 2),
        length_max=int(lengths.max()),
        histogram=_histogram(lengths),
        quarantined=manifest.quarantined,
        regions=source.__dict__ if source and manifest.kind == IMAGES else {},
    )
    inner = corpus_stats(folder / manifest.images) if manifest.kind == PAIRS else []
    return [stats, *inner]


def _histogram(lengths: np.ndarray) -> list[tuple[int, int, int]]:
    low, high = int(lengths.min()), int(lengths.max())
    step = max(-(-(high - low + 1) // _BINS), 1)
    starts = np.arange(low, high + 1, step)
    counts = np.bincount((lengths - low) // step, minlength=len(starts))
    return [(int(a), int(a) + step - 1, int(n)) for a, n in zip(starts, counts, strict=True)]


def stats_table(stats: Stats) -> Table:
    """For a person."""
    table = Table(title=f"{stats.folder}: {stats.kind}", show_header=False)
    table.add_row("rows", f"{stats.rows:,} in {stats.shards} shards")
    table.add_row("size", f"{stats.bytes / 1e6:,.1f} MB")
    name = stats.length_name
    table.add_row(name, f"{stats.length_sum:,}")
    table.add_row(f"{name} a row", f"{stats.length_mean:,.1f}, at most {stats.length_max:,}")
    most = max(count for *_, count in stats.histogram)
    for low, high, count in stats.histogram:
        table.add_row(f"  {low}-{high}", f"{count:>9,} {'█' * round(24 * count / most)}")
    if stats.regions:
        told = "{name}: {feature_size} numbers, {num_classes} classes, {kept_classes} kept"
        table.add_row("regions from", told.format(**stats.regions))
    for reason, count in stats.quarantined.items():
        table.add_row(f"quarantined: {reason}", f"{count:,}")
    return table
