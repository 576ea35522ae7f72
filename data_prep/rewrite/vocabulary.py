"""What may stand in a node's place: the items of a corpus by slot, with how often each occurs."""

import math
import random
from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

from data_prep.rewrite.scene_graph import Node
from data_prep.rewrite.words import alike, stem

RAREST = 2
"""Occurrences: what a corpus has once is mostly a slip of the pen or of the parser."""
_NEIGHBOURS = 40
"""Items nearest in frequency among which a replacement is drawn: a rarer word for a common one, or
the reverse, would give the negative away without a look at the image."""
_TRIES = 60
_MARK = " beside "  # in the name of a narrow slot


class Slot(NamedTuple):
    """The items of one slot, from the rarest to the most frequent."""

    items: list[str]
    frequencies: list[float]  # log of the occurrences


class _Near(NamedTuple):
    """The items of a slot that are nearly as frequent as another one."""

    items: list[str]
    stems: list[list[str]]  # of the words of each


class Vocabulary:
    """Items of all slots of a corpus.

    Args:
        counts: (type, slot, item) -> occurrences.
    """

    def __init__(self, counts: Counter[tuple[str, str, str]]) -> None:
        main = _main_types(counts)
        by_slot: dict[tuple[str, str], list[tuple[int, str]]] = {}
        for (kind, slot, item), count in counts.items():
            if count >= RAREST and main[item] == kind:
                by_slot.setdefault((kind, slot), []).append((count, item))
        self._slots = {
            slot: Slot([item for _, item in found], [math.log(count) for count, _ in found])
            for slot, found in ((slot, sorted(found)) for slot, found in by_slot.items())
        }
        self._counts = counts
        self._near: dict[tuple[str, str, str], _Near | None] = {}

    def sizes(self) -> dict[str, int]:
        """Items by type."""
        sizes: Counter[str] = Counter()
        for (kind, name), slot in self._slots.items():
            sizes[kind] += 0 if _MARK in name else len(slot.items)
        return dict(sorted(sizes.items()))

    def draw(self, node: Node, told: Collection[str], rng: random.Random) -> str | None:
        """An item for the place of ``node``; None: the corpus has none.

        One that was seen in the same context where there is one: "wearing a ..." stays clothing.
        Never one that may be said of the same thing (see `words.alike`), nor one of whose words
        another caption of the image has the stem.

        Args:
            told: stems of the words of all captions of the image.
        """
        for name in (_narrow(node), node.slot):
            near = self._near_to((node.type, name, node.text))
            item = near and _drawn(near, node.text, told, rng)
            if item:
                return item
        return None

    def _near_to(self, key: tuple[str, str, str]) -> _Near | None:
        if key not in self._near:
            slot = self._slots.get(key[:2])
            self._near[key] = self._found_near(slot, self._counts.get(key, 0)) if slot else None
        return self._near[key]

    def _found_near(self, slot: Slot, count: int) -> _Near:
        at = bisect_left(slot.frequencies, math.log(max(count, 1)))
        first = max(0, min(at - _NEIGHBOURS // 2, len(slot.items) - _NEIGHBOURS))
        items = slot.items[first : first + _NEIGHBOURS]
        return _Near(items, list(map(_stems, items)))


def _drawn(near: _Near, text: str, told: Collection[str], rng: random.Random) -> str | None:
    count = len(near.items)
    for _ in range(min(_TRIES, 3 * count)):
        at = int(rng.random() * count)
        if told.isdisjoint(near.stems[at]) and not alike(text, near.items[at]):
            return near.items[at]
    return None


@lru_cache(maxsize=100_000)
def _stems(item: str) -> list[str]:
    return list(map(stem, item.split()))


def count_items(graphs: Iterable[Iterable[Node]]) -> Counter[tuple[str, str, str]]:
    """(type, slot, item) -> occurrences; a node with a context counts in the narrow slot too."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for nodes in graphs:
        for node in nodes:
            counts[node.type, node.slot, node.text] += 1
            if node.context:
                counts[node.type, _narrow(node), node.text] += 1
    return counts


def _main_types(counts: Counter[tuple[str, str, str]]) -> dict[str, str]:
    """Item -> the type that it mostly is: "light" as an object would be taken for an attribute."""
    by_item: dict[str, Counter[str]] = {}
    for (kind, slot, item), count in counts.items():
        if _MARK not in slot:
            by_item.setdefault(item, Counter())[kind] += count
    return {item: max(sorted(kinds), key=kinds.__getitem__) for item, kinds in by_item.items()}


def _narrow(node: Node) -> str:
    return f"{node.slot}{_MARK}{node.context}"
