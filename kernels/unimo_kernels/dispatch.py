"""Which backend of a kernel runs: argument, then environment, then the automatic choice."""

import functools
import importlib.util
import logging
import os
from typing import NamedTuple

import torch

AUTO = "auto"

_OLDEST_CAPABILITY = (8, 0)

_log = logging.getLogger(__name__)


class Unsupported(ValueError):
    """A backend cannot run what is asked of it; says what it takes and what to do instead."""


class Request(NamedTuple):
    """What is asked for, and where."""

    backend: str  # or AUTO: nobody asks for one
    origin: str


def requested_backend(
    operation: str, requested: str, *, variable: str, known: tuple[str, ...]
) -> Request:
    """What the caller or, where it says ``auto``, the environment asks for.

    Args:
        operation: what is run, for messages.
        requested: a name out of ``known``, or ``auto``.
        variable: the environment variable that is asked where ``requested`` is ``auto``.
        known: the backends there are.

    Raises:
        ValueError: the argument or the variable names no known backend.
    """
    name, origin = requested, "argument"
    if name == AUTO:
        name, origin = os.environ.get(variable) or AUTO, variable
    if name == AUTO:
        return Request(AUTO, AUTO)
    if name not in known:
        raise ValueError(
            f"{operation}: unknown backend {name!r} ({origin}), known are "
            f"{', '.join((AUTO, *known))}"
        )
    return Request(name, origin)


def choose_backend(
    operation: str, requested: str, *, variable: str, known: tuple[str, ...], automatic: str
) -> str:
    """The backend that runs ``operation``, announced; ``automatic`` where nobody asks for one.

    The other arguments and errors are those of requested_backend.
    """
    name, origin = requested_backend(operation, requested, variable=variable, known=known)
    if name == AUTO:
        name = automatic
    announce(operation, name, origin)
    return name


@functools.cache
def has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


def is_old(device: torch.device) -> bool:
    """Whether it is a GPU older than compute capability 8.0 (Ampere)."""
    if device.type != "cuda":
        return False
    return torch.cuda.get_device_capability(device) < _OLDEST_CAPABILITY


def check_capability(what: str, device: torch.device, otherwise: str) -> None:
    """Raises Unsupported on a GPU that is_old, and names the backend to use ``otherwise``."""
    if is_old(device):
        capability = torch.cuda.get_device_capability(device)
        raise Unsupported(
            f"{what} needs compute capability {_OLDEST_CAPABILITY[0]}.{_OLDEST_CAPABILITY[1]}, "
            f"{device} has {capability[0]}.{capability[1]}: use backend {otherwise}"
        )


@functools.cache
def announce(operation: str, backend: str, origin: str, form: str = "") -> None:
    """Logs which backend runs, and in which ``form`` where it has several: once per choice."""
    # Cached: not once per layer and step.
    through = f" through {form}" if form else ""
    _log.info("%s runs on backend %s%s (%s)", operation, backend, through, origin)
