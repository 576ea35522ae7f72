"""`unimo-prep rewrite` from end to end: the same bytes however it is run, and what verify says."""

import json
import os
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import pyarrow as pa
import pytest

from data_prep.rewrite.replacement import normalised
from data_prep.writer import read_shard
from tests.conftest import command_environment
from unimo_ds.data.schema import REWRITE_SCHEMA, Level, manifest_text, read_manifest
from unimo_ds.data.shards import open_corpus
from unimo_ds.tokenizer import load_tokenizer

TOLD = ("caption", "level", "positive", "begin", "end", "how", "text")
LEVELS = {Level.WORD, Level.PHRASE, Level.SENTENCE}


def columns(folder: Path, stage: str = "rewrites") -> dict[str, bytes]:
    manifest = read_manifest(folder)
    return {shard.name: (folder / getattr(shard, stage)).read_bytes() for shard in manifest.shards}


def rows(folder: Path) -> list[tuple[dict, dict]]:
    """Pairs with their rewrites."""
    shards = read_manifest(folder).shards
    pairs = pa.concat_tables([read_shard(folder / shard.name) for shard in shards])
    rewrites = pa.concat_tables([read_shard(folder / shard.rewrites) for shard in shards])
    assert rewrites.schema.equals(REWRITE_SCHEMA)
    return list(zip(pairs.to_pylist(), rewrites.to_pylist(), strict=True))


@pytest.fixture
def arguments(small):
    return ("--tokenizer", small.tokenizer, "--paraphrase", "demo", "--per-caption", 2)


def test_every_level_is_there_and_keeps_its_promises(small, prep, arguments):
    before = (small.pairs / "pairs-00000.arrow").read_bytes()
    ran = prep("rewrite", small.pairs, *arguments)
    assert ran.code == 0, ran.err
    assert prep("verify", small.pairs, "--tokenizer", small.tokenizer).code == 0
    assert (small.pairs / "pairs-00000.arrow").read_bytes() == before
    words = load_tokenizer(small.tokenizer)
    found, counted = set(), 0
    for pair, rewritten in rows(small.pairs):
        assert rewritten["id"] == pair["id"]
        own = {normalised(text) for text in pair["caption_texts"]}
        assert words.encode(rewritten["text"]) == rewritten["tokens"]
        for caption, level, positive, begin, end, how, text in zip(
            *(rewritten[name] for name in REWRITE_SCHEMA.names if name in TOLD), strict=True
        ):
            source = pair["caption_texts"][caption]
            assert text.startswith(source[:begin]) or level == Level.SENTENCE
            assert text.endswith(source[end:])
            assert normalised(text) not in own or positive
            found.add((level, positive, how))
            counted += 1
    assert {(level, 0) for level in LEVELS} <= {key[:2] for key in found}
    assert (Level.SENTENCE, 1, "grammar") in found
    stage = read_manifest(small.pairs).stages["rewrites"]
    told = sum(n for what, n in stage["counts"].items() if ": negative, " in what)
    told += stage["counts"]["sentence: positive, grammar"]
    assert told == counted > 1000
    assert stage["vocabulary"].keys() == {"attribute", "object", "relation"}
    assert str(stage["counts"]["word: negative, object"]) in prep("stats", small.pairs).out.replace(
        ",", ""
    )


def test_training_reads_what_was_written(small, prep, arguments):
    assert prep("rewrite", small.pairs, *arguments).code == 0
    corpus = open_corpus(small.pairs)
    for row, (_, rewritten) in enumerate(rows(small.pairs)):
        read = corpus.rewrites(row)
        assert read.caption.tolist() == rewritten["caption"]
        assert read.level.tolist() == rewritten["level"]
        assert read.positive.tolist() == rewritten["positive"]
        tokens = [read.tokens(i).tolist() for i in range(len(read.level))]
        assert tokens == rewritten["tokens"]


def test_workers_and_engines_change_no_byte(small, copied, prep, arguments):
    assert prep("rewrite", small.pairs, *arguments).code == 0
    one, two = columns(small.pairs), copied("two")
    assert prep("rewrite", two, *arguments, "--workers", 2).code == 0
    assert columns(two) == one and len(one) == 8
    if find_spec("ray"):
        on_ray = copied("ray")
        ran = prep("rewrite", on_ray, *arguments, "--engine", "ray", "--workers", 2)
        assert ran.code == 0, ran.err
        assert columns(on_ray) == one
    other = copied("other")
    assert prep("rewrite", other, *arguments, "--seed", 2).code == 0
    assert columns(other) != one


def kill_when(process: subprocess.Popen, folder: Path, receipts: int) -> None:
    until = time.monotonic() + 60
    while len(list((folder / ".receipts").rglob("0*.json"))) < receipts:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL


def test_killed_and_resumed_it_is_the_same(small, copied, prep, arguments):
    whole = copied("whole")
    assert prep("rewrite", whole, *arguments).code == 0
    before = read_manifest(small.pairs)
    command = [sys.executable, "-m", "data_prep.cli.main", "rewrite", small.pairs, *arguments]
    command = [str(word) for word in (*command, "--workers", 1, "--resume")]
    for receipts in (1, 3):
        process = subprocess.Popen(
            command, env=command_environment(), stderr=subprocess.DEVNULL, cwd=os.getcwd()
        )
        kill_when(process, small.pairs, receipts)
        assert read_manifest(small.pairs) == before  # what there was before is whole
    assert "go on with --resume" in prep("verify", small.pairs).out
    ran = prep("rewrite", small.pairs, "--tokenizer", small.tokenizer, "--resume")
    assert ran.code == 2 and "was begun otherwise" in ran.err
    assert prep("rewrite", small.pairs, *arguments, "--resume").code == 0
    assert columns(small.pairs) == columns(whole)
    assert prep("verify", small.pairs).code == 0
    assert "nothing to do" in prep("rewrite", small.pairs, *arguments, "--resume").err


def test_columns_are_replaced_only_when_that_is_said(small, prep, arguments):
    assert prep("rewrite", small.pairs, *arguments).code == 0
    first = columns(small.pairs)
    ran = prep("rewrite", small.pairs, *arguments, "--levels", "word")
    assert ran.code == 2 and "make them anew with --replace" in ran.err
    assert columns(small.pairs) == first
    ran = prep(
        "rewrite", small.pairs, "--tokenizer", small.tokenizer, "--levels", "word", "--replace"
    )
    assert ran.code == 0, ran.err
    assert {level for _, row in rows(small.pairs) for level in row["level"]} == {Level.WORD}
    assert prep("verify", small.pairs).code == 0  # the old files are gone
    assert len(list(small.pairs.glob("*.rewrites-*"))) == 8


def test_what_cannot_be_rewritten_is_told(small, prep, tmp_path):
    words = ("--tokenizer", small.tokenizer)
    for changed, told in (
        ((small.texts, *words), "holds texts, expected pairs"),
        ((tmp_path / "none", *words), "is no corpus"),
        ((small.pairs, *words, "--levels", "letter"), "--levels letter: expected some of"),
        ((small.pairs, *words, "--levels", ""), "--levels is empty"),
        ((small.pairs, *words, "--per-caption", 0), "--per-caption 0: 1 at least"),
        ((small.pairs, *words, "--command", "false"), "--command false: exit code 1"),
    ):
        ran = prep("rewrite", *changed)
        assert ran.code == 2 and told in ran.err, ran.err
    assert not read_manifest(small.pairs).stages


def test_verify_finds_every_kind_of_damage(small, prep, arguments):
    assert prep("rewrite", small.pairs, *arguments).code == 0
    manifest = read_manifest(small.pairs)
    shard = manifest.shards[2]
    path = small.pairs / shard.rewrites
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes([whole[200] ^ 1]) + whole[201:])
    assert "the content has changed" in prep("verify", small.pairs).out
    path.unlink()
    assert "missing" in prep("verify", small.pairs).out
    path.write_bytes(whole)
    table = read_shard(path).to_pylist()
    for told, change in (
        ("is 'x', the shard has", lambda t: t[0].update(id="x")),
        ("row 6 is", lambda t: t.insert(6, t[1])),
        ("is no row", lambda t: t.pop()),
        ("lists of different lengths", lambda t: t[0]["level"].pop()),
        ("a rewrite of caption 99", lambda t: t[0]["caption"].__setitem__(0, 99)),
        ("level 7, positive 0", lambda t: t[0]["level"].__setitem__(-1, 7)),
        ("outside the span it tells", lambda t: t[0]["text"].__setitem__(-1, "something else")),
        ("characters 900 to", lambda t: t[0]["begin"].__setitem__(-1, 900)),
        ("a rewrite without tokens", lambda t: t[0]["tokens"].__setitem__(-1, [])),
        ("the id of no word", lambda t: t[0]["tokens"].__setitem__(-1, [2])),
    ):
        changed = json.loads(json.dumps(table))
        change(changed)
        _write(small.pairs, 2, pa.Table.from_pylist(changed, schema=REWRITE_SCHEMA))
        said = prep("verify", small.pairs).out
        assert told in said, (told, said)


def _write(folder: Path, number: int, table: pa.Table) -> None:
    """Puts ``table`` in place of a shard's rewrites and lets the manifest say so."""
    import hashlib

    values = json.loads((folder / "manifest.json").read_text())
    path = folder / values["shards"][number]["rewrites"]
    with pa.ipc.new_file(path, REWRITE_SCHEMA) as writer:
        writer.write_table(table)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    values["shards"][number]["rewrites_sha256"] = digest
    (folder / "manifest.json").write_text(manifest_text(values))


def test_a_page_shows_rewrites_and_neighbours(small, prep, arguments, tmp_path):
    assert prep("rewrite", small.pairs, *arguments).code == 0
    ran = prep(
        "retrieve", small.pairs, "--tokenizer", small.tokenizer, "--texts", small.texts,
        "--images", small.images,
    )  # fmt: skip
    assert ran.code == 0, ran.err
    page = tmp_path / "page.html"
    assert prep("inspect", small.pairs, "-o", page).code == 0
    text = page.read_text()
    assert "<h4>Rewritten</h4>" in text and "<h4>Related</h4>" in text
    assert "word, object: is wrong" in text and "sentence, grammar: says the same" in text
    ids = open_corpus(small.texts).row_id(0).rpartition("-")[0]
    assert ids[:4] in text
