"""`--regions grid --boxes`: which boxes a picture gets, what is pooled over them, classes."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data_prep.test_pooling import roi_align
from tests.data_prep.tiny_models import pixels, save, vision_model
from unimo_ds.data.schema import read_manifest

BOXES = [[0.1, 0.2, 0.6, 0.9], [0, 0, 1, 1], [0.5, 0.5, 0.75, 0.75]]
CLASSES = ["Big  Cat", "dog", "unheard of"]


@pytest.fixture
def arguments(tmp_path):
    folder = save(vision_model("resnet"), tmp_path / "m")
    return ("--regions", "grid", "--model", folder, "--num-classes", 2, "--max-bad", 0.9)


def cells_of(path):
    with torch.no_grad():
        return vision_model("resnet")(pixels(path)).last_hidden_state[0].double().numpy()


def test_boxes_are_pooled_from_the_map(
    prep, make_pictures, write_lines, read_rows, quarantine, arguments, tmp_path
):
    paths = make_pictures(tmp_path / "p" / "sub", 3)
    Image.new("RGB", (40, 20)).save(tmp_path / "p" / "wide.png")
    lines = [
        {"image": "sub/000.png", "boxes": BOXES, "normalised": True},
        {"image": "001.png", "boxes": [[4, 0, 12, 16]]},
        {"image": "wide.png", "boxes": [[20, 0, 40, 10], [20, 0, 60, 10]]},
        {"image": "another.png", "boxes": [[20, 0, 40, 10], "none"]},
    ]
    boxes = write_lines(tmp_path / "b.jsonl", lines)
    ran = prep("images", tmp_path / "o", tmp_path / "p", *arguments, "--boxes", boxes)
    assert ran.code == 0, ran.err
    rows = read_rows(tmp_path / "o")
    assert [row["id"] for row in rows] == ["sub/000.png", "sub/001.png"]
    for row, path, wanted in zip(rows, paths, (BOXES, [[0.25, 0, 0.75, 1]]), strict=False):
        found = np.reshape(row["boxes"], (-1, 5))
        assert np.allclose(found[:, :4], wanted, atol=1e-6)
        assert np.allclose(found[:, 4], [(c - a) * (d - b) for a, b, c, d in wanted])
        features = [roi_align(cells_of(path), box) for box in wanted]
        assert np.allclose(np.reshape(row["features"], (len(wanted), -1)), features, atol=5e-3)
    found = {bad["record"]: bad["reason"] for bad in quarantine(tmp_path / "o")}
    assert found == {"sub/002.png": "no_boxes", "wide.png": "box_outside_image"}
    source = read_manifest(tmp_path / "o").regions
    assert source.parameters["pooling"] == "roi_align" and source.num_classes == 2
    assert prep("verify", tmp_path / "o").code == 0


def test_classes_of_boxes_get_ids_from_a_list(
    prep, make_pictures, write_lines, read_rows, arguments, tmp_path
):
    make_pictures(tmp_path / "p", 1)
    line = {"image": "000.png", "boxes": BOXES, "normalised": True, "classes": CLASSES}
    boxes = write_lines(tmp_path / "b.jsonl", [line])
    (tmp_path / "names.txt").write_text("dog,hound\nlion, big cat")  # no newline at the end
    named = (*arguments, "--boxes", boxes, "--class-names", tmp_path / "names.txt")
    ran = prep("images", tmp_path / "o", tmp_path / "p", *named, "--max-regions", 3)
    assert ran.code == 0, ran.err
    (row,) = read_rows(tmp_path / "o")
    assert row["class_ids"] == [2, 1, 0] and row["class_probs"] == [1, 1, 1]
    source = read_manifest(tmp_path / "o").regions
    assert (source.num_classes, source.kept_classes, source.visual_words_sha256) == (3, 1, "")
    names = tmp_path / "o" / "class_names.txt"
    assert names.read_text() == "background\ndog,hound\nlion, big cat\n"
    assert prep("verify", tmp_path / "o").code == 0
    names.write_text("background\ndog\nlion\n")
    ran = prep("verify", tmp_path / "o")
    assert ran.code == 1 and "class_names.txt" in ran.out


def test_pairs_with_boxes(
    prep, make_pictures, write_lines, read_rows, arguments, tokenizer_file, sentences, tmp_path
):
    make_pictures(tmp_path / "p", 3)
    pairs = [{"image": f"00{n}.png", "captions": sentences} for n in (2, 1, 0)]
    source = write_lines(tmp_path / "p" / "pairs.jsonl", pairs)
    lines = [{"image": f"00{n}.png", "boxes": BOXES, "normalised": True} for n in (0, 2)]
    boxes = write_lines(tmp_path / "b.jsonl", lines)
    ran = prep(
        "pairs", tmp_path / "o", source, "--tokenizer", tokenizer_file, *arguments, "--boxes", boxes
    )
    assert ran.code == 0, ran.err
    rows, images = read_rows(tmp_path / "o"), read_rows(tmp_path / "o" / "images")
    assert [images[row["image_row"]]["id"] for row in rows] == ["002.png", "000.png"]
    assert prep("verify", tmp_path / "o").code == 0


def test_pictures_of_the_same_name_do_not_share_boxes(
    prep, make_pictures, write_lines, read_rows, quarantine, arguments, tmp_path
):
    for folder in ("p", "p/sub", "p/other"):
        make_pictures(tmp_path / folder, 2)
    box = {"normalised": True, "boxes": BOXES[:1]}
    lines = [
        {"image": "000.png", **box},  # of the one in no sub-folder
        {"image": "sub/001.png", **box},
        {"image": "001.png", **box},
        {"image": "001.png", "boxes": [[0, 0, 8, 8]]},
    ]
    boxes = write_lines(tmp_path / "b.jsonl", lines)
    ran = prep("images", tmp_path / "o", tmp_path / "p", *arguments, "--boxes", boxes)
    assert ran.code == 0, ran.err
    assert [row["id"] for row in read_rows(tmp_path / "o")] == ["000.png", "sub/001.png"]
    found = {bad["record"]: bad["reason"] for bad in quarantine(tmp_path / "o")}
    lost = ("other/000.png", "other/001.png", "sub/000.png")
    assert found == {"001.png": "bad_box", **dict.fromkeys(lost, "no_boxes")}


def test_what_cannot_be_meant(prep, make_pictures, write_lines, arguments, tmp_path):
    make_pictures(tmp_path / "p", 2)
    line = {"image": "000.png", "boxes": BOXES, "normalised": True}
    boxes = write_lines(tmp_path / "b.jsonl", [line])
    other = write_lines(tmp_path / "c.jsonl", [line | {"image": "x.png"}])
    names = tmp_path / "names.txt"
    names.write_text("dog\n")
    empty = tmp_path / "empty.txt"
    empty.write_text("dog\n , \n")
    for more, told in (
        (("--boxes", other), "'x.png'"),
        (("--boxes", tmp_path / "absent.json"), "absent.json"),
        (("--boxes", boxes, "--grid", 2), "choose one"),
        (("--class-names", names), "needs --boxes"),
        (("--boxes", boxes, "--class-names", names), "has no classes"),
        (("--boxes", boxes, "--class-names", empty), "line 2"),
        (("--boxes", boxes, "--class-names", tmp_path / "absent.txt"), "absent.txt"),
    ):
        ran = prep("images", tmp_path / "o", tmp_path / "p", *arguments, *more)
        assert ran.code == 2 and told in ran.err, ran.err
