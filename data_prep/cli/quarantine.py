"""The command that lists what builders could not use: quarantine."""

import json
from collections import Counter
from typing import Annotated, NamedTuple

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from data_prep.cli.options import Corpora
from data_prep.console import printable
from data_prep.quarantine import Bad, Reason, read_quarantine
from data_prep.writer import Folder
from unimo_ds.data.schema import MANIFEST_NAME, read_manifest

_SHOWN = 160  # characters of an excerpt


class _Found(NamedTuple):
    """The entries of one corpus that were asked for."""

    folder: Folder
    counts: Counter[tuple[str, str]]  # (reason, source)
    examples: dict[str, list[Bad]]  # reason -> the first of them


def quarantine(
    corpora: Corpora,
    reason: Annotated[list[Reason] | None, typer.Option(help="only these")] = None,
    source: Annotated[str, typer.Option(help="only sources whose name holds this")] = "",
    rows: Annotated[int, typer.Option(help="examples of each reason")] = 3,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Records that could not be used: how many, why, where they stand, and how they begin."""
    found = [
        _entries(folder, reason or [*Reason], source, rows)
        for corpus in corpora
        for folder in _with_images(corpus)
    ]
    if as_json:
        typer.echo(json.dumps([_values(entries) for entries in found], indent=1))
        return
    console = Console()
    for entries in found:
        told = f"{entries.folder}: {entries.counts.total():,} in quarantine"
        console.print(told, markup=False, highlight=False, soft_wrap=True)
        console.print(_counts_table(entries))
        for examples in entries.examples.values():
            for bad in examples:
                _show(console, bad)


def _with_images(folder: Folder) -> list[Folder]:
    """``folder``, which may be an unfinished build, and the images corpus in it."""
    manifest = read_manifest(folder) if (folder / MANIFEST_NAME).exists() else None
    return [folder, folder / manifest.images] if manifest and manifest.images else [folder]


def _entries(folder: Folder, reasons: list[Reason], source: str, rows: int) -> _Found:
    counts: Counter[tuple[str, str]] = Counter()
    examples: dict[str, list[Bad]] = {}
    for bad in read_quarantine(folder):
        if bad.reason in reasons and source in bad.source:
            counts[str(bad.reason), bad.source] += 1
            if len(examples.setdefault(str(bad.reason), [])) < rows:
                examples[str(bad.reason)].append(bad)
    return _Found(folder, counts, examples)


def _values(found: _Found) -> dict[str, object]:
    counts = [
        {"reason": reason, "source": source, "records": count}
        for (reason, source), count in sorted(found.counts.items())
    ]
    examples = [bad._asdict() for entries in found.examples.values() for bad in entries]
    return {
        "folder": str(found.folder),
        "records": found.counts.total(),
        "counts": counts,
        "examples": examples,
    }


def _counts_table(found: _Found) -> Table:
    table = Table("reason", "source", "records")
    for (reason, source), count in sorted(found.counts.items(), key=lambda item: -item[1]):
        table.add_row(reason, escape(printable(source)), f"{count:,}")
    return table


def _show(console: Console, bad: Bad) -> None:
    place = f"{bad.source}:{bad.line}" if bad.line else bad.source
    name = f" {bad.record}" if bad.record else ""
    told = f"{bad.reason}  {place}{name}: {bad.detail}"
    console.print(printable(told), style="bold", markup=False, highlight=False, soft_wrap=True)
    if bad.excerpt:
        cut = bad.excerpt[:_SHOWN] + ("…" if len(bad.excerpt) > _SHOWN else "")
        console.print(f"    {cut!r}", markup=False, highlight=False, soft_wrap=True)
