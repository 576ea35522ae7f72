"""What a source holds but is not taken: counted in one wording by every command."""

import io
import json
import tarfile

import numpy as np
import pytest
from PIL import Image

from data_prep.readers.formats import find_sources
from data_prep.readers.left_out import LeftOut, Tally
from data_prep.readers.pairs import Pair, read_pairs

SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 2)
APPLE = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(80)


def _picture(value):
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (value, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def _regions(value):
    stream = io.BytesIO()
    arrays = {"features": np.full((2, 4), value), "boxes": [[0, 0, 4, 4]] * 2}
    np.savez(stream, **arrays, image_w=8, image_h=8)
    return stream.getvalue()


def _tar(*members):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


CONTENT = {
    ".PNG": lambda n: _picture(n),
    ".TXT": lambda n: f"text {n}\n".encode(),
    ".NPZ": lambda n: _regions(n),
    ".Tar": lambda n: _tar((f"{n}.PNG", _picture(n)), (f"{n}.Txt", b"a dog")),
}


@pytest.mark.parametrize(
    ("command", "suffix", "more"),
    [
        ("images", ".PNG", SMALL),
        ("images", ".Tar", SMALL),
        ("images", ".NPZ", ("--regions", "precomputed", "--num-classes", 2)),
        ("text", ".TXT", ()),
        ("pairs", ".Tar", SMALL),
    ],
)
def test_a_folder_from_a_mac_with_links(
    command, suffix, more, prep, quarantine, read_rows, tokenizer_file, tmp_path
):
    """Capital suffixes are taken; of the rest nothing is, and all of it is told."""
    folder = tmp_path / "in"
    names = ["a/0", "a/1.v2", "2"]
    hidden = [".3", "a/.4", "._2", "a/._0", "__MACOSX/a/._0", ".cache/5"]
    for n, name in enumerate([*names, *hidden]):
        path = folder / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(APPLE if "._" in name else CONTENT[suffix](n))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / f"6{suffix}").write_bytes(CONTENT[suffix](6))
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "a" / "notes.HEIC").write_bytes(b"\0")
    (folder / ".DS_Store").write_bytes(b"\0")
    words = () if command == "images" else ("--tokenizer", tokenizer_file)
    ran = prep(command, tmp_path / "o", folder, *more, *words)
    assert ran.code == 0, ran.err
    assert len(read_rows(tmp_path / "o")) == 3
    found = quarantine(tmp_path / "o")
    assert {(q["reason"], q["source"]) for q in found} == {("left_out", str(folder))}
    assert {q["detail"] for q in found} == {
        f"hidden files: 3 (.3{suffix}, .DS_Store, a/.4{suffix})",
        "hidden folders: 1 (.cache/)",
        f"._ files (AppleDouble): 3 (._2{suffix}, __MACOSX/, a/._0{suffix})",
        "links to folders: 1 (linked)",
        "files of other kinds: 1 (*.heic)",
    }
    for entry in found:
        assert f"left out of {folder}: {entry['detail']}" in ran.err
    assert prep("verify", tmp_path / "o").code == 0


def test_what_is_left_when_all_is_left_out(prep, make_pictures, tokenizer_file, tmp_path):
    (tmp_path / "p").mkdir()
    (tmp_path / "p" / "._0.png").write_bytes(APPLE)
    ran = prep("images", tmp_path / "o", tmp_path / "p", *SMALL)
    assert ran.code == 2 and "left out: ._ files (AppleDouble): 1 (._0.png)" in ran.err
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / ".a.txt").write_text("hidden")
    ran = prep("text", tmp_path / "o", tmp_path / "t", "--tokenizer", tokenizer_file)
    assert ran.code == 2 and "left out: hidden files: 1 (.a.txt)" in ran.err
    (tmp_path / "t" / "b.txt").write_text("a red star\n")
    ran = prep("tokenizer", tmp_path / "words.json", tmp_path / "t", "--vocab-size", 300)
    assert f"left out of {tmp_path / 't'}: hidden files: 1 (.a.txt)" in ran.err
    assert not (tmp_path / "o").exists()


def test_pictures_that_were_not_downloaded_in_files(
    prep, read_rows, quarantine, tokenizer_file, tmp_path
):
    """As img2dataset's `files`: the text and the fields of a picture are there without it."""
    folder = tmp_path / "in" / "00000"
    folder.mkdir(parents=True)

    def fields(name, **values):
        (folder / name).write_text(json.dumps(values))

    for n in range(4):
        (folder / f"{n}.JPG").write_bytes(_picture(n))
        (folder / f"{n}.TXT").write_text(f"a dog {n}")
        fields(f"{n}.json", status="success", caption="of the fields")
    for n in (4, 5):
        fields(f"{n}.json", status="failed_to_download", caption="a fox")
        (folder / f"{n}.txt").write_text("a fox")
    fields("6.json", status="success", caption="its picture was deleted")
    fields("../00000_stats.json", status_dict={"success": 4}, count=6)
    (tmp_path / "in" / "00000.parquet").write_bytes(b"PAR1")
    arguments = ("--tokenizer", tokenizer_file, *SMALL, "--max-bad", 0.3)
    ran = prep("pairs", tmp_path / "o", tmp_path / "in", *arguments)
    assert ran.code == 0, ran.err
    texts = [row["caption_texts"] for row in read_rows(tmp_path / "o")]
    assert texts == [[f"a dog {n}"] for n in range(4)]
    assert [(q["reason"], q["record"], q["detail"]) for q in quarantine(tmp_path / "o")] == [
        ("missing_image", "00000/6.json", "a caption without a picture beside it"),
        ("left_out", "", "status 'failed_to_download': 2 (00000/4.json, 00000/5.json)"),
        ("left_out", "", "files of other kinds: 2 (*.parquet, *.json)"),
    ]


@pytest.mark.parametrize("command", ["images", "pairs", "text"])
def test_members_of_a_tar(command, prep, read_rows, quarantine, tokenizer_file, tmp_path):
    failed = json.dumps({"status": "failed_to_download"}).encode()
    members = [
        ("./d.e/x.y.z.png", _picture(1)),
        ("./d.e/x.y.z.txt", b"a dog"),
        ("7.PNG", _picture(2)),
        ("7.TXT", b"a fox"),
        ("7.seg.png", _picture(3)),
        ("7.en.txt", b"part of the sample 7"),
        ("8.json", failed),
        ("8.txt", b"not downloaded"),
        ("9.cls", b"3"),
        ("._7.PNG", APPLE),
        ("__MACOSX/._7.TXT", APPLE),
        ("a/.x/0.txt", b"hidden"),
        ("10.5mm.jpeg", _picture(4)),
        ("10.5mm.json", b'{"caption": "a ring"}'),
    ]
    (tmp_path / "s.tar").write_bytes(_tar(*members))
    words = () if command == "images" else ("--tokenizer", tokenizer_file)
    more = () if command == "text" else SMALL
    assert prep(command, tmp_path / "o", tmp_path / "s.tar", *words, *more).code == 0
    ids = [row["id"] for row in read_rows(tmp_path / "o")]
    told = {q["detail"] for q in quarantine(tmp_path / "o")}
    both = {
        "._ files (AppleDouble): 2 (._7.PNG, __MACOSX/._7.TXT)",
        "hidden files: 1 (a/.x/0.txt)",
    }
    if command == "text":
        assert ids == [f"{key}#0" for key in ("./d.e/x.y.z", "7", "7.en", "8")]
        assert told == {*both, "files of other kinds: 7 (*.png, *.json, *.cls, ...)"}
        return
    assert ids == [f"s.tar/{name}" for name in ("d.e/x.y.z.png", "7.PNG", "10.5mm.jpeg")]
    assert told == {
        *both,
        "files of other kinds: 1 (*.cls)",
        "status 'failed_to_download': 1 (8)",
        "parts of samples that have a picture or caption of their own: 2 (7.seg.png, 7.en.txt)",
    }


def test_statuses_and_splits_without_end_are_told_in_one_line():
    tally = Tally()
    for n in range(1000):
        tally.add("a.parquet", LeftOut(f"status 'error {n % 500}'"))
    tally.add("b.parquet", LeftOut("split 'test'"))
    *first, more, other = [entry.detail for entry in tally.entries()]
    assert first == [f"status 'error {n}': 2" for n in range(16)]
    names = ", ".join(f"status 'error {n}'" for n in (16, 17, 18))
    assert (more, other) == (f"of more kinds: 968 ({names}, ...)", "split 'test': 1")


def test_several_pictures_beside_one_caption(make_pictures, tmp_path):
    for n, picture in enumerate(make_pictures(tmp_path, 2)):
        picture.with_suffix(".JPEG").write_bytes(_picture(n))
        picture.with_suffix(".webp").write_bytes(_picture(n + 9))
        picture.with_suffix(".txt").write_text(f"text {n}")
    (source,) = find_sources([tmp_path], captioned=True)
    found = read_pairs([source]).entries
    pairs = {e.image: e.captions for e in found if isinstance(e, Pair)}
    assert pairs == {f"00{n}.JPEG": (f"text {n}",) for n in range(2)}
    twice = [(e.reason, e.record) for e in found if not isinstance(e, Pair)]
    assert twice == [
        ("duplicate_id", f"00{n}.{kind}") for n in range(2) for kind in ("png", "webp")
    ]
