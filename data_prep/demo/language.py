"""What is said about a scene of the demo world: five captions, and how to read one back.

Captions name things in reading order, left to right and top to bottom. Whatever the wording, the
first thing named is the first thing there, and what a small model writes can be right for a reason.
"""

import re
from collections.abc import Callable, Sequence

import numpy as np

from data_prep.demo.world import CELLS, COLOURS, SHAPES, Scene, Thing, relation

CAPTIONS_PER_SCENE = 5

_WORDINGS = {
    "above": ("above", "over"),
    "below": ("below", "under"),
    "left of": ("to the left of", "left of"),
    "right of": ("to the right of", "right of"),
    "above and left of": ("above and to the left of", "to the upper left of"),
    "above and right of": ("above and to the right of", "to the upper right of"),
    "below and left of": ("below and to the left of", "to the lower left of"),
    "below and right of": ("below and to the right of", "to the lower right of"),
}
_MENTION = re.compile(rf"\b({'|'.join(COLOURS)}) ({'|'.join(SHAPES)})(?:e?s)?\b")


def parse_caption(text: str) -> list[tuple[str, str]]:
    """(colour, shape) of every thing that ``text`` names, in its order, repetitions too."""
    return [(m.group(1), m.group(2)) for m in _MENTION.finditer(text.lower())]


def captions(scene: Scene, rng: np.random.Generator) -> list[str]:
    """Five different captions. Each names the colour and shape of two things or more."""
    found: list[str] = []
    ways = list(_WAYS)
    rng.shuffle(ways)
    while len(found) < CAPTIONS_PER_SCENE:
        way = ways[len(found) % len(ways)]
        caption = way(scene, rng)
        if caption not in found:
            found.append(caption)
        else:
            ways = ways[1:] + ways[:1]
    return found


def noun_phrase(thing: Thing, rng: np.random.Generator, detail: float, article: str = "a") -> str:
    """ "a big striped red star"; size and texture are named with probability ``detail`` each."""
    words = []
    if rng.random() < detail:
        words.append(thing.size)
    if rng.random() < (detail if thing.texture != "plain" else detail / 3):
        words.append(thing.texture)
    words += [thing.colour, thing.shape]
    if article == "a" and words[0][0] in "aeiou":
        article = "an"
    return " ".join([article, *words])


def where(a: Thing, b: Thing, rng: np.random.Generator) -> str:
    """A wording of where ``a`` is, seen from ``b``."""
    wordings = _WORDINGS[relation(a, b)]
    return wordings[int(rng.integers(len(wordings)))]


def _third(things: Sequence[Thing], rng: np.random.Generator) -> str:
    """What is said of the third thing, where there is one; mostly, but not always, something."""
    if len(things) < 3 or rng.random() < 0.2:
        return ""
    phrase = noun_phrase(things[2], rng, 0.3)
    if rng.random() < 0.5:
        return f", and {phrase} is in the {CELLS[things[2].cell]} corner"
    return f", with {phrase} {where(things[2], things[0], rng)} the {' '.join(things[0].name)}"


def _is_where(scene: Scene, rng: np.random.Generator) -> str:
    a, b, *_ = things = scene.things
    verb = ("is", "sits", "can be seen")[int(rng.integers(3))]
    phrases = noun_phrase(a, rng, 0.7), noun_phrase(b, rng, 0.7)
    return f"{phrases[0]} {verb} {where(a, b, rng)} {phrases[1]}{_third(things, rng)}."


def _there_is(scene: Scene, rng: np.random.Generator) -> str:
    a, b, *_ = things = scene.things
    phrases = noun_phrase(a, rng, 0.7), noun_phrase(b, rng, 0.5)
    return f"there is {phrases[0]} {where(a, b, rng)} {phrases[1]}{_third(things, rng)}."


def _you_see(scene: Scene, rng: np.random.Generator) -> str:
    a, b, *_ = things = scene.things
    verb = ("you see", "there is", "we find")[int(rng.integers(3))]
    reference = noun_phrase(a, rng, 0.4, "the")
    return f"{where(b, a, rng)} {reference} {verb} {noun_phrase(b, rng, 0.6)}{_third(things, rng)}."


def _corners(scene: Scene, rng: np.random.Generator) -> str:
    parts = [f"{noun_phrase(t, rng, 0.4)} in the {CELLS[t.cell]}" for t in scene.things]
    return f"{_enumerated(parts)}."


def _with(scene: Scene, rng: np.random.Generator) -> str:
    a, b, *_ = things = scene.things
    phrases = noun_phrase(a, rng, 0.6), noun_phrase(b, rng, 0.6)
    return f"{phrases[0]} with {phrases[1]} {where(b, a, rng)} it{_third(things, rng)}."


def _list(scene: Scene, rng: np.random.Generator) -> str:
    opening = ("", "a picture of ", "the picture shows ", "we see ")[int(rng.integers(4))]
    return f"{opening}{_enumerated([noun_phrase(t, rng, 0.15) for t in scene.things])}."


def _counted(scene: Scene, rng: np.random.Generator) -> str:
    number = ("two", "three")[len(scene.things) - 2]
    noun = ("shapes", "things", "objects")[int(rng.integers(3))]
    phrases = [noun_phrase(t, rng, 0.3) for t in scene.things]
    return f"there are {number} {noun}: {_enumerated(phrases)}."


def _enumerated(parts: list[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}"


_WAYS: tuple[Callable[[Scene, np.random.Generator], str], ...] = (
    _is_where,
    _there_is,
    _you_see,
    _corners,
    _with,
    _list,
    _counted,
)
