"""Gold boxes out of every file they come in, and what is no box."""

import gzip
import json
import math
import os
from pathlib import Path

import numpy as np
import pytest

from data_prep.quarantine import Bad
from data_prep.readers.boxes import BoxSet, read_boxes


def _read(file):
    found = list(read_boxes(file))
    return [e for e in found if isinstance(e, BoxSet)], [e for e in found if isinstance(e, Bad)]


def _json(path, value):
    path.write_text(json.dumps(value))
    return path


COCO = {
    "categories": [{"id": 3, "name": "cat"}, {"id": 9, "name": "dog"}],
    "annotations": [
        {"image_id": 7, "category_id": 9, "bbox": [10, 20, 30, 40], "iscrowd": 0},
        {"image_id": 7, "category_id": 3, "bbox": [0, 0, 100, 50]},
        {"image_id": 8, "category_id": 3, "bbox": [1, 1, 2, 2]},
    ],
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 100, "height": 200},
        {"id": 8, "file_name": "b.jpg"},
        {"id": 9, "file_name": "c.jpg", "width": 5, "height": 5},
    ],
}


def test_coco_instances_are_shares_of_the_size_that_the_file_gives(tmp_path):
    (a, b, c), bad = _read(_json(tmp_path / "i.json", COCO))
    assert bad == []
    assert a.normalised and a.image == "a.jpg" and a.classes == ("dog", "cat") and a.line == 1
    assert np.allclose(a.boxes, [[0.1, 0.1, 0.4, 0.3], [0, 0, 1, 0.25]])
    assert a.boxes.dtype == np.float32
    assert not b.normalised and b.boxes.tolist() == [[1, 1, 3, 3]]
    assert c.boxes.shape == (0, 4) and c.classes == ()


def test_coco_items_of_another_form(tmp_path):
    broken = {
        "images": [*COCO["images"], {"id": [1], "file_name": "x"}, 3],
        "annotations": [
            *COCO["annotations"],
            {"image_id": 7, "bbox": [1, 2]},
            {"image_id": 404, "bbox": [1, 1, 1, 1]},
            {"image_id": 8},
        ],
    }
    good, bad = _read(_json(tmp_path / "i.json", broken))
    assert [b.image for b in good] == ["a.jpg", "b.jpg", "c.jpg"]
    assert good[0].classes == ("9", "3")  # no category has a name
    assert [(e.reason, e.line, e.record) for e in bad] == [
        ("bad_record", 4, ""),
        ("bad_record", 5, ""),
        ("bad_record", 6, ""),
        ("missing_image", 0, "404"),
        ("bad_box", 1, "a.jpg"),
    ]


def test_visual_genome(tmp_path):
    objects = [
        {
            "image_id": 1,
            "objects": [
                {"x": 1, "y": 2, "w": 3, "h": 4, "names": ["tree", "oak"]},
                {"x": 1, "y": 2, "w": 0, "h": 4, "names": ["line"]},
            ],
        },
        {"image_id": 2, "objects": [{"x": 1}]},
        {"image_id": 3, "objects": []},
        "nothing",
    ]
    good, bad = _read(_json(tmp_path / "objects.json", objects))
    assert [(b.image, b.boxes.tolist(), b.classes) for b in good] == [
        ("1.jpg", [[1, 2, 4, 6]], ("tree",)),
        ("3.jpg", [], ()),
    ]
    assert [(e.reason, e.line) for e in bad] == [
        ("bad_box", 1),
        ("bad_record", 2),
        ("bad_record", 4),
    ]
    regions = [{"id": 5, "regions": [{"x": 0, "y": 1, "width": 5, "height": 6, "phrase": "a"}]}]
    (only,), bad = _read(_json(tmp_path / "region_descriptions.json", regions))
    assert not bad and only.image == "5.jpg" and only.boxes.tolist() == [[0, 1, 5, 7]]
    assert only.classes == () and not only.normalised


def test_json_lines_and_entities(tmp_path):
    lines = [
        {"image": "a", "boxes": [[0, 0, 9, 9]]},
        {"image": "b", "boxes": [[0, 0, 1, 1], [0, 0, 0.5, 1.5]], "normalised": True},
        {"image": "c", "boxes": [[1, 1, 2, 2], [3, 3, 2, 4]], "classes": ["x", "y"]},
        {"image": "d", "boxes": [[1, 1, math.nan, 2], ["1", 1, 2, 2], [1, 2, 3], [True, 0, 2, 2]]},
        {"image": "e", "boxes": [[1, 1, 2, 2]], "classes": []},
        {"image": "f", "boxes": [[1, 1, 2, 2]], "classes": ["x", "y"]},
        {"image": "g"},
        {"boxes": []},
        {
            "image": "h",
            "boxes_xyxy_norm": {"2": [[0, 0, 1, 0.5], [0, 0, 0.1, 0.1]], "4": [[0.5, 0, 1, 1]]},
            "sentences": [{"text": "a b", "phrases": [[0, 1, "2", ["people", "other"]]]}],
        },
        {"image": "i", "boxes_xyxy_norm": {"2": 3}},
    ]
    data = "".join(json.dumps(line) + "\n" for line in lines) + "{\n"
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(data.encode()))
    good, bad = _read(tmp_path / "b.jsonl.gz")
    assert [(b.image, len(b.boxes), b.normalised, b.classes) for b in good] == [
        ("a", 1, False, ()),
        ("b", 1, True, ()),
        ("c", 1, False, ("x",)),
        ("d", 0, False, ()),
        ("e", 1, False, ()),
        ("h", 3, True, ("people", "people", "other")),
    ]
    assert [(e.reason, e.line) for e in bad] == [
        ("bad_box", 2),
        ("bad_box", 3),
        *[("bad_box", 4)] * 4,
        ("bad_record", 6),
        ("missing_field", 7),
        ("missing_field", 8),
        ("bad_record", 10),
        ("bad_json", 11),
    ]


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.json", "[]", "expected COCO"),
        ("a.json", '[{"image": 3}]', "found a list of ['image']"),
        ("a.json", '{"images": [], "annotations": [{"image_id": 1, "caption": "x"}]}', "'bbox'"),
        ("a.json", '{"images": [}', "not JSON"),
        ("a.json", "", "empty"),
        ("a.xml", "<x/>", "expected COCO"),
        ("a.jsonl.gz", "no gzip", "damaged"),
    ],
)
def test_other_files_are_refused_with_what_was_expected(name, content, told, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match="(?s)" + name) as error:
        list(read_boxes(tmp_path / name))
    assert told in str(error.value)
    with pytest.raises(ValueError, match="no such file"):
        read_boxes(tmp_path / "absent")


@pytest.mark.real
@pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set")
def test_real_entities():
    folder = Path(os.environ["UNIMO_REAL_DATA"])
    good, bad = _read(folder / "regions" / "flickr30k_entities.jsonl.xz")
    assert len(good) == 6472 and sum(len(b.boxes) for b in good) > 30_000
    assert all(b.normalised and len(b.classes) == len(b.boxes) for b in good)
    assert {"people", "clothing", "scene"} <= {name for b in good for name in b.classes}
    assert len(bad) < 50 and {e.reason for e in bad} <= {"bad_box"}
