"""Captions out of JSON, tables and Visual Genome: what is taken, and what is told of the rest."""

import json
import zlib

import pytest

from data_prep.quarantine import Bad
from data_prep.readers.formats import Format, Source
from data_prep.readers.json_stream import json_items
from data_prep.readers.pairs import picture_of, read_pairs


def _read(path, form):
    found = read_pairs([Source(path, form, path.name)])
    good = [e for e in found.entries if not isinstance(e, Bad)]
    return good, [(e.line, e.reason) for e in found.entries if isinstance(e, Bad)]


def _json(path, value):
    path.write_text(json.dumps(value))
    return path


def test_token_lines(tmp_path):
    path = tmp_path / "t.token"
    lines = [
        b"\xef\xbb\xbfa.jpg#0\tone",
        b"a.jpg#1\ttwo\twith a tab",
        b"b.jpg#0\t ",
        b"",
        b"no number\tx",
        b"b.jpg#x\ty",
        b"\xff.jpg#0\ty",
        b"a#b.jpg#4\tthree\r",
    ]
    path.write_bytes(b"\n".join(lines))
    good, bad = _read(path, Format.FLICKR)
    assert [(p.image, p.captions, p.line) for p in good] == [
        ("a.jpg", ("one", "two with a tab"), 1),
        ("a#b.jpg", ("three",), 8),
    ]
    assert bad == [(3, "empty_caption"), (5, "bad_record"), (6, "bad_record"), (7, "bad_utf8")]


def test_flickr30k_bars_with_its_broken_row(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text(
        "image_name| comment_number| comment\n"
        '1.jpg| 0| a "dog" | no\n'
        '1.jpg| 1| a "dog\n'
        "2199200615.jpg| 4   A dog runs across the grass .\n"
        "2.jpg| 0|  \n"
        "| 0| x\n"
        "3.jpg| 0| last\n"
    )
    good, bad = _read(path, Format.TABLE)
    assert [(p.image, p.captions) for p in good] == [("1.jpg", ('a "dog',)), ("3.jpg", ("last",))]
    assert bad == [
        (2, "bad_record"),
        (4, "bad_record"),
        (5, "empty_caption"),
        (6, "missing_field"),
    ]


def test_quoted_commas(tmp_path):
    path = tmp_path / "captions.csv"
    path.write_bytes(
        b'id,"image",caption\n'
        b'1,a.jpg,"one, two ""three"""\n'
        b'2,b.jpg,"over\ntwo lines"\n'
        b"3,c.jpg,\xff\n"
        b'4,d.jpg,"x"y\n'
        b"5,e.jpg\n"
        b"\n"
        b"6,f.jpg,good\n"
        b'7,g.jpg,"never ends\n'
        b"8,h.jpg,swallowed no more\n"
    )
    good, bad = _read(path, Format.TABLE)
    assert [(p.image, p.captions, p.line) for p in good] == [
        ("a.jpg", ('one, two "three"',), 2),
        ("b.jpg", ("over two lines",), 3),
        ("f.jpg", ("good",), 9),
        ("h.jpg", ("swallowed no more",), 11),
    ]
    assert bad == [(5, "bad_utf8"), (6, "bad_record"), (7, "bad_record"), (10, "bad_record")]


def test_tables_without_a_header_or_with_a_giant_field(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("a.jpg,a dog\n")
    with pytest.raises(ValueError, match=r"a\.csv, line 1: expected a header with one of image"):
        _read(path, Format.TABLE)
    path.write_text("image,caption\na.jpg,one\nb.jpg," + "x" * 200_000 + "\nc.jpg,two\n")
    good, bad = _read(path, Format.TABLE)
    assert [p.image for p in good] == ["a.jpg", "c.jpg"] and bad == [(3, "too_large")]


def test_conceptual_captions_find_local_pictures_and_fetch_none(tmp_path):
    urls = [
        "http://a.example/x/one.jpg?w=3",
        "http://a.example/image.jpg",
        "https://b.example/image.jpg",
        "http://c.example/%C3%A9t%C3%A9.jpg",
        "http://c.example/",
        "http://c.example/p.jpg",
        "sub/here.jpg",
        "http://a.example/..",
    ]
    crc = zlib.crc32(urls[4].encode())
    names = {
        0: "one.jpg",
        2: "00000/000000002.png",
        3: "été.jpg",
        4: f"4_{crc}",
        5: "000000005.jpg",
        6: "sub/here.jpg",
    }
    for name in [*names.values(), "image.jpg", "p.jpg"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    path = tmp_path / "cc.tsv"
    for header, swapped in (("", False), ("url\tcaption\n", True), ("caption\turl\n", False)):
        lines = (f"{u}\tsay {n}\n" if swapped else f"say {n}\t{u}\n" for n, u in enumerate(urls))
        path.write_text(header + "".join(lines) + "three\tcolumns\there\n")
        good, bad = _read(path, Format.CONCEPTUAL)
        assert bad == [(9 + bool(header), "bad_record")]
        assert [pair.captions for pair in good] == [(f"say {n}",) for n in range(8)]
        found = {}
        for row, pair in enumerate(good):
            try:
                found[row] = picture_of(pair, str(path), None).id
            except Exception as error:
                assert "missing_image" in str(error) and "others of its" in str(error)
        assert found == names  # image.jpg ends two urls: it may be either, so it is neither


def test_region_descriptions_and_scene_graphs(tmp_path):
    regions = [
        {"id": 1, "regions": [{"phrase": "a cat"}, {"phrase": " a dog "}, {"phrase": "a cat"}]},
        {"id": 2, "regions": [{"phrase": 3}]},
        {"id": 3, "regions": []},
        {"regions": []},
        {"id": 4, "regions": [{}]},
        7,
    ]
    good, bad = _read(_json(tmp_path / "r.json", regions), Format.VISUAL_GENOME)
    (only,) = good
    assert only.image == "1.jpg" and only.captions == ("a cat", "a dog")
    assert bad == [
        (2, "missing_field"),
        (3, "missing_field"),
        (4, "bad_record"),
        (5, "bad_record"),
        (6, "bad_record"),
    ]
    graphs = [
        {
            "image_id": 5,
            "objects": [
                {"object_id": 8, "names": ["tree"], "attributes": ["tall", "green"]},
                {"object_id": 9, "name": "man"},
            ],
            "relationships": [{"subject_id": 9, "object_id": 8, "predicate": "STANDS under"}],
        },
        {"image_id": 6, "objects": [], "relationships": [{"subject_id": 1, "object_id": 2}]},
    ]
    good, bad = _read(_json(tmp_path / "g.json", graphs), Format.VISUAL_GENOME)
    assert good[0].captions == ("tall tree", "green tree", "man stands under tree")
    assert bad == [(2, "bad_record")]
    (tmp_path / "VG_100K_2").mkdir()
    (tmp_path / "VG_100K_2" / "5.jpg").touch()
    assert picture_of(good[0], str(tmp_path / "g.json"), None).id == "VG_100K_2/5.jpg"


def test_coco_items_of_another_form(tmp_path):
    content = {
        "images": [{"id": 1, "file_name": "a"}, {"id": 2}, 3, {"id": 4, "file_name": ""}],
        "annotations": [
            {"image_id": 1, "caption": "x"},
            {"image_id": 9, "caption": "y"},
            {"caption": "z"},
            {"image_id": 1, "caption": None},
        ],
    }
    good, bad = _read(_json(tmp_path / "c.json", content), Format.COCO)
    assert [(pair.image, pair.captions) for pair in good] == [("a", ("x",))]
    assert bad == [
        (2, "bad_record"),
        (3, "bad_record"),
        (4, "missing_field"),
        (3, "bad_record"),
        (0, "missing_image"),
        (1, "missing_field"),
    ]
    boxes = {"images": [{"id": 1, "file_name": "a"}], "annotations": [{"image_id": 1, "bbox": []}]}
    with pytest.raises(ValueError, match=r"b\.json holds no caption \(1 annotations.*--boxes"):
        _read(_json(tmp_path / "b.json", boxes), Format.COCO)


def test_karpathy_items_of_another_form(tmp_path):
    images = [
        {"filename": "a", "sentences": [{"raw": "x"}, {"raw": ""}], "split": None},
        {"filename": "b", "sentences": [{"tokens": []}]},
        {"sentences": []},
        None,
        {"filename": 3, "sentences": [{"raw": "x"}]},
    ]
    good, bad = _read(_json(tmp_path / "k.json", {"images": images}), Format.KARPATHY)
    assert [(p.image, p.captions) for p in good] == [("a", ("x",))]
    assert bad == [
        (1, "empty_caption"),
        (2, "bad_record"),
        (3, "bad_record"),
        (4, "bad_record"),
        (5, "bad_record"),
    ]


def test_items_come_as_json_loads_them(tmp_path):
    values = [{"a": [1, {"b": "\u00e9\U0001f600"}], "c": None}, [], "x", 12345678901, -1.5e-7, True]
    padded = json.dumps(values, indent=9)
    path = _json(tmp_path / "a.json", values)
    assert [item for _, item in json_items(path)] == values
    path.write_text("\ufeff " + padded + " \n")
    assert [item for _, item in json_items(path)] == values
    path.write_text(json.dumps({"k": values, "n": 7, "e": [], "o": {}}))
    found = [("k", value) for value in values] + [("n", 7), ("o", {})]
    assert list(json_items(path)) == found


@pytest.mark.parametrize("size", [1, 7, 64])
def test_items_that_end_where_a_chunk_ends(size, monkeypatch, tmp_path):
    monkeypatch.setattr("data_prep.readers.json_stream._CHUNK", size)
    values = [{"a": "é" * n, "n": 10**n, "u": "\\u" * n} for n in range(40)] + [123456, "x" * 300]
    path = tmp_path / "a.json"
    for ascii_only in (True, False):
        path.write_text(json.dumps(values, ensure_ascii=ascii_only))
        assert [item for _, item in json_items(path)] == values


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"", "empty"),
        (b"7", "expected an object or a list"),
        (b"[1, 2", "expected"),
        (b"[1 2]", "expected ','"),
        (b"[1,]", "Expecting value"),
        (b'{"a" 1}', "expected ':'"),
        (b"{1: 2}", "a key that is no text"),
        (b'{"a": 1', "expected"),
        (b"[] []", "more after its end"),
        (b'["\xff"]', "no UTF-8"),
        (b'["abc', "Unterminated"),
        (b'[{"a": ' * 100_000, "too deep"),
        (b"[" + b"9" * 5000 + b"]", "limit"),
    ],
)
def test_broken_json_is_told_with_its_place(content, told, tmp_path):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json") as error:
        list(json_items(tmp_path / "a.json"))
    assert told.replace("too deep", "nested too deeply") in str(error.value)
    assert "character" in str(error.value)
