"""A build: pure tasks `slice of the input -> one shard + receipt`, then a manifest of the receipts.

What is killed goes on with ``--resume``: a task whose receipt matches its slice is not done again.
No byte depends on the number of workers or on where a build was interrupted.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, NoReturn, Protocol, TypeVar

from data_prep.pool import run_tasks
from data_prep.quarantine import QUARANTINE_NAME, UNWANTED, Bad, Reason, count_reasons
from data_prep.ray_pool import run_on_ray
from data_prep.receipts import (
    RECEIPTS_FOLDER,
    Receipt,
    is_unused,
    read_receipts,
    remove_receipts,
    write_receipt,
)
from data_prep.sources import bring, with_origins
from data_prep.writer import TEMPORARY_SUFFIX, Folder, sha256_of, write_bytes, write_shard
from unimo_ds.data.schema import MANIFEST_NAME, Manifest, fingerprint_of, read_manifest
from unimo_ds.transfer import origin_of

Task = TypeVar("Task")
Result = TypeVar("Result")

LOCAL, RAY = "local", "ray"
_PARAMETERS_NAME = "parameters.json"
_FEWEST_ROWS = 1024  # of a slice: one record batch
_SLICES = 16  # that a corpus smaller than that many full shards is cut into


class TooManyBad(Exception):
    """More records are bad than ``--max-bad`` allows; with a higher one the build can go on."""


class Slice(NamedTuple):
    """The input of one task."""

    records: Sequence[Any]  # NamedTuples of JSON-able values
    bad: Sequence[Bad]  # what the reader could not read among them
    size: int  # in the unit of the progress bar


class ShardMaker(Protocol):
    """Makes rows of records; picklable, and the same records always give the same rows.

    One that is faster on a GPU has a true ``wants_gpu``.
    """

    @property
    def kind(self) -> str:
        """Of the corpus that the rows belong to."""

    def rows(self, records: Sequence[Any], bad: list[Bad]) -> Iterator[dict[str, Any]]:
        """Yields rows and appends what cannot be one to ``bad``."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """What every builder is told."""

    command: list[str]
    seed: int = 1
    workers: int = 1
    engine: str = LOCAL  # or RAY
    ray_address: str = ""  # of a cluster; empty: a Ray of this machine, with that many workers
    resume: bool = False
    max_bad: float = 0.01
    progress: Callable[[int], None] = lambda size: (
        None
    )  # called with the size of each finished slice
    on_stage: Callable[[str], None] = lambda name: None  # called where another part begins

    def run(
        self, function: Callable[[Task], Result], tasks: Iterable[Task], wants_gpu: bool = False
    ) -> Iterator[Result]:
        """``function`` of every task, in the order in which they end, on the chosen engine.

        Raises:
            ValueError: an engine that there is not.
        """
        if self.engine == RAY:
            return run_on_ray(function, tasks, self.workers, self.ray_address, wants_gpu)
        if self.engine != LOCAL:
            raise ValueError(f"--engine {self.engine}: expected {LOCAL} or {RAY}")
        return run_tasks(function, tasks, self.workers)


class _Task(NamedTuple):
    number: int
    key: str
    slice: Slice


def is_complete(folder: Folder, options: Options) -> bool:
    """Is the corpus in ``folder`` there already?

    Raises:
        ValueError: ``folder`` is in use without ``--resume``, or another command filled it.
    """
    if is_unused(folder):
        return False
    if not options.resume:
        raise ValueError(f"{folder} is not empty: name a new folder, or go on with --resume")
    if not (folder / MANIFEST_NAME).exists():
        return False
    found = read_manifest(folder).command
    if found != options.command:
        raise ValueError(
            f"{folder} holds a corpus made by `{' '.join(found)}`, not by "
            f"`{' '.join(options.command)}`: name a new folder"
        )
    remove_receipts(folder)
    return True


def start(folder: Folder, parameters: dict[str, Any]) -> None:
    """Makes ``folder`` ready for a build with these parameters, or checks that it was begun so.

    Raises:
        ValueError: it was begun with others.
    """
    receipts = folder / RECEIPTS_FOLDER
    receipts.mkdir(parents=True, exist_ok=True)
    _remove_leftovers(folder)
    path = receipts / _PARAMETERS_NAME
    wanted = json.dumps(parameters, sort_keys=True) + "\n"
    if not path.exists():
        write_bytes(path, wanted.encode())
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    changed = [k for k in sorted({*begun, *parameters}) if begun.get(k) != parameters.get(k)]
    if changed:
        told = ", ".join(f"{k} was {begun.get(k)!r}, is {parameters.get(k)!r}" for k in changed)
        raise ValueError(
            f"{folder} was begun otherwise ({told}): name a new folder, or delete this one"
        )


def build_shards(
    folder: Folder,
    maker: ShardMaker,
    slices: Iterable[Slice],
    parameters: dict[str, Any],
    options: Options,
) -> list[Receipt]:
    """One shard and one receipt for every slice, in the order of the slices.

    Raises:
        ValueError: a receipt from before does not match its slice: the input has changed.
    """
    fingerprint = fingerprint_of(parameters)
    before = read_receipts(folder)
    receipts: list[Receipt] = []

    def missing() -> Iterator[_Task]:
        for index, piece in enumerate(slices):
            key = _key(fingerprint, piece)
            receipt = before.get(index)
            if receipt is None:
                yield _Task(index, key, piece)
                continue
            if receipt.key != key:
                raise ValueError(
                    f"the input of shard {index} in {folder} has changed since the build was "
                    "begun: delete the folder and build it anew"
                )
            receipts.append(receipt)
            options.progress(receipt.size)

    wants_gpu = getattr(maker, "wants_gpu", False)
    for receipt in options.run(partial(_make, folder, maker), missing(), wants_gpu):
        receipts.append(receipt)
        options.progress(receipt.size)
    return sorted(receipts, key=lambda receipt: receipt.index)


def finish(
    folder: Folder,
    receipts: Sequence[Receipt],
    options: Options,
    files: Sequence[str] = (),
    **fields: Any,
) -> Manifest:
    """Writes ``quarantine.jsonl`` and, last of all, the manifest.

    ``files`` names what else belongs to the corpus; any other file in it is a stranger to `verify`.

    Raises:
        TooManyBad: the share of bad records passes ``--max-bad``; the quarantine is written.
        ValueError: nothing is left that could be a corpus.
    """
    bad = [entry for receipt in receipts for entry in receipt.bad]
    write_bytes(folder / QUARANTINE_NAME, _lines(bad))
    records = sum(receipt.records for receipt in receipts)
    records -= sum(entry.reason is Reason.LEFT_OUT for entry in bad)  # which count many
    broken = [entry for entry in bad if entry.reason not in UNWANTED]
    if len(broken) > options.max_bad * records:
        raise TooManyBad(
            f"{len(broken)} of {records} records are bad, more than --max-bad {options.max_bad:g} "
            f"allows ({_told(count_reasons(broken))}): see {folder / QUARANTINE_NAME}, then go on "
            "with --resume and a higher --max-bad, or build anew from better input"
        )
    shards = [receipt.shard for receipt in receipts if receipt.shard]
    if not shards:
        refuse_empty(folder, bad)
    manifest = Manifest(
        rows=sum(shard.rows for shard in shards),
        shards=shards,
        quarantined=count_reasons(bad),
        command=options.command,
        seed=options.seed,
        files={name: sha256_of(folder / name) for name in sorted([QUARANTINE_NAME, *files])},
        **fields,
    )
    _remove_leftovers(folder)
    write_bytes(folder / MANIFEST_NAME, manifest.to_json().encode())
    return manifest


def refuse_empty(folder: Folder, bad: Sequence[Bad]) -> NoReturn:
    """Ends a build that has no row to write.

    Raises:
        TooManyBad: all records were bad; they are in the quarantine.
        ValueError: there was none.
    """
    if all(entry.reason is Reason.LEFT_OUT for entry in bad):
        less = ", ".join(f"{entry.source}: {entry.detail}" for entry in bad)
        left_out = f"; left out of {less}" if bad else ""
        raise ValueError(f"the input of {folder} holds no record{left_out}")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / QUARANTINE_NAME
    write_bytes(path, _lines(bad))
    raise TooManyBad(f"no record is left ({_told(count_reasons(bad))}): see {path}")


def cut(records: Sequence[Any], bad: Sequence[Bad], rows_per_shard: int) -> Iterator[Slice]:
    """Slices of a known list of records. Where they are cut depends on their number only.

    Raises:
        ValueError: ``rows_per_shard`` is not positive.
    """
    if rows_per_shard < 1:
        raise ValueError(f"--rows-per-shard {rows_per_shard}: at least one is needed")
    share = -(-len(records) // _SLICES)
    rows = min(rows_per_shard, max(_FEWEST_ROWS, share))
    for first in range(0, max(len(records), 1), rows):
        piece = records[first : first + rows]
        yield Slice(piece, bad if first == 0 else (), len(piece))


def _make(folder: Folder, maker: ShardMaker, task: _Task) -> Receipt:
    bad = list(task.slice.bad)
    bring([maker, *task.slice.records])
    name = f"{maker.kind}-{task.number:05d}.arrow"
    shard = write_shard(folder, name, maker.kind, maker.rows(task.slice.records, bad))
    receipt = Receipt(
        index=task.number,
        key=task.key,
        records=len(task.slice.records) + len(task.slice.bad),
        shard=shard,
        bad=bad,
        size=task.slice.size,
    )
    write_receipt(folder, receipt)
    return receipt


def _key(fingerprint: str, piece: Slice) -> str:
    """Names what a shard is made of; wherever this machine keeps its copies of remote files."""

    def named(entry: Iterable[Any]) -> list[Any]:
        return [origin_of(value) if type(value) is str else value for value in entry]

    return fingerprint_of([fingerprint, *([named(e) for e in part] for part in piece[:2])])


def _lines(bad: Sequence[Bad]) -> bytes:
    shown = (
        entry._replace(source=with_origins(entry.source), detail=with_origins(entry.detail))
        for entry in bad
    )
    # a file name may be no UTF-8
    return "".join(entry.to_line() for entry in shown).encode(errors="backslashreplace")


def _remove_leftovers(folder: Folder) -> None:
    """Of writers that were killed."""
    for leftover in folder.glob(f"*{TEMPORARY_SUFFIX}"):
        leftover.unlink(missing_ok=True)


def _told(reasons: dict[str, int]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in reasons.items())
