"""What of the model's answers the page shows: captions, retrieved pictures, filled-in words."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

from unimo_ds.data.schema import RegionSource
from unimo_ds.report.pictures import data_uri, picture_of
from unimo_ds.report.samples import Answers, Candidate, Filling, evenly
from unimo_ds.report.scoring import (
    Recall,
    Scenes,
    Thing,
    mentions,
    names_only,
    object_colour_accuracy,
    ranks,
    recall,
)

NUM_CAPTIONS = 18
NUM_QUERIES = 8
BEST = 5


class Piece(NamedTuple):
    """A stretch of a caption; ``verdict`` is "right", "wrong" or "" where nothing is claimed."""

    text: str
    verdict: str = ""


class Picture(NamedTuple):
    """A picture of the page."""

    uri: str
    alt: str


class ShownCaption(NamedTuple):
    """What the model wrote about a picture, beside the truth."""

    picture: Picture
    pieces: list[Piece]
    truths: list[str]
    things: list[str]  # the objects of the scene; empty without scenes
    right: bool | None  # None: nobody can say


class Hit(NamedTuple):
    """A picture that was found."""

    picture: Picture
    score: str
    own: bool  # it is the picture that the query was written for


class ShownQuery(NamedTuple):
    """A caption, the pictures that the model holds for the nearest, and the rank of its own."""

    caption: str
    rank: int
    hits: list[Hit]


class ShownFilling(NamedTuple):
    """A masked word and what was guessed."""

    picture: Picture
    filling: Filling


class Gallery(NamedTuple):
    """All that the page shows of the model's answers."""

    recall: Recall
    captions: list[ShownCaption]
    queries: list[ShownQuery]
    fillings: list[ShownFilling]
    object_colours: float | None
    judged: int  # captions behind object_colours


def build_gallery(answers: Answers, source: RegionSource, scenes: Scenes | None) -> Gallery:
    """The gallery of ``answers``: examples at even distances, numbers over all candidates."""
    candidates = answers.candidates
    shown = [things_of(candidate, scenes) for candidate in candidates]

    @cache
    def picture(index: int) -> Picture:
        candidate = candidates[index]
        return Picture(data_uri(picture_of(candidate.regions, source)), candidate.caption)

    pairs = zip(answers.written, shown, strict=True)
    judged = [(text, things) for text, things in pairs if things is not None]
    accuracy = None
    if scenes and judged:
        accuracy = object_colour_accuracy([t for t, _ in judged], [s for _, s in judged], scenes)
    captions = [
        _caption(answers.written[i], candidates[i], shown[i], scenes, picture(i))
        for i in evenly(len(answers.written), NUM_CAPTIONS)
    ]
    return Gallery(
        recall(answers.similarity),
        captions,
        [_query(answers, i, picture) for i in evenly(len(candidates), NUM_QUERIES)],
        [ShownFilling(picture(filling.candidate), filling) for filling in answers.fillings],
        accuracy,
        len(judged),
    )


def things_of(candidate: Candidate, scenes: Scenes | None) -> frozenset[Thing] | None:
    """What the picture of ``candidate`` shows; None if the scenes do not say."""
    if scenes is None:
        return None
    return next((scenes.things[name] for name in candidate.names if name in scenes.things), None)


def pieces(caption: str, shown: frozenset[Thing] | None, scenes: Scenes | None) -> list[Piece]:
    """``caption`` cut where it names something, each name with its verdict."""
    if shown is None or scenes is None:
        return [Piece(caption)]
    found, end = [], 0
    for mention in mentions(caption, scenes):
        verdict = "right" if mention.thing in shown else "wrong"
        found.append(Piece(caption[end : mention.start]))
        found.append(Piece(caption[mention.start : mention.end], verdict))
        end = mention.end
    found.append(Piece(caption[end:]))
    return [piece for piece in found if piece.text]


def _caption(
    written: str,
    candidate: Candidate,
    shown: frozenset[Thing] | None,
    scenes: Scenes | None,
    picture: Picture,
) -> ShownCaption:
    right = None
    if shown is not None and scenes is not None:
        right = names_only(written, shown, scenes)
    return ShownCaption(
        picture,
        pieces(written, shown, scenes),
        candidate.captions,
        sorted(map(str, shown or ())),
        right,
    )


def _query(answers: Answers, text: int, picture: Callable[[int], Picture]) -> ShownQuery:
    scores = answers.similarity[:, text]
    # A tie goes to the other picture, as it does in the rank.
    order = np.lexsort((np.arange(len(scores)) == text, -scores))
    hits = [Hit(picture(int(i)), f"{scores[i]:.2f}", bool(i == text)) for i in order[:BEST]]
    rank = int(ranks(answers.similarity.T)[text])
    return ShownQuery(answers.candidates[text].caption, rank, hits)


def missing_things(gallery: Gallery, scenes: Scenes | None) -> Sequence[str]:
    """Why there is no object-colour score, if there is none."""
    if scenes is None:
        return [
            "No object-colour score: it needs a scenes file (--scenes) that says which objects "
            "each picture shows, and this corpus came without one, as photographs do."
        ]
    if not gallery.judged:
        return [
            "No object-colour score: no picture of the corpus has the name of a scene in --scenes."
        ]
    return []
