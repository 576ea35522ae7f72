"""What the scene graph of a caption finds, and what it leaves alone."""

import pytest

from data_prep.rewrite.scene_graph import ATTRIBUTE, OBJECT, RELATION, scene_graphs


def nodes(caption: str, kind: str) -> list[str]:
    found = [node for node in scene_graphs([caption])[0] if node.type == kind]
    for node in found:
        assert caption[node.begin : node.end].lower() == node.text
    return [node.text for node in found]


@pytest.mark.parametrize(
    ("caption", "objects", "attributes", "relations"),
    [
        (
            "A small girl in a pink dress is riding a red bike .",
            ["girl", "dress", "bike"],
            ["small", "pink", "red"],
            ["in", "riding"],
        ),
        (
            "A brown dog jumps over the tall fence.",
            ["dog", "fence"],
            ["brown", "tall"],
            ["jumps", "over"],
        ),
        (
            "Two men stand in front of a building",
            ["men", "building"],
            ["two"],
            ["stand", "in front of"],
        ),
        ("A man drilling a hole", ["man", "hole"], [], ["drilling"]),
        ("Two dogs play", ["dogs"], ["two"], []),  # a verb without a sequel stays
        ("a pair of shoes next to the door", ["shoes", "door"], [], ["next to"]),
        (
            "a big dotted red star is above a ring",
            ["star", "ring"],
            ["big", "dotted", "red"],
            ["above"],
        ),
        ("", [], [], []),
        ("123 !", [], [], []),
    ],
)
def test_objects_attributes_and_relations(caption, objects, attributes, relations):
    assert nodes(caption, OBJECT) == objects
    assert nodes(caption, ATTRIBUTE) == attributes
    assert nodes(caption, RELATION) == relations


def test_slots_keep_number_article_and_sequel():
    (graph,) = scene_graphs(["a dog and two cats are looking at the birds"])
    slots = {node.text: node.slot for node in graph}
    assert slots["dog"] == "singular a"
    assert slots["cats"] == "plural counted"
    assert slots["birds"] == "plural the"
    assert slots["looking"] == "VBG at"
    assert {node.text: node.context for node in graph}["dog"] == "subject"
