"""Which samples share a row."""

import heapq
from collections.abc import Sequence


def pack(lengths: Sequence[int], rows: int, tokens_per_row: int) -> list[list[int]]:
    """Spreads samples over the fewest multiples of ``rows`` rows that the token budget allows.

    Longest first, each into the emptiest row (Graham's LPT): loads come out nearly equal, so ranks
    wait little for each other, and as rows are only as long as their load, little is padding.

    Args:
        lengths: positions that each sample takes.
        rows: rows of one micro-step; the answer has this many, or twice, three times ... as many.
        tokens_per_row: the most positions of a row.

    Returns:
        The samples of each row, in ascending order.

    Raises:
        ValueError: a single sample is longer than a row.
    """
    longest = max(lengths, default=0)
    if longest > tokens_per_row:
        raise ValueError(
            f"a sample of {longest} positions does not fit batch.tokens_per_row {tokens_per_row}: "
            "raise it, or lower data.max_tokens, data.max_regions or the counts under cmcl"
        )
    micro_steps = max(1, -(-sum(lengths) // (rows * tokens_per_row)))
    while True:
        packed, heaviest = _spread(lengths, rows * micro_steps)
        if heaviest <= tokens_per_row:
            return packed
        micro_steps += 1


def _spread(lengths: Sequence[int], rows: int) -> tuple[list[list[int]], int]:
    loads = [(0, row) for row in range(rows)]
    packed: list[list[int]] = [[] for _ in range(rows)]
    for sample in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        load, row = loads[0]
        packed[row].append(sample)
        heapq.heapreplace(loads, (load + lengths[sample], row))
    return [sorted(row) for row in packed], max(load for load, _ in loads)
