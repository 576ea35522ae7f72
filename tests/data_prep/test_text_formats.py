"""Every form a source of texts may have, bounded memory, and what is refused with a remedy."""

import gzip
import io
import json
import lzma
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_prep.quarantine import Bad, BadRecord
from data_prep.readers.lines import MAX_RECORD_BYTES, bounded_lines
from data_prep.readers.text import DocumentReader

TEXTS = ["one text.", "another text,\twith a tab.", "a third \u2014 and last."]


def _lines(texts):
    return "".join(json.dumps({"text": text, "id": n}) + "\n" for n, text in enumerate(texts))


def _zstd(data):
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


def _tar(members):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _arrow(path, texts, form, **columns):
    table = pa.table({"text": pa.array(texts), **columns})
    new = pa.ipc.new_file if form == "file" else pa.ipc.new_stream
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=2)
    return path


def _read(*paths, field="text"):
    return list(DocumentReader([*paths], field))


@pytest.mark.parametrize(
    ("suffix", "pack"),
    [("", bytes), (".gz", gzip.compress), (".xz", lzma.compress), (".zst", _zstd)],
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.tar"])
def test_packed_files(name, suffix, pack, tmp_path):
    data = {
        "a.txt": "\n".join(TEXTS).encode(),
        "a.jsonl": _lines(TEXTS).encode(),
        "a.tar": _tar([(f"0/{n}.txt", text.encode()) for n, text in enumerate(TEXTS)]),
    }[name]
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(pack(data) + (pack(b"") if suffix in (".gz", ".zst") else b""))
    reader = DocumentReader([path])
    for _ in range(2):  # an iteration begins anew
        assert [document.text.strip() for document in reader] == TEXTS
        assert reader.bytes_read == reader.total_bytes
    path.write_bytes(pack(data)[:-9])
    if suffix:
        with pytest.raises(ValueError, match="is damaged"):
            _read(path)


@pytest.mark.parametrize("form", ["file", "stream"])
def test_arrow_files_of_both_forms(form, tmp_path):
    path = _arrow(tmp_path / "a.arrow", [*TEXTS, None], form, id=pa.array([7, 8, 9, 10]))
    documents = _read(path)
    assert [d.text for d in documents[:3]] == TEXTS and documents[2].id == "9"
    assert documents[3].reason == "missing_field" and documents[3].line == 4
    for kind in (pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.string_view()):
        table = pa.table({"body": pa.array(TEXTS).cast(kind)})
        with pa.ipc.new_stream(str(path), table.schema) as writer:
            writer.write_table(table)
        assert [d.text for d in _read(path, field="body")] == TEXTS


@pytest.mark.parametrize("suffix", ["parquet", "arrow"])
def test_a_missing_column_is_told_with_those_that_are_there(suffix, tmp_path):
    path = tmp_path / f"a.{suffix}"
    table = pa.table({"title": ["x"], "n": [1]})
    if suffix == "parquet":
        pq.write_table(table, path)
    else:
        with pa.ipc.new_file(str(path), table.schema) as writer:
            writer.write_table(table)
    with pytest.raises(ValueError, match=r"no column 'text', its columns are title, n: .*--field"):
        _read(path)
    with pytest.raises(ValueError, match="holds int64, no text"):
        _read(path, field="n")
    assert [d.text for d in _read(path, field="title")] == ["x"]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match="is damaged"):
        _read(path, field="title")


def test_bad_utf8_in_a_table_is_one_bad_record(tmp_path):
    raw = pa.array([b"good", b"\xff\xfe", b"good again"])
    table = pa.table({"text": raw.view(pa.string())})
    with pa.ipc.new_file(str(tmp_path / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    found = _read(tmp_path / "a.arrow")
    assert [d.text for d in found if not isinstance(d, Bad)] == ["good", "good again"]
    assert (found[1].reason, found[1].line) == ("bad_utf8", 2)


def test_saved_datasets_and_the_splits_of_a_dict(tmp_path):
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": TEXTS}).save_to_disk(str(tmp_path / "one"), num_shards=2)
    assert [d.text for d in _read(tmp_path / "one")] == TEXTS
    splits = {"train": datasets.Dataset.from_dict({"text": TEXTS})}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "both"))
    with pytest.raises(ValueError, match=r"DatasetDict .*name .*both/train"):
        _read(tmp_path / "both")
    assert [d.text for d in _read(tmp_path / "both" / "train")] == TEXTS
    lost = next((tmp_path / "one").glob("*.arrow"))
    lost.unlink()
    with pytest.raises(ValueError, match=f"{lost.name} is missing"):
        _read(tmp_path / "one")
    (tmp_path / "one" / "state.json").write_text("[]")
    with pytest.raises(ValueError, match="not the state of a saved dataset"):
        _read(tmp_path / "one")


def test_folders_and_patterns(tmp_path):
    (tmp_path / "in" / "sub").mkdir(parents=True)
    (tmp_path / "in" / "b.txt").write_text("b\n")
    (tmp_path / "in" / "sub" / "a.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "in" / "README.md").write_text("not a text\n")
    (tmp_path / "in" / ".hidden.txt").write_text("hidden\n")
    (tmp_path / "secret.txt").write_text("secret\n")
    (tmp_path / "in" / "link.txt").symlink_to(tmp_path / "secret.txt")
    *left_out, b, a = _read(tmp_path / "in")
    assert [entry.detail for entry in left_out] == [
        "hidden files: 1 (.hidden.txt)",
        "files of other kinds: 1 (*.md)",
        "links out of the folder: 1 (link.txt)",
    ]
    assert (b.text.strip(), a.text) == ("b", "a")
    assert [d.text for d in _read(tmp_path / "in" / "**" / "*.jsonl")] == ["a"]
    with pytest.raises(ValueError, match="no file fits the pattern"):
        _read(tmp_path / "*.parquet")
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"neither .txt.* nor the state.json"):
        _read(tmp_path / "none")


def test_a_folder_of_csv_alone_says_how_they_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("text\nx\n")
    with pytest.raises(ValueError, match=r"neither .txt, .jsonl, .tsv, .tar") as error:
        _read(tmp_path)
    assert "name .csv files themselves or by a pattern" in str(error.value)


@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_an_empty_cell_is_no_id(suffix, tmp_path):
    mark = {".tsv": "\t", ".csv": ","}[suffix]
    path = tmp_path / f"a{suffix}"
    rows = (("id", "text"), ("x", "one"), ("", "two"), (" ", "three"))
    path.write_text("".join(f"{name}{mark}{text}\n" for name, text in rows))
    plain = tmp_path / f"b{suffix}"
    plain.write_text("text\none\ntwo\nthree\n")
    first, *others = [found.id for found in DocumentReader([path], "text")]
    assert first == "x"
    expected = [found.id for found in DocumentReader([plain], "text")][1:]
    assert others == [name.replace(plain.name, path.name) for name in expected]


def test_a_tsv_line_is_an_id_and_a_text(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"x#0\tone text\r\nno tab\n\ny\ta\tb\nz\tlast\n\xff\tz\n")
    found = _read(path)
    assert [(d.id, d.text) for d in found if not isinstance(d, Bad)] == [
        ("x#0", "one text"),
        ("z", "last"),
    ]
    bad = [(d.line, d.reason) for d in found if isinstance(d, Bad)]
    assert bad == [(2, "bad_record"), (4, "bad_record"), (6, "bad_utf8")]


def test_a_tar_gives_texts_only_and_nothing_is_extracted(tmp_path):
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name, content in (("../up.txt", b"up"), ("a.jpg", b"\xff"), ("b.txt", b"\xff")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
        link = tarfile.TarInfo("c.txt")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    before = sorted(tmp_path.parent.rglob("*"))
    found = _read(path)
    assert (found[0].id, found[0].text) == ("../up", "up")
    bad = [(3, "bad_utf8"), (4, "bad_record"), (0, "left_out")]
    assert [(d.line, d.reason) for d in found[1:]] == bad
    assert sorted(tmp_path.parent.rglob("*")) == before
    path.write_bytes(_tar([("a.jpg", b"")]))
    with pytest.raises(ValueError, match=r"a\.tar: no member"):
        _read(path)


@pytest.mark.parametrize("name", ["a.jsonl", "lines.txt", "paragraphs.txt"])
def test_a_huge_line_is_left_out_and_its_neighbours_stay(name, tmp_path):
    gap = b"\n\n" if name == "paragraphs.txt" else b"\n"
    small = [b'{"text": "%d"}' % n if name == "a.jsonl" else b"text %d" % n for n in range(2)]
    path = tmp_path / name
    with path.open("wb") as file:
        file.write(small[0] + gap)
        for _ in range(3):
            file.write(b"x" * MAX_RECORD_BYTES)
        file.write(gap + small[1] + gap)
    first, bad, last = _read(path)
    assert (first.line, last.line) == ((1, 5) if name == "paragraphs.txt" else (1, 3))
    assert bad.reason == "too_large" and bad.line == 3 - (name != "paragraphs.txt")
    assert f"{MAX_RECORD_BYTES:,}" in bad.detail


@given(st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"")), max_size=8))
def test_bounded_lines_are_the_lines_but_for_long_ones(lines):
    data = b"".join(line + b"\n" for line in lines)
    found = list(bounded_lines(io.BytesIO(data), limit=6))
    assert [number for number, _ in found] == list(range(1, len(lines) + 1))
    for line, (_, read) in zip(lines, found, strict=True):
        assert isinstance(read, BadRecord) if len(line) > 6 else read == line + b"\n"
