"""Recall with ties, and reading captions."""

import json
from pathlib import Path

import numpy as np
import pytest

from unimo_ds.report.gallery import Piece, pieces
from unimo_ds.report.scoring import (
    Scenes,
    Thing,
    mentions,
    names_only,
    object_colour_accuracy,
    picture_name,
    ranks,
    read_scenes,
    recall,
)

SCENES = Scenes({}, frozenset({"red", "blue"}), frozenset({"circle", "cross"}))
SHOWN = frozenset({Thing("red", "circle"), Thing("blue", "cross")})


def test_ranks_count_from_one():
    similarity = np.array([[0.9, 0.1, 0.2], [0.5, 0.4, 0.3], [0.3, 0.2, 0.1]])
    assert ranks(similarity).tolist() == [1, 2, 3]


def test_ties_count_against_the_model():
    found = recall(np.zeros((20, 20)))
    assert found.image_to_text == {1: 0.0, 5: 0.0, 10: 0.0}
    assert found.candidates == 20


def test_a_score_that_is_no_number_has_the_last_rank():
    similarity = np.eye(4)
    similarity[2, 2] = np.nan
    assert ranks(similarity).tolist() == [1, 1, 4, 1]


def test_recall_tells_the_directions_apart():
    similarity = np.array([[0.5, 0.6], [0.1, 0.7]])  # image 0 prefers text 1
    found = recall(similarity)
    assert found.image_to_text[1] == 0.5
    assert found.text_to_image[1] == 1.0
    with pytest.raises(ValueError, match="0 candidates"):
        recall(np.empty((0, 0)))


def test_mentions_are_a_colour_and_the_shape_behind_it():
    caption = "Red circles, a big blue cross and a red, a circle, redcircle."
    found = mentions(caption, SCENES)
    assert [str(mention.thing) for mention in found] == ["red circle", "blue cross"]
    assert [caption[m.start : m.end] for m in found] == ["Red circles", "blue cross"]
    assert [m.thing for m in mentions("two blue crosses", SCENES)] == [Thing("blue", "cross")]


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        ("a red circle.", True),
        ("a red circle above a blue cross.", True),
        ("a red circle above a red cross.", False),
        ("a circle above a cross.", False),
        ("", False),
    ],
)
def test_a_caption_is_right_if_it_names_things_of_the_scene_and_no_others(caption, right):
    assert names_only(caption, SHOWN, SCENES) is right


def test_accuracy_is_a_share_of_all_captions():
    captions = ["a red circle", "a blue circle", "nothing"]
    assert object_colour_accuracy(captions, [SHOWN] * 3, SCENES) == pytest.approx(1 / 3)


def test_pieces_carry_a_verdict_each():
    assert pieces("a red circle, a red cross.", SHOWN, SCENES) == [
        Piece("a "),
        Piece("red circle", "right"),
        Piece(", a "),
        Piece("red cross", "wrong"),
        Piece("."),
    ]
    assert pieces("a red cross", None, None) == [Piece("a red cross")]


def test_scenes_are_read_by_the_name_of_their_picture(tmp_path: Path):
    path = tmp_path / "scenes.jsonl"
    thing = {"colour": "red", "shape": "circle", "size": "big"}
    path.write_text(json.dumps({"image": "heldout/7.png", "scene": {"objects": [thing]}}) + "\n")
    scenes = read_scenes(path)
    assert scenes.things == {"7": frozenset({Thing("red", "circle")})}
    assert picture_name("7") == picture_name("a/b/7.png") == "7"
    path.write_text('{"image": "7.png"}\n')
    with pytest.raises(ValueError, match="line 1 is no scene"):
        read_scenes(path)
