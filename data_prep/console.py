"""What `unimo-prep` shows: a progress bar while it builds, the quarantine when it is done."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from data_prep.engine import Options
from unimo_ds.data.schema import Manifest

console = Console(stderr=True)


class _Rate(ProgressColumn):
    """How much is done, and units a second since the beginning."""

    def __init__(self, unit: float, name: str) -> None:
        super().__init__()
        self._unit, self._name = unit, name

    def render(self, task: Task) -> Text:
        done, total = task.completed / self._unit, (task.total or 0) / self._unit
        rate = done / max(task.elapsed or 0.0, 1e-9)
        digits = 0 if self._unit == 1 else 1
        return Text(f"{done:,.{digits}f}/{total:,.{digits}f} {self._name}, {rate:,.1f}/s")


@contextmanager
def building(
    out: Path, options: Options, total: float, unit: float, name: str
) -> Iterator[Options]:
    """A bar to ``total``, told in units of ``unit``; yields options that move it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(unit, name),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(str(out), total=total)
        yield replace(options, progress=lambda size: progress.advance(task, size))


def report(out: Path, manifest: Manifest | None) -> None:
    """What a build has made, and what it could not use."""
    if manifest is None:
        console.print(f"{out} is complete: nothing to do", soft_wrap=True)
        return
    console.print(f"{out}: {manifest.rows:,} rows in {len(manifest.shards)} shards", soft_wrap=True)
    if manifest.quarantined:
        table = Table("quarantined because", "records", title=f"{out}/quarantine.jsonl")
        for reason, count in manifest.quarantined.items():
            table.add_row(reason, f"{count:,}")
        console.print(table)
