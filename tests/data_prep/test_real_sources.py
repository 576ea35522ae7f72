"""Real photos and captions in the forms that published sets come in.

UNIMO_REAL_DATA names a folder with `coco_mini` (annotations.json: a list of {image, captions,
objects, ...}; images), `flickr8k` (captions.json, images), `daquar_vqa/images` and a RoBERTa
`tokenizer/hf_roberta`.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_prep.quarantine import Bad
from data_prep.readers.boxes import read_boxes
from tests.data_prep.source_forms import FORMS, write_karpathy, write_tokens

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set"),
]
SMALL = ("--grid", 4, "--patch", 8, "--num-classes", 32)


@pytest.fixture
def data() -> Path:
    return Path(os.environ["UNIMO_REAL_DATA"])


@pytest.fixture
def build(prep, data, tmp_path):
    def run(name, source, *more):
        arguments = ("--tokenizer", data / "tokenizer" / "hf_roberta", *SMALL, *more)
        ran = prep("pairs", tmp_path / name, source, *arguments)
        assert ran.code == 0, ran.err
        return tmp_path / name

    return run


def _coco(photos, field):
    """COCO's own form of the set: captions, or boxes with categories."""
    categories = sorted({o["category"] for p in photos for o in p["objects"]})
    annotations = []
    for photo in photos:
        if field == "captions":
            annotations += [{"image_id": photo["coco_id"], "caption": t} for t in photo["captions"]]
        else:
            annotations += [
                {
                    "image_id": photo["coco_id"],
                    "bbox": thing["bbox_xywh"],
                    "category_id": categories.index(thing["category"]),
                }
                for thing in photo["objects"]
            ]
    images = [
        {
            "id": p["coco_id"],
            "file_name": p["image"],
            "width": p["orig_width"],
            "height": p["orig_height"],
        }
        for p in photos
    ]
    names = [{"id": n, "name": name} for n, name in enumerate(categories)]
    return {"images": images, "annotations": annotations, "categories": names}


def test_coco_captions_and_instances(build, prep, data, read_rows, tmp_path):
    photos = json.loads((data / "coco_mini" / "annotations.json").read_text())[:60]
    for field in ("captions", "instances"):
        (tmp_path / f"{field}.json").write_text(json.dumps(_coco(photos, field)))
    root = ("--image-root", data / "coco_mini" / "images")
    out = build("o", tmp_path / "captions.json", *root)
    rows = read_rows(out)
    assert [row["id"] for row in rows] == [p["image"] for p in photos]
    assert [len(row["captions"]) for row in rows] == [len(p["captions"]) for p in photos]
    assert prep("images", tmp_path / "i", tmp_path / "instances.json", *root, *SMALL).code == 0
    assert [row["id"] for row in read_rows(tmp_path / "i")] == [row["id"] for row in rows]
    sets = [entry for entry in read_boxes(tmp_path / "instances.json")]
    assert not [entry for entry in sets if isinstance(entry, Bad)] and len(sets) == len(photos)
    assert sum(len(entry.boxes) for entry in sets) == sum(len(p["objects"]) for p in photos) > 400
    boxes = np.concatenate([entry.boxes for entry in sets])
    assert boxes.min() >= 0 and boxes.max() <= 1.01  # of the originals, while photos are smaller
    assert sets[0].classes == tuple(thing["category"] for thing in photos[0]["objects"])


def test_flickr8k_in_four_forms(build, data, read_rows, tmp_path):
    records = json.loads((data / "flickr8k" / "captions.json").read_text())[:16]
    (tmp_path / "p").mkdir()
    pairs = []
    for record in records:
        link = tmp_path / "p" / record["image"]
        link.write_bytes((data / "flickr8k" / "images" / record["image"]).read_bytes())
        pairs.append((link, record["captions"]))
    found = {}
    for write in (write_karpathy, write_tokens, *(FORMS[n] for n in ("webdataset", "parquet"))):
        rows = read_rows(build(write.__name__, write(tmp_path / "p", pairs)))
        texts = sorted(row["caption_texts"] for row in rows)
        assert texts == sorted(record["captions"] for record in records)
        found[write.__name__] = len(rows)
    assert set(found.values()) == {16}


def test_shards_of_real_photos_hold_the_same_regions_as_the_files(prep, data, read_rows, tmp_path):
    photos = sorted((data / "daquar_vqa" / "images").iterdir())[:80]
    (tmp_path / "p").mkdir()
    with webdataset.ShardWriter(str(tmp_path / "%04d.tar"), maxcount=30, verbose=0) as writer:
        for photo in photos:
            (tmp_path / "p" / photo.name).symlink_to(photo)
            writer.write({"__key__": photo.stem, photo.suffix[1:]: photo.read_bytes()})
    assert prep("images", tmp_path / "t", tmp_path / "{0000..0002}.tar", *SMALL).code == 0
    ran = prep("images", tmp_path / "f", data / "daquar_vqa" / "images", *SMALL)
    assert ran.code == 0, ran.err
    by_name = {row["id"]: row for row in read_rows(tmp_path / "f")}
    rows = read_rows(tmp_path / "t")
    assert len(rows) == 80 and len(by_name) == 700
    for row in rows:
        same = by_name[row["id"].split("/")[1]]
        assert row["features"] == same["features"] and row["width"] == same["width"]
    ran = prep("images", tmp_path / "l", tmp_path / "p", *SMALL)
    assert ran.code == 3 and "80 path_escapes" in ran.err  # links that lead out of the folder
