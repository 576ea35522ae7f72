"""Is a corpus what its manifest says? Every byte is read."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_prep.engine import RECEIPTS_FOLDER
from data_prep.quarantine import QUARANTINE_NAME
from data_prep.regions.visual_words import VISUAL_WORDS_NAME, sha256_of
from data_prep.writer import read_shard
from unimo_ds.data.schema import (
    IMAGES,
    PAIRS,
    SCHEMAS,
    TEXTS,
    Manifest,
    ShardRecord,
    read_manifest,
)


def damage(folder: Path) -> Iterator[str]:
    """What is wrong with the corpus in ``folder`` and with its images: one line each, and where."""
    try:
        manifest = read_manifest(folder)
    except ValueError as error:
        yield str(error)
        return
    found = [problem for shard in manifest.shards for problem in _shard(folder, manifest, shard)]
    yield from found
    yield from _totals(folder, manifest)
    if manifest.kind == PAIRS:
        broken = list(damage(folder / manifest.images))
        yield from broken
        if not found and not broken:  # else rows cannot be told apart from damage
            yield from _references(folder, manifest)


def _shard(folder: Path, manifest: Manifest, shard: ShardRecord) -> Iterator[str]:
    path, lengths_path = folder / shard.name, folder / shard.lengths
    whole = True
    for file, expected in ((path, shard.sha256), (lengths_path, shard.lengths_sha256)):
        if not file.is_file():
            whole = False
            yield f"{file}: missing"
        elif file == path and file.stat().st_size != shard.bytes:
            whole = False
            yield f"{file}: {file.stat().st_size} bytes, the manifest says {shard.bytes}"
        elif sha256_of(file) != expected:
            whole = False
            yield f"{file}: its SHA-256 is not the manifest's: the content has changed"
    if not whole:
        return
    table, lengths = read_shard(path), np.load(lengths_path, allow_pickle=False)
    if table.schema != SCHEMAS[manifest.kind]:
        yield f"{path}: its columns are not those of {manifest.kind}"
        return
    if not table.num_rows == shard.rows == len(lengths):
        yield f"{path}: {table.num_rows} rows, {len(lengths)} lengths, manifest {shard.rows}"
    elif not np.array_equal(lengths, _lengths(manifest.kind, table)):
        yield f"{lengths_path}: does not hold the lengths of the rows"
    elif int(lengths.sum()) != shard.length_sum:
        yield f"{lengths_path}: sums to {lengths.sum()}, the manifest says {shard.length_sum}"
    if manifest.kind == IMAGES:
        yield from _region_shapes(path, manifest, table)


def _lengths(kind: str, table: pa.Table) -> np.ndarray:
    if kind == IMAGES:
        return table.column("num_regions").to_numpy()
    if kind == TEXTS:
        return pc.list_value_length(table.column("tokens")).to_numpy()
    found: list[int] = []
    for chunk in table.column("captions").chunks:
        tokens = np.diff(chunk.values.offsets.to_numpy())  # of every caption
        ends = np.concatenate([[0], np.cumsum(tokens)])
        offsets = chunk.offsets.to_numpy()
        found += (ends[offsets[1:]] - ends[offsets[:-1]]).tolist()
    return np.array(found)


def _region_shapes(path: Path, manifest: Manifest, table: pa.Table) -> Iterator[str]:
    assert manifest.regions is not None
    regions = table.column("num_regions").to_numpy()
    widths = {
        "features": manifest.regions.feature_size,
        "boxes": 5,
        "class_ids": manifest.regions.kept_classes,
        "class_probs": manifest.regions.kept_classes,
    }
    for name, width in widths.items():
        if not np.array_equal(pc.list_value_length(table.column(name)).to_numpy(), regions * width):
            yield f"{path}: {name} are not {width} for every region"


def _totals(folder: Path, manifest: Manifest) -> Iterator[str]:
    rows = sum(shard.rows for shard in manifest.shards)
    if rows != manifest.rows:
        yield f"{folder}: the shards have {rows} rows, the manifest says {manifest.rows}"
    known = {shard.name for shard in manifest.shards}
    for stray in sorted(folder.glob("*.arrow")):
        if stray.name not in known:
            yield f"{stray}: not in the manifest"
    if (folder / RECEIPTS_FOLDER).exists():
        yield f"{folder}: a build was not finished; go on with --resume"
    path = folder / QUARANTINE_NAME
    lines = path.read_bytes().count(b"\n") if path.is_file() else 0
    if lines != sum(manifest.quarantined.values()):
        counted = sum(manifest.quarantined.values())
        yield f"{path}: {lines} records, the manifest counts {counted}"
    if manifest.kind == IMAGES and manifest.regions and manifest.regions.visual_words_sha256:
        words = folder / VISUAL_WORDS_NAME
        if not words.is_file():
            yield f"{words}: missing"
        elif sha256_of(words) != manifest.regions.visual_words_sha256:
            yield f"{words}: its SHA-256 is not the manifest's: the content has changed"


def _references(folder: Path, manifest: Manifest) -> Iterator[str]:
    """Every pair's row of the images corpus must be the image that the pair names."""
    images_folder = folder / manifest.images
    images = read_manifest(images_folder)
    names = [
        name
        for shard in images.shards
        for name in read_shard(images_folder / shard.name, [0]).column("id").to_pylist()
    ]
    if images.regions != manifest.regions:
        yield f"{folder}: made for other regions than those in {images_folder}"
    for shard in manifest.shards:
        table = read_shard(folder / shard.name, [0, 1, 2])
        columns = (table.column(name).to_pylist() for name in ("id", "image_id", "image_row"))
        for pair, image, row in zip(*columns, strict=True):
            if not 0 <= row < len(names) or names[row] != image:
                is_there = names[row] if 0 <= row < len(names) else "no row"
                yield f"{folder / shard.name}: pair {pair} wants {image}, row {row} is {is_there}"
