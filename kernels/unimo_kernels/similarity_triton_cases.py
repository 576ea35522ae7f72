"""The similarity kernels as they are launched, to be compiled where no GPU is."""

import itertools
from typing import Any

import torch

from unimo_kernels.similarity_triton_kernels import (
    STRIPS,
    combine,
    similarity_gradients,
    similarity_statistics,
)
from unimo_kernels.similarity_triton_launch import (
    COMBINED_LENGTH,
    COMBINED_T,
    TOP_B,
    Tiles,
    constants,
    tiles,
)
from unimo_kernels.triton_ops import TYPE_NAMES, Case, has_descriptors

WIDTH = 768

_NUMBERS = {
    **dict.fromkeys(("group_a", "group_b", "reach_a", "reach_b"), "*i64"),
    **dict.fromkeys(("rows_stride", "columns_stride", "tiles_m", "tiles_n"), "i32"),
    **dict.fromkeys(("T", "length", "stride"), "i32"),
}
"""Types of arguments by name; a name that is not here is a pointer to float32."""


def ahead_of_time(capability: int) -> list[Case]:
    """Every kernel and dtype, with and without columns and gradients of the log-weights."""
    cases = []
    for dtype, both in itertools.product(TYPE_NAMES, (True, False)):
        cases.append(_case(similarity_statistics, dtype, capability, {"BOTH": both}))
        for weights in (True, False):
            choice = {"BOTH": both, "WEIGHTS": weights}
            cases.append(_case(similarity_gradients, dtype, capability, choice))
    sizes = {"TOP": TOP_B, "BT": COMBINED_T, "BL": COMBINED_LENGTH}
    cases.append(Case("combine", combine, _types(combine, sizes), sizes, 4, 1))
    return cases


def _case(kernel: Any, dtype: torch.dtype, capability: int, choice: dict[str, object]) -> Case:
    tile = tiles(dtype, capability, bool(choice.get("WEIGHTS")))
    descriptors = has_descriptors(capability)
    known = choice | constants(dtype, WIDTH, tile, descriptors) | {"WIDEN": False}
    types = _types(kernel, known)
    for name, block in _blocks(tile).items():
        if name in types:
            kind = TYPE_NAMES[dtype]
            types[name] = f"tensordesc<{kind}{block}>" if descriptors else f"*{kind}"
    words = [kernel.__name__, TYPE_NAMES[dtype], "both" if choice["BOTH"] else "rows"]
    words += ["weights"] if choice.get("WEIGHTS") else []
    return Case("-".join(words), kernel, types, known, tile.num_warps, tile.num_stages)


def _types(kernel: Any, known: dict[str, object]) -> dict[str, str]:
    return {name: _NUMBERS.get(name, "*fp32") for name in kernel.arg_names if name not in known}


def _blocks(tile: Tiles) -> dict[str, str]:
    return {
        "a_rows": f"[{tile.rows},{tile.depth}]",
        "b_rows": f"[{tile.columns},{tile.depth}]",
        "g_rows": f"[{tile.rows},{tile.columns // STRIPS.value}]",
    }
