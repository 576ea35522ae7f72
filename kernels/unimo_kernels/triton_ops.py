"""What our Triton kernels share: dots and casts that the interpreter gets right, cases to compile.

Triton's interpreter multiplies bfloat16 bit patterns as integers and truncates where hardware
rounds to nearest even. Under it (``WIDEN``) dots run in float32 and casts round by hand.
"""

import os
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl


class Case(NamedTuple):
    """One specialisation of a kernel, to be compiled ahead of time."""

    name: str
    kernel: Any
    types: dict[str, str]  # of the arguments that are not constants, as in a Triton signature
    constants: dict[str, object]
    num_warps: int
    num_stages: int


TYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
"""How Triton's signatures call the dtypes that our kernels take."""


def interpreted() -> bool:
    """Whether kernels run in Triton's interpreter, on tensors of any device."""
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on", "yes", "y")


def dot_precision(dtype: torch.dtype) -> str:
    """How products of ``dtype`` are taken.

    float32 runs on the matrix units as six products of bfloat16 parts, which lose nothing that its
    sum keeps, whatever torch's switches for TF32 say. "ieee" would leave the matrix units unused,
    and "tf32x3" spills more registers. The interpreter knows "ieee".
    """
    return "bf16x6" if dtype == torch.float32 and not interpreted() else "ieee"


def capability(device: torch.device) -> int:
    """Of the GPU that compiles kernels for ``device``, as 90 for Hopper; in the interpreter too."""
    if device.type != "cuda":
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def has_descriptors(capability: int) -> bool:
    """Whether tiles are best loaded through tensor descriptors: by Hopper's bulk loads and later.

    On older GPUs the compiler turns descriptors into loads that it does not overlap with products.
    """
    return capability >= 90


def has_large_blocks(capability: int) -> bool:
    """Whether a block may take 163 KiB of shared memory or more, not 99 KiB."""
    return capability in (80, 90, 100, 103)


def launch_options(num_warps: int, num_stages: int) -> dict[str, Any]:
    """How a kernel is compiled: multiply-adds stay fused, which Triton 3.10 would switch off."""
    return {"num_warps": num_warps, "num_stages": num_stages, "enable_fp_fusion": True}


@triton.jit
def matmul(x, y, acc, PRECISION: tl.constexpr, WIDEN: tl.constexpr):
    """x @ y + acc, accumulated in float32."""
    if WIDEN:
        x = x.to(tl.float32)
        y = y.to(tl.float32)
    return tl.dot(x, y, acc, input_precision=PRECISION)


@triton.jit
def narrow(x, DTYPE: tl.constexpr, WIDEN: tl.constexpr):
    """x, float32, rounded to nearest even in DTYPE."""
    if WIDEN and tl.bfloat16 == DTYPE:
        bits = x.to(tl.int32, bitcast=True)
        bits = bits + 0x7FFF + ((bits >> 16) & 1)
        x = (bits & -65536).to(tl.float32, bitcast=True)
    return x.to(DTYPE)
