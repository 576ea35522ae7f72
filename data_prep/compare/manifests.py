"""What two manifests say differently."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from xxhash import xxh3_64_intdigest

from data_prep.quarantine import QUARANTINE_NAME, Bad, read_quarantine
from data_prep.writer import Folder
from unimo_ds.data.schema import Manifest

_OWN = ("shards", "digest", "command", "quarantined", "regions", "files", "images", "stages")
_OUTPUT = 2  # where a command names the folder it fills, in which two corpora always differ


class Fact(NamedTuple):
    """One thing that the manifests tell, with its value in A and in B; None: not there."""

    name: str
    a: Any
    b: Any


class QuarantineChange(NamedTuple):
    """Entries that only one of two quarantines has, and the first of them."""

    only_a: int
    only_b: int
    examples_a: list[Bad]
    examples_b: list[Bad]


def different_facts(a: Manifest, b: Manifest) -> list[Fact]:
    """All that differs but for the shards: kind, tokenizer, regions, parameters, command, ..."""
    return [fact for fact in _facts(a, b) if fact.a != fact.b]


def _facts(a: Manifest, b: Manifest) -> Iterator[Fact]:
    ours, theirs = asdict(a), asdict(b)
    for name in ours:
        if name not in _OWN:
            yield Fact(name, ours[name], theirs[name])
    yield from _entries("quarantined", a.quarantined, b.quarantined)
    files = _entries("file", a.files, b.files)
    yield from (fact for fact in files if fact.name != f"file {QUARANTINE_NAME}")  # see below
    regions = [dict(values["regions"] or {}) for values in (ours, theirs)]
    parameters = [values.pop("parameters", {}) for values in regions]
    yield from _entries("regions", *regions)
    yield from _entries("regions parameter", *parameters)
    units = (all(shard.units for shard in manifest.shards) for manifest in (a, b))
    yield Fact("phrases marked", *units)
    for stage in sorted({*a.stages, *b.stages}):
        told = [manifest.stages.get(stage, {}) for manifest in (a, b)]
        yield from _entries(f"{stage} counted", *(one.get("counts", {}) for one in told))
        yield from _entries(f"{stage} parameter", *(one.get("parameters", {}) for one in told))
    yield Fact("command", _command(a), _command(b))


def _entries(label: str, ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[Fact]:
    for name in sorted({*ours, *theirs}):
        yield Fact(f"{label} {name}", ours.get(name), theirs.get(name))


def _command(manifest: Manifest) -> str:
    return " ".join(manifest.command[:_OUTPUT] + manifest.command[_OUTPUT + 1 :])


def quarantine_change(a: Folder, b: Folder, most: int) -> QuarantineChange:
    """Which entries are in one quarantine only; the folder of a source does not count.

    Raises:
        ValueError: a quarantine is missing or damaged.
    """
    counts = [Counter(_key(bad) for bad in read_quarantine(folder)) for folder in (a, b)]
    only_a, only_b = counts[0] - counts[1], counts[1] - counts[0]
    return QuarantineChange(
        only_a.total(), only_b.total(), _examples(a, only_a, most), _examples(b, only_b, most)
    )


def _examples(folder: Folder, wanted: Counter[int], most: int) -> list[Bad]:
    left, found = Counter(wanted), []
    for bad in read_quarantine(folder) if wanted else ():
        key = _key(bad)
        if left[key] > 0 and len(found) < most:
            left[key] -= 1
            found.append(bad)
    return found


def _key(bad: Bad) -> int:
    named = bad._replace(source=Path(bad.source).name)
    return int(xxh3_64_intdigest(repr(tuple(named)).encode(errors="backslashreplace")))
