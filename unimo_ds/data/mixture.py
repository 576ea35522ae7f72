"""Which samples make up a step: a closed form of (seed, step), with no state.

The kinds come in a weighted round-robin cycle; within a kind every epoch is a permutation of its
own, computed index by index (a Feistel network with cycle walking), so that step k of run r is
arithmetic.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from unimo_ds.batch import Kind

ROUNDS = 4
"""Feistel rounds; four make a pseudo-random permutation (Luby and Rackoff, 1988)."""


class Draw(NamedTuple):
    """One sample of a step."""

    kind: Kind  # TEXT, IMAGE or PAIR
    index: int  # of the row in the collection of its kind
    epoch: int  # how often the whole kind was seen before
    number: int  # of the run: two draws of one row are two numbers


class Mixture:
    """The endless stream of draws over collections of given sizes.

    Args:
        sizes: rows of the texts, images and pairs.
        weights: how many of each come per cycle; 0 leaves a kind out.
        seed: of the run.
    """

    def __init__(self, sizes: Sequence[int], weights: Sequence[int], seed: int) -> None:
        self.sizes, self.weights, self.seed = tuple(sizes), tuple(weights), seed
        self.cycle = round_robin(weights)
        # How many of its own kind stand before each place of the cycle.
        self._before = [self.cycle[:place].count(kind) for place, kind in enumerate(self.cycle)]

    def draw(self, n: int) -> Draw:
        """The ``n``-th sample of the run."""
        cycles, place = divmod(n, len(self.cycle))
        kind = self.cycle[place]
        ordinal = cycles * self.weights[kind] + self._before[place]
        epoch, position = divmod(ordinal, self.sizes[kind])
        keys = round_keys(self.seed, kind, epoch)
        return Draw(Kind(kind), permuted(position, self.sizes[kind], keys), epoch, n)

    def step(self, step: int, samples: int) -> list[Draw]:
        """The ``samples`` draws of ``step``."""
        return [self.draw(n) for n in range(step * samples, (step + 1) * samples)]


def round_robin(weights: Sequence[int]) -> list[int]:
    """A cycle of ``sum(weights)`` kinds, each spread evenly (smooth weighted round-robin)."""
    credit = [0] * len(weights)
    cycle = []
    for _ in range(sum(weights)):
        credit = [have + weight for have, weight in zip(credit, weights, strict=True)]
        kind = max(range(len(weights)), key=lambda k: (credit[k], -k))
        credit[kind] -= sum(weights)
        cycle.append(kind)
    return cycle


@lru_cache(maxsize=64)
def round_keys(seed: int, kind: int, epoch: int) -> tuple[int, ...]:
    """The keys of one permutation.

    Philox's stream is documented and stable, unlike `Generator.permutation`.
    """
    bits = np.random.Philox(key=[seed, (epoch << 8) | kind]).random_raw(ROUNDS)
    return tuple(int(word) for word in bits)


def permuted(position: int, size: int, keys: tuple[int, ...]) -> int:
    """Where ``position`` of ``range(size)`` goes: a bijection of ``range(size)``."""
    half = max(1, ((size - 1).bit_length() + 1) // 2)
    mask = (1 << half) - 1
    while (
        True
    ):  # walk the cycle until it is inside again; at most a few times, as 4**half < 4 * size
        left, right = position >> half, position & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        position = (left << half) | right
        if position < size:
            return position


def _mix(x: int) -> int:
    # The finaliser of SplitMix64 (Steele, Lea, Flood, 2014).
    x &= 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return x ^ (x >> 31)
