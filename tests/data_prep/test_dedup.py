"""Duplicates within a build and against other corpora, held-out texts, and `unimo-prep overlap`."""

import json

import numpy as np
import pytest

from data_prep.cleaning.duplicates import find_duplicates
from data_prep.cleaning.sieve import Sieve
from data_prep.cleaning.signatures import Nearness, SignatureMaker
from data_prep.readers.text import Document
from unimo_ds.data.schema import read_manifest

WORDS = np.array([f"w{n}" for n in range(2000)])
SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6)


def _prose(seed, count=60):
    return " ".join(np.random.default_rng(seed).choice(WORDS, count))


def _varied(text, *places):
    """``text`` with other words at some places."""
    words = text.split()
    for place in places:
        words[place] = "other"
    return " ".join(words)


@pytest.fixture
def documents():
    """(id, text, what `--dedup near` says)."""
    base = [_prose(seed) for seed in range(6)]
    return [
        *((f"base{n}", text, None) for n, text in enumerate(base)),
        ("case", base[0].upper() + "!!", "exact_duplicate as base0"),
        ("near", _varied(base[1], 30), "near_duplicate as base1"),
        ("again", _varied(base[1], 30), "near_duplicate as base1"),
        ("far", _varied(base[2], *range(0, 60, 4)), None),
        ("marks", "?!", None),
        ("stops", "...", None),
    ]


@pytest.fixture
def source(documents, write_lines, tmp_path):
    records = [{"id": name, "text": text} for name, text, _ in documents]
    return write_lines(tmp_path / "in" / "a.jsonl", records)


def test_near_and_exact_duplicates_are_left_out_and_the_first_stays(
    prep, tokenizer_file, documents, source, quarantine, read_rows, tmp_path
):
    arguments = ("--tokenizer", tokenizer_file, "--rows-per-shard", 4, "--max-bad", 0)
    assert prep("text", tmp_path / "o", source, *arguments, "--dedup", "near").code == 0
    told = {q["record"]: f"{q['reason']} {q['detail']}" for q in quarantine(tmp_path / "o")}
    assert told == {name: said for name, _, said in documents if said}
    kept = {row["id"].split("#")[0] for row in read_rows(tmp_path / "o")}
    assert kept == {name for name, _, said in documents if not said}
    assert prep("verify", tmp_path / "o").code == 0
    assert prep("text", tmp_path / "e", source, *arguments, "--dedup", "exact").code == 0
    told = {q["record"]: f"{q['reason']} {q['detail']}" for q in quarantine(tmp_path / "e")}
    assert told == {"case": "exact_duplicate as base0", "again": "exact_duplicate as near"}


def test_workers_and_an_interrupted_first_pass_change_no_byte(
    prep, tokenizer_file, source, contents, tmp_path, monkeypatch
):
    arguments = ("--tokenizer", tokenizer_file, "--rows-per-shard", 4, "--dedup", "near")
    assert prep("text", tmp_path / "one", source, *arguments).code == 0
    assert prep("text", tmp_path / "two", source, *arguments, "--workers", 2).code == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    made = []

    def stop(maker, documents):
        made.append(len(documents))
        if len(made) == 2:
            raise OSError("no space left")
        return table(maker, documents)

    table = SignatureMaker.table
    monkeypatch.setattr(SignatureMaker, "table", stop)
    assert prep("text", tmp_path / "three", source, *arguments).code == 2
    kept = sorted((tmp_path / "three" / ".receipts" / "signatures").iterdir())
    assert [path.name for path in kept] == ["00000.arrow"]
    monkeypatch.setattr(SignatureMaker, "table", table)
    before = kept[0].stat().st_mtime_ns
    ran = prep("text", tmp_path / "three", source, *arguments, "--resume", "--threshold", 0.7)
    assert ran.code == 2 and "was begun otherwise" in ran.err
    assert kept[0].stat().st_mtime_ns == before
    assert prep("text", tmp_path / "three", source, *arguments, "--resume").code == 0
    assert contents(tmp_path / "three") == contents(tmp_path / "one")


def test_input_that_changes_is_noticed(prep, tokenizer_file, source, tmp_path, monkeypatch):
    arguments = ("--tokenizer", tokenizer_file, "--rows-per-shard", 4, "--dedup", "exact")
    out = tmp_path / "o"
    (source.parent / "b.jsonl").write_text("{")
    both = (source, source.parent / "b.jsonl")
    assert prep("text", out, *both, *arguments, "--max-bad", 0).code == 3
    lines = source.read_text().splitlines()
    source.write_text("\n".join(['{"text": "new"}', *lines[1:]]))
    ran = prep("text", out, *both, *arguments, "--resume")
    assert ran.code == 2 and "slice 0" in ran.err and "has changed" in ran.err


def test_against_other_corpora_texts_and_captions(
    prep, tokenizer_file, write_lines, make_pictures, quarantine, tmp_path
):
    known, said, fresh = _prose(1), "a red star stands above a blue ring.", _prose(2)
    old = write_lines(tmp_path / "old.jsonl", [{"id": "k", "text": known}])
    arguments = ("--tokenizer", tokenizer_file)
    assert prep("text", tmp_path / "old", old, *arguments, "--max-tokens", 50).code == 0
    make_pictures(tmp_path / "p", 3)
    pairs = [{"image": f"{n:03d}.png", "captions": [f"{said} {n}"]} for n in range(3)]
    source = write_lines(tmp_path / "p" / "pairs.jsonl", pairs)
    assert prep("pairs", tmp_path / "pairs", source, *arguments, *SMALL).code == 0
    records = [{"id": "a", "text": _varied(known, 7)}, {"id": "b", "text": f"{said} 1"}]
    new = write_lines(tmp_path / "new.jsonl", [*records, {"id": "c", "text": fresh}])
    against = ("--against", tmp_path / "old", "--against", tmp_path / "pairs")
    ran = prep("text", tmp_path / "o", new, *arguments, "--dedup", "near", *against)
    assert ran.code == 0, ran.err
    found = {q["record"]: (q["reason"], q["detail"]) for q in quarantine(tmp_path / "o")}
    assert found == {
        "a": ("near_duplicate", f"as {tmp_path / 'old'}: k"),
        "b": ("exact_duplicate", f"as {tmp_path / 'pairs'}: 001.png/0"),
    }


def test_documents_that_share_a_run_of_words_with_held_out_ones_are_left_out(
    prep, tokenizer_file, write_lines, quarantine, contents, tmp_path
):
    held, short = _prose(1), _prose(2, 9)
    arguments = ("--tokenizer", tokenizer_file)
    source = write_lines(tmp_path / "h.jsonl", [{"text": held}, {"text": short}])
    assert prep("text", tmp_path / "held", source, *arguments).code == 0
    run = " ".join(held.split()[20:33])
    texts = {
        "13": f"{_prose(3)} {run.upper()}. {_prose(4)}",
        "12": f"{_prose(5)} {run.rsplit(' ', 1)[0]} {_prose(6)}",
        "whole": f"{_prose(7)} {short} {_prose(8)}",
        "part": f"{_prose(9)} {short.rsplit(' ', 1)[0]} {_prose(10)}",
    }
    source = write_lines(tmp_path / "a.jsonl", [{"id": k, "text": t} for k, t in texts.items()])
    arguments = (*arguments, "--decontaminate", tmp_path / "held", "--max-bad", 0)
    assert prep("text", tmp_path / "o", source, *arguments).code == 0
    found = {q["record"]: q["detail"] for q in quarantine(tmp_path / "o")}
    assert found == {"13": f"held out: {run!r}", "whole": f"held out: {short!r}"}
    assert read_manifest(tmp_path / "o").quarantined == {"contaminated": 2}
    assert prep("text", tmp_path / "d", source, *arguments, "--dedup", "near").code == 0
    assert contents(tmp_path / "d") == contents(tmp_path / "o")
    assert prep("text", tmp_path / "n", source, *arguments, "--ngram", 12).code == 0
    assert {q["record"] for q in quarantine(tmp_path / "n")} == {"13", "12", "whole"}


def test_overlap_of_pairs(prep, tokenizer_file, write_lines, make_pictures, tmp_path):
    train, held = make_pictures(tmp_path / "t", 6), make_pictures(tmp_path / "h", 5)
    for path in train[3:]:  # three pictures are the same, under names of their own
        path.unlink()
    for number, path in enumerate(train[:3]):
        path.rename(path.with_name(f"t{number}.png"))
    long = _prose(1, 30)
    said = {
        "t": ["a dog runs", _prose(2), f"{long} and more", _prose(3)],
        "h": ["A dog runs!", _varied(_prose(2), 30), f"{long[:40]} {long}", _prose(4), _prose(5)],
    }
    for side, names in (("t", ["t0", "t1", "t2", "t2"]), ("h", [p.stem for p in held])):
        records = [
            {"image": f"{name}.png", "captions": [text]}
            for name, text in zip(names, said[side], strict=True)
        ]
        source = write_lines(tmp_path / side / "pairs.jsonl", records)
        classes = ("--visual-words", tmp_path / "out-t/images/visual_words.npy")
        arguments = ("--tokenizer", tokenizer_file, *SMALL, *(classes if side == "h" else ()))
        assert prep("pairs", tmp_path / f"out-{side}", source, *arguments).code == 0
    sides = (tmp_path / "out-t", tmp_path / "out-h")
    listing = tmp_path / "list.jsonl"
    ran = prep("overlap", *sides, "--json", "--list", listing, "--most", 0.5)
    assert ran.code == 1, ran.err
    assert json.loads(ran.out) == {
        "texts": 5,
        "pictures": 5,
        "share": 0.6,
        "exact": 1,
        "near": 1,
        "n-gram": 1,
        "picture": 3,
    }
    found = [json.loads(line) for line in listing.read_text().splitlines()]
    assert {(m["kind"], m["held_out"], m["train"]) for m in found[:3]} == {
        ("exact", "000.png/0", "t0.png/0"),
        ("near", "001.png/0", "t1.png/0"),
        ("n-gram", "002.png/0", "t2.png/0"),
    }
    ran = prep("overlap", *sides, "--workers", 2)
    assert ran.code == 0 and "60.00%" in ran.out
    ran = prep("overlap", sides[0], sides[1] / "images")
    assert ran.code == 2 and "expected texts or pairs" in ran.err


def test_minhash_finds_what_is_near_and_nothing_else():
    """Recall and precision on pairs of known Jaccard similarity."""
    nearness = Nearness(threshold=0.8)
    texts, similarities = [], []
    for seed in range(300):
        text = _prose(seed, 200)
        other = _varied(text, *(np.random.default_rng(seed).integers(0, 200, 1 + seed % 12)))
        texts += [text, other]
        shingles = [
            {tuple(words[k : k + 5]) for k in range(196)} for words in (text.split(), other.split())
        ]
        similarities.append(len(shingles[0] & shingles[1]) / len(shingles[0] | shingles[1]))
    records = [Document(str(n), text, "", 0) for n, text in enumerate(texts)]
    table = SignatureMaker(nearness, Sieve()).table(records)
    columns = {
        name: np.frombuffer(b"".join(table.column(name).to_pylist()), dtype).reshape(600, -1)
        for name, dtype in (("digest", np.uint64), ("minhash", np.uint32))
    }
    found = find_duplicates(columns["digest"], columns["minhash"], nearness)
    joined = found.first[1::2] == np.arange(0, 600, 2)
    assert (found.first[::2] == np.arange(0, 600, 2)).all() and not found.exact.any()
    similarities = np.array(similarities)
    assert joined[similarities >= 0.9].mean() > 0.97
    assert joined[similarities <= 0.65].mean() < 0.03
