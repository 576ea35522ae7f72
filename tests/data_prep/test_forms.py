"""Every form of source gives the same pairs and pictures; which form it is, is found by itself."""

import json
import os
import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.readers.formats import Format, detect, find_sources
from data_prep.readers.pairs import Pair, holds_captions, read_pairs
from tests.data_prep.source_forms import FORMS, write_tar
from unimo_ds.tokenizer import load_tokenizer

SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6)


@pytest.fixture
def pairs(make_pictures, sentences, tmp_path):
    """Five pictures with one to three captions each; quotes and commas among them."""
    paths = make_pictures(tmp_path / "p", 5)
    said = [*sentences, 'a "star", red, and so on.']
    return [(path, [f"{text} {n}" for text in said[: 1 + n % 3]]) for n, path in enumerate(paths)]


@pytest.fixture(scope="module")
def expected():
    """Filled by the first form, for the others to compare with."""
    return {}


@pytest.mark.parametrize("name", FORMS)
def test_every_form_gives_the_same(
    name, pairs, expected, prep, tokenizer_file, read_rows, quarantine, tmp_path
):
    source = FORMS[name](tmp_path / "p", pairs)
    form = detect(source, captioned=True)
    assert name.startswith(form)
    arguments = ("--tokenizer", tokenizer_file, *SMALL)
    ran = prep("pairs", tmp_path / "o", source, *arguments)
    assert ran.code == 0, ran.err
    rows, images = read_rows(tmp_path / "o"), read_rows(tmp_path / "o" / "images")
    order = sorted(range(5), key=lambda n: n % 2) if name == "webdataset" else range(5)
    assert [row["caption_texts"] for row in rows] == [pairs[n][1] for n in order]
    assert len({row["id"] for row in rows}) == 5
    others = {"sidecars": ["*.parquet"], "webdataset": ["*.cls", "*.cls"]}.get(name, [])
    assert [(q["reason"], q["detail"]) for q in quarantine(tmp_path / "o")] == [
        ("left_out", f"files of other kinds: {n} ({suffix})")
        for n, suffix in zip((3, 2) if len(others) > 1 else (1,), others, strict=False)
    ]
    features = [np.float16(images[row["image_row"]]["features"]) for row in rows]
    features = [features[list(order).index(n)] for n in range(5)]
    assert np.array_equal(features, expected.setdefault("features", features))
    assert prep("verify", tmp_path / "o").code == 0

    ran = prep("images", tmp_path / "i", source, *SMALL)
    assert ran.code == 0, ran.err
    assert [row["id"] for row in read_rows(tmp_path / "i")] == [row["id"] for row in rows]


def test_ids_of_pictures_in_containers(pairs, tmp_path):
    def ids(name):
        found = read_pairs(find_sources([FORMS[name](tmp_path / "p", pairs)], captioned=True))
        return [pair.picture.id for pair in found.entries[:2]]

    assert ids("webdataset") == ["00000.tar/000.png", "00000.tar/002.png"]
    assert ids("parquet") == [f"train-00000-of-00001.parquet#{row}" for row in (0, 1)]
    assert ids("dataset") == [f"data-00000-of-00001.arrow#{row}" for row in (0, 1)]


def test_several_workers_read_pictures_in_containers(pairs, prep, contents, tmp_path):
    sources = [FORMS[name](tmp_path / "p", pairs) for name in ("webdataset", "parquet", "dataset")]
    small = (*SMALL, "--rows-per-shard", 2)
    assert prep("images", tmp_path / "one", *sources, *small).code == 0
    assert prep("images", tmp_path / "two", *sources, *small, "--workers", 2).code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert sum(name.endswith(".arrow") for name in contents(tmp_path / "one")) == 8


def test_shards_by_folder_by_glob_and_by_braces(pairs, tmp_path):
    folder = write_tar(tmp_path / "p", pairs)
    by_folder = find_sources([folder], captioned=True)
    assert (
        by_folder == find_sources([folder / "*.tar"]) == find_sources([folder / "0000{0..1}.tar"])
    )
    assert [source.label for source in by_folder] == ["00000.tar", "00001.tar"]
    for braces in ("{00000..00001}", "{00000..1}", "{000..0}0{0..1}", "0000{0,1}"):
        assert find_sources([folder / f"{braces}.tar"]) == by_folder
    for name, told in (
        ("{00000..00002}.tar", "00002.tar"),
        ("x*.tar", "x*.tar"),
        ("{0..999}{0..9999}.tar", "more than 1,000,000 files"),
        ("{0..99999999999}.tar", "more than 1,000,000 files"),
    ):
        with pytest.raises(ValueError, match=re.escape(told)):
            find_sources([folder / name])


def test_shards_of_the_same_name_keep_their_ids_apart(pairs, tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        write_tar(tmp_path / name, pairs)
    sources = find_sources([tmp_path / "a" / "shards", tmp_path / "b" / "shards"])
    assert [s.label for s in sources[::2]] == ["a/shards/00000.tar", "b/shards/00000.tar"]
    assert len(read_pairs(sources).entries) == 10


def test_folders_are_told_apart(pairs, make_pictures, tmp_path):
    plain = tmp_path / "plain"
    make_pictures(plain / "sub", 2)
    assert detect(plain) is Format.FOLDER
    with pytest.raises(ValueError, match="looked for: a folder of pictures"):
        detect(plain, captioned=True)
    assert detect(FORMS["sidecars"](tmp_path / "p", pairs)) is Format.FOLDER
    (tmp_path / "q").mkdir()
    FORMS["parquet"](tmp_path / "q", pairs)
    assert detect(tmp_path / "q", captioned=True) is Format.PARQUET


@pytest.mark.parametrize(
    ("name", "content", "form"),
    [
        ("a.json", '[{"image_id": 1, "objects": [], "relationships": []}]', Format.VISUAL_GENOME),
        ("a.json", '[{"id": 1, "regions": []}]', Format.VISUAL_GENOME),
        ("a.json", '{"info": {}, "images": [{"id": 1, "file_name": "x"}]}', Format.COCO),
        ("a.json", '{"annotations": [{"bbox": []}]}', Format.COCO),
        ("a.json", '{"image": "x", "caption": "y"}\n{"image": "z"}', Format.JSONL),
        ("a", ' \n[{"image": "x"}]', Format.JSON),
        ("a.csv", "path\tcomment\n", Format.TABLE),
        ("a.tsv", "a dog\thttp://x.example/y.jpg\n", Format.CONCEPTUAL),
        ("a.tsv", "url\tcaption\n", Format.CONCEPTUAL),
        ("a.lst", "1.jpg#0\ta dog\n", Format.FLICKR),
        ("a.jsonl.gz", "", Format.JSONL),
    ],
)
def test_files_are_told_apart(name, content, form, tmp_path):
    (tmp_path / name).write_text(content)
    assert detect(tmp_path / name) is form


@pytest.mark.parametrize("content", ["", "just text\n", "\x00\xff binary", "a,b,c\n1,2,3\n"])
def test_what_is_of_no_form_is_refused_with_a_list(content, tmp_path):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(ValueError, match=r"a\.txt is of no known format; looked for: a folder"):
        find_sources([tmp_path / "a.txt"])


def test_a_form_can_be_forced(prep, make_pictures, sentences, tokenizer_file, tmp_path):
    make_pictures(tmp_path, 2)
    source = tmp_path / "odd.name"
    source.write_text("".join(f"{s}\t00{n}.png\n" for n, s in enumerate(sentences[:2])))
    more = (source, "--tokenizer", tokenizer_file, *SMALL, "--max-bad", 1)
    assert prep("pairs", tmp_path / "a", *more).code == 0
    ran = prep("pairs", tmp_path / "b", *more, "--format", "flickr-token")
    assert ran.code == 3 and "2 bad_record" in ran.err
    ran = prep("pairs", tmp_path / "c", *more, "--format", "folder")
    assert ran.code == 2 and "without captions" in ran.err
    ran = prep("pairs", tmp_path / "d", *more, "--format", "mp4")
    assert ran.code == 2 and "karpathy" in ran.err


def test_sources_that_are_no_files(prep, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    for name, told in (
        (tmp_path / "fifo", "pipe or a device"),
        ("/dev/zero", "pipe or a device"),
        ("pipe:touch hacked", "nothing is fetched or run"),
        (tmp_path / "absent.json", "no file"),
    ):
        ran = prep("images", tmp_path / "o", name)
        assert ran.code == 2 and told in ran.err, ran.err


@pytest.mark.parametrize("name", FORMS)
def test_the_tokenizer_learns_from_captions_of_every_form(name, pairs, prep, tmp_path):
    said = [(path, [*captions, "zebra zebra zebra zebra"]) for path, captions in pairs]
    source = FORMS[name](tmp_path / "p", said)
    out = tmp_path / "tokenizer.json"
    assert prep("tokenizer", out, source, "--vocab-size", 330).code == 0
    tokenizer = load_tokenizer(out)
    assert len(tokenizer.encode(["zebra"])[0]) < len(tokenizer.encode(["brzea"])[0])


def test_documents_are_not_taken_for_captions(tmp_path):
    (tmp_path / "a.txt").write_text("one\ttwo\nthree\n")
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n' * 200)
    (tmp_path / "c.parquet").write_bytes(b"no table")
    pq.write_table(pa.table({"text": ["one"], "id": ["1"]}), tmp_path / "d.parquet")
    for name in ("a.txt", "b.jsonl", "c.parquet", "d.parquet", "absent"):
        assert not holds_captions(tmp_path / name), name


def test_a_source_twice_says_nothing_twice(pairs, tmp_path):
    source = FORMS["webdataset"](tmp_path / "p", pairs)
    entries = read_pairs(find_sources([source, source / "00001.tar"])).entries
    assert all(isinstance(entry, Pair) for entry in entries) and len(entries) == 5


def test_records_of_other_splits_are_counted(
    prep, make_pictures, sentences, tokenizer_file, read_rows, tmp_path
):
    make_pictures(tmp_path, 6)
    splits = ["train", "restval", "val", "test", "test", "train"]
    images = [
        {"filename": f"{n:03d}.png", "split": split, "sentences": [{"raw": s} for s in sentences]}
        for n, split in enumerate(splits)
    ]
    karpathy, listed = tmp_path / "k.json", tmp_path / "l.json"
    karpathy.write_text(json.dumps({"images": images, "dataset": "coco"}))
    records = [{"image": i["filename"], "captions": sentences, "split": i["split"]} for i in images]
    listed.write_text(json.dumps(records))
    more = ("--tokenizer", tokenizer_file, *SMALL[:4], "--num-classes", 2, "--split", "train")
    ran = prep("pairs", tmp_path / "a", karpathy, *more)
    assert ran.code == 0
    assert [row["id"] for row in read_rows(tmp_path / "a")] == ["000.png", "001.png", "005.png"]
    assert f"left out of {karpathy}: split 'val': 1 (" in ran.err
    assert f"left out of {karpathy}: split 'test': 2 (" in ran.err
    ran = prep("pairs", tmp_path / "b", listed, *more)
    assert len(read_rows(tmp_path / "b")) == 2 and "split 'restval': 1" in ran.err
    ran = prep("pairs", tmp_path / "c", karpathy, *more[:-1], "dev")
    assert ran.code == 2 and "no record of --split dev" in ran.err and "'restval'" in ran.err
