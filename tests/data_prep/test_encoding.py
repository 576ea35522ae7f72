"""Byte-order marks at the start of every kind of file, and what is no UTF-8."""

import codecs
import gzip
import io
import json
import tarfile

import pytest

from data_prep.quarantine import Bad
from data_prep.readers.boxes import read_boxes
from data_prep.readers.encoding import utf8_bytes, utf8_stream
from data_prep.readers.formats import Format, find_sources
from data_prep.readers.pairs import read_pairs
from data_prep.readers.tables.scan import read_row, read_tables
from data_prep.readers.tables.vinvl import picture_sizes
from data_prep.readers.text import DocumentReader
from data_prep.regions.class_names import load_vocabulary
from data_prep.tokenizer import Notes, make_tokenizer
from tests.data_prep.test_region_tables import unimo_line
from unimo_ds.storage import location

ENCODINGS = {
    "utf-8": (codecs.BOM_UTF8, "utf-8"),
    "utf-16-le": (codecs.BOM_UTF16_LE, "utf-16-le"),
    "utf-16-be": (codecs.BOM_UTF16_BE, "utf-16-be"),
}
SAID = "a \U0001f98a in snow, “old”"

SOURCES = {
    "c.json": json.dumps([{"image": "a.jpg", "caption": SAID}], ensure_ascii=False),
    "c.jsonl": json.dumps({"image": "a.jpg", "caption": SAID}, ensure_ascii=False) + "\n",
    "coco.json": json.dumps(
        {
            "annotations": [{"image_id": 1, "caption": SAID}],
            "images": [{"id": 1, "file_name": "a.jpg"}],
        }
    ),
    "karpathy.json": json.dumps(
        {"images": [{"filename": "a.jpg", "split": "train", "sentences": [{"raw": SAID}]}]}
    ),
    "genome.json": json.dumps([{"id": 1, "regions": [{"phrase": SAID}]}]),
    "flickr.token": f"a.jpg#0\t{SAID}\n",
    "captions.csv": f'image,caption\na.jpg,"{SAID}"\n',
    "captions.tsv": f"image\tcaption\na.jpg\t{SAID}\n",
    "cc.tsv": f"{SAID}\ta.jpg\n",
}


@pytest.fixture(params=ENCODINGS)
def marked(request):
    mark, encoding = ENCODINGS[request.param]
    return lambda text: mark + text.encode(encoding)


def _captions(path, form=None):
    found = read_pairs(find_sources([path], form, captioned=True)).entries
    assert not [entry for entry in found if isinstance(entry, Bad)], found
    return [(pair.image, pair.captions) for pair in found]


@pytest.mark.parametrize("name", SOURCES)
def test_captions_behind_a_mark(name, marked, tmp_path):
    path = tmp_path / name
    path.write_bytes(marked(SOURCES[name]))
    image = "1.jpg" if name == "genome.json" else "a.jpg"
    assert _captions(path) == [(image, (SAID,))]


def test_sidecars_behind_a_mark_in_folders_and_tars(marked, make_pictures, tmp_path):
    pictures = make_pictures(tmp_path / "p", 2)
    beside = [("txt", marked(SAID + "\r\n")), ("json", marked(json.dumps({"caption": SAID})))]
    with tarfile.open(tmp_path / "s.tar", "w") as tar:
        for picture, (kind, content) in zip(pictures, beside, strict=True):
            picture.with_suffix(f".{kind}").write_bytes(content)
            for name, data in ((picture.name, picture.read_bytes()), (f"x.{kind}", content)):
                member = tarfile.TarInfo(f"{picture.stem}.{name.rpartition('.')[2]}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    for source in (tmp_path / "p", tmp_path / "s.tar"):
        assert [captions for _, captions in _captions(source)] == [(SAID,), (SAID,)]


@pytest.mark.parametrize("pack", [None, gzip.compress])
def test_texts_behind_a_mark(pack, marked, tmp_path):
    files = {
        "a.txt": f"{SAID}\nmore\n",
        "b.txt": f"{SAID}\n\nmore\n",
        "c.jsonl": json.dumps({"text": SAID}) + '\n{"text": "more"}\n',
        "d.tsv": f"one\t{SAID}\ntwo\tmore\n",
    }
    for name, content in files.items():
        path = tmp_path / (name + (".gz" if pack else ""))
        path.write_bytes((pack or bytes)(marked(content)))
        documents = list(DocumentReader([path]))
        assert [document.text.strip() for document in documents] == [SAID, "more"], name
    assert [document.id for document in documents] == ["one", "two"]


def test_other_files_behind_a_mark(marked, tmp_path):
    (tmp_path / "names.txt").write_bytes(marked("tree,trees\ndog\n"))
    vocabulary = load_vocabulary(str(tmp_path / "names.txt"))
    assert vocabulary.lines[1] == "tree,trees" and vocabulary.id_of("tree") == 1
    box = {"image": "a.jpg", "boxes": [[0, 0, 5, 5]]}
    genome = [{"id": 7, "objects": [{"x": 0, "y": 0, "w": 5, "h": 5, "names": ["x"]}]}]
    for name, value, image in (("b.jsonl", box, "a.jpg"), ("b.json", genome, "7.jpg")):
        (tmp_path / name).write_bytes(marked(json.dumps(value)))
        assert [found.image for found in read_boxes(tmp_path / name)] == [image]
    (tmp_path / "t.hw.tsv").write_bytes(marked('a\t[{"height": 3, "width": 4}]\n'))
    assert picture_sizes(tmp_path / "t.feature.tsv") == {"a": (4, 3)}
    with tarfile.open(tmp_path / "texts.tar", "w") as tar:
        data = marked(SAID)
        member = tarfile.TarInfo("a.txt")
        member.size = len(data)
        tar.addfile(member, io.BytesIO(data))
    assert [document.text for document in DocumentReader([tmp_path / "texts.tar"])] == [SAID]


def test_feature_tables_behind_a_mark(tmp_path):
    content = "".join(unimo_line(number) for number in range(3)).encode()
    plain, marked = tmp_path / "plain.tsv", tmp_path / "marked.tsv"
    plain.write_bytes(content)
    marked.write_bytes(codecs.BOM_UTF8 + content)
    (rows, _), (others, bad) = read_tables([plain]), read_tables([marked])
    assert not bad and [row.id for row in others] == [row.id for row in rows]
    assert read_row(others[0]).features.tobytes() == read_row(rows[0]).features.tobytes()
    marked.write_bytes(codecs.BOM_UTF16_LE + content.decode().encode("utf-16-le"))
    with pytest.raises(ValueError, match=r"marked\.tsv is UTF-16: expected UTF-8.*iconv"):
        read_tables([marked])


def test_a_tokenizer_learns_no_mark(marked, tmp_path):
    (tmp_path / "plain.txt").write_text("a red fox and a hen\n" * 9)
    (tmp_path / "marked.txt").write_bytes(marked("a red fox and a hen\n" * 9))
    first, second = (
        make_tokenizer(
            tmp_path / f"{name}.json", [location(str(tmp_path / f"{name}.txt"))], 270, Notes([], [])
        )
        for name in ("plain", "marked")
    )
    assert first.fingerprint == second.fingerprint


def test_a_mark_elsewhere_is_left_alone(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("\ufeff\ufeffone\ntwo \ufeff words\n\ufeffthree\n", encoding="utf-8")
    texts = [document.text.rstrip() for document in DocumentReader([path])]
    assert texts == ["\ufeffone", "two \ufeff words", "\ufeffthree"]
    path.with_suffix(".jsonl").write_bytes(b'{"text": "one"}\n\xef\xbb\xbf{"text": "two"}\n')
    found = list(DocumentReader([path.with_suffix(".jsonl")]))
    assert [getattr(entry, "reason", "") for entry in found] == ["", "bad_json"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be", "utf-32"])
def test_other_encodings_are_refused_by_name(encoding, make_pictures, tmp_path):
    remedy = rf"is {encoding[:6].upper()}.*expected UTF-8, so save it as that \(iconv -f UTF-"
    for name in ("a.txt", "a.jsonl", "a.tsv"):
        (tmp_path / name).write_bytes("plain words\n".encode(encoding))
        with pytest.raises(ValueError, match=rf"{name} {remedy}"):
            list(DocumentReader([tmp_path / name]))
    for name, content in SOURCES.items():
        (tmp_path / name).write_bytes(content.encode(encoding))
        with pytest.raises(ValueError, match=rf"{name} {remedy}"):
            _captions(tmp_path / name)
    picture = make_pictures(tmp_path / "p", 1)[0]
    picture.with_suffix(".txt").write_bytes("a fox".encode(encoding))
    (bad,) = read_pairs(find_sources([tmp_path / "p"], Format.SIDECARS)).entries
    assert bad.reason == "bad_utf8" and "iconv" in bad.detail and bad.record == picture.name


def test_half_characters_of_utf16_cost_their_line(tmp_path):
    lines = [text.encode("utf-16-le") for text in ("one\n", "t", "wo\n", "three")]
    content = codecs.BOM_UTF16_LE + lines[0] + lines[1] + b"\x00\xd8" + lines[2] + lines[3]
    (tmp_path / "a.txt").write_bytes(content)
    found = list(DocumentReader([tmp_path / "a.txt"]))
    assert [getattr(entry, "reason", "") for entry in found] == ["", "bad_utf8", ""]
    (tmp_path / "a.txt").write_bytes(content + b"\x01")
    found = list(DocumentReader([tmp_path / "a.txt"]))
    assert [getattr(entry, "reason", "") for entry in found] == ["", "bad_utf8", "bad_utf8"]


@pytest.mark.parametrize("size", [0, 1, 2, 3, 64, 65_535, 65_536, 200_001])
def test_streams_and_whole_contents_agree(size, tmp_path):
    text = ("añ€\U0001f98a\n" * (size // 5 + 1))[:size]
    for mark, encoding in [*ENCODINGS.values(), (b"", "utf-8")]:
        content = mark + text.encode(encoding)
        assert utf8_stream(io.BytesIO(content), tmp_path).read() == text.encode()
        assert utf8_bytes(content) == text.encode()
