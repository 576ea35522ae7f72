"""Attention over a packed row with torch's FlexAttention, compiled on a GPU.

It has no dropout, and no backward on a CPU.

Legend: T positions · H heads · K head width
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention

from unimo_kernels.dispatch import Unsupported
from unimo_kernels.integers import PADDING_SEGMENT
from unimo_kernels.nonfinite import unhidden


class FlexLayout(NamedTuple):
    """Who sees whom in a row; the same for all layers of a forward."""

    block_mask: BlockMask | None  # None: the row has no position
    padding_T11: Tensor  # bool


def check_flex(dropout_p: float) -> None:
    """Raises Unsupported where there is dropout."""
    if dropout_p > 0:
        raise Unsupported(
            f"attention on flex has no dropout, dropout_p is {dropout_p}: set it to 0 "
            "(attention_probs_dropout_prob), or use backend flash_attn, triton or sdpa"
        )


def flex_layout(segment: Tensor, order: Tensor) -> FlexLayout:
    """The mask of a row, in blocks; T x T booleans are in memory while it is made.

    Args:
        segment: int [T], -1 = padding; the positions of a segment need not be neighbours.
        order: int [T].
    """
    length, device = len(segment), segment.device

    def sees(batch: Tensor, head: Tensor, i: Tensor, j: Tensor) -> Tensor:
        del batch, head
        # Padding is a segment like any other, of zeros: so no softmax is empty.
        return (segment[i] == segment[j]) & (order[j] <= order[i])

    block_mask = None
    if length:
        block_mask = create_block_mask(sees, None, None, length, length, device=device)
    return FlexLayout(block_mask, (segment == PADDING_SEGMENT)[:, None, None])


def attention_flex(q: Tensor, k: Tensor, v: Tensor, layout: FlexLayout) -> Tensor:
    """The formula of unimo_kernels.attention without dropout.

    Args:
        q, k, v: float [T, H, K].
        layout: flex_layout(segment, order).

    Returns:
        [T, H, K] in the dtype of q.

    Raises:
        NotImplementedError: inputs on a CPU that require a gradient; torch has no backward there.
    """
    if layout.block_mask is None:
        return q + k + v
    q, k, v = (x.masked_fill(layout.padding_T11, 0) for x in (q, k, v))
    run = _compiled() if q.is_cuda else flex_attention
    inputs = (x.transpose(0, 1)[None] for x in (q, k, v))
    out_1HTK = run(*inputs, block_mask=layout.block_mask)
    # Zero already; but the gradient that comes back for padding must not enter the sums either.
    return unhidden(out_1HTK[0].transpose(0, 1), q, k).masked_fill(layout.padding_T11, 0)


@functools.cache
def _compiled() -> Callable[..., Tensor]:
    # With fullgraph a graph too many is an error; else T x T scores would silently take its place.
    return torch.compile(flex_attention, fullgraph=True)
