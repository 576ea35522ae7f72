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

from unimo_kernels.attention_blocks import BlockLayout, block_layout
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
from unimo_kernels.integers import (
    PADDING_SEGMENT,
    check_whole,
    numbered_orders,
    numbered_segments,
)
from unimo_kernels.philox import drop_share, drop_threshold, keep_mask, keep_scale

BACKENDS = ("reference", "sdpa", "flash_attn", "flex", "triton")
BACKEND_VARIABLE = "UNIMO_ATTENTION"

AUTOMATIC = {"cuda": ("flash_attn", "triton", "sdpa")}
"""What ``auto`` tries on a kind of device, best first; sdpa, which takes everything, elsewhere."""


class AttentionLayout(NamedTuple):
    """A row, which backend runs on it and what that knows of it; the same for all layers.

    It holds the row itself, numbered by unimo_kernels.integers: nothing that is done to the tensors
    it was built from reaches it.
    """

    backend: str
    plan: SdpaLayout | FlashLayout | FlexLayout | BlockLayout | None  # the reference needs none
    segment: Tensor  # int32 [T]
    order: Tensor  # int32 [T]


def attention_reference(
    q: Tensor, k: Tensor, v: Tensor, segment: Tensor, order: Tensor, dropout_p: float, seed: int
) -> Tensor:
    """The specification, segment by segment; float64 inputs stay float64."""
    dtype, wide = q.dtype, torch.promote_types(q.dtype, torch.float32)
    dropped = dropout_p > 0
    kept_HTT = keep_mask(seed, q.shape[1], len(q), dropout_p, q.device) if dropped else None
    # Without a segment all three stay in the graph, with gradients of zero.
    everywhere = torch.ones_like(segment, dtype=torch.bool)[:, None, None]
    out_THK = (q + k + v).masked_fill(everywhere, 0)
    for own in segment[segment != PADDING_SEGMENT].unique():
        at = torch.nonzero(segment == own).flatten()
        q_SHK, k_SHK, v_SHK = (x[at].to(wide) for x in (q, k, v))
        hidden_SS = order[at][None, :] > order[at][:, None]
        scores_HSS = torch.einsum("ihk,jhk->hij", q_SHK, k_SHK) / math.sqrt(q.shape[-1])
        p_HSS = scores_HSS.masked_fill(hidden_SS, -math.inf).softmax(dim=-1)
        if kept_HTT is not None:
            p_HSS = p_HSS * kept_HTT[:, at][:, :, at] * keep_scale(dropout_p)
        out_SHK = torch.einsum("hij,jhk->ihk", p_HSS, v_SHK)
        out_THK = out_THK.index_copy(0, at, out_SHK.to(dtype))
    return out_THK


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
        segment: int [T], -1 = padding; any ids, and the positions of a segment need not be
            neighbours.
        order: int [T], any numbers, only compared within a segment.
        dtype, head_width, dropout_p: those of the calls that will use the layout.
        backend: a name out of BACKENDS, or ``auto``: what the environment variable
            UNIMO_ATTENTION names, else on CUDA the first of flash_attn, triton and sdpa that takes
            these inputs and this row, else sdpa.

    Raises:
        ValueError: a row that is not one of whole numbers; an unknown backend, or one (asked for by
            argument or environment) that cannot run here, with this dtype, head width or dropout,
            or on this row. ``auto`` goes on to the next backend instead.
    """
    if segment.ndim != 1 or segment.shape != order.shape:
        raise ValueError(
            f"attention takes segment and order [T], not {_sizes(segment)} and {_sizes(order)}"
        )
    if segment.device != order.device:
        raise ValueError(
            f"attention takes segment and order on one device, not {segment.device} and "
            f"{order.device}"
        )
    check_whole("attention's segment", segment)
    check_whole("attention's order", order)
    drop_share(dropout_p)  # refuses what is no probability
    request = requested_backend("attention", backend, variable=BACKEND_VARIABLE, known=BACKENDS)
    candidates: tuple[str, ...] = (request.backend,)
    if request.backend == AUTO:
        candidates = AUTOMATIC.get(segment.device.type, ("sdpa",))
    for name in candidates:
        try:
            _check(name, segment.device, dtype, head_width, dropout_p)
            layout = _layout(name, segment, order)
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
    elif backend in ("triton", "reference"):
        drop_threshold(dropout_p)
    if backend == "triton":
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
    check_capability("attention on triton", device, "sdpa")
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


def _layout(backend: str, segment: Tensor, order: Tensor) -> AttentionLayout:
    row = numbered_segments(segment), numbered_orders(order)
    if backend == "sdpa":
        return AttentionLayout(backend, sdpa_layout(*row), *row)
    if backend == "flash_attn":  # which names the ids that it cannot take
        return AttentionLayout(backend, flash_layout(segment, order), *row)
    if backend == "flex":
        return AttentionLayout(backend, flex_layout(*row), *row)
    if backend == "triton":
        return AttentionLayout(backend, block_layout(*row), *row)
    return AttentionLayout(backend, None, *row)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: AttentionLayout,
    *,
    dropout_p: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """Attention over one packed row; see the formula at the top of this file.

    Args:
        q, k, v: float [T, H, K], one dtype and device.
        layout: the row, as attention_layout gave it; its backend runs.
        dropout_p: probability that a weight is dropped, from 0 to below 1; the kept ones are scaled
            so that the mean stays. triton and reference round it to 256ths (unimo_kernels.philox).
        seed: from 0 to below 2**63. reference and triton draw their dropout mask from it, the very
            same one. sdpa and flash_attn draw from torch's own generator, which torch.manual_seed
            and activation checkpointing replay. flex has no dropout.

    Returns:
        float [T, H, K] in the dtype of q; zeros at padding.

    Raises:
        ValueError: shapes, devices or numbers that do not fit each other or the layout's backend.
        NotImplementedError: flex on a CPU with inputs that require a gradient.
        RuntimeError: a second derivative of triton.
    """
    _check_inputs(q, k, v, layout, dropout_p, seed)
    # Autocast would round float32 inputs, or the reference's scores, to half precision.
    with torch.autocast(q.device.type, enabled=False):
        return _run(q, k, v, layout, dropout_p, operator.index(seed))


def _run(
    q: Tensor, k: Tensor, v: Tensor, layout: AttentionLayout, dropout_p: float, seed: int
) -> Tensor:
    row = layout.segment, layout.order
    match layout.plan:
        case SdpaLayout() as plan:
            return attention_sdpa(q, k, v, plan, dropout_p)
        case FlashLayout() as plan:
            return attention_flash(q, k, v, plan, dropout_p)
        case FlexLayout() as plan:
            return attention_flex(q, k, v, plan)
        case BlockLayout() as plan:
            # Imports triton, which is not there on every machine.
            from unimo_kernels.attention_triton import attention_triton

            return attention_triton(q, k, v, *row, plan, dropout_p, seed)
    return attention_reference(q, k, v, *row, dropout_p, seed)


def _check_inputs(
    q: Tensor, k: Tensor, v: Tensor, layout: AttentionLayout, dropout_p: float, seed: int
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
    if not q.device == k.device == v.device:
        raise ValueError(
            f"attention takes q, k, v on one device, not {q.device}, {k.device}, {v.device}"
        )
    segment = layout.segment
    if (len(segment), segment.device) != (len(q), q.device):
        raise ValueError(
            f"attention is given {len(q)} positions on {q.device} and a layout for "
            f"{len(segment)} on {segment.device}: build it with attention_layout(segment, order)"
        )
    if not (hasattr(seed, "__index__") and 0 <= operator.index(seed) < 2**63):
        raise ValueError(f"attention takes a whole seed from 0 to below 2**63, not {seed}")
    drop_share(dropout_p)
    _check(layout.backend, q.device, q.dtype, q.shape[-1], dropout_p)


def _sizes(tensor: Tensor) -> list[int]:
    return list(tensor.shape)
