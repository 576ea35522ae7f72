"""Whole numbers that kernels compare: what is none is refused, what is large is numbered anew."""

import torch
from torch import Tensor

WHOLE = (torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64)
"""Dtypes whose every value int64 holds; uint64 would wrap and a fraction would be cut off."""

PADDING_SEGMENT = -1


def check_whole(what: str, values: Tensor) -> None:
    """Raises ValueError where the dtype of ``values`` is none of WHOLE."""
    if values.dtype not in WHOLE:
        raise ValueError(
            f"{what} takes {', '.join(str(dtype).removeprefix('torch.') for dtype in WHOLE)}, not "
            f"{values.dtype}: its values are compared exactly, convert them with .long()"
        )


def numbered_segments(segment: Tensor) -> Tensor:
    """Every segment under the number of its first position: int32 [T], without a transfer.

    Whatever the ids, equal ones and no others stay equal, and neighbours get near numbers, so that
    ranges of segments overlap where segments do. Padding stays -1.
    """
    ids, place = torch.sort(segment.detach().long(), stable=True)
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[1:] = ids[1:] != ids[:-1]
    group = begins.cumsum(0) - 1
    starts = place.new_zeros(len(ids)).scatter_reduce(0, group, place, "amin", include_self=False)
    numbered = torch.zeros_like(place).scatter_(0, place, starts[group])
    return numbered.masked_fill(segment == PADDING_SEGMENT, PADDING_SEGMENT).int()


def numbered_orders(order: Tensor) -> Tensor:
    """The rank of every order among the different ones: int32 [T], without a transfer."""
    orders, place = torch.sort(order.detach().long(), stable=True)
    begins = torch.zeros_like(place)
    begins[1:] = orders[1:] != orders[:-1]
    return torch.zeros_like(place).scatter_(0, place, begins.cumsum(0)).int()
