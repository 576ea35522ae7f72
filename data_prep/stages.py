"""Columns that a later stage puts beside the shards of a pairs corpus: one file for each of them.

The manifest is replaced last: until then a corpus is what it was, and a stage that was killed goes
on with ``--resume``.
"""

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data_prep.engine import Options
from data_prep.receipts import RECEIPTS_FOLDER
from data_prep.writer import (
    TEMPORARY_SUFFIX,
    Folder,
    atomic_file,
    read_batches,
    record_batch,
    sizes_in,
    write_bytes,
)
from unimo_ds.data.schema import (
    MANIFEST_NAME,
    PAIRS,
    STAGES,
    Manifest,
    ShardRecord,
    fingerprint_of,
    read_manifest,
)
from unimo_ds.storage import RemotePath

_PARAMETERS_NAME = "parameters.json"


class Made(NamedTuple):
    """What a maker gives for the rows of a record batch."""

    rows: list[dict[str, Any]]  # in the order of the batch; ``id`` is added here
    counts: dict[str, int]


Maker = Callable[[int, pa.RecordBatch], Made]
"""(first row of the batch in the corpus, the batch) -> its columns; picklable, a pure function."""


class StageReceipt(NamedTuple):
    """What a finished task says of itself."""

    index: int
    shard_sha256: str
    name: str
    sha256: str
    counts: dict[str, int]
    rows: int


class _Task(NamedTuple):
    index: int
    folder: Folder
    stage: str
    name: str
    shard: ShardRecord


class Stage(NamedTuple):
    """A stage that has been begun on a corpus."""

    name: str  # REWRITES or RELATED
    folder: Folder
    manifest: Manifest
    parameters: dict[str, Any]

    @property
    def work(self) -> Folder:
        """Where the stage keeps what it needs until it is done."""
        return self.folder / RECEIPTS_FOLDER / self.name

    def first_rows(self) -> list[int]:
        """The corpus row that each shard begins with."""
        starts = [0]
        for shard in self.manifest.shards:
            starts.append(starts[-1] + shard.rows)
        return starts[:-1]


def begin_stage(
    folder: Folder, name: str, parameters: dict[str, Any], options: Options, again: bool
) -> Stage | None:
    """Makes ``folder`` ready for the stage ``name``; None: it has just these columns already.

    Args:
        parameters: JSON-able; all that the columns depend on, besides the pairs.
        again: whether columns that are there may be replaced.

    Raises:
        ValueError: no pairs corpus there, or it has the columns and neither ``--resume`` nor
            ``--replace`` was said, or ``--resume`` with other parameters.
    """
    manifest = read_manifest(folder)
    if manifest.kind != PAIRS:
        raise ValueError(f"{folder} holds {manifest.kind}, expected {PAIRS}")
    done = manifest.stages.get(name)
    if done and not again:
        if options.resume and done["parameters"] == parameters:
            return None
        raise ValueError(
            f"{folder} has the columns of `{' '.join(done['command'])}`: make them anew with "
            "--replace"
        )
    stage = Stage(name, folder, manifest, parameters)
    path = stage.work / _PARAMETERS_NAME
    begun = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
    if begun is not None and options.resume and begun != parameters:
        changed = sorted(k for k in {*begun, *parameters} if begun.get(k) != parameters.get(k))
        raise ValueError(
            f"{folder}: {name} was begun otherwise ({', '.join(changed)}): use the same options, "
            "or begin anew without --resume"
        )
    if begun is not None and not options.resume:
        _clear(stage)
    _remove_unnamed(folder, manifest, begun is not None and options.resume)
    stage.work.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(parameters, sort_keys=True) + "\n").encode())
    return stage


def make_columns(stage: Stage, maker: Maker, options: Options) -> list[StageReceipt]:
    """One file and one receipt for every shard, in their order. Progress counts rows."""
    before = _read_receipts(stage)
    receipts: list[StageReceipt] = []

    def missing() -> Iterator[_Task]:
        for index, shard in enumerate(stage.manifest.shards):
            receipt = before.get(index)
            if receipt and receipt.shard_sha256 == shard.sha256:
                receipts.append(receipt)
                options.progress(receipt.rows)
            else:
                key = fingerprint_of([stage.parameters, shard.sha256])[:8]
                name = f"{Path(shard.name).stem}.{stage.name}-{key}.arrow"
                yield _Task(index, stage.folder, stage.name, name, shard)

    options.on_stage(stage.name)
    starts = stage.first_rows()
    for receipt in options.run(partial(_make, stage.work, starts, maker), missing()):
        receipts.append(receipt)
        options.progress(receipt.rows)
    return sorted(receipts)


def finish_stage(
    stage: Stage, receipts: list[StageReceipt], options: Options, **facts: Any
) -> Manifest:
    """Replaces the manifest by one that names the columns, then removes what it names no more.

    Args:
        facts: what the manifest is to say of the stage besides parameters, command and counts.
    """
    shards = [
        replace(shard, **{stage.name: receipt.name, f"{stage.name}_sha256": receipt.sha256})
        for shard, receipt in zip(stage.manifest.shards, receipts, strict=True)
    ]
    counts: Counter[str] = Counter()
    for receipt in receipts:
        counts.update(receipt.counts)
    told = {
        "command": options.command,
        "parameters": stage.parameters,
        "counts": dict(sorted(counts.items())),
        **facts,
    }
    stages = stage.manifest.stages | {stage.name: told}
    manifest = replace(stage.manifest, shards=shards, stages=stages)
    write_bytes(stage.folder / MANIFEST_NAME, manifest.to_json().encode())
    _clear(stage)
    _remove_unnamed(stage.folder, manifest, keep_begun=False)
    return manifest


def _make(work: Folder, starts: list[int], maker: Maker, task: _Task) -> StageReceipt:
    counts: Counter[str] = Counter()
    row = starts[task.index]
    schema = STAGES[task.stage]
    path = task.folder / task.name
    with atomic_file(path) as file, pa.ipc.new_file(file, schema) as writer:
        for batch in read_batches(task.folder / task.shard.name):
            made = maker(row, batch)
            ids = batch.column("id").to_pylist()
            rows = [{"id": id_} | columns for id_, columns in zip(ids, made.rows, strict=True)]
            writer.write_batch(record_batch(schema, rows))
            counts.update(made.counts)
            row += batch.num_rows
    receipt = StageReceipt(
        task.index,
        task.shard.sha256,
        task.name,
        file.sha256,
        dict(sorted(counts.items())),
        task.shard.rows,
    )
    line = json.dumps(receipt._asdict(), sort_keys=True) + "\n"
    write_bytes(work / f"{task.index:05d}.json", line.encode())
    return receipt


def _read_receipts(stage: Stage) -> dict[int, StageReceipt]:
    names = [name for name in sizes_in(stage.work) if name.removesuffix(".json").isdecimal()]
    texts = [(stage.work / name).read_text(encoding="utf-8") for name in sorted(names)]
    found = [StageReceipt(**json.loads(text)) for text in texts]
    there = sizes_in(stage.folder)
    return {receipt.index: receipt for receipt in found if receipt.name in there}


def _clear(stage: Stage) -> None:
    """Removes what the stage kept for itself."""
    if isinstance(stage.work, RemotePath):
        stage.work.remove_tree()
        if not stage.work.parent.files():  # a folder may be an object of its own there
            stage.work.parent.remove_tree()
    else:
        shutil.rmtree(stage.work, ignore_errors=True)


def _remove_unnamed(folder: Folder, manifest: Manifest, keep_begun: bool) -> None:
    """Columns that no manifest names: of a stage that was begun and given up, or was replaced."""
    named = {name for shard in manifest.shards for name, _ in shard.files}
    for name in sizes_in(folder):
        stage = name.split(".")[1].partition("-")[0] if name.count(".") >= 2 else ""
        leftover = name.endswith(TEMPORARY_SUFFIX) or not keep_begun
        if stage in STAGES and name not in named and leftover:
            (folder / name).unlink(missing_ok=True)
