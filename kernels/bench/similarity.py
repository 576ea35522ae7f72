"""The contrastive loss over the similarity matrix, both directions, forward and backward.

Legend: B rows of each side · D width
"""

import math
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import rivals
from bench.clocks import Clock
from bench.exactness import require_exact
from bench.machine import available_bytes
from bench.rows import BOTH, Job, Row, measured
from unimo_kernels.similarity import similarity_logsumexp

SECTION = "similarity"
TEMPERATURE = 0.07
CHECKED_ROWS = 1500  # no multiple of a tile
CHECKED_ROWS_RIVALS = 1536
MATRICES = 10
"""How many float32 matrices of all pairs the specification holds at its peak, rounded up."""
BIAS = -10.0  # of the sigmoid loss, as SigLIP starts it
OURS = ("triton", "chunked", "reference")
SIGLIP = "siglip-kernel (sigmoid)"

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of a [B, D], b [B, D] and the logarithm of the scale."""


def case(rows: int, width: int) -> str:
    return f"{rows:,} x {rows:,} x {width:,}"


def jobs(device: str, quick: bool) -> list[Job]:
    if device == "cpu":
        sizes = [(256, 32)] if quick else [(4096, 256), (16384, 256)]
        return [_job(*size, variant, torch.float32) for size in sizes for variant in OURS[1:]]
    sizes = [(2048, 256)]
    if not quick:
        # The size that the kernel's target is set for comes first.
        sizes = [(65536, 768), (65536, 256), (65536, 1024)]
        sizes += [(rows, width) for rows in (32768, 16384) for width in (256, 768, 1024)]
    variants = ["triton", SIGLIP, "inf-cl", "whole matrix", "OpenCLIP's local loss", "chunked"]
    return [_job(*size, variant, torch.bfloat16) for size in sizes for variant in variants]


def _job(rows: int, width: int, variant: str, dtype: torch.dtype) -> Job:
    def measure(job: Job, clock: Clock) -> Iterator[Row]:
        return _measure(job, clock, rows, width, dtype)

    return Job(SECTION, case(rows, width), variant, measure)


def _measure(job: Job, clock: Clock, rows: int, width: int, dtype: torch.dtype) -> Iterator[Row]:
    if clock.device.type == "cpu":
        _require_memory(job.variant, rows)
    loss = _loss(job.variant)
    checked = min(rows, CHECKED_ROWS if job.variant in OURS else CHECKED_ROWS_RIVALS)
    error = _check(loss, job.variant, checked, width, dtype, clock.device)
    leaves = _leaves(rows, width, dtype, clock.device)

    def run() -> object:
        return torch.autograd.grad(loss(*leaves), leaves)

    extra = clock.extra_mib(run)
    # The least that a method does which keeps no matrix: scores twice, each gradient once.
    flops = 8 * rows**2 * width
    yield measured(job, BOTH, clock.time(run), flops=flops, error=error, extra_mib=extra)


def _require_memory(variant: str, rows: int) -> None:
    """Raises where the specification's matrices would take a processor's memory."""
    needed, available = MATRICES * 4 * rows**2, available_bytes()
    if variant == "reference" and needed > 0.8 * available:
        raise MemoryError(f"needs about {needed >> 30} GiB, {available >> 30} GiB are free")


def _leaves(rows: int, width: int, dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Unit vectors around a few centres, so that every row has rivals to its positive."""
    generator = torch.Generator(device).manual_seed(0)

    def draw(count: int) -> Tensor:
        return torch.randn(count, width, generator=generator, device=device)

    centres = draw(64)[torch.arange(rows, device=device) % 64]
    a, b = (F.normalize(centres + draw(rows), dim=-1).to(dtype) for _ in range(2))
    log_scale = torch.tensor(-math.log(TEMPERATURE), device=device)
    return [x.requires_grad_() for x in (a, b, log_scale)]


def _loss(variant: str) -> Loss:
    if variant in OURS:
        return lambda a, b, log_scale: _ours(a, b, log_scale.exp(), variant)
    if variant == SIGLIP:
        return lambda a, b, log_scale: rivals.siglip(a, b, log_scale, log_scale.new_tensor(BIAS))
    losses = {
        "inf-cl": rivals.inf_cl,
        "whole matrix": rivals.whole_matrix,
        "OpenCLIP's local loss": rivals.open_clip_local,
    }
    chosen = losses[variant]
    return lambda a, b, log_scale: chosen(a, b, log_scale.exp())


def _ours(a: Tensor, b: Tensor, scale: Tensor, backend: str) -> Tensor:
    groups = torch.arange(len(a), device=a.device)
    rows, columns = similarity_logsumexp(
        a, b, groups, groups, scale=scale, both_directions=True, backend=backend
    )
    return ((rows.all - rows.positive).mean() + (columns.all - columns.positive).mean()) / 2


def _check(
    loss: Loss, variant: str, rows: int, width: int, dtype: torch.dtype, device: torch.device
) -> float:
    """Loss and gradients against plain torch in float64."""
    leaves = _leaves(rows, width, dtype, device)
    exact_leaves = [x.detach().double().requires_grad_() for x in leaves]
    found = loss(*leaves)
    if variant == SIGLIP:
        a, b, log_scale = exact_leaves
        exact = rivals.siglip_formula(a, b, log_scale, log_scale.new_tensor(BIAS))
    else:
        exact = _infonce(*exact_leaves)
    names = ("the loss", "the gradient of a", "the gradient of b", "the gradient of the scale")
    compared = zip(
        names,
        (found, *torch.autograd.grad(found, leaves)),
        (exact, *torch.autograd.grad(exact, exact_leaves)),
        strict=True,
    )
    # Logits rounded to bfloat16 shift the gradient of the scale, one number, by some per cent; that
    # is a choice of the rivals that make it.
    return require_exact(list(compared)[: 4 if variant in OURS else 3], dtype)


def _infonce(a: Tensor, b: Tensor, log_scale: Tensor) -> Tensor:
    scores = log_scale.exp() * (a @ b.T)
    both = scores.logsumexp(1).mean() + scores.logsumexp(0).mean()
    return both / 2 - scores.diagonal().mean()
