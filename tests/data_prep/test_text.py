"""`unimo-prep text`: every format, splitting of long documents, and what cannot be read."""

import gzip
import itertools
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_prep.packing import SHORTEST_LEFTOVER, Pack, Packer
from data_prep.sentences import SentenceEncoder
from unimo_ds.tokenizer import load_tokenizer


def _as_json_lines(texts):
    return "".join(json.dumps({"text": text}) + "\n" for text in texts).encode()


def _write_dataset(folder, texts):
    folder.mkdir()
    table = pa.table({"text": texts})
    with pa.ipc.new_stream(str(folder / "data-00000.arrow"), table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text(
        json.dumps({"_data_files": [{"filename": "data-00000.arrow"}]})
    )


@pytest.mark.parametrize(
    "name",
    [
        "lines.txt",
        "paragraphs.txt",
        "a.txt.gz",
        "a.jsonl",
        "a.jsonl.gz",
        "a.jsonl.xz",
        "a.parquet",
        "d",
    ],
)
def test_every_format_gives_the_same_rows(
    name, prep, tokenizer_file, sentences, read_rows, tmp_path
):
    path = tmp_path / name
    if name == "lines.txt":
        path.write_text("\n".join(sentences) + "\n")
    elif name == "paragraphs.txt":  # a line may end within a paragraph
        path.write_text("\r\n\r\n".join(s.replace(" ", "\r\n", 1) for s in sentences))
    elif name == "a.txt.gz":
        path.write_bytes(gzip.compress("\n".join(sentences).encode()))
    elif name.startswith("a.jsonl"):
        pack = {".gz": gzip.compress, ".xz": lzma.compress}.get(path.suffix, bytes)
        path.write_bytes(pack(_as_json_lines(sentences)))
    elif name == "a.parquet":
        pq.write_table(pa.table({"text": sentences, "other": [1, 2, 3]}), path)
    else:
        _write_dataset(path, sentences)
    assert prep("text", tmp_path / "out", path, "--tokenizer", tokenizer_file).code == 0
    rows = read_rows(tmp_path / "out")
    tokenizer = load_tokenizer(tokenizer_file)
    assert [row["tokens"] for row in rows] == tokenizer.encode(sentences)
    assert len({row["id"] for row in rows}) == 3 and rows[0]["id"].endswith("#0")


def _rows(tokenizer, max_tokens, texts, pack=Pack.DOCUMENT):
    """(id, tokens) of texts called a, b, c, ..."""
    encoded = zip("abcdefgh", SentenceEncoder(tokenizer).encode(texts), strict=False)
    packer = Packer(pack, max_tokens, tokenizer.word_starts())
    return [(row.id, row.tokens.tolist()) for row in packer.rows(encoded)]


def test_a_long_document_is_cut_at_sentence_ends(
    prep, tokenizer_file, sentences, read_rows, write_lines, tmp_path
):
    text = "\n\n".join([" ".join(sentences * 3), " ".join(sentences)])
    source = write_lines(tmp_path / "a.jsonl", [{"id": "book", "text": text}])
    ran = prep("text", tmp_path / "o", source, "--tokenizer", tokenizer_file, "--max-tokens", 40)
    assert ran.code == 0
    rows = read_rows(tmp_path / "o")
    tokenizer = load_tokenizer(tokenizer_file)
    assert [row["id"] for row in rows] == [f"book#{k}" for k in range(len(rows))]
    assert len(rows) > 2 and all(len(row["tokens"]) <= 40 for row in rows)
    assert all(tokenizer.decode(row["tokens"]).endswith(".") for row in rows)
    joined = [token for row in rows for token in row["tokens"]]
    assert joined == tokenizer.encode([" ".join(text.split())])[0]
    for row, following in itertools.pairwise(rows):  # filled up: the next did not fit
        first = tokenizer.decode(following["tokens"]).split(".")[0] + "."
        assert len(row["tokens"]) + len(tokenizer.encode([first])[0]) > 40


def test_a_long_sentence_is_cut_before_a_word_and_a_long_word_anywhere(tokenizer_file, sentences):
    tokenizer = load_tokenizer(tokenizer_file)
    endless = " ".join(sentences).replace(".", "") * 4
    rows = [tokens for _, tokens in _rows(tokenizer, 20, [endless])]
    starts = tokenizer.word_starts()
    assert all(starts[row[0]] and len(row) <= 20 for row in rows)
    assert [t for row in rows for t in row] == tokenizer.encode([endless])[0]
    rows = [tokens for _, tokens in _rows(tokenizer, 20, ["x" * 100])]
    assert [len(row) for row in rows][:4] == [20] * 4
    assert [t for row in rows for t in row] == tokenizer.encode(["x" * 100])[0]


def test_a_short_leftover_shares_with_the_row_before(tokenizer_file, sentences):
    tokenizer = load_tokenizer(tokenizer_file)
    lengths = [len(ids) for ids in tokenizer.encode(sentences)]
    text = " ".join([*sentences, "a fox."])  # three sentences fill the row, the fourth is left over
    rows = [tokens for _, tokens in _rows(tokenizer, sum(lengths), [text])]
    assert len(rows) == 2 and min(map(len, rows)) >= SHORTEST_LEFTOVER
    assert [t for row in rows for t in row] == tokenizer.encode([text])[0]


def test_bad_records_are_listed_with_their_place(
    prep, tokenizer_file, sentences, write_lines, quarantine, read_rows, tmp_path
):
    lines = [
        {"id": "a", "text": sentences[0]},
        b'{"text": "\xff\xfe"}',
        b'{"text": ',
        b"[1, 2]",
        {"id": "b", "body": "?"},
        {"id": "c", "text": 7},
        {"id": "d", "text": " \n "},
        {"id": "a", "text": sentences[1]},
        {"id": "e", "text": sentences[2]},
        {"text": "half a character: \ud83d"},
        b'{"text": "x", "n": ' + b"9" * 5000 + b"}",
        {"id": "f", "text": "a whole one: \U0001f600"},
    ]
    source = write_lines(tmp_path / "a.jsonl", lines)
    ran = prep("text", tmp_path / "o", source, "--tokenizer", tokenizer_file, "--max-bad", 0.9)
    assert ran.code == 0 and "duplicate_id" in ran.err
    assert [(bad["line"], bad["reason"]) for bad in quarantine(tmp_path / "o")] == [
        (2, "bad_utf8"),
        (3, "bad_json"),
        (4, "bad_json"),
        (5, "missing_field"),
        (6, "missing_field"),
        (7, "empty_text"),
        (8, "duplicate_id"),
        (10, "bad_utf8"),
        (11, "bad_json"),
    ]
    assert [row["id"] for row in read_rows(tmp_path / "o")] == ["a#0", "e#0", "f#0"]
    manifest = json.loads((tmp_path / "o" / "manifest.json").read_text())
    assert manifest["quarantined"]["bad_json"] == 3 and sum(manifest["quarantined"].values()) == 9


def test_too_many_bad_records_stop_the_build_and_a_higher_bound_ends_it(
    prep, tokenizer_file, sentences, write_lines, quarantine, tmp_path
):
    source = write_lines(tmp_path / "a.jsonl", [{"text": s} for s in sentences] + [b"{"])
    arguments = ("text", tmp_path / "o", source, "--tokenizer", tokenizer_file)
    ran = prep(*arguments)
    assert ran.code == 3 and "1 of 4" in ran.err and "bad_json" in ran.err
    assert not (tmp_path / "o" / "manifest.json").exists()
    assert len(quarantine(tmp_path / "o")) == 1
    assert prep(*arguments, "--resume", "--max-bad", 0.25).code == 0
    assert prep("verify", tmp_path / "o").code == 0


def test_nothing_but_bad_records(prep, tokenizer_file, write_lines, quarantine, tmp_path):
    source = write_lines(tmp_path / "a.jsonl", [b"{"])
    arguments = ("--tokenizer", tokenizer_file, "--max-bad", 1)
    assert prep("text", tmp_path / "o", source, *arguments).code == 3
    assert len(quarantine(tmp_path / "o")) == 1
    (tmp_path / "empty.jsonl").touch()
    ran = prep("text", tmp_path / "e", tmp_path / "empty.jsonl", *arguments)
    assert ran.code == 2 and "no record" in ran.err


def test_files_that_cannot_be_read_are_usage_errors(prep, tokenizer_file, tmp_path):
    packed = lzma.compress(_as_json_lines(["some text"] * 1000))
    (tmp_path / "cut.jsonl.xz").write_bytes(packed[: len(packed) // 2])
    (tmp_path / "a.pdf").touch()
    (tmp_path / "folder").mkdir()
    for name, told in (
        ("cut.jsonl.xz", "damaged"),
        ("a.pdf", "expected .txt"),
        ("folder", "neither .txt"),
        ("absent.txt", "no file"),
    ):
        ran = prep("text", tmp_path / "o", tmp_path / name, "--tokenizer", tokenizer_file)
        assert ran.code == 2 and told in ran.err, name


def test_tokenizer_is_trained_on_texts_and_captions_or_taken_over(
    prep, sentences, write_lines, tmp_path
):
    texts = write_lines(tmp_path / "t.jsonl", [{"text": s} for s in sentences] * 3)
    captions = [{"image": "a.png", "captions": ["zebra zebra zebra zebra"] * 4}]
    pairs = write_lines(tmp_path / "p.jsonl", captions)
    out = tmp_path / "sub" / "tokenizer.json"
    ran = prep("tokenizer", out, texts, pairs, "--vocab-size", 330)
    assert ran.code == 0
    tokenizer = load_tokenizer(out)
    assert tokenizer.vocab_size <= 330 and tokenizer.fingerprint in ran.err
    assert len(tokenizer.encode(["zebra"])[0]) < len(tokenizer.encode(["brzea"])[0])
    assert prep("tokenizer", out, texts).code == 2  # never overwritten
    model = json.loads(out.read_text())["model"]
    roberta = tmp_path / "roberta"
    roberta.mkdir()
    (roberta / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    (roberta / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]))
    assert prep("tokenizer", tmp_path / "same.json", roberta).code == 0
    same = load_tokenizer(tmp_path / "same.json")
    assert same.encode(sentences) == tokenizer.encode(sentences)
