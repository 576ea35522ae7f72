"""LayerNorm(x + dropout(residual)) and bias + GELU: eager, compiled by torch, and Liger's.

Legend: N rows · C channels
"""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.clocks import Clock
from bench.exactness import WrongResultError, require_exact
from bench.rows import BOTH, FORWARD, Job, Row, measured

SECTION = "fused"
ROWS = 32768
DROPOUT = 0.1
EPSILON = 1e-5
NORM, GELU = "LayerNorm(x + dropout(residual))", "GELU(x + bias)"
EAGER, COMPILED, LIGER = "eager", "torch.compile", "liger-kernel"

Operation = Callable[..., Tensor]


def jobs(device: str, quick: bool) -> list[Job]:
    """On a GPU only: on a processor these are no bottleneck."""
    if device == "cpu":
        return []
    widths = (1024,) if quick else (1024, 4096)
    return [
        _job(operation, width, variant)
        for operation in (NORM, GELU)
        for width in widths
        for variant in (EAGER, COMPILED, LIGER)
    ]


def norm(x_NC: Tensor, residual_NC: Tensor, weight_C: Tensor, bias_C: Tensor) -> Tensor:
    dropped_NC = F.dropout(residual_NC, DROPOUT)
    return F.layer_norm(x_NC + dropped_NC, weight_C.shape, weight_C, bias_C, EPSILON)


def norm_liger(x_NC: Tensor, residual_NC: Tensor, weight_C: Tensor, bias_C: Tensor) -> Tensor:
    """Liger's LayerNorm after dropout and sum in plain torch: it fuses neither."""
    from liger_kernel.ops.layer_norm import LigerLayerNormFunction

    summed_NC = x_NC + F.dropout(residual_NC, DROPOUT)
    return LigerLayerNormFunction.apply(summed_NC, weight_C, bias_C, EPSILON)


def gelu(x_NC: Tensor, bias_C: Tensor) -> Tensor:
    return F.gelu(x_NC + bias_C)


def _job(operation: str, width: int, variant: str) -> Job:
    def measure(job: Job, clock: Clock) -> Iterator[Row]:
        return _measure(job, clock, operation, width)

    return Job(SECTION, f"{operation}, {ROWS:,} x {width:,}", variant, measure)


def _operation(operation: str, variant: str) -> Operation:
    plain = norm if operation == NORM else gelu
    if variant == COMPILED:
        return torch.compile(plain, dynamic=False)
    if variant == LIGER and operation == GELU:
        raise ValueError("liger-kernel has no GELU with a bias")
    return norm_liger if variant == LIGER else plain


def _measure(job: Job, clock: Clock, operation: str, width: int) -> Iterator[Row]:
    run = _operation(operation, job.variant)
    leaves = _leaves(operation, width, clock.device)
    grad = torch.randn(ROWS, width, device=clock.device).to(torch.bfloat16)
    error = _check(run, operation, leaves, grad)

    def both() -> object:
        return torch.autograd.grad(run(*leaves), leaves, grad)

    # Forward: every input read, the output written. Backward: the output's gradient and every
    # input read, every gradient written. Vectors of C do not count.
    tensors = 2 if operation == NORM else 1
    moved = 2 * ROWS * width * (tensors + 1)
    moved_back = 2 * ROWS * width * (1 + 2 * tensors)
    extra = clock.extra_mib(both)
    yield measured(job, FORWARD, clock.time(lambda: run(*leaves)), moved=moved, error=error)
    timing = clock.time(both)
    yield measured(job, BOTH, timing, moved=moved + moved_back, error=error, extra_mib=extra)


def _leaves(operation: str, width: int, device: torch.device) -> list[Tensor]:
    generator = torch.Generator(device).manual_seed(0)

    def draw(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=generator, device=device)
        return drawn.to(torch.bfloat16).requires_grad_()

    if operation == NORM:
        return [draw(ROWS, width), draw(ROWS, width), draw(width), draw(width)]
    return [draw(ROWS, width), draw(width)]


def _check(run: Operation, operation: str, leaves: list[Tensor], grad: Tensor) -> float:
    """Against the formula in float64; dropout by a residual of zeros, whose gradient shows it."""
    if operation == NORM:
        leaves = [leaves[0], torch.zeros_like(leaves[1]).requires_grad_(), *leaves[2:]]
    found = run(*leaves)
    found_grads = torch.autograd.grad(found, leaves, grad)
    wide = [x.detach().double().requires_grad_() for x in leaves]
    if operation == NORM:
        exact = F.layer_norm(wide[0], wide[2].shape, wide[2], wide[3], EPSILON)
        x_grad, *vector_grads = torch.autograd.grad(exact, (wide[0], *wide[2:]), grad.double())
        kept = found_grads[1] != 0
        share = float(kept.double().mean())
        if abs(share - (1 - DROPOUT)) > 0.01:
            raise WrongResultError(f"dropout keeps {share:.3f}, not {1 - DROPOUT}")
        exact_grads = [x_grad, x_grad * kept / (1 - DROPOUT), *vector_grads]
    else:
        exact = F.gelu(wide[0] + wide[1])
        exact_grads = list(torch.autograd.grad(exact, wide, grad.double()))
    names = [f"the gradient of input {i}" for i in range(len(leaves))]
    compared = zip(
        ["the output", *names], [found, *found_grads], [exact, *exact_grads], strict=True
    )
    return require_exact(compared, torch.bfloat16)
