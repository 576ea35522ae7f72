"""The demo world: deterministic, held-out scenes new and tellable apart, captions true."""

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from data_prep.demo.language import captions, parse_caption
from data_prep.demo.render import render
from data_prep.demo.world import (
    COLOURS,
    HELDOUT,
    IMAGES,
    TRAIN,
    Scene,
    Thing,
    generator,
    relation,
    scenes,
)


def test_same_seed_same_bytes_whatever_the_workers_and_counts(prep, contents, tmp_path):
    counts = ("--texts", 7, "--images", 300, "--heldout", 5)
    assert prep("demo", tmp_path / "a", "--pairs", 40, *counts).code == 0
    assert prep("demo", tmp_path / "b", "--pairs", 40, *counts, "--workers", 2).code == 0
    assert prep("demo", tmp_path / "c", "--pairs", 12, *counts).code == 0
    assert prep("demo", tmp_path / "d", "--pairs", 12, *counts, "--seed", 2).code == 0
    one, two, fewer, other = (contents(tmp_path / name) for name in "abcd")
    assert one == two
    first_lines = one["pairs/train.jsonl"].splitlines()[:12]
    assert fewer["pairs/train.jsonl"].splitlines() == first_lines
    assert all(fewer[name] == one[name] for name in fewer if name.endswith(".png"))
    assert other["pairs/train/00000.png"] != one["pairs/train/00000.png"]


def test_layout_and_refusal_of_a_folder_in_use(prep, tmp_path):
    assert prep("demo", tmp_path / "raw", "--pairs", 3, "--texts", 2, "--images", 4).code == 0
    raw = tmp_path / "raw"
    for split, count in ((TRAIN, 3), (HELDOUT, 200)):
        records = [
            json.loads(x) for x in (raw / "pairs" / f"{split}.jsonl").read_text().splitlines()
        ]
        assert len(records) == count
        assert all((raw / "pairs" / record["image"]).is_file() for record in records)
        assert all(len(set(record["captions"])) == 5 for record in records)
    assert len(list((raw / "images").glob("*.png"))) == 4
    assert len((raw / "texts" / "prose.jsonl").read_text().splitlines()) == 2
    ran = prep("demo", raw)
    assert ran.code == 2 and "not empty" in ran.err


def test_an_interrupted_demo_has_no_name_and_can_be_made_again(prep, monkeypatch, tmp_path):
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    small = ("--pairs", 3, "--texts", 2, "--images", 1, "--heldout", 2)
    monkeypatch.setattr("data_prep.demo.build.render", fail)
    assert prep("demo", tmp_path / "raw", *small).code != 0
    assert not (tmp_path / "raw").exists()
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert prep("demo", "raw", *small).code == 0
    assert [path.name for path in tmp_path.iterdir()] == ["raw"]


def test_held_out_scenes_are_new_and_can_be_told_apart():
    train, images = scenes(1, TRAIN, 1500), scenes(1, IMAGES, 200)
    heldout = scenes(1, HELDOUT, 200)
    assert len(set(train)) == len(train)
    described = [{scene.description for scene in group} for group in (train, images, heldout)]
    assert len(described[2]) == 200
    assert not any(a & b for a, b in combinations(described, 2))
    pairs = [
        frozenset((a.name, b.name)) for scene in heldout for a, b in combinations(scene.things, 2)
    ]
    assert len(set(pairs)) == len(pairs)  # any two named things name the scene


def test_captions_name_two_things_or_more_that_are_there():
    for index, scene in enumerate(scenes(5, TRAIN, 300)):
        names = {thing.name for thing in scene.things}
        for caption in captions(scene, generator(5, TRAIN, index, 0, 2)):
            named = set(parse_caption(caption))
            assert named <= names and len(named) >= 2, caption


def test_relations_in_captions_are_true():
    star, ring = Thing("star", "red", "big", "plain", 0), Thing("ring", "blue", "big", "plain", 3)
    assert relation(star, ring) == "above and left of"
    assert relation(ring, star) == "below and right of"
    beside = Thing("ring", "blue", "big", "plain", 1)
    told = [c for i in range(40) for c in captions(Scene((star, beside)), np.random.default_rng(i))]
    placed = [c for c in told if "left of" in c or "right of" in c]
    assert len(placed) > 40
    for caption in placed:
        first, second = (name for name in parse_caption(caption)[:2])
        said = "left of" if "left of" in caption else "right of"
        fronted = caption.startswith(("left of", "right of", "to the"))  # the reference comes first
        inverted = caption.endswith(" it.")  # "a star with a ring left of it"
        a, b = (second, first) if fronted or inverted else (first, second)
        assert (said == "left of") == (a == star.name and b == ring.name), caption
    assert not any(word in c for c in told for word in ("above", "below", "under", "over"))


def test_pictures_show_the_scene():
    for colour, rgb in COLOURS.items():
        for cell in range(4):
            thing = Thing("square", colour, "big", "plain", cell)
            pixels = np.asarray(render(Scene((thing,)), np.random.default_rng(cell))).astype(int)
            middles = [
                pixels[16 + 32 * row, 16 + 32 * column] for row in (0, 1) for column in (0, 1)
            ]
            near = [np.abs(middle - rgb).max() < 12 for middle in middles]
            assert near == [number == cell for number in range(4)], (colour, cell)


def test_every_shape_size_and_texture_looks_different():
    def picture(shape: str, size: str, texture: str) -> np.ndarray:
        scene = Scene((Thing(shape, "red", size, texture, 0),))
        return np.asarray(render(scene, np.random.default_rng(0))).astype(int)

    shapes = [picture(s, "big", "plain") for s in ("circle", "square", "triangle", "star", "cross")]
    others = [picture("ring", *look) for look in (("big", "plain"), ("small", "plain"))]
    others += [picture("ring", "big", texture) for texture in ("striped", "dotted")]
    for a, b in combinations(shapes + others, 2):
        assert (np.abs(a - b).max(axis=2) > 60).sum() > 60


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A big RED star is above an orange ring.", [("red", "star"), ("orange", "ring")]),
        ("two green crosses and three blue circles", [("green", "cross"), ("blue", "circle")]),
        ("the ring is red, the starfish white", []),
        ("a red big star", []),
    ],
)
def test_parse_caption(text, found):
    assert parse_caption(text) == found


def test_prose_is_about_many_things(prep, tmp_path: Path):
    prep("demo", tmp_path / "raw", "--pairs", 1, "--images", 1, "--heldout", 1, "--texts", 300)
    lines = (tmp_path / "raw" / "texts" / "prose.jsonl").read_text().splitlines()
    texts = [json.loads(line)["text"] for line in lines]
    assert len(set(texts)) > 280
    assert all(text.count(".") >= 3 and text[-1] == "." for text in texts)
    for kind in ("the picture shows", "one day", "shapes in all", "has five points", "more room"):
        assert any(kind in text for text in texts)
