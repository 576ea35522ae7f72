"""What rank 0 says to a person: plain lines, and a progress bar where a terminal is there."""

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


@contextmanager
def progress(done: int, total: int) -> Iterator[Callable[[], None]]:
    """A function that advances the bar by a step; nothing without a terminal or off rank 0."""
    shown = rank() == 0 and _console.is_terminal
    columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=_console, disable=not shown) as bar:
        task = bar.add_task("training", total=total, completed=done)
        yield lambda: bar.advance(task)
