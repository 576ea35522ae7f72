"""What forward and backward attention kernels share: dropout's mask, and rows as kernels read them.

Legend: T positions · H heads · K head width
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from unimo_kernels import attention_blocks
from unimo_kernels.triton_ops import (
    dot_precision,
    has_descriptors,
    has_large_blocks,
    interpreted,
    narrow,
)

HEAD_WIDTHS = (32, 64, 128)

LAYOUT_OWN = tl.constexpr(attention_blocks.OWN)
LAYOUT_VISITED = tl.constexpr(attention_blocks.VISITED)


class Dropout(NamedTuple):
    """unimo_kernels.philox as numbers; threshold 0 drops nothing."""

    seed: int
    threshold: int
    keep_scale: float


class Tiles(NamedTuple):
    """How large the tiles of a kernel are; OWN and VISITED are multiples of them."""

    own: int
    visited: int
    num_warps: int
    num_stages: int


def tiles(
    dtype: torch.dtype, head_width: int, capability: int, dropout: bool, *, backward: bool
) -> Tiles:
    """What fits shared memory and registers of a GPU, as its compiler says (tests/kernels)."""
    if dtype == torch.float32:
        return Tiles(64, 16 if backward else 32, 4, 1)
    if capability // 10 not in (9, 10):  # neither Hopper nor its successor for data centres
        if not backward:
            return Tiles(128, 64, 8, 3 if has_large_blocks(capability) else 2)
        return Tiles(64, 32, 4, 2) if head_width == 128 else Tiles(128, 32, 8, 2)
    if backward:
        return Tiles(128, 32 if head_width == 128 else 64, 8, 2)
    # With half as many warps dropout at width 64 does not fit the registers.
    return Tiles(128, 64, 8 if head_width == 128 or dropout else 4, 3)


@triton.jit
def load_runs(runs, own, T, OWN: tl.constexpr, VISITED: tl.constexpr):
    """The four ends of the runs of tile ``own``, in tiles: see attention_blocks.BlockLayout."""
    columns = tl.cdiv(T, LAYOUT_OWN)
    entry = runs + own // (LAYOUT_OWN // OWN)
    tiles = LAYOUT_VISITED // VISITED
    first = tl.load(entry) * tiles
    whole_first = tl.load(entry + columns) * tiles
    whole_last = tl.load(entry + 2 * columns) * tiles
    last = tl.load(entry + 3 * columns) * tiles
    return first, whole_first, whole_last, last


@triton.jit
def keep_mask(seed, head, row_q, first_key, threshold, QUERIES: tl.constexpr, KEYS: tl.constexpr):
    """bool [QUERIES, KEYS]; unimo_kernels.philox.keep_mask from key ``first_key`` on.

    One call of Philox gives four 32-bit words, the fates of 16 keys in a row: called per element
    it would cost more than the products do.
    """
    group = first_key // 16 + tl.arange(0, KEYS // 16)
    groups = tl.broadcast_to(group[None, :], [QUERIES, KEYS // 16])
    rows = tl.broadcast_to(row_q[:, None], [QUERIES, KEYS // 16])
    zeros = tl.zeros([QUERIES, KEYS // 16], tl.int32)
    w0, w1, w2, w3 = tl.philox(seed.to(tl.int64), groups, rows, zeros + head, zeros)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # the last two axes count w0 w1 / w2 w3
    words = tl.reshape(words, [QUERIES, KEYS // 4, 1])
    shifts = (tl.arange(0, 4) * 8).to(tl.uint32)
    bytes_ = (words >> shifts[None, None, :]) & 0xFF
    return tl.reshape(bytes_, [QUERIES, KEYS]) >= threshold.to(tl.uint32)


@triton.jit
def load_rows(
    rows, start, head, T, H, SIZE: tl.constexpr, K: tl.constexpr, DESCRIPTORS: tl.constexpr
):
    """[SIZE, K] of one head from row ``start`` on; zeros beyond row T."""
    if DESCRIPTORS:
        tile = rows.load([start, head * K])
    else:
        row = start + tl.arange(0, SIZE)
        place = (row.to(tl.int64) * H + head)[:, None] * K + tl.arange(0, K)[None, :]
        tile = tl.load(rows + place, (row < T)[:, None], other=0.0)
    return tile


@triton.jit
def load_key_order(order, segment_k, row_k, T):
    """Orders of keys; those of padding and beyond row T are above any query's."""
    order_k = tl.load(order + row_k, row_k < T, other=0)
    return tl.where(segment_k == -1, 2147483647, order_k)


@triton.jit
def seen_keys(segment, order, segment_q, order_q, row_k, T):
    """bool [queries, keys]: which of the keys at ``row_k`` the queries see."""
    segment_k = tl.load(segment + row_k, row_k < T, other=-1)
    order_k = load_key_order(order, segment_k, row_k, T)
    return (segment_q[:, None] == segment_k[None, :]) & (order_k[None, :] <= order_q[:, None])


@triton.jit
def any_nan(tile):
    """1.0 or 0.0."""
    return tl.max((tile != tile).to(tl.float32))


@triton.jit
def sound_rows(rows):
    """``rows`` [.., K] with zeros in the place of NaN and infinity, and which rows had any."""
    wide = rows.to(tl.float32)
    sound = wide - wide == 0
    broken = tl.max((wide - wide != 0).to(tl.int32), 1) > 0
    return tl.where(sound, wide, 0.0).to(rows.dtype), broken


@triton.jit
def store_rows(rows, tile, row, head, T, H, K: tl.constexpr, WIDEN: tl.constexpr):
    """The float32 ``tile`` [.., K] of one head to ``rows`` [T, H, K], rounded to its dtype."""
    place = (row.to(tl.int64) * H + head)[:, None] * K + tl.arange(0, K)[None, :]
    tl.store(rows + place, narrow(tile, rows.dtype.element_ty, WIDEN), (row < T)[:, None])


def constants(
    dtype: torch.dtype, head_width: int, size: Tiles, capability: int, dropout: bool
) -> dict[str, object]:
    """What forward, dQ and dKdV kernels are compiled for."""
    return {
        "DROPOUT": dropout,
        "OWN": size.own,
        "VISITED": size.visited,
        "K": head_width,
        "PRECISION": dot_precision(dtype),
        "WIDEN": interpreted(),
        "DESCRIPTORS": has_descriptors(capability),
    }


def launch_contained(
    kernel: Any, grid: tuple[int, int], *tensors: Any, numbers: tuple[Any, ...], compiled: Any
) -> None:
    """Launches ``kernel``, and once more for the programs whose results hold a NaN.

    A product over a tile takes in what is not seen with weight 0, and 0 times NaN is NaN: the
    second launch keeps NaN and infinity to the positions that see them. Without any its programs
    end at once; within the first kernel it would take registers of every program.
    """
    device = tensors[-1].device
    broken = torch.empty(*grid, dtype=torch.float32, device=device)
    for contained in (False, True):
        kernel[grid](*tensors, broken, *numbers, CONTAINED=contained, **compiled)


def readable(x_THK: Tensor, block: int, descriptors: bool) -> Tensor | TensorDescriptor:
    """``x_THK``, contiguous, as load_rows takes it in blocks of ``block`` rows."""
    if not descriptors:
        return x_THK
    return TensorDescriptor.from_tensor(x_THK.flatten(1), [block, x_THK.shape[-1]])


def dense(x: Tensor) -> Tensor:
    """x, contiguous and starting at a multiple of 16 bytes, as the bulk loads need it."""
    x = x.contiguous()
    return x if x.data_ptr() % 16 == 0 else x.clone()
