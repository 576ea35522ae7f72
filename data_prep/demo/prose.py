"""Unpaired prose about the demo world: descriptions, stories, facts, counting, comparisons."""

from collections.abc import Callable

import numpy as np

from data_prep.demo.language import noun_phrase, where
from data_prep.demo.world import CELLS, COLOURS, HELDOUT, SHAPES, random_scene, split_of

_NAMES = ("anna", "ben", "clara", "david", "emma", "felix", "greta", "hugo")
_FACTS = {
    "circle": ("a circle has no corners", "every point of a circle is equally far from its middle"),
    "square": ("a square has four corners", "all four sides of a square are equally long"),
    "triangle": ("a triangle has three corners", "a triangle has three sides and no more"),
    "star": ("a star has five points", "stars have five points and five gaps between them"),
    "cross": ("a cross has four arms", "the two bars of a cross meet in the middle"),
    "ring": ("a ring has a hole in the middle", "you can look through the hole of a ring"),
}
_LIKENESS = {
    "red": "a ripe tomato", "green": "fresh grass", "blue": "the evening sky",
    "yellow": "a lemon", "purple": "a plum", "orange": "a carrot",
    "black": "a piece of coal", "white": "new snow",
}  # fmt: skip
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six")


def paragraph(rng: np.random.Generator) -> str:
    """Three to six sentences on one subject, in lower case like the captions."""
    return _KINDS[int(rng.integers(len(_KINDS)))](rng)


def _description(rng: np.random.Generator) -> str:
    scene = random_scene(rng)
    while split_of(scene.description) == HELDOUT:  # held-out scenes are not even told about
        scene = random_scene(rng)
    a, b, *rest = (scene.things[i] for i in rng.permutation(len(scene.things)))
    sentences = [
        f"the picture shows {noun_phrase(a, whole=True)} and {noun_phrase(b, whole=True)}.",
        f"the first one is {a.colour} and the second one is {b.colour}.",
        f"the {' '.join(a.name)} is {where(a, b, long=True)} the {' '.join(b.name)}.",
        f"so the {' '.join(b.name)} is {where(b, a, long=True)} the {' '.join(a.name)}.",
    ]
    sentences += [
        f"in the {CELLS[c.cell]} corner there is also {noun_phrase(c, whole=True)}." for c in rest
    ]
    return " ".join(sentences)


def _story(rng: np.random.Generator) -> str:
    name, other = (_NAMES[i] for i in rng.permutation(len(_NAMES))[:2])
    (colour, shape), (colour_2, shape_2) = _two_names(rng)
    place = ("on the table", "in the garden", "under the bed", "behind the door")[rng.integers(4)]
    act = ("painted", "found", "cut out", "drew")[rng.integers(4)]
    return (
        f"one day {name} {act} {_a(colour)} {shape} {place}. "
        f"{other} came by and wanted to have it. "
        f'"i will give you my {colour_2} {shape_2} for it," said {other}. '
        f"so {name} took the {colour_2} {shape_2} and {other} went home with the {colour} {shape}. "
        f"in the evening both of them were happy."
    )


def _facts(rng: np.random.Generator) -> str:
    shapes = [SHAPES[i] for i in rng.permutation(len(SHAPES))[:3]]
    sentences = [f"{_FACTS[shape][int(rng.integers(2))]}." for shape in shapes]
    colour = _pick(rng, tuple(COLOURS))
    sentences.append(f"{_a(colour)} {shapes[0]} is as {colour} as {_LIKENESS[colour]}.")
    return " ".join(sentences)


def _counting(rng: np.random.Generator) -> str:
    (colour, shape), (colour_2, shape_2) = _two_names(rng)
    first, second = (int(n) for n in rng.integers(1, 4, size=2))
    them = "it" if first == 1 else "them"
    box = ("box", "bag", "drawer", "basket")[rng.integers(4)]
    return (
        f"in the {box} there {_are(first)} {_many(first, colour, shape)}. "
        f"somebody puts {_many(second, colour_2, shape_2)} beside {them}. "
        f"now the {box} holds {_NUMBERS[first + second]} shapes in all. "
        f"without the {colour_2} ones, {_NUMBERS[first]} would be left."
    )


def _comparison(rng: np.random.Generator) -> str:
    (colour, shape), (colour_2, shape_2) = _two_names(rng)
    texture = ("striped", "dotted")[rng.integers(2)]
    return (
        f"{_a('big')} {colour} {shape} takes more room than {_a('small')} {colour_2} {shape_2}. "
        f"{_a(colour)} {shape} looks like {_LIKENESS[colour]}, "
        f"{_a(colour_2)} {shape_2} looks like {_LIKENESS[colour_2]}. "
        f"when the {shape_2} is {texture} and the {shape} is plain, "
        f"it is easy to tell which is which. {_FACTS[shape][int(rng.integers(2))]}."
    )


def _pick(rng: np.random.Generator, choices: tuple[str, ...]) -> str:
    return choices[int(rng.integers(len(choices)))]


def _two_names(rng: np.random.Generator) -> list[tuple[str, str]]:
    """Two colours and shapes that have neither in common."""
    colours, shapes = rng.permutation(len(COLOURS))[:2], rng.permutation(len(SHAPES))[:2]
    return [(tuple(COLOURS)[c], SHAPES[s]) for c, s in zip(colours, shapes, strict=True)]


def _a(word: str) -> str:
    return f"{'an' if word[0] in 'aeiou' else 'a'} {word}"


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def _many(count: int, colour: str, shape: str) -> str:
    plural = "" if count == 1 else "es" if shape == "cross" else "s"
    return f"{_NUMBERS[count]} {colour} {shape}{plural}"


_KINDS: tuple[Callable[[np.random.Generator], str], ...] = (
    _description,
    _description,
    _story,
    _facts,
    _counting,
    _comparison,
)
