"""What a corpus holds, in numbers."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from rich.markup import escape
from rich.table import Table

from data_prep.lengths import caption_lengths, row_lengths
from data_prep.writer import Folder
from unimo_ds.data.schema import IMAGES, PAIRS, Manifest, read_manifest

_BINS = 8
_BAR = 24  # characters


class Stats(NamedTuple):
    """One corpus. Lengths are tokens of a text, regions of an image, caption tokens of a pair."""

    folder: str
    kind: str
    rows: int
    shards: int
    bytes: int  # of the shards
    length_name: str
    length_sum: int
    length_mean: float
    length_min: int
    length_median: int
    length_p95: int
    length_max: int
    histogram: list[tuple[int, int, int]]  # from, to (both included), rows
    captions: int  # of pairs
    captions_histogram: list[tuple[int, int, int]]  # of pairs: captions of an image
    caption_tokens_mean: float
    stages: dict[str, dict[str, int]]  # of pairs: what `rewrite` and `retrieve` counted
    quarantined: dict[str, int]
    regions: dict[str, Any]  # of images: where they come from
    tokenizer: str
    max_tokens: int
    seed: int
    command: str


def corpus_stats(folder: Folder) -> list[Stats]:
    """Of the corpus in ``folder``, and of the images corpus in it. No shard of texts or images is
    read: the manifest and the lengths files say all.

    Raises:
        ValueError: no corpus there, or without its lengths.
    """
    manifest = read_manifest(folder)
    lengths = row_lengths(folder, manifest)
    source = manifest.regions
    stats = Stats(
        folder=str(folder),
        kind=manifest.kind,
        rows=manifest.rows,
        shards=len(manifest.shards),
        bytes=sum(shard.bytes for shard in manifest.shards),
        length_name="regions" if manifest.kind == IMAGES else "tokens",
        length_sum=lengths.total,
        length_mean=round(lengths.mean, 2),
        length_min=lengths.shortest,
        length_median=lengths.percentile(0.5),
        length_p95=lengths.percentile(0.95),
        length_max=lengths.longest,
        histogram=lengths.histogram(_BINS),
        **_caption_stats(folder, manifest),
        stages={name: told["counts"] for name, told in sorted(manifest.stages.items())},
        quarantined=manifest.quarantined,
        regions=source.__dict__ if source and manifest.kind == IMAGES else {},
        tokenizer=manifest.tokenizer,
        max_tokens=manifest.max_tokens,
        seed=manifest.seed,
        command=" ".join(manifest.command),
    )
    return [stats, *(corpus_stats(folder / manifest.images) if manifest.images else [])]


def _caption_stats(folder: Folder, manifest: Manifest) -> dict[str, Any]:
    if manifest.kind != PAIRS:
        return {"captions": 0, "captions_histogram": [], "caption_tokens_mean": 0.0}
    found = caption_lengths(folder, manifest)
    return {
        "captions": found.captions.total,
        "captions_histogram": found.captions.histogram(_BINS),
        "caption_tokens_mean": round(found.tokens.mean, 2),
    }


def size_text(size: int) -> str:
    """Bytes as a person reads them."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size} bytes"


def stats_table(stats: Stats) -> Table:
    """For a person."""
    table = Table(
        title=escape(f"{stats.folder}: {stats.kind}"), show_header=False, title_justify="left"
    )
    table.add_row("rows", f"{stats.rows:,} in {stats.shards} shards")
    table.add_row("size", size_text(stats.bytes))
    name = stats.length_name
    table.add_row(name, f"{stats.length_sum:,}")
    spread = f"{stats.length_min:,}, {stats.length_median:,}, {stats.length_p95:,}"
    table.add_row(f"{name} a row", f"{stats.length_mean:,.1f} on average")
    table.add_row("  least, median, 95 %, most", f"{spread}, {stats.length_max:,}")
    _add_bars(table, stats.histogram)
    if stats.kind == PAIRS:
        told = f"{stats.captions:,}, {stats.caption_tokens_mean:,.1f} tokens on average"
        table.add_row("captions", told)
        _add_bars(table, stats.captions_histogram)
    for stage, counts in stats.stages.items():
        table.add_row(escape(stage), "")
        for what, count in counts.items():
            table.add_row(escape(f"  {what}"), f"{count:,}")
    if stats.regions:
        told = "{name}: {feature_size} numbers, {num_classes} classes, {kept_classes} kept"
        table.add_row("regions from", told.format(**stats.regions))
        for key, value in stats.regions["parameters"].items():
            table.add_row(escape(f"  {key}"), escape(str(value)))
    if stats.tokenizer:
        table.add_row("tokenizer", f"{stats.tokenizer}, at most {stats.max_tokens} tokens")
    for reason, count in stats.quarantined.items():
        table.add_row(escape(f"quarantined: {reason}"), f"{count:,}")
    table.add_row("seed", str(stats.seed))
    table.add_row("made by", escape(stats.command))
    return table


def _add_bars(table: Table, histogram: Sequence[tuple[int, int, int]]) -> None:
    most = max((count for *_, count in histogram), default=0)
    for low, high, count in histogram:
        bins = f"{low:,}" if low == high else f"{low:,}-{high:,}"
        table.add_row(f"  {bins}", f"{count:>9,} {'█' * round(_BAR * count / max(most, 1))}")


def totals_table(found: Sequence[Stats]) -> Table:
    """All corpora together, one line for each kind."""
    table = Table("kind", "corpora", "rows", "tokens or regions", "captions", "size", "quarantined")
    table.title, table.title_justify = "All corpora", "left"
    for kind in sorted({stats.kind for stats in found}):
        these = [stats for stats in found if stats.kind == kind]
        table.add_row(
            kind,
            str(len(these)),
            f"{sum(stats.rows for stats in these):,}",
            f"{sum(stats.length_sum for stats in these):,}",
            f"{sum(stats.captions for stats in these):,}" if kind == PAIRS else "",
            size_text(sum(stats.bytes for stats in these)),
            f"{sum(sum(stats.quarantined.values()) for stats in these):,}",
        )
    return table
