"""What a row holds: cached words, packing across documents, ids that lead back."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.packing import Pack, Packer
from data_prep.readers.corpora import corpus_documents
from data_prep.sentences import SentenceEncoder, sentences
from unimo_ds.config import CorruptionConfig
from unimo_ds.data.corruption import Words, mask_spans
from unimo_ds.tokenizer import SEP_ID, load_tokenizer, train_tokenizer

LETTERS = st.text(
    st.sampled_from("ab.!?\u2026\"')] \n\r\t\u00a0\u2028x1,é你\U0001f600<s>"), max_size=40
)


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file):
    return load_tokenizer(tokenizer_file)


@settings(max_examples=100)
@given(texts=st.lists(st.one_of(LETTERS, st.text(max_size=30)), max_size=4))
def test_cached_words_have_the_ids_that_the_library_gives_sentences(texts, tokenizer):
    texts = [text.encode(errors="replace").decode() for text in texts]
    found = SentenceEncoder(tokenizer).encode(texts)
    assert tokenizer.splits_at_spaces
    for text, pieces in zip(texts, found, strict=True):
        assert [piece.tolist() for piece in pieces] == tokenizer.encode(sentences(text))
    assert SentenceEncoder(tokenizer).encode_whole(texts) == tokenizer.encode(texts)


def test_a_tokenizer_that_does_not_split_at_spaces_encodes_sentences(tmp_path, sentences):
    values = json.loads(train_tokenizer(sentences * 3, 400).to_json())
    values["pre_tokenizer"]["add_prefix_space"] = False
    (tmp_path / "t.json").write_text(json.dumps(values))
    tokenizer = load_tokenizer(tmp_path / "t.json")
    assert not tokenizer.splits_at_spaces
    text = " ".join(sentences)
    pieces = SentenceEncoder(tokenizer).encode([text, " \n "])
    assert [piece.tolist() for piece in pieces[0]] == tokenizer.encode(sentences)
    assert pieces[1] == [] and all(piece.dtype == np.uint16 for piece in pieces[0])
    assert SentenceEncoder(tokenizer).encode_whole([text]) == tokenizer.encode([text])


def test_the_cache_begins_anew_when_it_is_full(monkeypatch, tokenizer, sentences):
    monkeypatch.setattr("data_prep.sentences._MOST_WORDS", 3)
    encoder = SentenceEncoder(tokenizer)
    for _ in range(3):
        found = encoder.encode(sentences)
        assert [pieces[0].tolist() for pieces in found] == tokenizer.encode(sentences)


@settings(max_examples=100)
@given(
    sizes=st.lists(st.lists(st.integers(1, 30), max_size=5), max_size=8),
    max_tokens=st.integers(4, 40),
    pack=st.sampled_from(list(Pack)),
)
def test_rows_hold_all_tokens_in_order_and_their_ids_lead_back(sizes, max_tokens, pack):
    numbers = iter(range(10, 1 << 16))
    documents = [
        (f"d{k}", [np.array([next(numbers) for _ in range(n)], dtype=np.uint16) for n in pieces])
        for k, pieces in enumerate(sizes)
    ]
    packer = Packer(pack, max_tokens, np.ones(1 << 16, dtype=bool))
    rows = list(packer.rows(documents))
    assert all(0 < len(row.tokens) <= max_tokens for row in rows)
    assert len({row.id for row in rows}) == len(rows)
    found = {name: [] for name, _ in documents}
    for row in rows:
        parts = np.split(row.tokens, np.flatnonzero(row.tokens == SEP_ID))
        names = row.id.split("+")
        assert pack == Pack.CORPUS or len(names) == 1
        for name, part in zip(names, parts, strict=True):  # one [SEP] between two documents
            document, number = name.split("#")
            assert int(number) == len(found[document])
            found[document].append(part[part != SEP_ID].tolist())
    for name, pieces in documents:
        together = [token for part in found[name] for token in part]
        assert together == [int(token) for piece in pieces for token in piece]
    if pack == Pack.SENTENCE and max_tokens >= 30:
        assert [row.tokens.tolist() for row in rows] == [
            piece.tolist() for _, pieces in documents for piece in pieces
        ]
    if pack == Pack.CORPUS and max_tokens >= 30:  # a row ends only where the next does not fit
        filled = [len(row.tokens) + 1 + 30 > max_tokens for row in rows[:-1]]
        assert all(filled)


def test_packed_corpora_are_read_back_as_their_documents(
    prep, tokenizer_file, sentences, write_lines, read_rows, tmp_path
):
    texts = [f"{n} {' '.join(sentences[: 1 + n % 3])}" for n in range(20)]
    source = write_lines(
        tmp_path / "a.jsonl", [{"id": f"+{n}#", "text": t} for n, t in enumerate(texts)]
    )
    tokenizer = load_tokenizer(tokenizer_file)
    arguments = ("--tokenizer", tokenizer_file, "--max-tokens", 60)
    for pack in Pack:
        out = tmp_path / pack
        assert prep("text", out, source, *arguments, "--pack", pack).code == 0
        assert prep("verify", out).code == 0
    counts = [len(read_rows(tmp_path / pack)) for pack in (Pack.CORPUS, "document", "sentence")]
    assert counts[0] < counts[1] < counts[2]
    for pack in (Pack.DOCUMENT, Pack.SENTENCE):
        found = list(corpus_documents(tmp_path / pack, tokenizer))
        assert [document.text for document in found] == texts
        assert [document.id for document in found] == [f"+{n}#" for n in range(20)]
    source = write_lines(tmp_path / "b.jsonl", [{"text": t} for t in texts])
    assert prep("text", tmp_path / "b", source, *arguments, "--pack", "corpus").code == 0
    found = list(corpus_documents(tmp_path / "b", tokenizer))
    assert [document.text for document in found] == texts
    with pytest.raises(ValueError, match="--tokenizer of the same"):
        list(corpus_documents(tmp_path / "b", None))


def test_separators_between_documents_are_never_masked(tokenizer, sentences):
    pieces = [np.array(ids, dtype=np.uint16) for ids in tokenizer.encode(sentences)]
    packer = Packer(Pack.CORPUS, 100, tokenizer.word_starts())
    row = next(iter(packer.rows((str(n), [piece]) for n, piece in enumerate(pieces))))
    words = Words(tokenizer.word_starts(), tokenizer.mask_id)
    config = CorruptionConfig(mlm_probability=0.9)
    at = np.flatnonzero(row.tokens == SEP_ID) + 1
    assert len(at) == 2
    for seed in range(20):
        segment = mask_spans(row.tokens, words, config, np.random.default_rng(seed))
        assert (segment.word_ids[at] == SEP_ID).all() and (segment.labels[at] < 0).all()
