"""What `unimo-prep` shows: how far it is while it works, the quarantine when it is done."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from threading import Event, Thread

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
from data_prep.quarantine import Bad, Reason
from data_prep.sources import with_origins
from data_prep.writer import Folder
from unimo_ds.data.schema import Manifest

console = Console(stderr=True)
SECONDS_BETWEEN_LINES = 15.0
"""Of what is told where the output is no terminal, such as a log of a cluster's job."""
_SECONDS_BETWEEN_FRAMES = 0.2


class _Work:
    """How far a command is; told by a bar on a terminal, by a line every so often elsewhere."""

    def __init__(self, title: str, total: float = 0, unit: float = 1, name: str = "") -> None:
        self._title, self._total, self._unit, self._name = title, total, unit, name
        self._stage = ""
        self._done = self._done_before = 0.0  # in all, and before the stage
        self._begun = self._stage_begun = time.monotonic()

    def advance(self, size: float) -> None:
        """Counts what has been done."""
        self._done += size

    def on_stage(self, stage: str) -> None:
        """Names the part of the work that begins."""
        self._stage, self._done_before = stage, self._done
        self._stage_begun = time.monotonic()

    @property
    def what(self) -> str:
        """Title and stage."""
        return f"{self._title}: {self._stage}" if self._stage else self._title

    @property
    def done(self) -> float:
        """How much has been counted."""
        return self._done

    def figures(self) -> str:
        """How much is done, and units a second since the stage began."""
        if not self._name:
            return ""
        digits = 0 if self._unit == 1 else 1
        seconds = max(time.monotonic() - self._stage_begun, 1e-9)
        rate = (self._done - self._done_before) / self._unit / seconds
        total = f"/{self._total / self._unit:,.{digits}f}" if self._total else ""
        return f"{self._done / self._unit:,.{digits}f}{total} {self._name}, {rate:,.1f}/s"

    def line(self) -> str:
        """All of it, for a log."""
        elapsed = timedelta(seconds=int(time.monotonic() - self._begun))
        return ", ".join(part for part in (self.what, self.figures(), str(elapsed)) if part)


class _Figures(ProgressColumn):
    """Reads the figures of the work itself."""

    def __init__(self, work: _Work) -> None:
        super().__init__()
        self._work = work

    def render(self, task: Task) -> Text:
        return Text(self._work.figures())


@contextmanager
def _shown(work: _Work, *columns: ProgressColumn, total: float | None = None) -> Iterator[None]:
    """Keeps telling how far ``work`` is until the block ends."""
    if not console.is_terminal:
        with _lines(work):
            yield
        return
    what = TextColumn("{task.description}", markup=False)
    progress = Progress(
        what, *columns, console=console, transient=total is None, get_time=time.monotonic
    )
    task = progress.add_task(work.what, total=total)

    def renew() -> None:
        progress.update(task, description=work.what, completed=work.done)

    with progress, _repeated(renew, _SECONDS_BETWEEN_FRAMES):
        yield
        renew()


@contextmanager
def _lines(work: _Work) -> Iterator[None]:
    def tell() -> None:
        console.print(work.line(), soft_wrap=True, markup=False, highlight=False)

    with _repeated(tell, SECONDS_BETWEEN_LINES):
        yield


@contextmanager
def _repeated(function: Callable[[], None], seconds: float) -> Iterator[None]:
    """Calls ``function`` every so often from a thread: a slice may take minutes."""
    ended = Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            function()

    thread = Thread(target=repeat, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


@contextmanager
def building(
    out: Folder, options: Options, total: float, unit: float, name: str, *, inside: bool = False
) -> Iterator[Options]:
    """Tells of the way to ``total`` in units of ``unit``; yields options that count it.

    Args:
        inside: whether ``out`` is a corpus that is there and gets more columns.

    Raises:
        ValueError: another build is at work in ``out``.
    """
    with claimed(out, options.resume or inside), _advancing(str(out), total, unit, name) as work:
        yield replace(options, progress=work.advance, on_stage=work.on_stage)


@contextmanager
def advancing(
    title: str, total: float, unit: float, name: str
) -> Iterator[Callable[[float], None]]:
    """Tells of the way to ``total`` in units of ``unit``; yields what counts it."""
    with _advancing(title, total, unit, name) as work:
        yield work.advance


@contextmanager
def _advancing(title: str, total: float, unit: float, name: str) -> Iterator[_Work]:
    work = _Work(title, total, unit, name)
    columns = (BarColumn(), _Figures(work), TimeElapsedColumn(), TimeRemainingColumn())
    with _shown(work, *columns, total=total):
        yield work


@contextmanager
def listing(name: str) -> Iterator[Callable[[int], None]]:
    """Tells how much has been read before a build knows its size; yields what counts it."""
    work = _Work("reading", name=name)
    with _shown(work, SpinnerColumn(), _Figures(work), TimeElapsedColumn()):
        yield work.advance


@contextmanager
def waiting(title: str) -> Iterator[None]:
    """Tells that something is at work of which nobody knows how long it takes."""
    with _shown(_Work(title), SpinnerColumn(), TimeElapsedColumn()):
        yield


def report_left_out(bad: Iterable[Bad]) -> None:
    """Which files and records were not wanted: hidden, of another split, never downloaded."""
    for entry in bad:
        if entry.reason is Reason.LEFT_OUT:
            place = with_origins(entry.source)
            told = f"left out of {place}: {printable(entry.detail)}"
            console.print(told, soft_wrap=True, markup=False, highlight=False)


def printable(text: str) -> str:
    """``text`` out of data, without what would steer a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def report_guesses(guesses: Iterable[str]) -> None:
    """Says how sources were read that may be read otherwise too."""
    for guess in guesses:
        console.print(f"guessed: {guess}", soft_wrap=True, markup=False, highlight=False)


def report(out: Folder, manifest: Manifest | None) -> None:
    """What a build has made, and what it could not use."""
    if manifest is None:
        console.print(f"{out} is complete: nothing to do", soft_wrap=True)
        return
    console.print(f"{out}: {manifest.rows:,} rows in {len(manifest.shards)} shards", soft_wrap=True)
    quarantined = {r: n for r, n in manifest.quarantined.items() if r != Reason.LEFT_OUT}
    if quarantined:
        table = Table("quarantined because", "records", title=f"{out}/quarantine.jsonl")
        for reason, count in quarantined.items():
            table.add_row(reason, f"{count:,}")
        console.print(table)
