"""Attention over one packed row, where two integers per position say who sees whom.

    out_i = sum_j p_ij v_j,   p_i = softmax over { j : segment_j = segment_i, order_j <= order_i }
                                    of q_i . k_j / sqrt(K)

with dropout on p. A position of segment -1 (padding) sees nothing and is seen by nothing: its
output and its gradients are zero.

Legend: T positions · H heads · K head width
"""

import math
import operator
from typing import NamedTuple

import torch
from torch import Tensor

from unimo_kernels.attention_blocks import PADDING_SEGMENT, BlockLayout, block_layout
from unimo_kernels.attention_flash import (
    FlashLayout,
    attention_flash,
    check_flash,
    flash_form,
    flash_layout,
)
from unimo_kernels.attention_flex import FlexLayout, attention_flex, check_flex, flex_layout
from unimo_kernels.attention_sdpa import SdpaLayout, attention_sdpa, sdpa_layout
from unimo_kernels.dispatch import (
    AUTO,
    Unsupported,
    announce,
    check_capability,
    has_triton,
    requested_backend,
)
from unimo_kernels.philox import drop_threshold, keep_mask, keep_scale

BACKENDS = ("reference", "sdpa", "flash_attn", "flex", "triton")
BACKEND_VARIABLE = "UNIMO_ATTENTION"

AUTOMATIC = {"cuda": ("flash_attn", "triton", "sdpa")}
"""What ``auto`` tries on a kind of device, best first; sdpa, which takes everything, elsewhere."""


class AttentionLayout(NamedTuple):
    """Which backend runs and what it knows of a row; the same for all layers of a forward."""

    backend: str
    row: SdpaLayout | FlashLayout | FlexLayout | BlockLayout | None  # the reference needs nothing
    length: int  # T
    device: torch.device


def attention_reference(
    q: Tensor, k: Tensor, v: Tensor, segment: Tensor, order: Tensor, dropout_p: float, seed: int
) -> Tensor:
    """The specification, with all T x T scores in memory; float64 inputs stay float64."""
    dtype, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)
    padding_T11 = (segment == PADDING_SEGMENT)[:, None, None]
    # Padding sees padding, so that its softmax is finite; it is blank before and after.
    q, k, v = (x.masked_fill(padding_T11, 0).to(wide) for x in (q, k, v))
    sees_TT = (segment[:, None] == segment[None, :]) & (order[None, :] <= order[:, None])
    scores_HTT = torch.einsum("ihk,jhk->hij", q, k) / math.sqrt(q.shape[-1])
    p_HTT = scores_HTT.masked_fill(~sees_TT, -math.inf).softmax(dim=-1)
    if dropout_p > 0:
        kept_HTT = keep_mask(seed, q.shape[1], len(q), dropout_p, q.device)
        p_HTT = p_HTT * kept_HTT * keep_scale(dropout_p)
    out_THK = torch.einsum("hij,jhk->ihk", p_HTT, v)
    return out_THK.masked_fill(padding_T11, 0).to(dtype)


def attention_layout(
    segment: Tensor,
    order: Tensor,
    *,
    dtype: torch.dtype,
    head_width: int,
    dropout_p: float = 0.0,
    backend: str = AUTO,
) -> AttentionLayout:
    """Chooses the backend for a row and prepares what it needs, once for all layers of a forward.

    Args:
        segment: int [T], -1 = padding, ids below 2**31; the positions of a segment need not be
            neighbours.
        order: int [T], below 2**31 - 1.
        dtype, head_width, dropout_p: those of the calls that will use the layout.
        backend: as in attention.

    Raises:
        ValueError: an unknown backend, or one (asked for by argument or environment) that cannot
            run here, with this dtype, head width or dropout, or on this row. ``auto`` goes on to
            the next backend instead.
    """
    if segment.ndim != 1 or segment.shape != order.shape:
        raise ValueError(
            f"attention takes segment and order [T], not {_sizes(segment)} and {_sizes(order)}"
        )
    request = requested_backend("attention", backend, variable=BACKEND_VARIABLE, known=BACKENDS)
    candidates: tuple[str, ...] = (request.backend,)
    if request.backend == AUTO:
        candidates = AUTOMATIC.get(segment.device.type, ("sdpa",))
    for name in candidates:
        try:
            _check(name, segment.device, dtype, head_width, dropout_p)
            row = _row(name, segment, order)
            layout = AttentionLayout(name, row, len(segment), segment.device)
            break
        except Unsupported:
            if name == candidates[-1]:
                raise
    form = flash_form() if layout.backend == "flash_attn" else ""
    announce("attention", layout.backend, request.origin, form)
    return layout


def _check(
    backend: str, device: torch.device, dtype: torch.dtype, head_width: int, dropout_p: float
) -> None:
    """Raises Unsupported where ``backend`` does not run, whatever the row."""
    if backend == "flash_attn":
        check_flash(device, dtype, head_width)
    elif backend == "flex":
        check_flex(dropout_p)
    elif backend == "triton":
        _check_triton(device, dtype, head_width)


def _check_triton(device: torch.device, dtype: torch.dtype, head_width: int) -> None:
    if not has_triton():
        raise Unsupported(
            "attention on triton needs the package triton, which is not installed: install it "
            "(Linux only), or use backend sdpa"
        )
    from unimo_kernels.attention_triton_ops import HEAD_WIDTHS
    from unimo_kernels.triton_ops import TYPE_NAMES, capability, has_large_blocks, interpreted

    if device.type != "cuda" and not interpreted():
        raise Unsupported(
            f"attention on triton needs CUDA tensors, not {device.type}: use backend sdpa, or set "
            "TRITON_INTERPRET=1 before triton is imported to run the kernels in its interpreter"
        )
    check_capability("attention on triton", device)
    if dtype not in TYPE_NAMES:
        raise Unsupported(
            f"attention on triton takes {', '.join(map(str, TYPE_NAMES))}, not {dtype}: use "
            "backend sdpa"
        )
    if dtype == torch.float32 and head_width == 128 and not has_large_blocks(capability(device)):
        raise Unsupported(
            f"attention on triton takes float32 of head width 128 where a block has 163 KiB of "
            f"shared memory, not on {device}: use backend sdpa"
        )
    if head_width not in HEAD_WIDTHS:
        raise Unsupported(
            f"attention on triton takes head widths {', '.join(map(str, HEAD_WIDTHS))}, not "
            f"{head_width}: use backend sdpa"
        )


def _row(
    backend: str, segment: Tensor, order: Tensor
) -> SdpaLayout | FlashLayout | FlexLayout | BlockLayout | None:
    if backend == "sdpa":
        return sdpa_layout(segment, order)
    if backend == "flash_attn":
        return flash_layout(segment, order)
    if backend == "flex":
        return flex_layout(segment, order)
    if backend == "triton":
        return block_layout(segment, order)
    return None


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segment: Tensor,
    order: Tensor,
    *,
    dropout_p: float = 0.0,
    seed: int = 0,
    backend: str = AUTO,
    layout: AttentionLayout | None = None,
) -> Tensor:
    """Attention over one packed row; see the formula at the top of this file.

    Args:
        q, k, v: float [T, H, K], one dtype and device. triton wants them, and the gradient that
            comes back, finite at padding too; the others never read them there.
        segment: int [T], -1 = padding.
        order: int [T], only compared within a segment.
        dropout_p: probability that a weight is dropped, from 0 to below 1; the kept ones are scaled
            so that the mean stays.
        seed: from 0 to below 2**63. reference and triton draw their dropout mask from it, the very
            same one (unimo_kernels.philox). sdpa and flash_attn draw from torch's own generator,
            which torch.manual_seed and activation checkpointing replay. flex has no dropout.
        backend: a name out of BACKENDS, or ``auto``: what the environment variable
            UNIMO_ATTENTION names, else on CUDA the first of flash_attn, triton and sdpa that takes
            these inputs and this row, else sdpa.
        layout: what attention_layout gave for this row, to share it among layers; its backend runs.

    Returns:
        float [T, H, K] in the dtype of q; zeros at padding.

    Raises:
        ValueError: shapes, devices or numbers that do not fit; an unknown backend; one that is
            asked for by name and cannot run here or take this row.
        NotImplementedError: flex on a CPU with inputs that require a gradient.
    """
    _check_inputs(q, k, v, segment, order, dropout_p, seed)
    if layout is not None and (layout.length, layout.device) != (len(q), q.device):
        raise ValueError(
            f"attention is given {len(q)} positions on {q.device} and a layout for "
            f"{layout.length} on {layout.device}: build it with attention_layout(segment, order)"
        )
    if layout is None:
        layout = attention_layout(
            segment,
            order,
            dtype=q.dtype,
            head_width=q.shape[-1],
            dropout_p=dropout_p,
            backend=backend,
        )
    elif backend in (AUTO, layout.backend):
        _check(layout.backend, q.device, q.dtype, q.shape[-1], dropout_p)
    else:
        raise ValueError(
            f"attention is asked for backend {backend} and given a layout for {layout.backend}: "
            f"build it with attention_layout(..., backend={backend!r})"
        )
    # Autocast would round float32 inputs, or the reference's scores, to half precision.
    with torch.autocast(q.device.type, enabled=False):
        return _run(q, k, v, segment, order, dropout_p, operator.index(seed), layout)


def _run(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    segment: Tensor,
    order: Tensor,
    dropout_p: float,
    seed: int,
    layout: AttentionLayout,
) -> Tensor:
    match layout.row:
        case SdpaLayout() as row:
            return attention_sdpa(q, k, v, row, dropout_p)
        case FlashLayout() as row:
            return attention_flash(q, k, v, row, dropout_p)
        case FlexLayout() as row:
            return attention_flex(q, k, v, row)
        case BlockLayout() as row:
            # Imports triton, which is not there on every machine.
            from unimo_kernels.attention_triton import attention_triton

            return attention_triton(q, k, v, segment, order, row, dropout_p, seed)
    return attention_reference(q, k, v, segment, order, dropout_p, seed)


def _check_inputs(
    q: Tensor, k: Tensor, v: Tensor, segment: Tensor, order: Tensor, dropout_p: float, seed: int
) -> None:
    if not (q.ndim == 3 and q.shape == k.shape == v.shape):
        raise ValueError(
            f"attention takes q, k, v [T, H, K] of one shape, not {_sizes(q)}, {_sizes(k)}, "
            f"{_sizes(v)}"
        )
    if not q.dtype == k.dtype == v.dtype:
        raise ValueError(
            f"attention takes q, k, v of one dtype, not {q.dtype}, {k.dtype}, {v.dtype}"
        )
    if not (segment.shape == order.shape == q.shape[:1]):
        raise ValueError(
            f"attention takes segment and order [{q.shape[0]}], one per position of q, not "
            f"{_sizes(segment)} and {_sizes(order)}"
        )
    devices = [x.device for x in (q, k, v, segment, order)]
    if len(set(devices)) > 1:
        raise ValueError(
            "attention takes q, k, v, segment, order on one device, not "
            f"{', '.join(map(str, devices))}"
        )
    drop_threshold(dropout_p)  # refuses what is no probability
    if not (hasattr(seed, "__index__") and 0 <= operator.index(seed) < 2**63):
        raise ValueError(f"attention takes a whole seed from 0 to below 2**63, not {seed}")


def _sizes(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
