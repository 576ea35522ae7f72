"""One shard beside what its manifest says of it: a task that any worker can do."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.checks.columns import column_problems
from data_prep.checks.files import file_damage
from data_prep.checks.rows import Finding, Rules, row_lengths, wrong_rows
from data_prep.checks.units import unit_problems
from data_prep.hashing import id_hashes, save_hashes
from data_prep.writer import Folder, read_array, read_batches, shard_schema
from unimo_ds.data.schema import SCHEMAS, STAGES, ShardRecord


class ShardTask(NamedTuple):
    """Which shard to check, how, and where to leave the hashes of its ids."""

    index: int
    folder: Folder
    record: ShardRecord
    rules: Rules
    quick: bool
    hashes: Path  # to save them at; `quick` saves none


class ShardReport(NamedTuple):
    """What was found; ``rows_known``: the hashes of its ids have been written."""

    task: ShardTask
    problems: list[str]
    rows_known: bool


def check_shard(task: ShardTask) -> ShardReport:
    """Every byte of a shard and of the files beside it, its columns, every rule for its rows."""
    record, folder = task.record, task.folder
    path, lengths_path = folder / record.name, folder / record.lengths
    problems = []
    for name, sha256 in record.files:
        size = record.bytes if name == record.name else None
        if told := file_damage(folder / name, sha256, size, task.quick):
            problems.append(told)
    hashes: list[np.ndarray] = []
    if not problems:
        try:
            problems += _content(task, path, lengths_path, hashes)
        except (ValueError, EOFError, OSError, pa.ArrowException) as error:
            problems.append(f"{path}: {error}")
    if record.units and not problems and not task.quick:
        problems += unit_problems(path, folder / record.units, record.length_sum, task.rules)
    for stage in STAGES if not problems and not task.quick else ():
        if columns := getattr(record, stage):
            problems += column_problems(path, folder / columns, stage, task.rules)
    if problems or task.quick:
        return ShardReport(task, problems, rows_known=False)
    save_hashes(task.hashes, np.concatenate([np.empty((0, 2), np.uint64), *hashes]))
    return ShardReport(task, problems, rows_known=True)


def _content(
    task: ShardTask, path: Folder, lengths_path: Folder, hashes: list[np.ndarray]
) -> Iterator[str]:
    schema = shard_schema(path)
    wanted = SCHEMAS[task.rules.kind]
    if not schema.equals(wanted):
        yield f"{path}: its columns are not those of {task.rules.kind}: {_differences(schema)}"
        return
    lengths = read_array(lengths_path)
    if lengths.dtype != np.int32 or lengths.shape != (task.record.rows,):
        told = f"{lengths.dtype} {lengths.shape}, expected int32 ({task.record.rows},)"
        yield f"{lengths_path}: {told}"
        return
    total = int(lengths.sum(dtype=np.int64))
    if total != task.record.length_sum:
        yield f"{lengths_path}: sums to {total}, the manifest says {task.record.length_sum}"
    if task.quick:
        return
    yield from _rows(task, path, lengths_path, lengths, hashes)


def _rows(
    task: ShardTask,
    path: Folder,
    lengths_path: Folder,
    lengths: np.ndarray,
    hashes: list[np.ndarray],
) -> Iterator[str]:
    found: dict[str, list[Finding]] = {}
    first_ids: dict[str, str] = {}
    row, lengths_fit = 0, True
    for batch in read_batches(path):
        batch.validate(full=True)
        for column, name in zip(batch.columns, batch.schema.names, strict=True):
            if column.null_count:
                yield f"{path}: {column.null_count} rows without {name}"
                return
        stored = lengths[row : row + batch.num_rows]
        lengths_fit = lengths_fit and np.array_equal(stored, row_lengths(task.rules.kind, batch))
        for finding in wrong_rows(batch, task.rules):
            name = str(batch.column("id")[int(finding.rows[0])].as_py())
            first_ids.setdefault(finding.what, f"row {row + int(finding.rows[0])} ({name})")
            found.setdefault(finding.what, []).append(finding)
        hashes.append(id_hashes(batch.column("id")))
        row += batch.num_rows
    if row != task.record.rows:
        yield f"{path}: {row} rows, {len(lengths)} lengths, manifest {task.record.rows}"
    elif not lengths_fit:
        yield f"{lengths_path}: does not hold the lengths of the rows"
    for what, findings in found.items():
        count = sum(len(finding.rows) for finding in findings)
        others = f" and {count - 1} more rows" if count > 1 else ""
        yield f"{path}: {first_ids[what]}{others}: {what}"


def _differences(schema: pa.Schema) -> str:
    return ", ".join(
        f"{name} {kind}" for name, kind in zip(schema.names, schema.types, strict=True)
    )
