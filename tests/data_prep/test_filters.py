"""Filters of `unimo-prep text`: each measure, its bound, and its count in the manifest."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.cleaning.filters import GOPHER, Filters, repeated_share, top_share
from data_prep.cleaning.grams import gram_hashes, plain_words, word_hashes
from unimo_ds.data.schema import read_manifest

PROSE = (
    "The old harbour lies quiet in the morning, and fishermen mend their nets beside the wall. "
    "Later the market opens, children run between the stalls, and someone sells warm bread. "
    "When evening comes the boats return with their catch while lamps are lit along the pier, "
    "and from a small house above the bay music drifts over the water until everybody sleeps."
)
GERMAN = "Der alte Hafen liegt am Morgen still, und die Fischer flicken neben der Mauer ihre Netze."


@pytest.mark.parametrize(
    ("filters", "text", "reason", "told"),
    [
        (Filters(min_characters=9), "too short"[:8], "length", "characters: 8, at least 9"),
        (Filters(max_characters=9), "x" * 10, "length", "at most 9"),
        (Filters(min_words=3), "two words", "length", "words: 2, at least 3"),
        (Filters(max_words=3), "four words are many", "length", "at most 3"),
        (Filters(max_duplicate_lines=0.5), "a\nb\na\na\na", "repetition", "lines: 0.6"),
        (Filters(max_duplicate_paragraphs=0.3), "a\nb\n\nc\n\na\nb", "repetition", "0.3333"),
        (Filters(max_top_grams=0.2), "buy now " * 3 + PROSE[:50], "repetition", "2-gram"),
        (Filters(max_duplicate_grams=0.15), f"{PROSE} {PROSE}", "repetition", "repeated 5-gram"),
        (Filters(max_symbols=0.1), "a # b ... c \u2026 d", "symbols", "symbols a word: 0.4286"),
        (Filters(min_mean_word=3), "a b c d", "word_length", "characters a word: 1"),
        (Filters(max_mean_word=10), "x" * 11, "word_length", "at most 10"),
        (Filters(languages=("en",)), GERMAN, "language", "de, confidence"),
        (Filters(languages=("de",)), PROSE, "language", "en, confidence"),
    ],
)
def test_each_filter_holds_back_what_it_should(filters, text, reason, told):
    found = filters.verdict(text)
    assert found.reason == f"filtered_{reason}" and told in found.detail


def test_prose_passes_all_of_them():
    filters = GOPHER._replace(languages=("en", "de"), language_confidence=0.5)
    assert filters.verdict(PROSE) is None
    assert Filters(languages=("de",)).verdict(GERMAN) is None
    assert Filters().verdict("a a a a a") is None


def _ends(words):
    return np.cumsum([0, *map(len, words)])


@settings(max_examples=100)
@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=14), st.integers(1, 5))
def test_shares_are_what_counting_says(words, n):
    grams = [tuple(words[k : k + n]) for k in range(len(words) - n + 1)]
    hashes = word_hashes(words)
    assert len(set(gram_hashes(hashes, n).tolist())) == len(set(grams))
    total = max(sum(map(len, words)), 1)
    counts = {gram: grams.count(gram) for gram in grams if grams.count(gram) > 1}
    most = max(counts.values(), default=0)
    top = [sum(map(len, gram)) * most for gram, count in counts.items() if count == most]
    assert top_share(hashes, _ends(words), n) == pytest.approx(min(1, max(top, default=0) / total))
    covered = {k + i for k in range(len(grams)) if grams[k] in grams[:k] for i in range(n)}
    wanted = sum(len(words[k]) for k in covered) / total
    assert repeated_share(hashes, _ends(words), n) == pytest.approx(wanted)


def test_words_are_compared_without_case_punctuation_and_forms():
    assert plain_words("\ufb01ne, \uff37ORDS -- Stra\u00dfe!") == ["fine", "words", "strasse"]
    assert word_hashes(["stable"]).tolist() == [8131130512850411682]


def test_filtered_documents_are_counted_and_are_not_bad(
    prep, tokenizer_file, write_lines, quarantine, read_rows, contents, tmp_path
):
    texts = [PROSE, GERMAN, "short", f"{PROSE}\n" * 3, PROSE[:200]]
    source = write_lines(tmp_path / "a.jsonl", [{"id": n, "text": t} for n, t in enumerate(texts)])
    arguments = ("--tokenizer", tokenizer_file, "--gopher", "--language", "en", "--min-words", 20)
    ran = prep("text", tmp_path / "o", source, *arguments, "--max-bad", 0)
    assert ran.code == 0, ran.err
    counts = {"filtered_length": 2, "filtered_repetition": 1}
    assert read_manifest(tmp_path / "o").quarantined == counts
    found = {entry["record"]: entry["reason"] for entry in quarantine(tmp_path / "o")}
    assert found == {"1": "filtered_length", "2": "filtered_length", "3": "filtered_repetition"}
    assert {row["id"].split("#")[0] for row in read_rows(tmp_path / "o")} == {"0", "4"}
    assert prep("verify", tmp_path / "o").code == 0
    assert "filtered_repetition" in ran.err
    again = prep("text", tmp_path / "2", source, *arguments, "--dedup", "exact")
    assert again.code == 0 and contents(tmp_path / "2") == contents(tmp_path / "o")
    ran = prep("text", tmp_path / "none", source, *arguments, "--min-words", 500)
    assert ran.code == 3 and "no record is left" in ran.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--language", "xx"), "--language xx: expected "),
        (("--max-duplicate-lines", 2), "--max-duplicate-lines 2 is no share"),
        (("--min-words", 9, "--max-words", 3), "--min-words 9 is above --max-words 3"),
        (("--dedup", "some"), "expected none, exact, near"),
        (("--dedup", "near", "--threshold", 0), "--threshold 0"),
        (("--dedup", "near", "--permutations", 4), "--permutations 4"),
        (("--against", "x"), "--against needs --dedup"),
        (("--ngram", 0), "--ngram 0"),
        (("--decontaminate", "absent"), "is no corpus"),
    ],
)
def test_usage_errors(options, told, prep, tokenizer_file, write_lines, tmp_path):
    source = write_lines(tmp_path / "a.jsonl", [{"text": PROSE}])
    ran = prep("text", tmp_path / "o", source, "--tokenizer", tokenizer_file, *options)
    assert ran.code == 2 and told in ran.err
