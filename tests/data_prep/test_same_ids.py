"""Ids that come again: told, never the captions of another picture, and decided by who is whole."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from data_prep.engine import Options
from data_prep.readers.boxes import BoxSet, read_boxes
from data_prep.readers.images import picture_below
from data_prep.regions.class_names import load_vocabulary
from data_prep.regions.pixels import PixelReader
from data_prep.regions.rivals import settled
from tests.data_prep.test_region_tables import unimo_line
from unimo_ds.pixels import PixelGrid

SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 2, "--max-bad", 1)


@pytest.fixture
def build(prep, read_rows, quarantine, tokenizer_file, tmp_path):
    """A pairs corpus: id -> captions of its rows, and (reason, line, record) of its quarantine."""

    def run(*sources, more=()):
        small = ("--max-bad", 1) if "--features" in more else SMALL
        arguments = ("--tokenizer", tokenizer_file, *small, *more)
        ran = prep("pairs", tmp_path / "o", *sources, *arguments)
        assert ran.code == 0, ran.err
        captions = {row["id"]: row["caption_texts"] for row in read_rows(tmp_path / "o")}
        bad = [(q["reason"], q["line"], q["record"]) for q in quarantine(tmp_path / "o")]
        return captions, bad

    return run


def _coco(path, images, captions):
    content = {
        "images": [dict(zip(("id", "file_name"), image, strict=False)) for image in images],
        "annotations": [{"image_id": image, "caption": text} for image, text in captions],
    }
    path.write_text(json.dumps(content))
    return path


def test_a_coco_id_of_three_files_is_nobodys_and_one_without_a_name_hides_no_other(
    build, prep, make_pictures, read_rows, tmp_path
):
    make_pictures(tmp_path, 5)
    names = [f"{n:03d}.png" for n in range(5)]
    images = [("7", names[0]), ("7", names[1]), ("x", None), ("x", names[2]), ("7", names[3])]
    images += [("y", names[4]), ("y", names[4])]
    captions = [("7", "a dog"), ("x", "a fox"), ("7", "a ring"), ("y", "a star")]
    file = _coco(tmp_path / "merged.json", images, captions)
    found, bad = build(file)
    assert found == {names[2]: ["a fox"], names[4]: ["a star"]}
    twice = [("duplicate_id", line, names[n]) for line, n in ((1, 0), (2, 1), (5, 3))]
    assert sorted(bad) == [*twice, ("missing_field", 3, "x")]
    assert prep("images", tmp_path / "i", file, *SMALL).code == 0  # which have no captions
    assert {row["id"] for row in read_rows(tmp_path / "i")} == {*names}


def test_a_coco_name_of_pictures_of_two_sizes_is_nobodys(build, make_pictures, tmp_path):
    make_pictures(tmp_path, 3)
    sizes = [(1, 0, 640, 480), (2, 1, 640, 480), (3, 0, 500, 333), (4, 1, 640, 480), (5, 2, 9, 9)]
    images = [
        {"id": image, "file_name": f"{n:03d}.png", "width": width, "height": height}
        for image, n, width, height in [*sizes, (6, 2, None, None)]
    ]
    said = ["a dog", "a fox", "a ring", "a star", "a hen"]
    annotations = [
        {"image_id": image, "caption": text, "bbox": [0, 0, 2, 2]}
        for image, text in enumerate(said, 1)
    ]
    file = tmp_path / "merged.json"
    file.write_text(json.dumps({"images": images, "annotations": annotations}))
    found, bad = build(file)
    assert found == {"001.png": ["a fox", "a star"], "002.png": ["a hen"]}
    twice = [("duplicate_id", line, "000.png") for line in (1, 3)]
    assert sorted(bad) == [*twice, ("missing_field", 6, "002.png")]
    drawn = list(read_boxes(file))
    assert [(e.reason, e.line, e.record) for e in drawn if not isinstance(e, BoxSet)] == twice
    assert [e.line for e in drawn if isinstance(e, BoxSet)] == [2, 4, 5, 6]


def test_coco_boxes_of_a_shared_image_or_category_id(tmp_path):
    images = [{"id": n, "file_name": name} for n, name in ((1, "a"), (2, "b"), (1, "c"))]
    boxes = [{"image_id": n, "bbox": [0, 0, 2, 2], "category_id": 5} for n in (1, 2)]
    content = {"images": images, "annotations": boxes, "categories": [{"id": 5, "name": "dog"}]}
    file = tmp_path / "instances.json"
    file.write_text(json.dumps(content))
    found = list(read_boxes(file))
    assert [entry.image for entry in found if isinstance(entry, BoxSet)] == ["b"]
    bad = [entry for entry in found if not isinstance(entry, BoxSet)]
    assert [(entry.reason, entry.record) for entry in bad] == [
        ("duplicate_id", "a"),
        ("duplicate_id", "c"),
    ]
    content["categories"].append({"id": 5, "name": "cat"})
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"category id 5 is both 'dog' and 'cat'.*id of its own"):
        list(read_boxes(file))


def test_a_picture_that_two_records_guess_belongs_to_neither(build, make_pictures, tmp_path):
    make_pictures(tmp_path, 3)
    images = [
        {"filepath": folder, "filename": f"{n:03d}.png", "sentences": [{"raw": text}]}
        for folder, n, text in (("train", 0, "a dog"), ("val", 0, "a fox"), ("val", 1, "a ring"))
    ]
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps({"images": images}))
    found, bad = build(file)
    assert found == {"001.png": ["a ring"]}
    assert bad == [("duplicate_id", 1, "train/000.png"), ("duplicate_id", 2, "val/000.png")]


def test_rows_of_two_lists_with_one_number_and_a_url_that_comes_twice(
    build, make_pictures, tmp_path
):
    make_pictures(tmp_path, 2)
    for n in range(2):
        (tmp_path / f"{n:03d}.png").rename(tmp_path / f"{n:09d}.png")
    make_pictures(tmp_path / "again", 1)[0].rename(tmp_path / "again" / "dog.png")
    (tmp_path / "train.tsv").write_text("a dog\thttp://x.example/1\na fox\thttp://x.example/2\n")
    (tmp_path / "val.tsv").write_text("a red ring\thttp://x.example/3\n")
    same = "\thttp://x.example/dog.png\n"
    (tmp_path / "again" / "more.tsv").write_text(f"dog one{same}dog two{same}")
    found, bad = build(*(tmp_path / f"{name}.tsv" for name in ("train", "val", "again/more")))
    assert found == {"000000001.png": ["a fox"], "dog.png": ["dog one", "dog two"]}
    assert [(reason, line) for reason, line, _ in bad] == [("duplicate_id", 1)] * 2


def test_a_broken_picture_does_not_hide_the_whole_one_behind_it(
    build, prep, make_pictures, write_lines, read_rows, quarantine, sentences, tmp_path
):
    sources = []
    for name in "abc":
        make_pictures(tmp_path / name, 3)
        lines = [{"image": f"00{n}.png", "captions": [f"{name} {n}"]} for n in range(3)]
        sources.append(write_lines(tmp_path / name / "pairs.jsonl", lines))
    (tmp_path / "a" / "000.png").write_bytes(b"\x89PNG\r\n\x1a\n cut")
    for name in "ab":
        (tmp_path / name / "001.png").write_bytes(b"")
    found, bad = build(*sources)
    assert found == {"000.png": ["b 0"], "001.png": ["c 1"], "002.png": ["a 2"]}
    broken = [("broken_image", 1, "000.png"), *[("broken_image", 2, "001.png")] * 2]
    assert sorted(bad) == [*broken, *(("duplicate_id", n, f"00{n - 1}.png") for n in (1, 3, 3))]
    inner = quarantine(tmp_path / "o" / "images")
    assert sorted(q["reason"] for q in inner) == ["broken_image"] * 3 + ["duplicate_id"] * 3


def test_captions_that_are_all_too_long_do_not_hide_a_picture_of_the_same_name(
    build, make_pictures, write_lines, tmp_path
):
    sources = []
    for name, text in (("a", "a red star " * 30), ("b", "a dog")):
        make_pictures(tmp_path / name, 1)
        line = {"image": "000.png", "captions": [text]}
        sources.append(write_lines(tmp_path / name / "pairs.jsonl", [line]))
    found, bad = build(*sources, more=("--max-tokens", 20))
    assert found == {"000.png": ["a dog"]} and bad == [("too_long", 1, "000.png")]


def test_rivals_are_settled_alike_by_any_number_of_workers(make_pictures, tmp_path):
    """More of them than one task takes, every third id with a broken picture first."""
    reader = PixelReader(PixelGrid(grid=1, patch=4))
    records = []
    for folder in ("a", "b"):
        for n, path in enumerate(make_pictures(tmp_path / folder, 40)):
            if folder == "a" and n % 3 == 0:
                path.write_bytes(b"broken")
            records.append(picture_below(tmp_path / folder, path.name, folder, n + 1))
    found = [
        settled(reader, records, Options(command=[], workers=workers), one_image=False)
        for workers in (1, 2)
    ]
    assert found[0] == found[1]
    sources = {record.id: record.source for record in found[0].records}
    assert sources == {f"{n:03d}.png": "b" if n % 3 == 0 else "a" for n in range(40)}
    reasons = [entry.reason for entry in found[0].bad]
    assert reasons.count("broken_image") == 14 and reasons.count("duplicate_id") == 26


def test_a_damaged_row_of_a_table_hides_no_other_and_two_images_of_one_id_get_no_captions(
    prep, write_lines, read_rows, quarantine, tokenizer_file, tmp_path
):
    nan = np.full((3, 12), np.nan, np.float32)
    lines = [unimo_line(1, features=nan), unimo_line(1), unimo_line(2), unimo_line(2)]
    lines += [unimo_line(3), unimo_line(9).replace("9", "3", 1)]
    table = tmp_path / "features.tsv"
    table.write_text("".join(lines))
    precomputed = ("--regions", "precomputed", "--max-bad", 1)
    assert prep("images", tmp_path / "i", table, *precomputed).code == 0
    assert [row["id"] for row in read_rows(tmp_path / "i")] == ["1", "2", "3"]
    bad = [(q["reason"], q["line"]) for q in quarantine(tmp_path / "i")]
    assert bad == [("non_finite_features", 1), ("duplicate_id", 4), ("duplicate_id", 6)]

    pairs = [{"image": str(n), "captions": [f"text {n}"]} for n in (1, 2, 3)]
    source = write_lines(tmp_path / "pairs.jsonl", pairs)
    more = ("--features", table, "--tokenizer", tokenizer_file)
    assert prep("pairs", tmp_path / "p", source, *precomputed, *more).code == 0
    rows = read_rows(tmp_path / "p")
    assert {row["id"]: row["caption_texts"] for row in rows} == {"1": ["text 1"], "2": ["text 2"]}
    (lost,) = quarantine(tmp_path / "p")
    assert (lost["reason"], lost["record"]) == ("duplicate_id", "3")
    assert "captions may be about either" in lost["detail"]


def _picture(red):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def _tar(path, *members):
    with tarfile.open(path, "w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def test_a_key_of_two_joined_tars_gives_no_picture_the_caption_of_the_other(build, tmp_path):
    first = [("0.png", _picture(9)), ("1.png", b"broken"), ("1.txt", b"broken one")]
    second = [("0.txt", b"of the second"), ("0.png", _picture(99)), ("1.png", _picture(5))]
    second += [("1.txt", b"whole one"), ("2.png", _picture(7)), ("2.json", b'{"caption": "two"}')]
    found, bad = build(_tar(tmp_path / "s.tar", *first, *second))
    assert found == {
        "s.tar/0.png": ["of the second"],
        "s.tar/1.png": ["whole one"],
        "s.tar/2.png": ["two"],
    }
    assert bad == [("missing_field", 1, "s.tar/0.png"), ("broken_image", 2, "s.tar/1.png")]


def test_a_key_of_two_tars_finds_no_row_of_a_table(build, tmp_path):
    tars = [
        _tar(tmp_path / f"{name}.tar", ("1.png", _picture(1)), ("1.txt", name.encode()), *more)
        for name, more in (("a", [("2.png", _picture(2)), ("2.txt", b"a fox")]), ("b", []))
    ]
    table = tmp_path / "features.tsv"
    table.write_text(unimo_line(1) + unimo_line(2))
    found, bad = build(*tars, more=("--regions", "precomputed", "--features", table))
    assert found == {"2": ["a fox"]}
    assert bad == [("duplicate_id", 1, f"{name}.tar/1.png") for name in "ab"]


def test_a_name_of_two_classes_and_a_size_of_two_pictures(prep, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("dog,hound\nbackground\ncat\nfox, Hound\n")
    with pytest.raises(ValueError, match=r"line 4: 'hound' is a name of line 1, too"):
        load_vocabulary(str(names))
    names.write_text("dog,hound\nbackground\ncat\n")  # as in Visual Genome's list
    assert load_vocabulary(str(names)).id_of("Background") == 0

    (tmp_path / "a.feature.tsv").write_text('7\t{"num_boxes": 1, "features": ""}\n')
    size = '[{{"height": {}, "width": 80}}]'
    lines = [f"7\t{size.format(height)}\n" for height in (50, 60)]
    (tmp_path / "a.hw.tsv").write_text("".join(lines))
    ran = prep("images", tmp_path / "o", tmp_path / "a.feature.tsv", "--regions", "precomputed")
    assert ran.code == 2 and "line 2: '7' is 80 x 60, before it was 80 x 50" in ran.err


def test_a_captioned_picture_that_comes_whole_behind_a_broken_one_is_taken(
    prep, read_rows, quarantine, tmp_path
):
    members = [("a.png", b"broken"), ("a.txt", b"a dog"), ("b.png", _picture(3))]
    members += [("b.txt", b"a fox"), ("a.png", _picture(5)), ("a.txt", b"a ring")]
    tar = _tar(tmp_path / "s.tar", *members)
    assert prep("images", tmp_path / "o", tar, *SMALL).code == 0
    assert {row["id"] for row in read_rows(tmp_path / "o")} == {"s.tar/a.png", "s.tar/b.png"}
    assert [(q["reason"], q["line"]) for q in quarantine(tmp_path / "o")] == [("broken_image", 1)]
