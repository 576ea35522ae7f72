"""`unimo-prep diff`: every difference is counted, shown, and told by the exit code."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.compare.corpora import differences
from data_prep.quarantine import QUARANTINE_NAME
from data_prep.writer import sha256_of, write_shard
from unimo_ds.data.schema import MANIFEST_NAME, TEXTS, Manifest

SMALL = ("--grid", 2, "--patch", 4, "--num-classes", 6, "--rows-per-shard", 5)


def _write(folder: Path, rows: list[tuple[str, int]], cut: int) -> Path:
    """A texts corpus of rows (id, token) in shards of ``cut`` rows."""
    folder.mkdir()
    (folder / QUARANTINE_NAME).touch()
    shards = []
    for number, start in enumerate(range(0, len(rows), cut)):
        piece = [{"id": name, "tokens": [token]} for name, token in rows[start : start + cut]]
        shards.append(write_shard(folder, f"texts-{number:05d}.arrow", TEXTS, piece))
    manifest = Manifest(
        kind=TEXTS,
        rows=len(rows),
        shards=shards,
        quarantined={},
        command=["made", "here"],
        seed=1,
        max_tokens=9,
        files={QUARANTINE_NAME: sha256_of(folder / QUARANTINE_NAME)},
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json())
    return folder


ROWS = st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(4, 6)), min_size=1, max_size=12)


@given(a=ROWS, b=ROWS, cuts=st.tuples(st.integers(1, 5), st.integers(1, 5)), at_once=st.integers(1))
@settings(max_examples=40, deadline=None)
def test_counts_are_those_of_a_plain_comparison(a, b, cuts, at_once, tmp_path_factory):
    folder = tmp_path_factory.mktemp("diff")
    ours, theirs = _write(folder / "a", a, cuts[0]), _write(folder / "b", b, cuts[1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("data_prep.hashing.ROWS_AT_ONCE", at_once)
        (found,) = differences(ours, theirs, most=99)
    assert found.same == (a == b)
    if found.rows.same + found.rows.changed == len(a) == len(b) and not found.rows.changed:
        assert sorted(a) == sorted(b)
    names_a, names_b = (Counter(name for name, _ in rows) for rows in (a, b))
    assert found.rows.only_a == (names_a - names_b).total()
    assert found.rows.only_b == (names_b - names_a).total()
    assert found.rows.same + found.rows.changed == (names_a & names_b).total()
    for examples, names in (("only_a", names_a - names_b), ("only_b", names_b - names_a)):
        assert Counter(row.id for row in found.examples[examples]) == names
    if max([*names_a.values(), *names_b.values()]) == 1:  # ids come once, as builders have them
        left, right = dict(a), dict(b)
        changed = {name for name in left.keys() & right.keys() if left[name] != right[name]}
        assert {row.id for row in found.examples["changed"]} == changed
        assert found.rows.columns == ({"tokens": len(changed)} if changed else {})


@pytest.fixture
def make_pairs(prep, make_pictures, write_lines, sentences, tokenizer_file, tmp_path):
    """Builds a pairs corpus of 12 pictures from changed lines."""
    make_pictures(tmp_path / "p", 12)

    def make(name, change=lambda lines: lines, *options):
        lines = [{"image": f"{n:03d}.png", "captions": sentences[:2]} for n in range(12)]
        source = write_lines(tmp_path / "p" / f"{name}.jsonl", change([*lines, b"{"]))
        arguments = ("--tokenizer", tokenizer_file, *SMALL, "--max-bad", 0.2, *options)
        assert prep("pairs", tmp_path / name, source, *arguments).code == 0
        return tmp_path / name

    return make


def test_the_same_build_in_another_folder(prep, make_pairs, tmp_path):
    a = make_pairs("a")
    ran = prep("diff", a, a)
    assert ran.code == 0 and ran.out.count("no difference") == 2
    (a / "quarantine.jsonl").rename(tmp_path / "kept")
    ran = prep("diff", a, a)
    assert ran.code == 2 and "quarantine.jsonl is missing" in ran.err


def test_what_changed_is_told(prep, make_pairs):
    def change(lines):
        lines[3]["captions"] = ["a red ring.", "nobody knows."]
        return [*lines[:-2], b"{]"]

    a, b = make_pairs("a"), make_pairs("b", change, "--seed", 7)
    ran = prep("diff", a, b)
    assert ran.code == 1
    for told in (
        "A  ",
        "seed: 1 -> 7",
        "rows: 12 -> 11",
        "rows: 10 the same, 1 only in A, 0 only in B, 1 changed",
        "changed columns: captions 1, caption_texts 1",
        "changed: 003.png (row 3 of pairs-00000.arrow of A, row 3 of pairs-00000.arrow of B)",
        "-> ['a red ring.', 'nobody knows.']",
        "only in A: 011.png (row 1 of pairs-00002.arrow of A)",
        "quarantine: 1 only in A, 1 only in B",
        "bad_json",
        "regions visual_words_sha256",
        "command: unimo-prep pairs",
    ):
        assert told in ran.out, told
    values, images = json.loads(prep("diff", a, b, "--json", "--rows", 0).out)
    assert not values["same"] and not images["same"]
    assert values["rows"]["changed"] == 1 and values["examples"]["changed"] == []
    assert images["kind"] == "images" and images["rows"]["only_a"] == 1
    assert set(images["rows"]["columns"]) <= {"class_ids"}  # the same pictures, other words


def test_corpora_of_different_kinds(prep, make_pairs):
    a = make_pairs("a")
    ran = prep("diff", a, a / "images")
    assert ran.code == 1 and "kind: pairs -> images" in ran.out


def test_the_order_counts_and_the_cuts_do_not(tmp_path):
    rows = [(name, 5) for name in "abcdefgh"]
    whole, cut = _write(tmp_path / "a", rows, 8), _write(tmp_path / "b", rows, 3)
    turned = _write(tmp_path / "c", rows[::-1], 8)
    assert next(differences(whole, cut)).same
    found = next(differences(whole, turned))
    assert not found.same and found.rows.same == 8 and not found.rows.same_order


def test_a_damaged_corpus_is_trouble_and_no_difference(prep, tmp_path):
    a, b = (_write(tmp_path / name, [("x", 4), (name, 5)], 1) for name in "ab")
    (b / "texts-00001.arrow").unlink()
    ran = prep("diff", a, b)
    assert ran.code == 2 and "texts-00001.arrow is missing" in ran.err
    ran = prep("diff", a, tmp_path)
    assert ran.code == 2 and "no corpus" in ran.err


def test_two_workers_find_the_same(prep, tmp_path, monkeypatch):
    monkeypatch.setattr("data_prep.compare.corpora._BYTES_PER_WORKER", 1)
    rng = np.random.default_rng(2)
    rows = [(f"r{n}", int(rng.integers(4, 99))) for n in range(40)]
    a, b = _write(tmp_path / "a", rows, 10), _write(tmp_path / "b", rows[5:], 7)
    one, two = prep("diff", a, b), prep("diff", a, b, "--workers", 2)
    assert one.code == two.code == 1 and one.out == two.out
