"""What there is in the demo world: things in the four cells of a picture, and whose a scene is.

The world exists so that a small model can learn it in minutes and an evaluation can check every
word that the model writes. A scene is a pure function of (seed, purpose, index), whatever else is
made.
"""

import hashlib
from itertools import combinations
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
COLOURS = {
    "red": (214, 40, 40),
    "green": (38, 150, 62),
    "blue": (36, 84, 206),
    "yellow": (250, 212, 30),
    "purple": (140, 58, 178),
    "orange": (244, 128, 24),
    "black": (34, 34, 38),
    "white": (250, 250, 250),
}
SIZES = {"small": 9, "big": 13}
"""Radius in pixels of a 64-pixel picture."""
TEXTURES = ("plain", "striped", "dotted")
CELLS = ("top left", "top right", "bottom left", "bottom right")
"""A cell is a quarter of the picture, 32 x 32 pixels; cell 2*row + column."""

TRAIN, HELDOUT, IMAGES, PROSE = "train", "heldout", "images", "prose"
_PURPOSES = (TRAIN, HELDOUT, IMAGES, PROSE)
_SPLITS = 8  # of the descriptions, one eighth is held out and one eighth is seen in images only
HELDOUT_BLOCK = 200
"""Within every so many held-out scenes no two share a pair of coloured shapes, so that even a
caption without any relation names one scene only."""


class Thing(NamedTuple):
    """An object of a scene."""

    shape: str
    colour: str
    size: str
    texture: str
    cell: int

    @property
    def name(self) -> tuple[str, str]:
        """(colour, shape): what every caption says of a thing."""
        return self.colour, self.shape


class Scene(NamedTuple):
    """Two or three things, no two of the same colour and shape, ordered by cell."""

    things: tuple[Thing, ...]

    @property
    def description(self) -> str:
        """Every coloured shape and every relation: what the split is made by."""
        relations = (f"{a.name} {relation(a, b)} {b.name}" for a, b in combinations(self.things, 2))
        return "; ".join(relations)

    def to_json(self) -> dict[str, object]:
        """What an evaluation of generated captions needs to know; JSON-able."""
        return {
            "objects": [thing._asdict() | {"cell": CELLS[thing.cell]} for thing in self.things],
            "relations": [
                [" ".join(a.name), relation(a, b), " ".join(b.name)]
                for a in self.things
                for b in self.things
                if a is not b
            ],
        }


def relation(a: Thing, b: Thing) -> str:
    """Where ``a`` is, seen from ``b``: "above", "left of", "below and right of"..."""
    (row_a, column_a), (row_b, column_b) = divmod(a.cell, 2), divmod(b.cell, 2)
    vertical = {-1: "above", 0: "", 1: "below"}[row_a - row_b]
    horizontal = {-1: "left of", 0: "", 1: "right of"}[column_a - column_b]
    return " and ".join(part for part in (vertical, horizontal) if part)


def generator(seed: int, purpose: str, index: int, *more: int) -> np.random.Generator:
    """The random numbers of one scene or text, and of nothing else."""
    return np.random.default_rng([seed, _PURPOSES.index(purpose), index, *more])


def random_scene(rng: np.random.Generator) -> Scene:
    """Two things, or three in one scene of four."""
    count = 3 if rng.random() < 0.25 else 2
    names: list[tuple[str, str]] = []
    while len(names) < count:
        name = (_pick(rng, tuple(COLOURS)), _pick(rng, SHAPES))
        if name not in names:
            names.append(name)
    cells = sorted(rng.choice(len(CELLS), size=count, replace=False).tolist())
    return Scene(
        tuple(
            Thing(shape, colour, _pick(rng, tuple(SIZES)), _pick(rng, TEXTURES), cell)
            for (colour, shape), cell in zip(names, cells, strict=True)
        )
    )


def scenes(seed: int, purpose: str, count: int) -> list[Scene]:
    """The first ``count`` scenes of a purpose: all different, none described as another purpose's.

    Scene i depends on the scenes before it only, so a larger ``count`` begins with the same ones.

    Raises:
        ValueError: the world has no more scenes of that purpose.
    """
    found: list[Scene] = []
    taken: set[object] = set()
    for index in range(count):
        if purpose == HELDOUT and index % HELDOUT_BLOCK == 0:
            taken = {key for key in taken if isinstance(key, str)}  # pairs may come again
        scene = _next_scene(seed, purpose, index, taken)
        taken.update(_claims(scene, purpose))
        found.append(scene)
    return found


def _next_scene(seed: int, purpose: str, index: int, taken: set[object]) -> Scene:
    for attempt in range(20_000):
        scene = random_scene(generator(seed, purpose, index, attempt))
        if split_of(scene.description) == purpose and taken.isdisjoint(_claims(scene, purpose)):
            return scene
    raise ValueError(
        f"no {purpose} scene number {index} that differs from all before it: ask for fewer"
    )


def _claims(scene: Scene, purpose: str) -> list[object]:
    """What no later scene of the purpose may have."""
    if purpose != HELDOUT:
        return [scene]
    pairs = (frozenset((a.name, b.name)) for a, b in combinations(scene.things, 2))
    return [scene.description, *pairs]


def split_of(description: str) -> str:
    """The purpose whose scenes have this description."""
    share = hashlib.sha256(description.encode()).digest()[0] % _SPLITS
    return {0: HELDOUT, 1: IMAGES}.get(share, TRAIN)


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]
