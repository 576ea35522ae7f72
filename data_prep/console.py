"""What `unimo-prep` shows: a progress bar while it builds, the quarantine when it is done."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from data_prep.claim import claimed
from data_prep.engine import Options
from data_prep.writer import Folder
from unimo_ds.data.schema import Manifest

console = Console(stderr=True)
_LISTED_AT_A_TIME = 1000  # records; the bar costs more than reading one


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
    out: Folder, options: Options, total: float, unit: float, name: str, *, inside: bool = False
) -> Iterator[Options]:
    """A bar to ``total``, told in units of ``unit``; yields options that move it.

    Args:
        inside: whether ``out`` is a corpus that is there and gets more columns.

    Raises:
        ValueError: another build is at work in ``out``.
    """
    with (
        claimed(out, options.resume or inside),
        advancing(str(out), total, unit, name) as advance,
    ):
        yield replace(options, progress=advance)


@contextmanager
def advancing(
    title: str, total: float, unit: float, name: str
) -> Iterator[Callable[[float], None]]:
    """A bar to ``total``, told in units of ``unit``; yields what moves it."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        _Rate(unit, name),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(title, total=total)
        yield lambda size: progress.advance(task, size)


def printable(text: str) -> str:
    """``text`` out of data, without what would steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@contextmanager
def listing(name: str) -> Iterator[Callable[[int], None]]:
    """Shows how much has been read before a build knows its size; yields what counts it."""
    columns = (
        SpinnerColumn(),
        TextColumn("reading: {task.completed:,.0f} " + name),
        TimeElapsedColumn(),
    )
    waiting = 0
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def seen(count: int) -> None:
            nonlocal waiting
            waiting += count
            if waiting >= _LISTED_AT_A_TIME:
                progress.advance(task, waiting)
                waiting = 0

        yield seen


def report_left_out(left_out: Mapping[str, int]) -> None:
    """Which records were not wanted: of another split, or never downloaded."""
    for what, count in left_out.items():
        console.print(f"left out of {what}: {count:,} records", soft_wrap=True, markup=False)


def report_guesses(guesses: Iterable[str]) -> None:
    """How sources were read that may be read otherwise too."""
    for guess in guesses:
        console.print(f"guessed: {guess}", soft_wrap=True, markup=False, highlight=False)


def report(out: Folder, manifest: Manifest | None) -> None:
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
