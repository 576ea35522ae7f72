"""`unimo-prep verify` and `stats`: every kind of damage is found and told where."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_prep.writer import read_shard, sha256_of
from unimo_ds.data.schema import SCHEMAS, manifest_text
from unimo_ds.tokenizer import load_tokenizer, train_tokenizer


@pytest.fixture
def corpus(prep, make_pictures, write_lines, sentences, tokenizer_file, tmp_path, tmp_path_factory):
    """A whole pairs corpus of several shards, with one record in quarantine; a copy of one."""
    built = tmp_path_factory.getbasetemp() / "whole-pairs"
    if not built.exists():
        make_pictures(tmp_path / "p", 12)
        lines = [{"image": f"{n:03d}.png", "captions": sentences[: 1 + n % 3]} for n in range(12)]
        source = write_lines(tmp_path / "p" / "a.jsonl", [*lines, b"{"])
        arguments = ("--grid", 2, "--patch", 4, "--num-classes", 6, "--rows-per-shard", 5)
        arguments = ("--tokenizer", tokenizer_file, *arguments, "--max-bad", 0.2)
        assert prep("pairs", built, source, *arguments).code == 0
        assert prep("verify", built).code == 0
    return Path(shutil.copytree(built, tmp_path / "c"))


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
    for told in ("quarantine.jsonl: its SHA-256", "pairs-00009", "not finished"):
        assert told in ran.out


def _write_manifest(folder, values):
    """With a digest that fits."""
    (folder / "manifest.json").write_text(manifest_text(values))


def _manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def _rewrite(folder, change, number=0):
    """Changes the rows of a shard and makes its checksum and the manifest's digest fit again."""
    manifest = _manifest(folder)
    shard, schema = manifest["shards"][number], SCHEMAS[manifest["kind"]]
    path = folder / shard["name"]
    rows = read_shard(path).to_pylist()
    change(rows)
    with pa.ipc.new_file(str(path), schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema))
    shard["bytes"], shard["sha256"] = path.stat().st_size, sha256_of(path)
    _write_manifest(folder, manifest)


PAIR_CHANGES = [
    (lambda rows: rows[2].update(image_row=3), "pair 002.png wants 002.png, row 3 is 003.png"),
    (lambda rows: rows[2].update(image_row=99), "row 99 is no row"),
    (lambda rows: rows[2].update(image_row=-1), "row -1 is no row"),
    (lambda rows: rows.pop(), "4 rows"),
    (lambda rows: rows[0]["captions"][0].append(7), "does not hold the lengths"),
    (lambda rows: rows[1].update(id="000.png"), "row 1: id '000.png' is also that of row 0"),
    (lambda rows: rows[1]["caption_texts"].append("x"), "row 1 (001.png): not as many captions"),
    (lambda rows: rows[1]["captions"][0].__setitem__(0, 2), "the id of a special token"),
    (lambda rows: rows[1].update(captions=[], caption_texts=[]), "row 1 (001.png): no caption"),
    (lambda rows: rows[3]["captions"][0].extend([9] * 600), "over max_tokens 510 tokens"),
    (lambda rows: rows[3]["captions"].__setitem__(0, []), "a caption without tokens"),
]
IMAGE_CHANGES = [
    (lambda rows: rows[1]["features"].__setitem__(5, float("nan")), "infinite or not a number"),
    (lambda rows: rows[1]["features"].__setitem__(5, float("-inf")), "infinite or not a number"),
    (lambda rows: rows[1]["features"].pop(), "features are not 48 for every region"),
    (lambda rows: rows[1]["boxes"].append(0.5), "boxes are not 5 for every region"),
    (lambda rows: rows[1]["boxes"].__setitem__(0, -0.1), "not within [0, 1]"),
    (lambda rows: rows[1]["boxes"].__setitem__(3, float("nan")), "not within [0, 1]"),
    (lambda rows: rows[1]["boxes"].__setitem__(0, 0.9), "ends before it begins"),
    (lambda rows: rows[1]["boxes"].__setitem__(4, 0.9), "not its area"),
    (lambda rows: rows[1]["class_ids"].__setitem__(2, 6), "not below num_classes 6"),
    (lambda rows: rows[1]["class_probs"].__setitem__(2, 1.5), "sum above 1"),
    (lambda rows: rows[1]["class_probs"].__setitem__(2, float("nan")), "not a number"),
    (lambda rows: rows[1].update(width=0), "a width or height below 1"),
    (lambda rows: rows[1].update(num_regions=5), "not 1 to 4 regions"),
    (lambda rows: rows[0].update(id="004.png"), "row 4: id '004.png' is also that of row 0"),
]


@pytest.mark.parametrize(("change", "told"), PAIR_CHANGES)
def test_pairs_that_contradict_the_rest(change, told, prep, corpus):
    _rewrite(corpus, change)
    ran = prep("verify", corpus)
    assert ran.code == 1 and told in ran.out
    assert "pairs-00000" in ran.out


@pytest.mark.parametrize(("change", "told"), IMAGE_CHANGES)
def test_images_that_contradict_the_rest(change, told, prep, corpus):
    _rewrite(corpus / "images", change)
    ran = prep("verify", corpus)
    assert ran.code == 1 and told in ran.out and "images-00000" in ran.out


def test_an_id_that_comes_twice_in_two_shards(prep, corpus):
    _rewrite(corpus / "images", lambda rows: rows[3].update(id="001.png"), number=1)
    told = "images-00001.arrow: row 3: id '001.png' is also that of row 1 of images-00000.arrow"
    assert told in prep("verify", corpus).out


@pytest.fixture
def texts(prep, write_lines, sentences, tokenizer_file, tmp_path):
    lines = [{"text": f"{n} {text}"} for n in range(4) for text in sentences]
    source = write_lines(tmp_path / "a.jsonl", lines)
    assert prep("text", tmp_path / "t", source, "--tokenizer", tokenizer_file).code == 0
    return tmp_path / "t"


def test_the_tokenizer_decides_which_ids_there_are(prep, texts, tokenizer_file, tmp_path):
    assert prep("verify", texts, "--tokenizer", tokenizer_file).code == 0
    train_tokenizer(["other words"] * 3, 300).save(tmp_path / "other.json")
    ran = prep("verify", texts, "--tokenizer", tmp_path / "other.json")
    assert ran.code == 1 and "made with tokenizer" in ran.out
    assert "a token id the tokenizer's 27" in ran.out
    mask_id = load_tokenizer(tokenizer_file).mask_id
    _rewrite(texts, lambda rows: rows[7]["tokens"].__setitem__(0, mask_id))
    assert prep("verify", texts).code == 0  # nobody knows without the tokenizer
    assert "row 7" in prep("verify", texts, "--tokenizer", tokenizer_file).out


def test_quick_sees_names_sizes_and_columns_only(prep, texts):
    _flip(texts / "texts-00000.arrow")
    assert prep("verify", texts, "--quick").code == 0
    assert prep("verify", texts).code == 1
    _truncate(texts / "texts-00000.arrow")
    ran = prep("verify", texts, "--quick")
    assert ran.code == 1 and "bytes, the manifest says" in ran.out


def test_a_shard_of_another_kind(prep, texts, corpus):
    manifest = _manifest(texts)
    record = _manifest(corpus)["shards"][0]
    for name in (record["name"], record["lengths"]):
        shutil.copy(corpus / name, texts)
    _write_manifest(texts, manifest | {"shards": [record], "rows": record["rows"]})
    ran = prep("verify", texts)
    assert ran.code == 1 and "its columns are not those of texts: id string, image_id" in ran.out


def _edit_shard(**changes):
    return lambda m: m["shards"][0].update(changes)


MANIFEST_EDITS = [
    (lambda m: m.update(rows=11), "the shards have 12 rows, the manifest says 11"),
    (lambda m: m.update(rows="12"), "rows is '12'"),
    (lambda m: m.update(rows=-12), "rows is -12"),
    (lambda m: m.update(rows=True), "rows is True"),
    (lambda m: m.update(kind="sounds"), "kind is 'sounds'"),
    (lambda m: m.update(kind="texts"), "not a manifest"),
    (lambda m: m.update(extra=1), "extra"),
    (lambda m: m.pop("seed"), "seed"),
    (lambda m: m.update(schema_version=9), "schema version 9"),
    (lambda m: m.update(shards={"a": 1}), "not a manifest"),
    (lambda m: m.update(shards=[1]), "not a manifest"),
    (lambda m: m.update(regions=None), "regions of pairs: None"),
    (lambda m: m.update(images=""), "images of pairs"),
    (lambda m: m.update(images=".."), "no name of a file"),
    (lambda m: m.update(images="/etc"), "no name of a file"),
    (lambda m: m.update(images="images\0"), "no name of a file"),
    (lambda m: m.update(images="pairs-00000.arrow"), "two files are called"),
    (_edit_shard(name="../x"), "'../x' is no name of a file in the folder"),
    (_edit_shard(name="/etc/passwd"), "no name of a file"),
    (_edit_shard(lengths="a/../../x"), "no name of a file"),
    (_edit_shard(rows=1.5), "rows is 1.5"),
    (_edit_shard(name="pairs-00001.arrow"), "two files are called"),
    (_edit_shard(bytes=3), "the manifest says 3"),
    (_edit_shard(rows=4), "manifest says 12"),
    (_edit_shard(length_sum=4), "the manifest says 4"),
    (lambda m: m["files"].update({"../../x": "0"}), "no name of a file"),
    (lambda m: m.update(files={}), "names no quarantine.jsonl"),
    (lambda m: m.update(quarantined={"bad_json": 2}), "holds {'bad_json': 1}"),
    (lambda m: m["regions"].update(num_classes=5), "made for other regions"),
]


@pytest.mark.parametrize(("edit", "told"), MANIFEST_EDITS)
def test_a_manifest_that_somebody_edited(edit, told, prep, corpus):
    values = _manifest(corpus)
    edit(values)
    (corpus / "manifest.json").write_text(json.dumps(values, indent=1, sort_keys=True) + "\n")
    without = prep("verify", corpus)
    assert without.code == 1 and "Traceback" not in without.out + without.err
    _write_manifest(corpus, values)  # even with a digest that fits
    ran = prep("verify", corpus)
    assert ran.code == 1 and told in ran.out, ran.out + ran.err


@pytest.mark.parametrize(
    "text", ["", "[]", "null", "{}", "{", "[" * 100_000, '"\\ud800"', b"\xff\xfe", b"\0" * 99]
)
def test_a_manifest_that_is_none(text, prep, corpus):
    (corpus / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    ran = prep("verify", corpus)
    assert ran.code == 1 and "is not a manifest" in ran.out and "Traceback" not in ran.err


@pytest.mark.parametrize("name", ["pairs-00000.arrow", "images/images-00000.lengths.npy", "images"])
def test_links_are_not_followed(name, prep, corpus, tmp_path):
    (corpus / name).rename(tmp_path / "elsewhere")
    (corpus / name).symlink_to(tmp_path / "elsewhere")
    ran = prep("verify", corpus)
    assert ran.code == 1 and f"{corpus / name}: is a link" in ran.out


def test_pairs_within_pairs_are_refused(prep, corpus, texts):
    shutil.rmtree(corpus / "images")
    shutil.copytree(texts, corpus / "images")
    ran = prep("verify", corpus)
    assert ran.code == 1 and "holds texts, expected images" in ran.out


def test_several_workers_tell_the_same(prep, corpus, monkeypatch):
    monkeypatch.setattr("data_prep.verify._BYTES_PER_WORKER", 1)
    _rewrite(corpus, PAIR_CHANGES[0][0])
    one, two = prep("verify", corpus), prep("verify", corpus, "--workers", 2)
    assert one.out == two.out and one.code == two.code == 1


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
