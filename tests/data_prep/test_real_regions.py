"""Regions of real photos by a real ImageNet network: its map, and the map over gold boxes.

UNIMO_REAL_DATA names a folder with `flickr8k/images`, `models/mobilenet_v2_imagenet` with
`preprocess.json`, and `regions/flickr30k_entities.jsonl.xz`.
"""

import json
import lzma
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

from tests.data_prep.test_pooling import roi_align
from unimo_ds.data.schema import read_manifest

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set"),
]
COUNT = 12


@pytest.fixture
def data() -> Path:
    return Path(os.environ["UNIMO_REAL_DATA"])


@pytest.fixture
def build(prep, data, write_lines, tmp_path):
    """A corpus of the first photos that have gold boxes, and these photos' records."""
    with lzma.open(data / "regions" / "flickr30k_entities.jsonl.xz", "rt") as stream:
        records = [json.loads(next(stream)) for _ in range(COUNT)]
    source = write_lines(tmp_path / "photos.jsonl", [{"image": r["image"]} for r in records])
    model = data / "models" / "mobilenet_v2_imagenet"
    arguments = ("--image-root", data / "flickr8k" / "images", "--regions", "grid")
    arguments += ("--model", model, "--preprocessor", model / "preprocess.json")

    def run(*more):
        ran = prep("images", tmp_path / "o", source, *arguments, "--num-classes", 20, *more)
        assert ran.code == 0, ran.err
        assert prep("verify", tmp_path / "o").code == 0
        return tmp_path / "o", records

    return run


def maps(data, records):
    """float64 [1280, 7, 7] of each photo, by the network called directly."""
    network = AutoModel.from_pretrained(data / "models" / "mobilenet_v2_imagenet").float().eval()
    for record in records:
        photo = Image.open(data / "flickr8k" / "images" / record["image"]).convert("RGB")
        pixels = np.asarray(photo, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
        with torch.no_grad():
            states = network(torch.from_numpy(pixels)).last_hidden_state
        yield states[0].double().numpy()


def test_cells_of_photos(build, data, read_rows):
    out, records = build()
    source = read_manifest(out).regions
    assert source.parameters["model_type"] == "mobilenet_v2" and source.max_regions == 49
    for row, cells in zip(read_rows(out), maps(data, records), strict=True):
        found = np.reshape(row["features"], (49, 1280))
        assert np.allclose(found, cells.reshape(1280, 49).T, atol=5e-3)
        assert found.max() > 1  # it saw something


def test_gold_boxes_of_photos(build, data, read_rows):
    out, records = build("--boxes", data / "regions" / "flickr30k_entities.jsonl.xz")
    rows = read_rows(out)
    assert sum(row["num_regions"] for row in rows) > 3 * COUNT
    for row, record, cells in zip(rows, records, maps(data, records), strict=True):
        gold = [box for boxes in record["boxes_xyxy_norm"].values() for box in boxes]
        assert np.allclose(np.reshape(row["boxes"], (-1, 5))[:, :4], gold, atol=1e-6)
        wanted = [roi_align(cells, box) for box in gold]
        assert np.allclose(np.reshape(row["features"], (len(gold), -1)), wanted, atol=5e-3)
