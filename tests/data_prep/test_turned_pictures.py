"""Boxes, detectors and pages of a picture that its EXIF turns."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.data_prep.tiny_models import detector_model, save, vision_model
from tests.odd_pictures import colours, exif


@pytest.fixture
def sideways(tmp_path):
    """A picture that its EXIF turns, the same picture upright, and the folder that holds both."""
    upright = Image.fromarray(colours(24, 40))
    (tmp_path / "p").mkdir()
    stored = upright.transpose(Image.Transpose.ROTATE_90)
    stored.save(tmp_path / "p" / "turned.png", exif=exif(6))
    upright.save(tmp_path / "p" / "upright.png")
    assert Image.open(tmp_path / "p" / "turned.png").size == (40, 24)
    return tmp_path / "p"


def _coco(path, **sizes):
    images, annotations = [], []
    for number, (name, (width, height)) in enumerate(sizes.items()):
        file = {"id": number, "file_name": f"{name}.png", "width": width, "height": height}
        images.append(file)
        for box in ([0, 0, width / 2, height / 4], [0, 0, width, height]):
            annotations.append({"image_id": number, "bbox": box, "category_id": 1})
    content = {"images": images, "annotations": annotations}
    path.write_text(json.dumps(content | {"categories": [{"id": 1, "name": "dog"}]}))
    return path


def test_given_boxes_belong_on_the_turned_picture(prep, sideways, read_rows, quarantine, tmp_path):
    model = vision_model("resnet")
    folder = save(model, tmp_path / "m")
    arguments = ("--regions", "grid", "--model", folder, "--num-classes", 2, "--max-bad", 0.9)
    twice = _coco(tmp_path / "shown.json", turned=(48, 80), upright=(24, 40))  # resized since
    ran = prep("images", tmp_path / "o", sideways, *arguments, "--boxes", twice)
    assert ran.code == 0, ran.err
    turned, upright = read_rows(tmp_path / "o")
    assert (turned["width"], turned["height"]) == (24, 40)
    assert turned["boxes"] == upright["boxes"] == [0, 0, 0.5, 0.25, 0.125, 0, 0, 1, 1, 1]
    assert turned["features"] == upright["features"]
    stored = _coco(tmp_path / "stored.json", turned=(40, 24), upright=(24, 40))
    ran = prep("images", tmp_path / "s", sideways, *arguments, "--boxes", stored)
    assert ran.code == 0, ran.err
    assert [row["id"] for row in read_rows(tmp_path / "s")] == ["upright.png"]
    (bad,) = quarantine(tmp_path / "s")
    assert (bad["record"], bad["reason"]) == ("turned.png", "bad_box")
    assert "boxes of a picture of 40 x 24, it is shown as 24 x 40" in bad["detail"]


def test_a_detector_sees_the_turned_picture(prep, sideways, read_rows, tmp_path):
    size = {"image_processor_type": "RTDetrImageProcessor", "size": {"height": 64, "width": 64}}
    folder = save(detector_model("rt_detr"), tmp_path / "m", **size)
    ran = prep("images", tmp_path / "o", sideways, "--regions", "detector", "--model", folder)
    assert ran.code == 0, ran.err
    turned, upright = read_rows(tmp_path / "o")
    assert (turned["width"], turned["height"]) == (24, 40)
    assert turned | {"id": ""} == upright | {"id": ""}


def test_regions_of_a_picture_as_stored_are_not_drawn_on_the_turned_one(prep, sideways, tmp_path):
    turned = sideways / "turned.png"
    stored = Image.open(turned).copy()
    Image.fromarray(np.asarray(stored)).save(turned)  # as corpora of before saw it
    assert prep("images", tmp_path / "o", sideways, "--grid", 2, "--num-classes", 2).code == 0
    stored.save(turned, exif=exif(6))
    page = tmp_path / "page.html"
    ran = prep("inspect", tmp_path / "o", "-o", page, "--image-root", sideways)
    assert ran.code == 0, ran.err
    told = "shown as 24 x 40, its regions are of 40 x 24, the picture before its EXIF turned it"
    assert page.read_text().count(told) == 1 and page.read_text().count("photo upright.png") == 1
