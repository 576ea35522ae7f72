"""`unimo-prep images` with patches of pixels: content, visual words, bad pictures, containment."""

import json
import os

import numpy as np
import pytest
from PIL import Image

from data_prep.regions.word_search import WordSearch
from unimo_ds.data.schema import read_manifest
from unimo_ds.pixels import PixelGrid

SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6)


def test_rows_hold_the_patches_and_their_nearest_visual_words(
    prep, make_pictures, read_rows, tmp_path
):
    paths = make_pictures(tmp_path / "p" / "sub", 9)
    assert prep("images", tmp_path / "o", tmp_path / "p", *SMALL).code == 0
    rows = read_rows(tmp_path / "o")
    grid = PixelGrid(grid=2, patch=4)
    words = np.load(tmp_path / "o" / "visual_words.npy")
    assert words.shape == (6, 48) and len({i for row in rows for i in row["class_ids"]}) > 1
    for row, path in zip(rows, paths, strict=True):
        features = grid.features(Image.open(path)).astype(np.float16)
        assert row["id"] == f"sub/{path.name}" and (row["width"], row["height"]) == (16, 16)
        assert row["num_regions"] == 4
        assert np.array_equal(np.float16(row["features"]).reshape(4, 48), features)
        assert np.allclose(np.reshape(row["boxes"], (4, 5)), grid.boxes())
        distances = np.square(features.astype(float)[:, None] - words[None]).sum(axis=2)
        assert row["class_ids"] == distances.argmin(axis=1).tolist()
        assert row["class_probs"] == [1.0] * 4
    regions = read_manifest(tmp_path / "o").regions
    assert (regions.name, regions.feature_size, regions.num_classes) == ("pixels", 48, 6)
    assert regions.parameters == {"grid": 2, "patch": 4} and regions.max_regions == 4


def test_visual_words_of_another_corpus_are_shared(prep, make_pictures, tmp_path):
    make_pictures(tmp_path / "p", 9)
    assert prep("images", tmp_path / "a", tmp_path / "p", *SMALL).code == 0
    words = tmp_path / "a" / "visual_words.npy"
    assert prep("images", tmp_path / "b", tmp_path / "p", *SMALL, "--visual-words", words).code == 0
    a, b = (read_manifest(tmp_path / name).regions for name in "ab")
    assert a == b
    wide = ("--grid", 2, "--patch", 5, "--visual-words", words)
    ran = prep("images", tmp_path / "c", tmp_path / "p", *wide)
    assert ran.code == 2 and "48 wide" in ran.err and "75" in ran.err


def test_nearest_words_breaks_no_ties_by_chance():
    words = np.array([[0, 0], [2, 0], [2, 0]], dtype=np.float32)
    features = np.array([[2, 0], [0.9, 0], [1.1, 5]], dtype=np.float16)
    assert WordSearch(words).nearest(features).tolist() == [1, 0, 1]


def test_bad_pictures_and_paths(prep, make_pictures, write_lines, quarantine, read_rows, tmp_path):
    root = tmp_path / "p"
    paths = make_pictures(root, 6)
    outside = make_pictures(tmp_path / "elsewhere", 1)[0]
    (root / "cut.png").write_bytes(paths[1].read_bytes()[:300])
    (root / "none.png").write_bytes(b"no picture at all")
    Image.new("1", (10_000, 9_000)).save(root / "bomb.png")
    Image.new("1", (20_000, 10_000)).save(root / "bigger.png")
    (root / "link.png").symlink_to(outside)
    lines = [
        {"image": "000.png"},
        {"image": "cut.png"},
        {"image": "none.png"},
        {"image": "bomb.png"},
        {"image": "bigger.png"},
        {"image": "absent.png"},
        {"image": "../elsewhere/000.png"},
        {"image": str(outside)},
        {"image": "link.png"},
        {"image": "./000.png"},
        {"picture": "000.png"},
        b"nonsense",
        {"image": "nul\0.png"},
        {"image": "001.png"},
    ]
    source = write_lines(root / "list.jsonl", lines)
    ran = prep("images", tmp_path / "o", source, *SMALL, "--max-bad", 0.99)
    assert ran.code == 0
    found = {bad["line"]: bad["reason"] for bad in quarantine(tmp_path / "o")}
    assert found == {
        2: "broken_image",
        3: "broken_image",
        4: "decompression_bomb",
        5: "decompression_bomb",
        6: "missing_image",
        7: "path_escapes",
        8: "path_escapes",
        9: "path_escapes",
        10: "duplicate_id",
        11: "missing_field",
        12: "bad_json",
        13: "missing_image",
    }
    assert [row["id"] for row in read_rows(tmp_path / "o")] == ["000.png", "001.png"]
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert sum(manifest["quarantined"].values()) == 12


def test_a_link_out_of_a_folder_of_pictures_is_not_followed(
    prep, make_pictures, quarantine, read_rows, tmp_path
):
    make_pictures(tmp_path / "p", 4)
    secret = make_pictures(tmp_path / "secret", 1)[0]
    (tmp_path / "p" / "zz.png").symlink_to(secret)
    assert prep("images", tmp_path / "o", tmp_path / "p", *SMALL, "--max-bad", 0.5).code == 0
    assert [bad["reason"] for bad in quarantine(tmp_path / "o")] == ["path_escapes"]
    assert len(read_rows(tmp_path / "o")) == 4


def test_a_file_name_that_is_no_utf8(prep, make_pictures, quarantine, read_rows, tmp_path):
    paths = make_pictures(tmp_path / "p", 4)
    os.rename(paths[0], os.path.join(os.fsencode(tmp_path / "p"), b"\xff.png"))
    assert prep("images", tmp_path / "o", tmp_path / "p", *SMALL, "--max-bad", 0.5).code == 0
    assert [bad["reason"] for bad in quarantine(tmp_path / "o")] == ["bad_utf8"]
    assert len(read_rows(tmp_path / "o")) == 3


def test_two_folders_keep_their_ids_apart(prep, make_pictures, read_rows, tmp_path):
    make_pictures(tmp_path / "a", 4)
    make_pictures(tmp_path / "b", 4)
    assert prep("images", tmp_path / "o", tmp_path / "a", tmp_path / "b", *SMALL).code == 0
    ids = [row["id"] for row in read_rows(tmp_path / "o")]
    assert ids == [f"{folder}/{n:03d}.png" for folder in "ab" for n in range(4)]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--num-classes", 500), "name --num-classes K with K from 2 to 98, or more pictures"),
        (("--num-classes", 1), "not within"),
        (("--regions", "patches"), "expected one of pixels, grid, detector, precomputed"),
        (("--visual-words", "absent.npy"), "absent.npy"),
        (("--grid", 0), "1 or more"),
        (("--workers", 0), "at least one"),
    ],
)
def test_usage_errors(options, told, prep, make_pictures, tmp_path):
    make_pictures(tmp_path / "p", 2)
    ran = prep("images", tmp_path / "o", tmp_path / "p", *options)
    assert ran.code == 2 and told in ran.err
