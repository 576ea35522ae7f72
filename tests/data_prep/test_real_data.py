"""A slice of real photos, captions and articles through the whole of `unimo-prep`.

UNIMO_REAL_DATA names a folder with `flickr8k/captions.json` (a list of {image, split, captions}),
`flickr8k/images`, `text/wikipedia_en.jsonl.xz`, a RoBERTa `tokenizer/hf_roberta`, and `coco_mini`
(`images`, and `annotations.json`: a list of {image, width, orig_width, captions, objects}, objects
being lists of {category, bbox_xywh}).
"""

import json
import lzma
import os
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import load_tokenizer

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set"),
]


@pytest.fixture
def data() -> Path:
    return Path(os.environ["UNIMO_REAL_DATA"])


def test_photos_with_captions(prep, data, read_rows, tmp_path):
    records = json.loads((data / "flickr8k" / "captions.json").read_text())[:60]
    source = tmp_path / "some.json"
    source.write_text(json.dumps(records))
    root, roberta = data / "flickr8k" / "images", data / "tokenizer" / "hf_roberta"
    arguments = ("--image-root", root, "--tokenizer", roberta, "--num-classes", 50)
    ran = prep("pairs", tmp_path / "o", source, *arguments)
    assert ran.code == 0, ran.err
    assert prep("verify", tmp_path / "o").code == 0
    rows, images = read_rows(tmp_path / "o"), read_rows(tmp_path / "o" / "images")
    assert len(rows) == 60 and all(len(row["captions"]) == 5 for row in rows)
    tokenizer = load_tokenizer(roberta)
    for row in rows:
        for text, ids in zip(row["caption_texts"], row["captions"], strict=True):
            assert tokenizer.decode(ids).strip() == text
    grid = PixelGrid()
    photo = Image.open(root / rows[7]["image_id"]).convert("RGB")
    stored = np.reshape(images[rows[7]["image_row"]]["features"], (49, 768))
    shown = np.asarray(grid.picture(stored)).astype(int)
    wanted = np.asarray(photo.resize((112, 112), Image.Resampling.BILINEAR)).astype(int)
    assert np.abs(shown - wanted).max() <= 1


def test_articles(prep, data, read_rows, tmp_path):
    source = tmp_path / "some.jsonl"
    with lzma.open(data / "text" / "wikipedia_en.jsonl.xz", "rt") as stream:
        source.write_text("".join(islice(stream, 300)))
    roberta = data / "tokenizer" / "hf_roberta"
    assert prep("text", tmp_path / "o", source, "--tokenizer", roberta).code == 0
    rows = read_rows(tmp_path / "o")
    tokenizer = load_tokenizer(roberta)
    assert max(len(row["tokens"]) for row in rows) <= 510 and len(rows) > 300
    for line in source.read_text().splitlines():
        record = json.loads(line)
        parts = [row["tokens"] for row in rows if row["id"].rsplit("#", 1)[0] == str(record["id"])]
        text = " ".join(tokenizer.decode(part).strip() for part in parts)
        assert text == " ".join(record["text"].split())


def test_real_boxes_and_photos_on_a_page(prep, data, tmp_path):
    """Gold boxes of COCO photos as a feature table: built, verified, counted and looked at."""
    folder = data / "coco_mini"
    records = [r for r in json.loads((folder / "annotations.json").read_text()) if r["objects"]]
    records = records[:20]
    names = sorted({thing["category"] for record in records for thing in record["objects"]})
    for record in records:
        corners = np.array([thing["bbox_xywh"] for thing in record["objects"]], np.float32)
        corners[:, 2:] += corners[:, :2]
        shrunk = record["width"] / record["orig_width"]  # boxes are those of the original photo
        probs = np.eye(len(names))[[names.index(t["category"]) for t in record["objects"]]]
        size = {"image_w": record["width"], "image_h": record["height"]}
        path = tmp_path / "table" / f"{record['image']}.npz"
        path.parent.mkdir(exist_ok=True)
        np.savez(path, boxes=corners * shrunk, features=corners, probs=probs, **size)
    source = tmp_path / "coco.json"
    source.write_text(json.dumps(records))
    roberta = data / "tokenizer" / "hf_roberta"
    table = ("--regions", "precomputed", "--features", tmp_path / "table")
    out = tmp_path / "o"
    assert prep("pairs", out, source, *table, "--tokenizer", roberta).code == 0
    assert prep("verify", out, "--tokenizer", roberta).code == 0
    pairs, images = json.loads(prep("stats", out, "--json").out)
    assert pairs["captions"] == sum(len(record["captions"]) for record in records)
    assert images["length_sum"] == sum(len(record["objects"]) for record in records)
    page = tmp_path / "page.html"
    read = ("--tokenizer", roberta, "--image-root", folder / "images", "--samples", 99)
    assert prep("inspect", out, "-o", page, *read).code == 0
    text = page.read_text()
    assert text.count("data:image/jpeg") == 20 and "<script" not in text
    assert text.count('class="box') == images["length_sum"]
