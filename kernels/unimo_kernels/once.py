"""A backward that can be run but not differentiated, and says so."""

import functools
from collections.abc import Callable
from typing import Any

import torch


def first_derivative_only(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates the backward of an autograd.Function; under ``create_graph`` it raises.

    torch's ``once_differentiable`` raises only where the incoming gradient requires one itself.
    That of ``out.sum()`` does not, and the gradient would silently be a constant: a penalty on it
    would train nothing.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def checked(ctx: Any, *grads: Any) -> Any:
            if torch.is_grad_enabled():
                raise RuntimeError(
                    f"{what} has no second derivative, and its gradient was asked for with "
                    "create_graph=True: use backend reference, or leave create_graph out"
                )
            return backward(ctx, *grads)

        return checked

    return decorate
