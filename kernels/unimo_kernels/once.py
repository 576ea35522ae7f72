"""Gradients that can be computed but not differentiated, and say so."""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def first_derivative_only(what: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates the backward of an autograd.Function; under ``create_graph`` it raises.

    torch's ``once_differentiable`` raises only where the incoming gradient requires one itself.
    That of ``out.sum()`` does not, and the gradient would silently be a constant: a penalty on it
    would train nothing.
    """

    def decorate(backward: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(backward)
        def checked(ctx: Any, *grads: Any) -> Any:
            _refuse_create_graph(what)
            return backward(ctx, *grads)

        return checked

    return decorate


def _refuse_create_graph(what: str) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            f"{what} has no second derivative, and its gradient was asked for with "
            "create_graph=True: use backend reference, or leave create_graph out"
        )


def without_second_derivative(x: Tensor, what: str) -> Tensor:
    """``x``, the result of a function that is not ours; its backward raises under create_graph."""
    marked: Tensor = _Marked.apply(x, what)
    return marked


class _Marked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, what: str) -> Tensor:
        ctx.what = what
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        _refuse_create_graph(ctx.what)
        return grad, None
