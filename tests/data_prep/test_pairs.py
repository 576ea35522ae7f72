"""`unimo-prep pairs`: captions with their images, in every JSON they come in."""

import json

import pytest

from data_prep.texts import cached_tokenizer
from unimo_ds.data.schema import read_manifest

SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6)


@pytest.fixture
def build(prep, tokenizer_file):
    def run(out, source, *more):
        return prep("pairs", out, source, "--tokenizer", tokenizer_file, *SMALL, *more)

    return run


def test_pairs_refer_to_their_images(
    build, make_pictures, write_lines, read_rows, sentences, tokenizer_file, tmp_path
):
    make_pictures(tmp_path / "p", 5)
    lines = [{"image": f"p/{n:03d}.png", "captions": sentences[: 1 + n % 3]} for n in (4, 2, 0, 1)]
    assert build(tmp_path / "o", write_lines(tmp_path / "a.jsonl", lines)).code == 0
    rows, images = read_rows(tmp_path / "o"), read_rows(tmp_path / "o" / "images")
    tokenizer = cached_tokenizer(str(tokenizer_file))
    for row, line in zip(rows, lines, strict=True):
        assert row["image_id"] == line["image"] == images[row["image_row"]]["id"]
        assert row["caption_texts"] == line["captions"]
        assert row["captions"] == tokenizer.encode(line["captions"])
    manifest, inner = read_manifest(tmp_path / "o"), read_manifest(tmp_path / "o" / "images")
    assert manifest.images == "images" and manifest.regions == inner.regions
    assert manifest.tokenizer == tokenizer.fingerprint and manifest.max_tokens == 510
    assert manifest.shards[0].length_sum == sum(len(c) for row in rows for c in row["captions"])


def test_captions_of_the_same_picture_are_one_pair(
    build, make_pictures, write_lines, read_rows, sentences, tmp_path
):
    make_pictures(tmp_path, 3)
    lines = [
        {"image": "000.png", "caption": sentences[0]},
        {"image": "001.png", "caption": sentences[1]},
        {"image": "./000.png", "caption": sentences[2]},
        {"image": "002.png", "caption": sentences[2]},
    ]
    assert build(tmp_path / "o", write_lines(tmp_path / "a.jsonl", lines)).code == 0
    rows = read_rows(tmp_path / "o")
    assert [row["id"] for row in rows] == ["000.png", "001.png", "002.png"]
    assert rows[0]["caption_texts"] == [sentences[0], sentences[2]]
    assert len(read_rows(tmp_path / "o" / "images")) == 3


def test_bad_pairs_and_captions(
    build, make_pictures, write_lines, read_rows, quarantine, sentences, tmp_path
):
    good = sentences[0]
    make_pictures(tmp_path / "p", 6)
    make_pictures(tmp_path / "other", 1)
    (tmp_path / "p" / "broken.png").write_bytes(b"x")
    lines = [
        {"image": "000.png", "captions": [good, " ", good]},
        {"image": "001.png", "captions": ["", ""]},
        {"image": "002.png", "captions": [good, good * 9]},
        {"image": "003.png", "captions": [good * 9]},
        {"image": "broken.png", "captions": [good]},
        {"image": "absent.png", "captions": [good]},
        {"image": "../other/000.png", "captions": [good]},
        {"image": "004.png"},
        {"captions": [good]},
        {"image": "004.png", "captions": [3]},
        b"\xff",
        b"{]",
        {"image": "005.png", "captions": [good]},
    ]
    source = write_lines(tmp_path / "p" / "a.jsonl", lines)
    ran = build(tmp_path / "o", source, "--max-tokens", 30, "--max-bad", 1)
    assert ran.code == 0
    found = sorted((bad["line"], bad["reason"]) for bad in quarantine(tmp_path / "o"))
    assert found == [
        (1, "empty_caption"),
        (2, "empty_caption"),
        (3, "too_long"),
        (4, "too_long"),
        (5, "broken_image"),
        (6, "missing_image"),
        (7, "path_escapes"),
        (8, "missing_field"),
        (9, "missing_field"),
        (10, "missing_field"),
        (11, "bad_utf8"),
        (12, "bad_json"),
    ]
    rows = read_rows(tmp_path / "o")
    assert [row["id"] for row in rows] == ["000.png", "002.png", "005.png"]
    assert [len(row["captions"]) for row in rows] == [2, 1, 1]
    assert [bad["record"] for bad in quarantine(tmp_path / "o" / "images")] == ["broken.png"]


def test_the_same_name_below_two_roots_is_not_the_same_picture(
    prep, make_pictures, write_lines, quarantine, read_rows, sentences, tokenizer_file, tmp_path
):
    sources = []
    for name in "ab":
        make_pictures(tmp_path / name, 3)
        lines = [{"image": "000.png", "captions": sentences}]
        sources.append(write_lines(tmp_path / name / "a.jsonl", lines))
    arguments = ("--tokenizer", tokenizer_file, *SMALL[:4], "--num-classes", 2, "--max-bad", 0.5)
    assert prep("pairs", tmp_path / "o", *sources, *arguments).code == 0
    assert [bad["reason"] for bad in quarantine(tmp_path / "o")] == ["duplicate_id"]
    assert len(read_rows(tmp_path / "o")[0]["captions"]) == 3


@pytest.mark.parametrize("form", ["list", "coco", "karpathy"])
def test_json_of_datasets(form, build, make_pictures, read_rows, sentences, tmp_path):
    make_pictures(tmp_path / "images", 4)
    names = [f"{n:03d}.png" for n in range(4)]
    if form == "list":
        content = [{"image": n, "captions": sentences, "split": "val"} for n in names[:3]]
        content.append({"image": names[3], "captions": sentences, "split": "train"})
    elif form == "coco":
        content = {
            "images": [{"id": i, "file_name": n} for i, n in enumerate(names[:3])],
            "annotations": [{"image_id": i, "caption": s} for s in sentences for i in range(3)],
        }
    else:
        content = {
            "images": [
                {"filename": n, "split": split, "sentences": [{"raw": s} for s in sentences]}
                for n, split in zip(names, ["val", "val", "val", "train"], strict=True)
            ]
        }
    source = tmp_path / "data.json"
    source.write_text(json.dumps(content))
    split = () if form == "coco" else ("--split", "val")
    ran = build(tmp_path / "o", source, "--image-root", tmp_path / "images", *split)
    assert ran.code == 0
    rows = read_rows(tmp_path / "o")
    assert [row["id"] for row in rows] == names[:3]
    assert all(row["caption_texts"] == sentences for row in rows)


def test_usage_errors(prep, build, make_pictures, write_lines, sentences, tokenizer_file, tmp_path):
    make_pictures(tmp_path, 1)
    source = write_lines(tmp_path / "a.jsonl", [{"image": "000.png", "captions": sentences}])
    (tmp_path / "odd.json").write_text('{"neither": 1}')
    for name, more, told in (
        ("a.jsonl", ("--regions", "precomputed"), "--features"),
        ("a.jsonl", ("--features", source), "--features"),
        ("odd.json", (), "neither a list"),
        ("absent.jsonl", (), "absent.jsonl"),
    ):
        ran = build(tmp_path / "o", tmp_path / name, *more)
        assert ran.code == 2 and told in ran.err, name
    ran = prep("pairs", tmp_path / "o", source, "--tokenizer", tmp_path / "none.json")
    assert ran.code == 2 and "no tokenizer" in ran.err


def test_pairs_without_a_single_picture(build, write_lines, quarantine, sentences, tmp_path):
    source = write_lines(tmp_path / "a.jsonl", [{"image": "no.png", "captions": sentences}])
    assert build(tmp_path / "o", source).code == 3
    assert [bad["reason"] for bad in quarantine(tmp_path / "o")] == ["missing_image"]
