"""`unimo-prep verify` and `stats`: every kind of damage is found and told where."""

import hashlib
import json
import re

import numpy as np
import pyarrow as pa
import pytest

from unimo_ds.data.schema import PAIR_SCHEMA


@pytest.fixture
def corpus(prep, make_pictures, write_lines, sentences, tokenizer_file, tmp_path):
    """A whole pairs corpus of several shards, with one record in quarantine."""
    make_pictures(tmp_path / "p", 12)
    lines = [{"image": f"{n:03d}.png", "captions": sentences[: 1 + n % 3]} for n in range(12)]
    source = write_lines(tmp_path / "p" / "a.jsonl", [*lines, b"{"])
    arguments = ("--grid", 2, "--patch", 4, "--num-classes", 6, "--rows-per-shard", 5)
    arguments = ("--tokenizer", tokenizer_file, *arguments, "--max-bad", 0.2)
    assert prep("pairs", tmp_path / "c", source, *arguments).code == 0
    assert prep("verify", tmp_path / "c").code == 0
    return tmp_path / "c"


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def _truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


@pytest.mark.parametrize("damage", [_flip, _truncate, lambda path: path.unlink()])
@pytest.mark.parametrize(
    "name",
    [
        "pairs-00001.arrow",
        "pairs-00001.lengths.npy",
        "images/images-00000.arrow",
        "images/images-00002.lengths.npy",
        "images/visual_words.npy",
    ],
)
def test_damaged_files_are_named(damage, name, prep, corpus):
    damage(corpus / name)
    ran = prep("verify", corpus)
    assert ran.code == 1 and str(corpus / name) in ran.out


@pytest.mark.parametrize("damage", [_truncate, lambda path: path.unlink()])
def test_a_damaged_manifest_of_the_images_is_named(damage, prep, corpus):
    damage(corpus / "images" / "manifest.json")
    ran = prep("verify", corpus)
    assert ran.code == 1 and str(corpus / "images") in ran.out


def test_lost_quarantine_strange_shard_and_unfinished_build(prep, corpus):
    (corpus / "quarantine.jsonl").write_text("")
    (corpus / "pairs-00009.arrow").touch()
    (corpus / "images" / ".receipts").mkdir()
    ran = prep("verify", corpus)
    assert ran.code == 1 and len(ran.out.splitlines()) == 3
    for told in ("0 records, the manifest counts 1", "pairs-00009", "not finished"):
        assert told in ran.out


def _rewrite(corpus, change):
    """Changes the rows of a shard of pairs and makes its checksum fit again."""
    path = corpus / "pairs-00000.arrow"
    with pa.memory_map(str(path)) as file:
        rows = pa.ipc.open_file(file).read_all().to_pylist()
    change(rows)
    with pa.ipc.new_file(str(path), PAIR_SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, PAIR_SCHEMA))
    manifest = json.loads((corpus / "manifest.json").read_text())
    shard = manifest["shards"][0]
    shard["bytes"], data = path.stat().st_size, path.read_bytes()
    shard["sha256"] = hashlib.sha256(data).hexdigest()
    (corpus / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda rows: rows[2].update(image_row=3), "pair 002.png wants 002.png, row 3 is 003.png"),
        (lambda rows: rows[2].update(image_row=99), "row 99 is no row"),
        (lambda rows: rows.pop(), "4 rows"),
        (lambda rows: rows[0]["captions"][0].append(7), "does not hold the lengths"),
    ],
)
def test_rows_that_contradict_the_rest(change, told, prep, corpus):
    _rewrite(corpus, change)
    ran = prep("verify", corpus)
    assert ran.code == 1 and told in ran.out


def test_a_folder_that_is_no_corpus(prep, tmp_path):
    ran = prep("verify", tmp_path)
    assert ran.code == 1 and "no corpus" in ran.out
    assert prep("stats", tmp_path).code == 2


def test_stats(prep, corpus, read_rows):
    pairs, images = json.loads(prep("stats", corpus, "--json").out)
    tokens = [sum(len(c) for c in row["captions"]) for row in read_rows(corpus)]
    assert (pairs["kind"], pairs["rows"], pairs["shards"]) == ("pairs", 12, 3)
    assert (pairs["length_sum"], pairs["length_max"]) == (sum(tokens), max(tokens))
    assert pairs["quarantined"] == {"bad_json": 1}
    assert pairs["bytes"] == sum(path.stat().st_size for path in corpus.glob("*.arrow"))
    for low, high, count in pairs["histogram"]:
        assert count == sum(low <= length <= high for length in tokens)
    assert sum(count for *_, count in pairs["histogram"]) == 12
    assert (images["length_name"], images["length_sum"]) == ("regions", 48)
    assert images["regions"]["num_classes"] == 6
    table = prep("stats", corpus).out
    assert re.search(r"bad_json\W+1", table) and "12 in 3 shards" in table


def test_lengths_files_are_what_the_reader_expects(corpus, read_rows):
    lengths = [np.load(path) for path in sorted(corpus.glob("*.lengths.npy"))]
    assert all(array.dtype == np.int32 for array in lengths)
    tokens = [sum(len(c) for c in row["captions"]) for row in read_rows(corpus)]
    assert np.concatenate(lengths).tolist() == tokens
