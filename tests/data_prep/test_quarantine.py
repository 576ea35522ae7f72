"""`unimo-prep quarantine`, and what the quarantine keeps of a record."""

import json

import pytest

from data_prep.quarantine import MOST_EXCERPT, BadRecord, Reason, excerpt_of

LINES = [
    {"text": "the fox sleeps."},
    b'{"text": "half a',
    {"text": ""},
    {"words": "x" * 5000},
    b"\xff\xfe broken \x1b[31m",
    {"id": 7, "text": "a red star [bold]."},
    {"id": 7, "text": "a red star again."},
]


@pytest.fixture
def texts(prep, write_lines, tokenizer_file, tmp_path):
    source = write_lines(tmp_path / "some.jsonl", LINES)
    arguments = ("--tokenizer", tokenizer_file, "--max-bad", 1)
    assert prep("text", tmp_path / "c", source, *arguments).code == 0
    return tmp_path / "c"


def test_every_entry_shows_how_its_record_begins(texts, quarantine):
    found = {entry["reason"]: entry["excerpt"] for entry in quarantine(texts)}
    assert found["bad_json"] == '{"text": "half a'
    assert found["empty_text"] == '{"text": ""}'
    assert found["missing_field"].startswith('{"words": "xxx')
    assert len(found["missing_field"]) == MOST_EXCERPT
    assert found["bad_utf8"] == "\\xff\\xfe broken \x1b[31m"
    assert found["duplicate_id"] == '{"id": 7, "text": "a red star again."}'


def test_counts_and_examples(prep, texts):
    ran = prep("quarantine", texts)
    assert ran.code == 0 and "5 in quarantine" in ran.out
    for told in ("some.jsonl:2", "some.jsonl:5", '\'{"text": "half a\'', "duplicate_id"):
        assert told in ran.out
    assert "\x1b" not in ran.out, "data must not steer the terminal"


def test_filters(prep, texts):
    (found,) = json.loads(prep("quarantine", texts, "--reason", "bad_json", "--json").out)
    assert found["records"] == 1 and [e["line"] for e in found["examples"]] == [2]
    (found,) = json.loads(prep("quarantine", texts, "--source", "other", "--json").out)
    assert found["records"] == 0 and found["examples"] == []
    (found,) = json.loads(prep("quarantine", texts, "--rows", 0, "--json").out)
    assert found["records"] == 5 and found["examples"] == []
    assert prep("quarantine", texts, "--reason", "nonsense").code == 2


def test_no_corpus_and_a_broken_line(prep, texts, tmp_path):
    ran = prep("quarantine", tmp_path)
    assert ran.code == 2 and "quarantine.jsonl is missing" in ran.err
    for line in (b'{"reason": "no such"}', b"[]", b"\xff", b'{"reason": "bad_json"}'):
        (texts / "quarantine.jsonl").write_bytes(line + b"\n")
        ran = prep("quarantine", texts)
        assert ran.code == 2 and "line 1 is no entry" in ran.err


def test_any_object_has_an_excerpt():
    deep: object = []
    for _ in range(100_000):
        deep = [deep]
    assert "too deeply" in excerpt_of(deep)
    assert excerpt_of({"a": b"\xff"}) == '{"a": "b\'\\\\xff\'"}'
    assert excerpt_of("half \ud83d") == "half \\ud83d"
    bad = BadRecord(Reason.BAD_JSON, "why", b"raw\r\n").at("file", 3)
    assert (bad.excerpt, bad.line) == ("raw", 3)
