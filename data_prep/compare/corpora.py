"""What changed between two corpora: `unimo-prep diff`."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa

from data_prep.compare.manifests import Fact, QuarantineChange, different_facts, quarantine_change
from data_prep.compare.rows import Row, RowChanges, compare_rows
from data_prep.writer import Folder, read_batches
from unimo_ds.data.schema import IMAGES, Manifest, read_manifest

_SHOWN = 70  # characters of a value
_BYTES_PER_WORKER = 64_000_000
"""A worker takes a second to start: less than this is hashed sooner without it."""


class Example(NamedTuple):
    """A row that differs: its id, its places, and "column: value -> value" where it changed."""

    id: str
    a: str  # shard and row, "" if it is not there
    b: str
    changes: list[str]


class Difference(NamedTuple):
    """All that differs between corpora A and B of one kind."""

    a: str
    b: str
    kind: str
    rows_a: int
    rows_b: int
    facts: list[Fact]
    rows: RowChanges | None  # None: corpora of different kinds have no rows in common
    examples: dict[str, list[Example]]  # "only_a", "only_b", "changed"
    quarantine: QuarantineChange

    @property
    def same(self) -> bool:
        """Is it the same corpus, but for its name and how it is cut into shards?"""
        rows = self.rows
        moved = self.quarantine.only_a + self.quarantine.only_b
        return not self.facts and not moved and rows is not None and rows.same_order


def differences(a: Folder, b: Folder, *, workers: int = 1, most: int = 5) -> Iterator[Difference]:
    """Of the corpora in ``a`` and ``b``, then of the images corpora in them.

    Raises:
        ValueError: one of them is no corpus, or damaged.
    """
    manifests = read_manifest(a), read_manifest(b)
    rows, examples = None, {}
    if manifests[0].kind == manifests[1].kind:
        size = sum(shard.bytes for manifest in manifests for shard in manifest.shards)
        workers = min(workers, 1 + size // _BYTES_PER_WORKER)
        with tempfile.TemporaryDirectory(prefix="unimo-diff-") as scratch:
            sides = (a, manifests[0]), (b, manifests[1])
            rows = compare_rows(*sides, Path(scratch), workers=workers, most=most)
        examples = _examples(*sides, rows)
    yield Difference(
        str(a),
        str(b),
        manifests[0].kind,
        manifests[0].rows,
        manifests[1].rows,
        different_facts(*manifests),
        rows,
        examples,
        quarantine_change(a, b, most),
    )
    if all(manifest.images for manifest in manifests):
        inner = a / manifests[0].images, b / manifests[1].images
        if all(read_manifest(folder).kind == IMAGES for folder in inner):
            yield from differences(*inner, workers=workers, most=most)


def _examples(
    a: tuple[Folder, Manifest], b: tuple[Folder, Manifest], rows: RowChanges
) -> dict[str, list[Example]]:
    changed = []
    for example in rows.examples_changed:
        ours, theirs = row_values(*a, example.a), row_values(*b, example.b)
        told = [f"{name}: {_told(ours[name], theirs[name])}" for name in example.columns]
        places = place_text(a[1], example.a), place_text(b[1], example.b)
        changed.append(Example(str(ours["id"]), *places, told))
    return {
        "changed": changed,
        "only_a": [
            Example(str(row_values(*a, row)["id"]), place_text(a[1], row), "", [])
            for row in rows.examples_a
        ],
        "only_b": [
            Example(str(row_values(*b, row)["id"]), "", place_text(b[1], row), [])
            for row in rows.examples_b
        ],
    }


def row_values(folder: Folder, manifest: Manifest, place: Row) -> dict[str, Any]:
    """One row, as Python values."""
    row = place.row
    for batch in read_batches(folder / manifest.shards[place.shard].name):
        if row < batch.num_rows:
            return pa.Table.from_batches([batch.slice(row, 1)]).to_pylist()[0]
        row -= batch.num_rows
    raise AssertionError(place)


def place_text(manifest: Manifest, place: Row) -> str:
    """Where a row stands, as a person reads it."""
    return f"row {place.row} of {manifest.shards[place.shard].name}"


def _told(ours: Any, theirs: Any) -> str:
    """Two values; of long lists, where they part."""
    where = ""
    if isinstance(ours, list) and isinstance(theirs, list):
        pairs = enumerate(zip(ours, theirs, strict=False))
        first = next((n for n, (x, y) in pairs if x != y), min(len(ours), len(theirs)))
        where = f"from item {first} on, " if first else ""
        lengths = f" ({len(ours)} items, {len(theirs)} items)" if len(ours) != len(theirs) else ""
        return f"{where}{_short(ours[first:])} -> {_short(theirs[first:])}{lengths}"
    return f"{_short(ours)} -> {_short(theirs)}"


def _short(value: Any) -> str:
    text = repr(value[:20] if isinstance(value, list) else value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
