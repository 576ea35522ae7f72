"""Sources at URLs: fetched once, read as the same files on a disk would be."""

import io
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.sources import braced, bring, localise, with_origins
from unimo_ds.storage import RemotePath, StorageError

SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6, "--rows-per-shard", 3)


@pytest.fixture
def letters(s3):
    """One-letter files in two folders."""
    for name in ("a.txt", "b.txt", "c.md", "in/a.txt", "in/d.txt"):
        (RemotePath("s3://corpora/x") / name).put(io.BytesIO(name.encode()))
    return "s3://corpora/x"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("x", ["x"]),
        ("a{b,c}d", ["abd", "acd"]),
        ("{08..11}.tar", ["08.tar", "09.tar", "10.tar", "11.tar"]),
        ("{9..11}", ["9", "10", "11"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a,b}{1..2}", ["a1", "a2", "b1", "b2"]),
        ("{a,}", ["a", ""]),
        ("a{b", ["a{b"]),
    ],
)
def test_braces_are_those_of_the_shell(text, expected):
    assert list(braced(text)) == expected


@given(st.integers(0, 120), st.integers(0, 120), st.text("ab/.", max_size=4))
def test_a_range_of_braces_names_each_number_once(first, last, ending):
    width = len(str(max(first, last)))
    names = list(braced(f"{{{first:0{width}d}..{last:0{width}d}}}{ending}"))
    low, high = sorted((first, last))
    assert sorted(names) == [f"{n:0{width}d}{ending}" for n in range(low, high + 1)]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("/a.txt", ["a.txt"]),
        ("/*.txt", ["a.txt", "b.txt"]),
        ("/[bc].*", ["b.txt", "c.md"]),
        ("/{a,b}.txt", ["a.txt", "b.txt"]),
        ("/*/a.txt", ["in/a.txt"]),
        ("/i?/{d,a}.txt", ["in/d.txt", "in/a.txt"]),
        ("/in", ["in"]),
    ],
)
def test_patterns_name_files(pattern, expected, letters, tmp_path):
    found = localise([letters + pattern], tmp_path)
    assert [str(path).partition("unimo_urls/s3/corpora/x/")[2] for path in found] == expected
    for path in found:
        assert path.is_dir() or path.read_text() == str(path).partition("corpora/x/")[2]


@pytest.mark.parametrize("url", ["/none.txt", "/*.jpg", "/no_folder/*", "/none/"])
def test_what_names_no_file_is_an_error(url, letters, tmp_path):
    with pytest.raises(ValueError, match=r"no file .*s3://corpora/x"):
        localise([letters + url], tmp_path)


def test_what_cannot_be_a_source(letters, tmp_path):
    with pytest.raises(ValueError, match="bucket must be named"):
        localise(["s3://cor*/x"], tmp_path)
    with pytest.raises(ValueError, match="download it first"):
        localise(["http://127.0.0.1/x?key=1"], tmp_path)
    assert localise(["*.txt", tmp_path], tmp_path) == [*map(type(tmp_path), ["*.txt", tmp_path])]


def test_copies_follow_their_source(letters, s3, tmp_path):
    (folder,) = localise([letters], tmp_path)
    assert sorted(p.name[0] for p in folder.rglob("*.*")) == list("aabcd")
    asked = len([r for r in s3.requests if r[0] == "GET" and r[2]])
    assert localise([letters], tmp_path) == [folder]
    assert len([r for r in s3.requests if r[0] == "GET" and r[2]]) == asked, "fetched again"
    (RemotePath(letters) / "a.txt").put(io.BytesIO(b"another"))
    (RemotePath(letters) / "b.txt").unlink()
    localise([letters], tmp_path)
    assert (folder / "a.txt").read_bytes() == b"another" and not (folder / "b.txt").exists()


class Entry(NamedTuple):
    path: str
    tokenizer: str = ""


def test_a_worker_on_another_node_fetches_what_it_lacks(letters, tmp_path):
    here = localise([f"{letters}/a.txt", f"{letters}/in"], tmp_path / "here")
    there = [str(path).replace("/here/", "/there/") for path in here]
    bring([Entry(*there), Entry(there[0]), Entry(str(tmp_path / "local"))])
    (file, folder) = map(Path, there)
    assert file.read_text() == "a.txt"
    assert {path.name: path.read_text() for path in folder.iterdir() if path.suffix == ".txt"} == {
        "a.txt": "in/a.txt",
        "d.txt": "in/d.txt",
    }


def test_paths_of_copies_are_told_as_urls(tmp_path):
    told = f"no file 'x' in {tmp_path}/unimo_urls/s3/corpora/x; a/b stays"
    assert with_origins(told) == "no file 'x' in s3://corpora/x; a/b stays"


def test_remote_sources_make_the_same_corpora_as_local_ones(
    s3, upload, prep, make_pictures, write_lines, sentences, tokenizer_file, contents, tmp_path
):
    paths = make_pictures(tmp_path / "in", 7)
    (tmp_path / "in" / "006.png").write_bytes(b"no picture")
    pairs = [{"image": path.name, "captions": sentences[:2]} for path in paths]
    write_lines(tmp_path / "in" / "pairs.jsonl", [*pairs, {"image": "none.png", "caption": "x"}])
    write_lines(tmp_path / "in" / "texts.jsonl", [*({"text": t} for t in sentences), b"{"])
    upload(tmp_path / "in", "s3://corpora/in")
    upload(tokenizer_file, "s3://corpora/words.json")
    for builder, source, options in (
        ("text", "texts.jsonl", ("--tokenizer",)),
        ("pairs", "pairs.jsonl", (*SMALL, "--tokenizer")),
        ("images", "", SMALL),
    ):
        found = {}
        for place, words in (
            (str(tmp_path / "in"), tokenizer_file),
            ("s3://corpora/in", "s3://corpora/words.json"),
        ):
            out = tmp_path / builder / place.split(":")[0].strip("/")
            arguments = [*options, words] if options[-1] == "--tokenizer" else [*options]
            ran = prep(builder, out, f"{place}/{source}".rstrip("/"), *arguments, "--max-bad", 0.5)
            assert ran.code == 0, ran.err
            found[place] = contents(out)
        local, remote = found.values()
        lines = {n: v for n, v in remote.items() if n.endswith("quarantine.jsonl")}
        assert any(b"s3://corpora/in" in line for line in lines.values()), lines
        for content in (local, remote):
            for name in list(content):
                if name.endswith(("quarantine.jsonl", "manifest.json")):
                    content.pop(name)
        assert local == remote and any(name.endswith(".arrow") for name in local)


def test_a_source_that_cannot_be_read_is_one_clear_line(
    s3, prep, tokenizer_file, monkeypatch, tmp_path
):
    monkeypatch.setattr("unimo_ds.storage.ATTEMPTS", 1)
    s3.fault = lambda number, method, path: "503"
    ran = prep("text", tmp_path / "o", "s3://corpora/x.txt", "--tokenizer", tokenizer_file)
    assert ran.code == 1 and "cannot look at s3://corpora/x.txt, tried 1 times" in ran.err
    assert not (tmp_path / "o").exists()
    assert issubclass(StorageError, OSError)
