"""The tokenizer: RoBERTa's special ids, round trips, word borders, refusals."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models

from unimo_ds.tokenizer import load_tokenizer, train_tokenizer

TEXTS = ["a small red circle is left of a big blue star.", "Zoë's café isn't open: 42 €!"] * 20


@pytest.fixture(scope="module")
def trained():
    return train_tokenizer(TEXTS, 320)


def test_special_ids_are_robertas_and_mask_is_last(trained):
    ids = [0, 1, 2, 3, trained.vocab_size - 1]
    assert [trained.token(i) for i in ids] == ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    assert trained.mask_id == trained.vocab_size - 1


def test_special_tokens_in_a_text_are_only_text(trained):
    (ids,) = trained.encode(["a <s> b <mask> c"])
    assert not {0, 1, 2, 3, trained.mask_id} & set(ids)
    assert trained.decode(ids).strip() == "a <s> b <mask> c"


@pytest.mark.parametrize("text", TEXTS[:2])
def test_text_survives_the_round_trip(trained, text):
    (ids,) = trained.encode([text])
    assert trained.decode([0, *ids, 2]).strip() == text


def test_words_begin_at_spaces_and_punctuation_and_nowhere_else(trained):
    (ids,) = trained.encode(["the café isn't redstar."])
    starts = trained.word_starts()[ids]
    words = "".join(("|" if s else "") + trained.token(i) for s, i in zip(starts, ids, strict=True))
    pieces = [piece.strip() for piece in words.split("|") if piece]
    assert pieces[0] == "the" and pieces[-1] == "." and "redstar" in pieces
    assert np.count_nonzero(starts) == len(pieces) < len(ids)


def test_training_is_deterministic_and_saving_keeps_the_fingerprint(trained, tmp_path):
    trained.save(tmp_path / "t.json")
    assert load_tokenizer(tmp_path / "t.json").fingerprint == trained.fingerprint
    assert train_tokenizer(TEXTS, 320).fingerprint == trained.fingerprint


def test_files_that_are_no_tokenizer_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer at"):
        load_tokenizer(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match="is no tokenizer file"):
        load_tokenizer(tmp_path / "bad.json")
    (tmp_path / "bad.json").write_bytes(b"\xff\xfe{")
    with pytest.raises(ValueError, match=r"bad\.json is no tokenizer file"):
        load_tokenizer(tmp_path / "bad.json")
    with pytest.raises(ValueError, match=r"neither tokenizer.json nor vocab.json"):
        load_tokenizer(tmp_path)
    Tokenizer(models.BPE(vocab={"a": 0}, merges=[])).save(str(tmp_path / "other.json"))
    with pytest.raises(ValueError, match="expected"):
        load_tokenizer(tmp_path / "other.json")
    with pytest.raises(ValueError, match="vocab_size 10 is not within"):
        train_tokenizer(TEXTS, 10)


def test_byte_order_marks_are_no_words(trained, tmp_path):
    values = json.loads(trained.to_json())
    merges = "".join(f"{left} {right}\n" for left, right in values["model"]["merges"])
    contents = {
        "saved.json": trained.to_json(),
        "roberta/vocab.json": json.dumps(values["model"]["vocab"]),
        "roberta/merges.txt": f"#version: 0.2\n{merges}",
    }
    (tmp_path / "roberta").mkdir()
    for mark in ("", "\ufeff"):
        for name, content in contents.items():
            (tmp_path / name).write_text(mark + content, encoding="utf-8")
        for name in ("saved.json", "roberta"):
            loaded = load_tokenizer(tmp_path / name)
            assert loaded.encode(TEXTS) == trained.encode(TEXTS)
    (tmp_path / "roberta" / "merges.txt").write_text("one two three\n")
    with pytest.raises(ValueError, match=r"vocab\.json and merges\.txt are no byte-level BPE"):
        load_tokenizer(tmp_path / "roberta")


@pytest.mark.real
@pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set")
def test_the_published_roberta_vocabulary_keeps_its_ids():
    folder = Path(os.environ["UNIMO_REAL_DATA"]) / "tokenizer" / "hf_roberta"
    tokenizer = load_tokenizer(folder)
    assert (tokenizer.vocab_size, tokenizer.mask_id) == (50265, 50264)
    # " the" and "." hold the ids 5 and 4 in RoBERTa's vocabulary.
    assert tokenizer.encode(["the."]) == [[5, 4]]
