"""Which backend of a kernel runs: argument, then environment, then the automatic choice."""

import functools
import logging
import os

AUTO = "auto"

_log = logging.getLogger(__name__)


def choose_backend(
    operation: str, requested: str, *, variable: str, known: tuple[str, ...], automatic: str
) -> str:
    """The name of the backend that runs ``operation``.

    Args:
        operation: what is run, for messages.
        requested: a name out of ``known``, or ``auto``.
        variable: the environment variable that is asked where ``requested`` is ``auto``.
        known: the backends there are.
        automatic: the backend where nobody asks for one.

    Raises:
        ValueError: the argument or the variable names no known backend.
    """
    name, origin = requested, "argument"
    if name == AUTO:
        name, origin = os.environ.get(variable) or AUTO, variable
    if name == AUTO:
        name, origin = automatic, AUTO
    if name not in known:
        raise ValueError(
            f"{operation}: unknown backend {name!r} ({origin}), known are "
            f"{', '.join((AUTO, *known))}"
        )
    _announce(operation, name, origin)
    return name


@functools.cache
def _announce(operation: str, name: str, origin: str) -> None:
    # Cached: said once per choice, not once per layer and step.
    _log.info("%s runs on backend %s (%s)", operation, name, origin)
