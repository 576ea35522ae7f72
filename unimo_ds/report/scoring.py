"""How good an answer is: recall among candidates, and whether a caption names what is there."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

RECALL_AT = (1, 5, 10)


class Recall(NamedTuple):
    """Shares of queries whose own candidate is among the best k."""

    image_to_text: dict[int, float]  # k -> share
    text_to_image: dict[int, float]
    candidates: int


def ranks(similarity: np.ndarray) -> np.ndarray:
    """int64 [N]: the rank of the diagonal in each row of ``similarity`` [N, N], from 1.

    The rank is the number of candidates that score at least as much as the true one: ties count
    against the model, so that equal scores for all give the last rank and not the first. A true
    score that is not a number has the last rank.
    """
    own = np.diagonal(similarity)[:, None]
    return (~(similarity < own)).sum(axis=1)


def recall(similarity: np.ndarray) -> Recall:
    """Recall of ``similarity`` [N images, N texts], whose diagonal holds the true pairs."""
    if not len(similarity):
        raise ValueError("0 candidates, expected at least 1: name a pairs corpus that has rows")
    forth, back = ranks(similarity), ranks(similarity.T)
    return Recall(
        {k: float((forth <= k).mean()) for k in RECALL_AT},
        {k: float((back <= k).mean()) for k in RECALL_AT},
        len(similarity),
    )


class Thing(NamedTuple):
    """An object as a caption can name it."""

    colour: str
    shape: str

    def __str__(self) -> str:
        return f"{self.colour} {self.shape}"


class Mention(NamedTuple):
    """A thing that a caption names, and where: ``caption[start:end]``."""

    thing: Thing
    start: int
    end: int


class Scenes(NamedTuple):
    """Which things each picture shows, by the picture's name."""

    things: Mapping[str, frozenset[Thing]]
    colours: frozenset[str]
    shapes: frozenset[str]


def read_scenes(path: Path) -> Scenes:
    """The scenes in a JSON-lines file with the fields ``image`` and ``scene.objects``.

    Raises:
        ValueError: a line that is no scene, or none at all.
    """
    things: dict[str, frozenset[Thing]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            objects = record["scene"]["objects"]
            shown = frozenset(Thing(thing["colour"], thing["shape"]) for thing in objects)
            things[picture_name(record["image"])] = shown
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, line {number} is no scene ({error!r}): it needs `image`, and "
                "`scene.objects` with a `colour` and a `shape` each"
            ) from error
    every = {thing for shown in things.values() for thing in shown}
    if not every:
        raise ValueError(f"{path} describes {len(things)} scenes without any object")
    return Scenes(things, frozenset(t.colour for t in every), frozenset(t.shape for t in every))


def picture_name(image: str) -> str:
    """The name of a picture without folder and ending, which all files agree on."""
    return re.sub(r"\.[A-Za-z0-9]+$", "", image.rsplit("/", 1)[-1])


def mentions(caption: str, scenes: Scenes) -> list[Mention]:
    """The things that ``caption`` names: a colour and, right behind it, a shape, maybe plural."""
    colours, shapes = "|".join(sorted(scenes.colours)), "|".join(sorted(scenes.shapes))
    pattern = re.compile(rf"\b({colours}) ({shapes})(?:e?s)?\b", re.IGNORECASE)
    return [
        Mention(Thing(found[1].lower(), found[2].lower()), found.start(), found.end())
        for found in pattern.finditer(caption)
    ]


def names_only(caption: str, shown: frozenset[Thing], scenes: Scenes) -> bool:
    """Does ``caption`` name at least one thing, and nothing that is not ``shown``?"""
    named = [mention.thing for mention in mentions(caption, scenes)]
    return bool(named) and all(thing in shown for thing in named)


def object_colour_accuracy(
    captions: Sequence[str], shown: Sequence[frozenset[Thing]], scenes: Scenes
) -> float:
    """The share of ``captions`` that name things of their own scene and no others."""
    right = [names_only(c, things, scenes) for c, things in zip(captions, shown, strict=True)]
    return sum(right) / len(right)
