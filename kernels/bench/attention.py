"""Attention on UNIMO's packed rows, by every backend.

Legend: T positions · H heads · K head width
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from bench.clocks import Clock
from bench.exactness import WrongResultError, require_exact
from bench.layouts import MIX, NAMES, PADDING_SEGMENT, TEXTS, PackedRow, packed_row
from bench.rows import BOTH, FORWARD, Job, Row, measured
from unimo_kernels.attention import AttentionLayout, attention, attention_layout
from unimo_kernels.attention_flash import (
    ATEN,
    PACKAGE,
    FlashLayout,
    aten_varlen,
    attention_flash,
    flash_form,
)

SECTION = "attention"
SEED = 1
CHECKED_SEGMENTS = 4
DROPOUT = 0.1
FLASH_ATEN = f"flash_attn, {ATEN}"
"""Timed beside `flash_attn` where that backend is the package."""


class Setting(NamedTuple):
    """What one case is, besides its row."""

    layout: str
    length: int  # T
    heads: int  # H
    head_width: int  # K
    dropout_p: float
    dtype: torch.dtype

    @property
    def case(self) -> str:
        return case(self.layout, self.head_width, self.dropout_p)


def case(layout: str, head_width: int = 64, dropout_p: float = 0.0) -> str:
    return f"{layout}, K {head_width}, dropout {dropout_p:g}"


def jobs(device: str, quick: bool) -> list[Job]:
    """On a GPU bfloat16, 16 heads and 32,768 positions; on a processor float32, 8 and 2,048."""
    if device == "cpu":
        length, names = (256, [MIX]) if quick else (2048, NAMES)
        settings = [Setting(name, length, 8, 64, 0.0, torch.float32) for name in names]
        return [_job(s, variant) for s in settings for variant in ("sdpa", "reference")]
    length, names = (2048, [MIX]) if quick else (32768, NAMES)
    chosen = [(name, 64, dropout_p) for name in names for dropout_p in (DROPOUT, 0.0)]
    if not quick:
        chosen += [(TEXTS, width, DROPOUT) for width in (32, 128)]
    settings = [Setting(name, length, 16, width, p, torch.bfloat16) for name, width, p in chosen]
    variants = ["triton", "flash_attn", "sdpa", "flex", "reference"]
    if flash_form() == PACKAGE:
        variants.insert(2, FLASH_ATEN)
    return [_job(s, variant) for s in settings for variant in variants]


def _job(setting: Setting, variant: str) -> Job:
    def measure(job: Job, clock: Clock) -> Iterator[Row]:
        return _measure(job, clock, setting)

    return Job(SECTION, setting.case, variant, measure)


def _measure(job: Job, clock: Clock, setting: Setting) -> Iterator[Row]:
    row = _on(packed_row(setting.layout, setting.length), clock.device)
    if job.variant == "reference" and clock.device.type == "cuda":
        scores = 4 * setting.heads * setting.length**2
        raise MemoryError(f"one of its H x T x T tensors takes {scores >> 30} GiB")
    layout = _layout(job.variant, row, setting, setting.dropout_p)
    error = _check(job.variant, row, setting)
    run = _runner(job.variant, layout, setting.dropout_p)
    q, k, v, grad = _inputs(setting, clock.device)

    def both() -> object:
        return torch.autograd.grad(run(q, k, v), (q, k, v), grad)

    extra = clock.extra_mib(both)
    flops = 4 * setting.heads * setting.head_width * row.pairs
    note = _note(job.variant, layout)
    forward = clock.time(lambda: run(q, k, v))
    yield measured(job, FORWARD, forward, flops=flops, note=note, error=error)
    timing = clock.time(both)
    # The backward computes the scores again: five products to the forward's two.
    yield measured(job, BOTH, timing, flops=3.5 * flops, note=note, error=error, extra_mib=extra)


def _on(row: PackedRow, device: torch.device) -> PackedRow:
    return row._replace(segment=row.segment.to(device), order=row.order.to(device))


def _inputs(setting: Setting, device: torch.device) -> list[Tensor]:
    """q, k, v and the gradient of the output."""
    generator = torch.Generator(device).manual_seed(SEED)
    shape = (setting.length, setting.heads, setting.head_width)
    q, k, v, grad = (
        torch.randn(shape, generator=generator, device=device).to(setting.dtype) for _ in range(4)
    )
    return [*(x.requires_grad_() for x in (q, k, v)), grad]


def _layout(variant: str, row: PackedRow, setting: Setting, dropout_p: float) -> AttentionLayout:
    backend = "flash_attn" if variant == FLASH_ATEN else variant
    return attention_layout(
        row.segment,
        row.order,
        dtype=setting.dtype,
        head_width=setting.head_width,
        dropout_p=dropout_p,
        backend=backend,
    )


def _runner(
    variant: str, layout: AttentionLayout, dropout_p: float
) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def run(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if variant == FLASH_ATEN and isinstance(layout.plan, FlashLayout):
            return attention_flash(q, k, v, layout.plan, dropout_p, varlen=aten_varlen)
        return attention(q, k, v, layout, dropout_p=dropout_p, seed=SEED)

    return run


def _note(variant: str, layout: AttentionLayout) -> str:
    if not isinstance(layout.plan, FlashLayout):
        return ""
    calls = len(layout.plan.calls)
    form = ATEN if variant == FLASH_ATEN else flash_form()
    return f"{form}, {calls} call{'s' if calls > 1 else ''}"


def _check(variant: str, row: PackedRow, setting: Setting) -> float:
    """The error of output and gradients on the very row that is timed; then of dropout."""
    error = _check_segments(variant, row, setting)
    if setting.dropout_p > 0:
        _check_dropout(variant, row, setting)
    return error


def _check_segments(variant: str, row: PackedRow, setting: Setting) -> float:
    """Without dropout, a few whole segments against the reference in float64, and padding."""
    inputs = _inputs(setting, row.segment.device)
    layout = _layout(variant, row, setting, 0.0)
    found = _run(_runner(variant, layout, 0.0), inputs)
    last = int(row.segment.max())
    chosen = torch.linspace(0, last, CHECKED_SEGMENTS, device=row.segment.device).int()
    held = torch.isin(row.segment, chosen)
    part = row._replace(segment=row.segment[held], order=row.order[held])
    reference = _runner("reference", _layout("reference", part, setting, 0.0), 0.0)
    exact = _run(reference, [x[held].double() for x in inputs])
    padding = row.segment == PADDING_SEGMENT
    for name, tensor in found.items():
        if bool(tensor[padding].any()):
            raise WrongResultError(f"{name} is not zero at padding")
    compared = [(name, found[name][held], exact[name]) for name in exact]
    return require_exact(compared, setting.dtype)


def _run(run: Callable[..., Tensor], inputs: list[Tensor]) -> dict[str, Tensor]:
    q, k, v = (x.detach().requires_grad_() for x in inputs[:3])
    out = run(q, k, v)
    grads = torch.autograd.grad(out, (q, k, v), inputs[3])
    names = ("the output", "the gradient of q", "the gradient of k", "the gradient of v")
    return dict(zip(names, (out.detach(), *grads), strict=True))


def _check_dropout(variant: str, row: PackedRow, setting: Setting) -> None:
    """Our own kernel's weights against the reference's; of others only that the mean stays."""
    if variant == "triton":
        small = setting._replace(length=512, layout=MIX)
        part = _on(packed_row(MIX, 512), row.segment.device)
        inputs = _inputs(small, row.segment.device)
        layout = _layout(variant, part, small, setting.dropout_p)
        found = _run(_runner(variant, layout, setting.dropout_p), inputs)
        layout = _layout("reference", part, small, setting.dropout_p)
        reference = _runner("reference", layout, setting.dropout_p)
        exact = _run(reference, [x.double() for x in inputs])
        require_exact(
            [(f"{name} with dropout", found[name], exact[name]) for name in exact], setting.dtype
        )
        return
    q, k, v, _ = _inputs(setting, row.segment.device)
    layout = _layout(variant, row, setting, setting.dropout_p)
    run = _runner(variant, layout, setting.dropout_p)
    with torch.no_grad():
        out = run(q, k, torch.ones_like(v))[row.segment != PADDING_SEGMENT].float()
    mean, spread = float(out.mean()), float(out.std())
    if abs(mean - 1) > 0.02 or spread < 1e-3:
        raise WrongResultError(f"weights with dropout sum to {mean:.3f} +- {spread:.3f}, not to 1")
