"""What is said about a scene of the demo world: five captions, and how to read one back.

Captions name things in reading order, left to right and top to bottom. Whatever the wording, the
first thing named is the first thing there, and every word but those of the wording follows from the
picture: little of what a small model is asked is left to chance.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from data_prep.demo.world import CELLS, COLOURS, SHAPES, Scene, Thing, relation

CAPTIONS_PER_SCENE = 5

WORDINGS = {
    "above": ("above", "over"),
    "below": ("below", "under"),
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above and left of": ("above and to the left of", "to the upper left of"),
    "above and right of": ("above and to the right of", "to the upper right of"),
    "below and left of": ("below and to the left of", "to the lower left of"),
    "below and right of": ("below and to the right of", "to the lower right of"),
}
INVERSE = {
    "above": "below",
    "below": "above",
    "left of": "right of",
    "right of": "left of",
    "above and left of": "below and right of",
    "above and right of": "below and left of",
    "below and left of": "above and right of",
    "below and right of": "above and left of",
}
"""Where b is, seen from a, when a is there seen from b."""
_MENTION = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})(?:e?s)?\b")


def parse_caption(text: str) -> list[tuple[str, str]]:
    """(colour, shape) of every thing that ``text`` names, in its order, repetitions too."""
    return [(m.group(1), m.group(2)) for m in _MENTION.finditer(text.lower())]


def captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five different captions. Each names the colour and shape of two things or more."""
    ways = [WAYS[i] for i in rng.permutation(len(WAYS))[:CAPTIONS_PER_SCENE]]
    return [way(scene) for way in ways]


def noun_phrase(thing: Thing, *, whole: bool, article: str = "a") -> str:
    """ "a big striped red star" if ``whole``, "a red star" if not."""
    words = [thing.size] if whole else []
    if whole and thing.texture != "plain":
        words.append(thing.texture)
    words += [thing.colour, thing.shape]
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    return " ".join([article, *words])


def where(a: Thing, b: Thing, *, long: bool) -> str:
    """Where ``a`` is, seen from ``b``, in the longer or the shorter wording."""
    return WORDINGS[relation(a, b)][0 if long else 1]


def _third(things: Sequence[Thing], *, whole: bool) -> str:
    """What is said of the third thing, where there is one."""
    if len(things) < 3:
        return ""
    corner = CELLS[things[2].cell]
    return f", and {noun_phrase(things[2], whole=whole)} is in the {corner} corner"


def is_where(scene: Scene) -> str:
    a, b, *_ = things = scene.things
    phrases = noun_phrase(a, whole=True), noun_phrase(b, whole=True)
    return f"{phrases[0]} is {where(a, b, long=True)} {phrases[1]}{_third(things, whole=True)}."


def there_is(scene: Scene) -> str:
    a, b, *_ = things = scene.things
    phrases = noun_phrase(a, whole=False), noun_phrase(b, whole=False)
    told = f"there is {phrases[0]} {where(a, b, long=False)} {phrases[1]}"
    return f"{told}{_third(things, whole=False)}."


def you_see(scene: Scene) -> str:
    a, b, *_ = things = scene.things
    reference = noun_phrase(a, whole=False, article="the")
    seen = noun_phrase(b, whole=True)
    return f"{where(b, a, long=False)} {reference} you see {seen}{_third(things, whole=True)}."


def in_corners(scene: Scene) -> str:
    parts = [f"{noun_phrase(t, whole=True)} in the {CELLS[t.cell]}" for t in scene.things]
    return f"{_enumerated(parts)}."


def with_it(scene: Scene) -> str:
    a, b, *_ = things = scene.things
    phrases = noun_phrase(a, whole=True), noun_phrase(b, whole=True)
    told = f"{phrases[0]} with {phrases[1]} {where(b, a, long=True)} it"
    return f"{told}{_third(things, whole=True)}."


def listed(scene: Scene) -> str:
    return f"we see {_enumerated([noun_phrase(t, whole=False) for t in scene.things])}."


def counted(scene: Scene) -> str:
    number = ("two", "three")[len(scene.things) - 2]
    phrases = [noun_phrase(t, whole=True) for t in scene.things]
    return f"there are {number} things: {_enumerated(phrases)}."


def _enumerated(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


WAYS: tuple[Callable[[Scene], str], ...] = (
    is_where,
    there_is,
    you_see,
    in_corners,
    with_it,
    listed,
    counted,
)
