"""Hard negatives of words and phrases: parts of the scene graph replaced by their like."""

import random
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import combinations
from typing import NamedTuple

from data_prep.rewrite.scene_graph import ATTRIBUTE, OBJECT, RELATION, Node
from data_prep.rewrite.vocabulary import Vocabulary
from data_prep.rewrite.words import article_for
from unimo_ds.data.schema import Level

_ARTICLE = re.compile(r"\b(an?) $", re.IGNORECASE)
_WORDS = re.compile(r"\w+(?:[-']\w+)*")
_TRIES = 4  # times the number of rewrites asked for


class Rewrite(NamedTuple):
    """One rewritten caption. ``text`` is the source with [begin, end) replaced."""

    level: Level
    positive: bool
    begin: int
    end: int
    how: str
    similarity: float
    text: str


def normalised(text: str) -> str:
    """``text`` without case, punctuation and spacing: what makes two captions the same."""
    return " ".join(_WORDS.findall(text.lower()))


def hard_negatives(
    caption: str,
    nodes: Sequence[Node],
    level: Level,
    count: int,
    vocabulary: Vocabulary,
    told: Collection[str],
    rng: random.Random,
) -> Iterator[Rewrite]:
    """At most ``count`` different rewrites of ``caption``; nodes take turns in a random order.

    Args:
        level: WORD replaces one node, PHRASE a combination of them.
        told: see `Vocabulary.draw`.
    """
    choices = _single(nodes) if level == Level.WORD else _combined(nodes)
    if not choices:
        return
    rng.shuffle(choices)
    made = {caption}
    for turn in range(_TRIES * count):
        chosen = choices[turn % len(choices)]
        rewrite = _rewritten(caption, chosen, level, vocabulary, told, rng)
        if rewrite and rewrite.text not in made:
            made.add(rewrite.text)
            yield rewrite
            if len(made) > count:
                return


def _single(nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
    return [(node,) for node in nodes]


def _combined(nodes: Sequence[Node]) -> list[tuple[Node, ...]]:
    """Attribute + object of a phrase, relation + object behind it, object + relation + object."""
    found: list[tuple[Node, ...]] = []
    for a, b in combinations(nodes, 2):
        if (a.type, b.type) == (ATTRIBUTE, OBJECT) and a.phrase == b.phrase:
            found.append((a, b))
    for at, node in enumerate(nodes):
        if node.type != RELATION:
            continue
        behind = next((n for n in nodes[at + 1 :] if n.type != ATTRIBUTE), None)
        before = next((n for n in reversed(nodes[:at])), None)
        if behind is None or behind.type != OBJECT:
            continue
        found.append((node, behind))
        if before is not None and before.type == OBJECT:
            found.append((before, node, behind))
    return found


def _rewritten(
    caption: str,
    nodes: Sequence[Node],
    level: Level,
    vocabulary: Vocabulary,
    told: Collection[str],
    rng: random.Random,
) -> Rewrite | None:
    """``caption`` with each of ``nodes`` replaced; None where one cannot be."""
    begin, pieces = nodes[0].begin, []
    at = begin
    governor = ""
    for node in nodes:
        wanted = node._replace(context=governor) if governor and node.type == OBJECT else node
        item = vocabulary.draw(wanted, told, rng)
        if item is None:
            return None
        governor = item.split()[-1] if node.type == RELATION else ""
        between = caption[at : node.begin]
        article = _ARTICLE.search(caption[: node.begin] if node is nodes[0] else between)
        if article and article_for(item, article[1]) != article[1]:
            changed = article_for(item, article[1]) + " "
            if node is nodes[0]:
                begin = article.start()
                between = changed
            else:
                between = between[: article.start()] + changed
        elif caption[node.begin].isupper() and caption[node.begin : node.end] != "I":
            item = item[0].upper() + item[1:]
        pieces += [between, item]
        at = node.end
    text = caption[:begin] + "".join(pieces) + caption[at:]
    how = "+".join(node.type for node in nodes)
    return Rewrite(level, False, begin, at, how, 0.0, text)
