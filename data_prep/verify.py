"""Is a corpus what its manifest says? Every byte is read, none is trusted."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_prep.checks.files import folder_damage, manifest_damage
from data_prep.checks.references import ReferenceTask, check_references, duplicate_ids
from data_prep.checks.rows import rules_of
from data_prep.checks.shards import ShardReport, ShardTask, check_shard
from data_prep.pool import run_tasks
from data_prep.regions.pixels import grid_of_source
from data_prep.regions.plan import PIXELS
from data_prep.writer import Folder
from unimo_ds.data.schema import IMAGES, PAIRS, Manifest, read_manifest
from unimo_ds.tokenizer import WordTokenizer

_BYTES_PER_WORKER = 64_000_000
"""A worker takes a second to start: less than this is read sooner without it."""


@dataclass(frozen=True, kw_only=True)
class Checks:
    """How `damage` looks at a corpus."""

    workers: int = 1
    quick: bool = False  # sizes, columns and names only: no content is read
    tokenizer: WordTokenizer | None = None  # that texts and pairs must have been made with
    progress: Callable[[int], None] = lambda size: None  # called with the bytes of checked shards


class _Checked(NamedTuple):
    """The shards of a corpus: what is wrong, and where the hashes of the ids lie."""

    problems: list[str]
    hashes: dict[int, Path]  # shard -> file; only of whole shards


def damage(folder: Folder, checks: Checks | None = None) -> Iterator[str]:
    """What is wrong with the corpus in ``folder`` and with its images: one line each, and where.

    Memory stays bounded: shards are read batch by batch, hashes of ids lie in temporary files
    (32 bytes a row, under TMPDIR).
    """
    with tempfile.TemporaryDirectory(prefix="unimo-verify-") as scratch:
        yield from _corpus(folder, checks or Checks(), Path(scratch))


def bytes_to_read(folder: Folder) -> int:
    """Of the shards of a corpus and of its images; 0 where it has no readable manifest."""
    try:
        manifest = read_manifest(folder)
    except (ValueError, OSError):
        return 0
    inner = bytes_to_read(folder / manifest.images) if manifest.images else 0
    return inner + sum(shard.bytes for shard in manifest.shards)


def _corpus(folder: Folder, checks: Checks, scratch: Path, kind: str = "") -> Iterator[str]:
    try:
        manifest = read_manifest(folder)
        yield from manifest_damage(folder)
    except (ValueError, OSError) as error:
        yield str(error)
        return
    if kind and manifest.kind != kind:
        yield f"{folder}: holds {manifest.kind}, expected {kind}"
        return
    yield from folder_damage(folder, manifest, checks.quick)
    yield from _facts(folder, manifest, checks)
    checked = _shards(folder, manifest, checks, scratch)
    yield from checked.problems
    hashes = checked.hashes
    yield from duplicate_ids(folder, manifest, [*hashes.values()], [*hashes])
    if manifest.kind == PAIRS:
        yield from _images(folder, manifest, checks, checked, scratch)


def _facts(folder: Folder, manifest: Manifest, checks: Checks) -> Iterator[str]:
    rows = sum(shard.rows for shard in manifest.shards)
    if rows != manifest.rows:
        yield f"{folder}: the shards have {rows} rows, the manifest says {manifest.rows}"
    if manifest.kind == IMAGES and manifest.regions and manifest.regions.name == PIXELS:
        try:
            grid_of_source(manifest.regions)
        except ValueError as error:
            yield f"{folder}: {error}"
    tokenizer = checks.tokenizer
    if tokenizer and manifest.kind != IMAGES and manifest.tokenizer != tokenizer.fingerprint:
        yield (
            f"{folder}: made with tokenizer {manifest.tokenizer}, {tokenizer.source} is "
            f"{tokenizer.fingerprint}"
        )


def _shards(folder: Folder, manifest: Manifest, checks: Checks, scratch: Path) -> _Checked:
    rules = rules_of(manifest, checks.tokenizer)
    tasks = [
        ShardTask(number, folder, shard, rules, checks.quick, scratch / shard.name)
        for number, shard in enumerate(manifest.shards)
    ]
    reports: dict[int, ShardReport] = {}
    for report in run_tasks(check_shard, tasks, _workers(manifest, checks)):
        reports[report.task.index] = report
        checks.progress(report.task.record.bytes)
    ordered = [reports[number] for number in range(len(tasks))]
    problems = [problem for report in ordered for problem in report.problems]
    return _Checked(problems, {r.task.index: r.task.hashes for r in ordered if r.rows_known})


def _workers(manifest: Manifest, checks: Checks) -> int:
    most = 1 + sum(shard.bytes for shard in manifest.shards) // _BYTES_PER_WORKER
    return 1 if checks.quick else min(checks.workers, most)


def _images(
    folder: Folder, manifest: Manifest, checks: Checks, pairs: _Checked, scratch: Path
) -> Iterator[str]:
    """The images corpus of pairs, and whether the pairs point into it."""
    images_folder, inner = folder / manifest.images, scratch / IMAGES
    inner.mkdir()
    problems = list(_corpus(images_folder, checks, inner, IMAGES))
    yield from problems
    if problems or pairs.problems or checks.quick:  # rows cannot be told apart from damage
        return
    images = read_manifest(images_folder)
    if images.regions != manifest.regions:
        yield f"{folder}: made for other regions than those in {images_folder}"
    shards = [images_folder / shard.name for shard in images.shards]
    files = [inner / shard.name for shard in images.shards]
    task = partial(ReferenceTask, images=shards, hashes=files)
    tasks = (task(number, folder / shard.name) for number, shard in enumerate(manifest.shards))
    for report in sorted(run_tasks(check_references, tasks, _workers(manifest, checks))):
        yield from report.problems
