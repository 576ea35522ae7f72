"""Captions of the demo world said otherwise, in the ways in which the world says things.

A paraphrase is one of the captions that the world itself could have: nobody can know what was said
anew by how it is said, and a model that is asked has to look at the picture.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from data_prep.demo.language import (
    INVERSE,
    WORDINGS,
    is_where,
    listed,
    there_is,
    with_it,
    you_see,
)
from data_prep.demo.world import CELLS, COLOURS, SHAPES, SIZES, TEXTURES, Scene, Thing, relation


def _one_of(words: object) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))  # type: ignore[call-overload]


_RELATIONS = {wording: name for name, wordings in WORDINGS.items() for wording in wordings}
_MENTION = re.compile(
    rf"\b(?:an?|the) (?:({_one_of(SIZES)}) )?(?:({_one_of(TEXTURES)}) )?"
    rf"({_one_of(COLOURS)}) ({_one_of(SHAPES)})\b"
)
_THING = re.sub(r"\((?!\?)", "(?:", _MENTION.pattern)
_CORNER = _one_of(CELLS)
_TAIL = rf"(?:, and {_THING} is in the (?P<corner>{_CORNER}) corner)?\."
_WHERE = rf"(?P<where>{_one_of(_RELATIONS)})"
_FIRST_IS = tuple(
    re.compile(form + _TAIL)
    for form in (
        rf"{_THING} is {_WHERE} {_THING}",
        rf"there is {_THING} {_WHERE} {_THING}",
    )
)
_SECOND_IS = tuple(
    re.compile(form + _TAIL)
    for form in (rf"{_WHERE} {_THING} you see {_THING}", rf"{_THING} with {_THING} {_WHERE} it")
)
_PLACED = rf"{_THING} in the (?:{_CORNER})"
_CORNERS = re.compile(rf"{_PLACED}(?:, {_PLACED})? and {_PLACED}\.")
_COUNTED = re.compile(rf"there are \w+ things: {_THING}(?:, {_THING})? and {_THING}\.")


class _Told(NamedTuple):
    """What a caption says."""

    scene: Scene  # whose things have no size where it says none
    is_placed: bool  # does it say where they are?


def paraphrases_of(caption: str) -> list[str]:
    """The caption in other ways, all true wherever it is; none of what is no demo caption."""
    told = _parsed(caption)
    texts = [way(told.scene) for way in _ways(told)] if told else []
    return [text for text in texts if text != caption]


def _ways(told: _Told) -> list[Callable[[Scene], str]]:
    """In which no more is said than was told."""
    if not told.is_placed:
        return [listed]
    first, *others = (bool(thing.size) for thing in told.scene.things)
    ways: list[Callable[[Scene], str]] = [there_is]
    if all(others):
        ways.insert(0, you_see)
    if first and all(others):
        ways = [is_where, with_it, *ways]
    return ways


def _parsed(caption: str) -> _Told | None:
    for forms, turned in ((_FIRST_IS, False), (_SECOND_IS, True)):
        for form in forms:
            if match := form.fullmatch(caption):
                name = _RELATIONS[match["where"]]
                cells = [*_CELLS_OF[INVERSE[name] if turned else name]]
                if match["corner"]:
                    cells.append(CELLS.index(match["corner"]))
                return _Told(_scene(caption, cells), True)
    if _CORNERS.fullmatch(caption):
        cells = [CELLS.index(name) for name in re.findall(f"in the ({_CORNER})", caption)]
        return _Told(_scene(caption, cells), True)
    if _COUNTED.fullmatch(caption):
        return _Told(_scene(caption, [0, 1, 2]), False)
    return None


def _scene(caption: str, cells: list[int]) -> Scene:
    """The things that the caption names, in its order, in the cells."""
    found = _MENTION.findall(caption)
    return Scene(
        tuple(
            Thing(shape, colour, size, texture or "plain", cell)
            for (size, texture, colour, shape), cell in zip(found, cells, strict=False)
        )
    )


def _somewhere(cell: int) -> Thing:
    return Thing("", "", "", "", cell)


_CELLS_OF = {
    relation(_somewhere(a), _somewhere(b)): (a, b) for a in range(4) for b in range(4) if a != b
}
"""Two cells between which a relation holds: what is said of it, holds for all such."""
