"""How the similarity kernels are launched: tiles, operands as they read them, slabs of rows.

Everything is padded to whole tiles, so that kernels need no masks; padding has log-weight -inf.

Legend: M rows · N columns · D width · m rows of a slab
"""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
import triton
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from unimo_kernels.similarity_triton_kernels import (
    STRIPS,
    combine,
    similarity_gradients,
    similarity_statistics,
)
from unimo_kernels.similarity_types import Operands
from unimo_kernels.triton_ops import (
    capability,
    dot_precision,
    has_descriptors,
    interpreted,
    launch_options,
)

SLAB_BYTES = 1 << 28
"""What a slab of rows may take in partial sums, or in dLoss/dS."""

ROW_BYTES = 16
"""Tensor descriptors want rows to start at multiples of this."""

COMBINED_T, COMBINED_LENGTH = 32, 128

TOP_A, TOP_B, NO_SUMS = 2, 3, -1  # places in plan


class Tiles(NamedTuple):
    """One program's share of S, and how it is compiled."""

    rows: int
    columns: int
    depth: int
    band: int  # tile rows that are walked together
    num_warps: int
    num_stages: int


def tiles(dtype: torch.dtype, target: int, weights: bool) -> Tiles:
    """What fits a GPU of capability ``target``, as its compiler says (tests/kernels).

    Sums of the gradients of log-weights (``weights``) take more registers.
    """
    if interpreted():
        return Tiles(32, 32, 32, 2, 4, 1)
    if dtype == torch.float32:
        return Tiles(128, 128, 32, 16, 8, 3) if target == 90 else Tiles(128, 64, 16, 16, 8, 3)
    if target == 90 and not weights:
        return Tiles(128, 256, 64, 16, 8, 4)
    if target in (90, 100, 103):
        return Tiles(128, 128, 64, 16, 8, 3)
    return Tiles(128, 128, 32, 16, 8, 3)


class Sources(NamedTuple):
    """What the kernels read, as they read it."""

    a_MD: Tensor
    b_ND: Tensor
    group_a: Tensor  # int64, padded
    group_b: Tensor
    reach_a: Tensor  # int64 [tiles, 2], lowest and highest group of each tile's rows
    reach_b: Tensor
    rows: Tensor  # float32 [vectors, M padded], see similarity_triton_kernels
    columns: Tensor  # float32 [vectors, N padded]
    plan: Tensor  # float32 [4]
    tiles: Tiles
    descriptors: bool  # whether a, b and G are tensor descriptors to the kernels

    def slab(self, rows: slice) -> "Sources":
        """The same with some rows only; they start where a tile does."""
        first, last = rows.start // self.tiles.rows, triton.cdiv(rows.stop, self.tiles.rows)
        padded = slice(first * self.tiles.rows, last * self.tiles.rows)
        return self._replace(
            a_MD=self.a_MD[padded],
            group_a=self.group_a[padded],
            reach_a=self.reach_a[first:last],
            rows=self.rows[:, padded],
        )


def sources(operands: Operands, weights: bool) -> Sources:
    """The operands in tiles(..., weights); the sides hold log-weights and shares only."""
    a, b = operands.a, operands.b
    target = capability(a.device)
    tile = tiles(a.dtype, target, weights)
    descriptors = has_descriptors(target)
    group_a, group_b = _fill(operands.group_a, tile.rows), _fill(operands.group_b, tile.columns)
    weight_a = pad(operands.log_weight_a.float(), tile.rows, -math.inf)
    weight_b = pad(operands.log_weight_b.float(), tile.columns, -math.inf)
    tops = [weight.amax() for weight in (weight_a, weight_b)]
    tops = [torch.where(top == -math.inf, 0.0, top) for top in tops]
    scale = operands.scale.reshape(()).float()
    longest = [torch.linalg.vector_norm(x, dim=1, dtype=torch.float32).amax() for x in (a, b)]
    bound = scale.abs() * longest[0] * longest[1] * math.log2(math.e)  # Cauchy-Schwarz
    return Sources(
        _loadable(a, tile.rows, tile, descriptors),
        _loadable(b, tile.columns, tile, descriptors),
        group_a,
        group_b,
        torch.stack(group_a.view(-1, tile.rows).aminmax(dim=1), dim=1),
        torch.stack(group_b.view(-1, tile.columns).aminmax(dim=1), dim=1),
        torch.stack([weight_a, (weight_a - tops[0]).exp()]),
        torch.stack([weight_b, (weight_b - tops[1]).exp()]),
        torch.stack([scale, bound, *tops]),
        tile,
        descriptors,
    )


def pad(x: Tensor, size: int, value: float) -> Tensor:
    """A vector up to a multiple of ``size``."""
    return F.pad(x, (0, -len(x) % size), value=value)


def _fill(group: Tensor, size: int) -> Tensor:
    """Groups up to a multiple of ``size``, by more of the last, so that a tile's reach is kept."""
    return torch.cat([group, group[-1:].expand(-len(group) % size)])


def _loadable(x: Tensor, height: int, tile: Tiles, descriptors: bool) -> Tensor:
    """x itself, or a copy with zeros appended, for tiles to be loaded from.

    Descriptors know where x ends and fill up with zeros, but rows must be aligned. Without them
    whole tiles are read.
    """
    rows, width = x.shape
    if descriptors:
        height, depth = 1, ROW_BYTES // x.element_size()
        fits = x.stride(0) % depth == 0
    else:
        depth = tile.depth
        fits = width % depth == 0 and rows % height == 0 and x.stride(0) == width
    if fits and x.stride(1) == 1 and x.stride(0) >= width > 0 and x.data_ptr() % ROW_BYTES == 0:
        return x
    padded = x.new_zeros(round_up(rows, height), round_up(max(width, 1), depth))
    padded[:rows, :width] = x
    return padded


def round_up(size: int, step: int) -> int:
    """The next multiple of ``step``."""
    return triton.cdiv(size, step) * step


def slabs(rows: int, row_bytes: int, tile: Tiles) -> list[slice]:
    """Whole tile rows within SLAB_BYTES at a time, one at least."""
    height = max(1, SLAB_BYTES // (row_bytes * tile.rows)) * tile.rows
    return [slice(i, min(i + height, rows)) for i in range(0, rows, height)]


def launch_statistics(
    s: Sources, row_partials: Tensor, column_partials: Tensor, both: bool
) -> None:
    """Fills the partials, see ``similarity_statistics``."""
    tiles_m, tiles_n = len(s.reach_a), len(s.reach_b)
    similarity_statistics[(tiles_m * tiles_n,)](
        *_tiled(s),
        *s[2:9],
        row_partials,
        column_partials,
        s.rows.stride(0),
        s.columns.stride(0),
        tiles_m,
        tiles_n,
        BOTH=both,
        **constants(s.a_MD.dtype, s.a_MD.shape[1], s.tiles, s.descriptors),
        **launch_options(s.tiles.num_warps, s.tiles.num_stages),
    )


def launch_combine(partials: Tensor, plan: Tensor, out: Tensor, top: int) -> None:
    """out [2, length] = log-sum-exps over the middle of partials [2, T, length]."""
    _, count, length = partials.shape
    combine[(triton.cdiv(length, COMBINED_LENGTH), 2)](
        partials,
        plan,
        out,
        count,
        length,
        out.stride(0),
        TOP=top,
        BT=COMBINED_T,
        BL=COMBINED_LENGTH,
        **launch_options(4, 1),
    )


def launch_gradients(
    s: Sources, g_mN: Tensor, partials: tuple[Tensor, Tensor, Tensor], both: bool, weights: bool
) -> None:
    """Fills g_mN, in memory of whole tiles, and the partials, see ``similarity_gradients``."""
    tiles_m, tiles_n = len(s.reach_a), len(s.reach_b)
    strip = [s.tiles.rows, s.tiles.columns // STRIPS.value]
    similarity_gradients[(tiles_m * tiles_n,)](
        *_tiled(s),
        TensorDescriptor.from_tensor(g_mN, strip) if s.descriptors else g_mN,
        *s[2:9],
        *partials,
        s.rows.stride(0),
        s.columns.stride(0),
        tiles_m,
        tiles_n,
        BOTH=both,
        WEIGHTS=weights,
        **constants(s.a_MD.dtype, s.a_MD.shape[1], s.tiles, s.descriptors),
        **launch_options(s.tiles.num_warps, s.tiles.num_stages),
    )


def _tiled(s: Sources) -> tuple[Tensor | TensorDescriptor, ...]:
    if not s.descriptors:
        return s.a_MD, s.b_ND
    return (
        TensorDescriptor.from_tensor(s.a_MD, [s.tiles.rows, s.tiles.depth]),
        TensorDescriptor.from_tensor(s.b_ND, [s.tiles.columns, s.tiles.depth]),
    )


def constants(dtype: torch.dtype, width: int, tile: Tiles, descriptors: bool) -> dict[str, object]:
    """What both kernels are compiled for."""
    return {
        "D": width,
        "BM": tile.rows,
        "BN": tile.columns,
        "BK": tile.depth,
        "BAND": tile.band,
        "PRECISION": dot_precision(dtype),
        "WIDEN": interpreted(),
        "DESCRIPTORS": descriptors,
    }
