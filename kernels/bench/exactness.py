"""Whether a variant computes what it should: its error against float64, and how much is allowed."""

from collections.abc import Iterable

import torch
from torch import Tensor

ALLOWED = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 2e-2}
"""Relative error, |found - exact| / |exact| over all elements, by the dtype of the inputs."""


class WrongResultError(Exception):
    """A variant whose result is off is not timed."""


def require_exact(compared: Iterable[tuple[str, Tensor, Tensor]], dtype: torch.dtype) -> float:
    """The largest relative error over (name, found, exact).

    Raises:
        WrongResultError: one is above what ``dtype`` allows, or not finite.
    """
    largest = 0.0
    for name, found, exact in compared:
        exact = exact.detach().double()
        error = float((found.detach().double() - exact).norm() / exact.norm().clamp_min(1e-30))
        if not error <= ALLOWED[dtype]:  # a NaN is not
            raise WrongResultError(f"{name} is off by {error:.2g}, allowed is {ALLOWED[dtype]:.2g}")
        largest = max(largest, error)
    return largest
