"""Captions under every name, as text, list or series, in every form; bad ones cost themselves."""

import csv
import io
import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from data_prep.quarantine import Bad
from data_prep.readers.boxes import read_boxes
from data_prep.readers.fields import caption_fields, cell_captions, not_downloaded
from data_prep.readers.formats import Format, find_sources
from data_prep.readers.pairs import LeftOut, Pair, pairs_of, read_pictures
from data_prep.readers.visual_genome import genome_records

NAN = float("nan")
RECORDS = [
    ({"captions": "one"}, ("one",)),
    ({"caption": ["one", "two"]}, ("one", "two")),
    ({"Caption": "one", "title": "not this"}, ("one",)),
    ({"txt": "one"}, ("one",)),
    ({"sentences": [{"raw": "one", "tokens": ["one"]}, {"raw": "two"}]}, ("one", "two")),
    ({"caption_1": "two", "caption_0": "one", "caption_10": "three"}, ("one", "two", "three")),
    ({"sentence1": "one", "sentence2": "two"}, ("one", "two")),
    ({"TEXT": "one"}, ("one",)),
]
JSON_RECORDS = [
    *RECORDS,
    ({"captions": [{"caption": "one"}, {"caption": "two"}]}, ("one", "two")),
    ({"captions": None, "caption": "one"}, ("one",)),
    ({"Captions": " ", "caption_1": "two", "caption_0": "one"}, ("one", "two")),
]


def _read(path, form=None, splits=()):
    (source,) = find_sources([path], form, captioned=True)
    entries = list(pairs_of(source, splits))
    good = {e.image: e.captions for e in entries if isinstance(e, Pair)}
    bad = [(e.reason, e.detail) for e in entries if isinstance(e, Bad)]
    return good, bad, [e.what for e in entries if isinstance(e, LeftOut)]


def _said(path):
    good, bad, _ = _read(path)
    return list(good.values()), bad


def _tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.mark.parametrize(("fields", "captions"), JSON_RECORDS)
def test_json_in_every_place(fields, captions, make_pictures, tmp_path):
    picture = make_pictures(tmp_path / "p", 1)[0]
    text = json.dumps(fields)
    picture.with_suffix(".json").write_text(text)
    _tar(tmp_path / "s.tar", {"k.png": picture.read_bytes(), "k.json": text.encode()})
    record = json.dumps({"file_name": "a.jpg", **fields})
    (tmp_path / "c.jsonl").write_text(record + "\n")
    (tmp_path / "c.json").write_text(f"[{record}]")
    for source in ("p", "s.tar", "c.jsonl", "c.json"):
        good, bad, _ = _read(tmp_path / source)
        assert (list(good.values()), bad) == ([captions], []), source


@pytest.mark.parametrize(("fields", "captions"), RECORDS)
def test_columns_of_every_table(fields, captions, tmp_path):
    table = pa.Table.from_pylist([{"image_name": "a.jpg", **fields}])
    pq.write_table(table, tmp_path / "c.parquet")
    Dataset(table).save_to_disk(tmp_path / "saved")
    for source in ("c.parquet", "saved"):
        good, bad, _ = _read(tmp_path / source)
        assert (good, bad) == ({"a.jpg": captions}, []), source


def test_null_and_empty_captions_cost_themselves(make_pictures, tmp_path):
    mixed = ["one", None, " ", "two"]
    picture = make_pictures(tmp_path / "p", 1)[0]
    picture.with_suffix(".json").write_text(json.dumps({"caption": mixed}))
    record = {"image": "a.jpg", "captions": mixed}
    (tmp_path / "c.jsonl").write_text(json.dumps(record) + "\n")
    pq.write_table(pa.Table.from_pylist([record]), tmp_path / "c.parquet")
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg"}],
        "annotations": [{"image_id": 1, "caption": caption} for caption in mixed],
    }
    (tmp_path / "coco.json").write_text(json.dumps(coco))
    regions = [{"id": 1, "regions": [{"phrase": caption} for caption in mixed]}]
    (tmp_path / "genome.json").write_text(json.dumps(regions))
    assert next(genome_records(tmp_path / "genome.json")).captions == ("one", None, " ", "two")
    series = {"filename": "a.jpg"} | {f"caption_{n}": text for n, text in enumerate(mixed)}
    schema = pa.schema([(name, pa.string()) for name in series])
    pq.write_table(pa.Table.from_pylist([series], schema), tmp_path / "series.parquet")
    (tmp_path / "series.jsonl").write_text(json.dumps(series) + "\n")
    (tmp_path / "series.csv").write_text(f"{','.join(series)}\na.jpg,one,, ,two\n")
    expected = [("missing_field", "caption 2 is null"), ("empty_caption", "caption 3 is empty")]
    for source in ("p", "c.jsonl", "c.parquet", "coco.json", "genome.json"):
        assert _said(tmp_path / source) == ([("one", "two")], expected), source
    for source in ("series.parquet", "series.jsonl", "series.csv"):
        assert _said(tmp_path / source) == ([("one", "two")], []), source
    (tmp_path / "series.csv").write_text(f"{','.join(series)}\na.jpg,,, ,\n")
    assert _said(tmp_path / "series.csv")[1][0] == ("empty_caption", "caption 1 is empty")


@pytest.mark.parametrize("empty", [None, [], "", [" ", None]])
@pytest.mark.parametrize("field", ["caption", "captions", "sentences"])
def test_an_empty_caption_is_not_the_title(field, empty, make_pictures, tmp_path):
    record = {"image": "a.jpg", field: empty, "title": "DSC0001", "text": "of the page"}
    (tmp_path / "c.json").write_text(json.dumps([record]))
    make_pictures(tmp_path / "p", 1)[0].with_suffix(".json").write_text(json.dumps(record))
    for source in ("c.json", "p"):
        good, bad = _said(tmp_path / source)
        assert good == [] and len(bad) == 1, source


def test_a_picture_without_any_caption_is_lost_once(tmp_path):
    for captions, told in (
        ([None, None], "caption 1 is null, and no other is left"),
        ([" "], "caption 1 is empty"),
        ([7], "caption 1 is no text, but int"),
        ([], "nothing is said about the picture"),
        (None, "nothing is said about the picture"),
    ):
        (tmp_path / "c.json").write_text(json.dumps([{"image": "a.jpg", "caption": captions}]))
        good, bad, _ = _read(tmp_path / "c.json")
        assert good == {} and [detail for _, detail in bad] == [told]


@pytest.mark.parametrize(
    ("text", "fields", "captions"),
    [
        ("one\ntwo\n\n three\r\n", None, ("one", "two", "three")),  # CUB, Oxford flowers
        ("one\rtwo", None, ("one", "two")),
        ("one\u2028two\x0bthree", None, ("one two three",)),  # no ends of lines of a file
        ("over\n two lines", {"caption": "over\n two lines"}, ("over two lines",)),  # img2dataset
        ("one\ntwo", {"caption": "something else"}, ("one", "two")),
        ("one\ntwo", {"captions": ["one", "two"]}, ("one", "two")),
        (" \n", {"caption": "said here"}, ("said here",)),
    ],
)
def test_lines_of_a_txt_are_captions(text, fields, captions, make_pictures, tmp_path):
    picture = make_pictures(tmp_path / "p", 1)[0]
    members = {"k.png": picture.read_bytes(), "k.txt": text.encode()}
    picture.with_suffix(".txt").write_bytes(text.encode())
    if fields:
        members["k.json"] = json.dumps(fields).encode()
        picture.with_suffix(".json").write_bytes(members["k.json"])
    for source in (tmp_path / "p", _tar(tmp_path / "s.tar", members)):
        good, bad, _ = _read(source)
        assert (list(good.values()), bad) == ([captions], [])


def test_pictures_that_were_not_downloaded_are_counted_everywhere(make_pictures, tmp_path):
    states = ["success", "failed_to_download", None, "ok"]
    rows = [
        {"image_path": f"{n}.jpg", "caption": f"c {n}", "status": status}
        for n, status in enumerate(states)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "c.parquet")
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"{row['image_path']},{row['caption']},{row['status'] or ''}\n" for row in rows]
    (tmp_path / "c.csv").write_text("image_path,caption,status\n" + "".join(lines))
    for picture, row in zip(make_pictures(tmp_path / "p", 4), rows, strict=True):
        picture.with_suffix(".json").write_text(json.dumps(row))
    for source in ("c.parquet", "c.jsonl", "c.csv", "p"):
        good, bad, left_out = _read(tmp_path / source)
        assert list(good.values()) == [("c 0",), ("c 2",), ("c 3",)] and not bad, source
        assert left_out == ["status 'failed_to_download'"]
        if source != "p":
            assert len(read_pictures(find_sources([tmp_path / source])).left_out) == 1


@pytest.mark.parametrize(
    "good", ["success", "Success", "ok", "downloaded", "200", 200, 206.0, True, "True", "200.0"]
)
def test_status_of_a_download(good):
    assert not_downloaded(good) == ""


@pytest.mark.parametrize("nothing", [None, NAN, "", 0, 1, 7, "nan", " None", "NULL", "1.0"])
def test_what_is_no_status_of_a_download(nothing):
    assert not_downloaded(nothing) == ""


@pytest.mark.parametrize(
    "bad", ["failed_to_resize", "404", 404, 500.0, False, "x" * 99, "False", "404.0"]
)
def test_status_of_no_download(bad):
    assert not_downloaded(bad).startswith("status ") and len(not_downloaded(bad)) < 50


def test_names_of_fields():
    assert caption_fields(["image_name", " comment_number", " comment"]) == (" comment",)
    assert caption_fields(["caption", "caption_2", "Caption.1"]) == (
        "caption",
        "Caption.1",
        "caption_2",
    )
    assert caption_fields(["title", "text"]) == ("text",)
    assert caption_fields(["image", "caption_en", "captioned"]) == ()


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ('["a", "b"]', ("a", "b")),
        ("['it\\'s', \"b, c\"]", ("it's", "b, c")),
        ("[]", ()),
        (" [ ] ", ()),
        ('["a", null]', ("a", None)),
        ('["a", NaN]', ("a", None)),
        ("['a', None, nan]", ("a", None, None)),
        ('[{"raw": "a dog", "id": 3}, {"caption": "a fox"}]', ("a dog", "a fox")),
        ("[a dog] runs", ("[a dog] runs",)),
        ("[untitled]", ("[untitled]",)),
        ("[1, 2]", ("[1, 2]",)),
        ("['Tis the season] at [home]", ("['Tis the season] at [home]",)),
        ('["Hello" she said]', ('["Hello" she said]',)),
        ("[__import__('os')]", ("[__import__('os')]",)),
        ("[" * 9_000 + "]", ("[" * 9_000 + "]",)),
    ],
)
def test_lists_in_cells(cell, captions):
    assert cell_captions(cell) == captions


@pytest.mark.parametrize(
    "cell",
    [
        *("['a' 'b']", "['a dog'\n \"it's b\"]", "['a', 7]", "[None, 'a', x]", "['a'] ['b']"),
        *("[{'raw': 'a dog', 'tokens': ['a', 'dog']}]", "[np.str_('a'), np.str_('b')]"),
        "['\\N{none}']",
    ],
)
def test_a_list_in_a_cell_that_cannot_be_read_is_told(cell, tmp_path):
    with (tmp_path / "c.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([["image", "caption"], ["a.jpg", cell], ["b.jpg", "[]"]])
    good, bad, _ = _read(tmp_path / "c.csv")
    assert not good and [reason for reason, _ in bad] == ["bad_record", "missing_field"]
    assert bad[0][1] == f"a list that neither JSON nor Python reads as texts: {cell!r}"


def test_boxes_name_pictures_as_captions_do(tmp_path):
    for name in ("image", "file_name", "Image_Path"):
        (tmp_path / "b.jsonl").write_text(json.dumps({name: "a.jpg", "boxes": [[0, 0, 5, 5]]}))
        assert [found.image for found in read_boxes(tmp_path / "b.jsonl")] == ["a.jpg"]


def test_a_json_of_one_object_a_line_is_told_from_cocos(tmp_path):
    (tmp_path / "c.json").write_text('{"id": 1, "file_name": "a.jpg", "sentences": ["one"]}\n' * 2)
    assert [source.form for source in find_sources([tmp_path / "c.json"])] == [Format.JSONL]
