"""Attention over a packed row with FlashAttention-2, from the flash-attn package or inside torch.

Its kernels know two masks: all keys of a sequence, or a causal one that ends at the last key. Those
are enough where every segment consists of sources, which share the lowest order, and targets, whose
orders rise above it one by one:

    call 1   sources see the sources of their segment
    call 2   targets see their segment, causally: target t of n sees all keys but the last n - 1 - t

A bidirectional segment has no targets and needs call 1 only. A segment with a single source and
targets is plainly causal and needs call 2 only.

Legend: T positions · N positions without padding · S sequences of a call · H heads · K head width
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from unimo_kernels.dispatch import Unsupported, check_capability
from unimo_kernels.gather import Move, choice, move
from unimo_kernels.integers import PADDING_SEGMENT
from unimo_kernels.once import without_second_derivative

WIDEST_HEAD, WIDEST_EVERYWHERE = 256, 192
DATA_CENTRE = ((8, 0), (9, 0), (10, 0), (10, 3))
"""GPUs whose shared memory holds the backward of the widest heads."""


class Part(NamedTuple):
    """Some positions of the row, in the order in which a kernel takes them."""

    length: int
    move: Move | None  # None: they are the first of the row, as they stand

    def of(self, x: Tensor) -> Tensor:
        """[T, H, K] -> [length, H, K]"""
        if self.move is not None:
            return move(x, self.move)
        return x if self.length == len(x) else x[: self.length]

    def back(self, x: Tensor, length: int) -> Tensor:
        """[length of the part, H, K] -> [T = ``length``, H, K], zeros elsewhere"""
        if self.move is not None:
            return move(x, self.move.inverse)
        return F.pad(x, (0, 0, 0, 0, 0, length - self.length)) if length > self.length else x


class Sequences(NamedTuple):
    """Sequences that lie one after the other."""

    starts: Tensor  # int32 [S + 1]
    longest: int


class Call(NamedTuple):
    """One call of a variable-length kernel."""

    part_q: Part
    part_k: Part
    sequences_q: Sequences
    sequences_k: Sequences
    causal: bool


class FlashLayout(NamedTuple):
    """The calls that a row takes; the same for all layers of a forward."""

    calls: tuple[Call, ...]
    outputs: Part  # the queries of all calls, one after the other


Varlen = Callable[[Tensor, Tensor, Tensor, Call, float], Tensor]
"""Attention of q [queries, H, K] to k, v [keys, H, K] as a Call says, with dropout."""


def check_flash(device: torch.device, dtype: torch.dtype, head_width: int) -> None:
    """Raises Unsupported where the kernels do not run."""
    if device.type != "cuda":
        raise Unsupported(
            f"attention on flash_attn needs CUDA tensors, not {device.type}: use backend sdpa"
        )
    if dtype not in (torch.float16, torch.bfloat16):
        raise Unsupported(
            f"attention on flash_attn takes float16 and bfloat16, not {dtype}: use backend triton "
            "or sdpa"
        )
    if head_width > WIDEST_HEAD or head_width % 8:
        raise Unsupported(
            f"attention on flash_attn takes head widths up to {WIDEST_HEAD} that are multiples of "
            f"8, not {head_width}: use backend sdpa"
        )
    check_capability("attention on flash_attn", device, "sdpa")
    if head_width > WIDEST_EVERYWHERE:
        capability = torch.cuda.get_device_capability(device)
        if capability not in DATA_CENTRE:
            raise Unsupported(
                f"attention on flash_attn takes head widths up to {WIDEST_EVERYWHERE} on compute "
                f"capability {capability[0]}.{capability[1]}, not {head_width}: use backend sdpa"
            )
    if flash_form() == ATEN and not torch.backends.cuda.is_flash_attention_available():
        raise Unsupported(
            "attention on flash_attn: this torch is built without FlashAttention; install the "
            "extra `gpu` (flash-attn), or use backend sdpa"
        )


def flash_layout(segment: Tensor, order: Tensor) -> FlashLayout:
    """The calls for a row; computed on the host, which waits for a GPU.

    Args:
        segment: int [T], -1 = padding; the positions of a segment need not be neighbours.
        order: int [T].

    Raises:
        Unsupported: above the lowest order of a segment, two positions share one.
    """
    device, length = segment.device, len(segment)
    segment, order = torch.stack([segment.detach().long(), order.detach().long()]).cpu()
    by_order = torch.sort(order, stable=True).indices
    placed_N = by_order[torch.sort(segment[by_order], stable=True).indices]
    placed_N = placed_N[segment[placed_N] != PADDING_SEGMENT]
    order_N = order[placed_N]
    _, owner_N, lengths = torch.unique_consecutive(
        segment[placed_N], return_inverse=True, return_counts=True
    )
    firsts = lengths.cumsum(0) - lengths
    source_N = order_N == order_N[firsts][owner_N]
    tied = ~source_N[1:] & (order_N[1:] == order_N[:-1])  # the first of a segment is a source
    if bool(tied.any()):
        at = placed_N[1:][tied][0]
        raise Unsupported(
            f"attention on flash_attn: order {int(order[at])} stands more than once in segment "
            f"{int(segment[at])}; only the lowest of a segment may: use backend triton or sdpa"
        )
    sources = torch.bincount(owner_N[source_N], minlength=len(lengths))
    causal = (sources == 1) & (lengths > 1)
    sources, source_N = sources.masked_fill(causal, 0), source_N & ~causal[owner_N]
    targets = lengths - sources
    calls, queries = [], [placed_N[:0]]
    if bool(source_N.any()):
        queries.append(placed_N[source_N])
        part, sequences = _part(queries[-1], length, device), _sequences(sources, device)
        calls.append(Call(part, part, sequences, sequences, causal=False))
    if bool(targets.any()):
        queries.append(placed_N[~source_N])
        part_q = _part(queries[-1], length, device)
        part_k = _part(placed_N[(targets > 0)[owner_N]], length, device)
        sequences_q = _sequences(targets, device)
        sequences_k = _sequences(lengths[targets > 0], device)
        calls.append(Call(part_q, part_k, sequences_q, sequences_k, causal=True))
    return FlashLayout(tuple(calls), _part(torch.cat(queries), length, device))


def _part(positions: Tensor, length: int, device: torch.device) -> Part:
    if torch.equal(positions, torch.arange(len(positions))):
        return Part(len(positions), None)
    return Part(len(positions), choice(positions, length).to(device))


def _sequences(lengths: Tensor, device: torch.device) -> Sequences:
    lengths = lengths[lengths > 0]
    starts = F.pad(lengths.cumsum(0), (1, 0)).int()
    return Sequences(starts.to(device), int(lengths.max()))


def attention_flash(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    layout: FlashLayout,
    dropout_p: float,
    varlen: Varlen | None = None,
) -> Tensor:
    """The formula of unimo_kernels.attention.

    Args:
        q, k, v: float16 or bfloat16 [T, H, K] on a GPU; whatever ``varlen`` takes.
        layout: flash_layout(segment, order).
        dropout_p: drawn from torch's own generator.
        varlen: the kernel; that of flash_form() if None.

    Returns:
        [T, H, K] in the dtype of q.
    """
    varlen = varlen or _kernel()[1]
    outputs = [
        varlen(call.part_q.of(q), call.part_k.of(k), call.part_k.of(v), call, dropout_p)
        for call in layout.calls
    ]
    # Without a call all three stay in the graph: on no rank may a weight miss its gradient.
    out = torch.cat(outputs) if outputs else q[:0] + k[:0] + v[:0]
    return layout.outputs.back(out, len(q))


PACKAGE, ATEN = "the flash-attn package", "torch's own kernels"


def flash_form() -> str:
    """PACKAGE where flash-attn can be imported, else ATEN."""
    return _kernel()[0]


@functools.cache
def _kernel() -> tuple[str, Varlen]:
    try:
        from flash_attn import flash_attn_varlen_func
    except ImportError:
        return ATEN, aten_varlen

    def package(q: Tensor, k: Tensor, v: Tensor, call: Call, dropout_p: float) -> Tensor:
        out: Tensor = flash_attn_varlen_func(
            q,
            k,
            v,
            cu_seqlens_q=call.sequences_q.starts,
            cu_seqlens_k=call.sequences_k.starts,
            max_seqlen_q=call.sequences_q.longest,
            max_seqlen_k=call.sequences_k.longest,
            dropout_p=dropout_p,
            causal=call.causal,
            deterministic=torch.are_deterministic_algorithms_enabled(),
        )
        # Its backward writes into buffers that autograd knows nothing of.
        return without_second_derivative(out, "attention on flash_attn")

    return PACKAGE, package


def aten_varlen(q: Tensor, k: Tensor, v: Tensor, call: Call, dropout_p: float) -> Tensor:
    """The kernel that comes with torch."""
    # torch has a derivative for this operator, and heeds use_deterministic_algorithms in it.
    q, k, v = (x if x.stride(-1) == 1 else x.contiguous() for x in (q, k, v))
    out: Tensor = torch.ops.aten._flash_attention_forward(
        q,
        k,
        v,
        call.sequences_q.starts,
        call.sequences_k.starts,
        call.sequences_q.longest,
        call.sequences_k.longest,
        dropout_p,
        call.causal,
        False,  # no debug mask
    )[0]
    return out
