"""What rank 0 says to a person: plain lines, and a progress bar where a terminal is there."""

import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from unimo_ds.distributed import rank

_console = Console(soft_wrap=True, highlight=False)


def say(text: str) -> None:
    """Prints on rank 0; above the bar, if one is running."""
    if rank() == 0:
        _console.print(text, markup=False)


class _Saying(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def say_log(name: str) -> None:
    """From now on says what the logger ``name`` tells, from level INFO on."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    if not any(isinstance(handler, _Saying) for handler in logger.handlers):
        logger.addHandler(_Saying())


TOLD_AFTER, TOLD_EVERY = 10.0, 60.0
"""Seconds of waiting until it is said, and until it is said again."""


@contextmanager
def told_while_waiting(text: str, *, after: float = TOLD_AFTER) -> Iterator[None]:
    """Prints ``text`` if what happens here takes long, on every rank: each may wait for its own."""
    over = threading.Event()

    def tell() -> None:
        waited = after
        while not over.wait(waited if waited == after else TOLD_EVERY):
            print(f"{text} ({waited:.0f} s so far)", file=sys.stderr, flush=True)
            waited += TOLD_EVERY

    thread = threading.Thread(target=tell, name="waiting", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def progress(done: int, total: int) -> Iterator[Callable[[], None]]:
    """A function that advances the bar by a step; nothing without a terminal or off rank 0."""
    shown = rank() == 0 and _console.is_terminal
    columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=_console, disable=not shown) as bar:
        task = bar.add_task("training", total=total, completed=done)
        yield lambda: bar.advance(task)
