"""The attention kernels as they are launched, to be compiled where no GPU is.

The arguments of a kernel are told from its parameters' names, the same in all three.
"""

import itertools
from typing import Any

import torch

from unimo_kernels import attention_triton, attention_triton_backward
from unimo_kernels.attention_triton_ops import HEAD_WIDTHS, constants, tiles
from unimo_kernels.triton_ops import TYPE_NAMES, Case, has_descriptors

_OWNED = {
    "attention_forward": ("q",),
    "attention_dq": ("q", "grad"),
    "attention_dkdv": ("k", "v"),
}
_NUMBERS = {
    **dict.fromkeys(("segment", "order", "runs"), "*i32"),
    **dict.fromkeys(("lse", "delta", "broken"), "*fp32"),
    **dict.fromkeys(("T", "H", "threshold"), "i32"),
    **dict.fromkeys(("keep_scale", "scale", "softmax_scale"), "fp32"),
    "seed": "i32",
}


def ahead_of_time(capability: int) -> list[Case]:
    """Every kernel, dtype and head width, with and without dropout, and as it contains NaN."""
    kernels = (
        attention_triton.attention_forward,
        attention_triton_backward.attention_dq,
        attention_triton_backward.attention_dkdv,
    )
    choices = itertools.product(kernels, TYPE_NAMES, HEAD_WIDTHS, (False, True), (False, True))
    deltas = itertools.product(TYPE_NAMES, HEAD_WIDTHS)
    return [
        *(_case(*choice, capability) for choice in choices),
        *(_delta_case(*choice) for choice in deltas),
    ]


def _delta_case(dtype: torch.dtype, width: int) -> Case:
    kernel, kind = attention_triton_backward.attention_delta, TYPE_NAMES[dtype]
    types = _NUMBERS | {"out": f"*{kind}", "grad": f"*{kind}"}
    sizes: dict[str, object] = {"K": width, "ROWS": attention_triton_backward.DELTA_ROWS}
    return Case(f"{kernel.__name__}-K{width}-{kind}", kernel, types, sizes, 4, 1)


def _case(
    kernel: Any, dtype: torch.dtype, width: int, dropout: bool, contained: bool, capability: int
) -> Case:
    name, kind, descriptors = kernel.__name__, TYPE_NAMES[dtype], has_descriptors(capability)
    size = tiles(dtype, width, capability, dropout, backward=name != "attention_forward")
    known = constants(dtype, width, size, capability, dropout) | {"CONTAINED": contained}
    types = {}
    for argument in kernel.arg_names:
        if argument in _NUMBERS:
            types[argument] = _NUMBERS[argument]
        elif argument not in known:
            types[argument] = f"*{kind}"
            if descriptors and argument.endswith("_rows"):
                owned = argument.removesuffix("_rows") in _OWNED[name]
                rows = size.own if owned else size.visited
                types[argument] = f"tensordesc<{kind}[{rows},{width}]>"
    words = [name, f"K{width}", kind, *["dropout"] * dropout, *["contained"] * contained]
    return Case("-".join(words), kernel, types, known, size.num_warps, size.num_stages)
