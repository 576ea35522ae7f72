"""Real articles, novels and captions through `unimo-prep text` and `overlap`.

UNIMO_REAL_DATA names a folder with `text/wikipedia_en.jsonl.xz`, `text/novels_en.jsonl.xz`,
`text/captions_without_images.tsv.xz` and a RoBERTa `tokenizer/hf_roberta`.
"""

import json
import lzma
import os
from itertools import islice
from pathlib import Path

import pytest

from data_prep.readers.corpora import corpus_documents
from data_prep.sentences import SentenceEncoder, sentences
from unimo_ds.data.schema import read_manifest
from unimo_ds.tokenizer import load_tokenizer

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("UNIMO_REAL_DATA" not in os.environ, reason="UNIMO_REAL_DATA is not set"),
]


@pytest.fixture
def data() -> Path:
    return Path(os.environ["UNIMO_REAL_DATA"])


@pytest.fixture
def some(data, tmp_path):
    """The first lines of a packed file, under its own suffix."""

    def take(name: str, count: int) -> Path:
        path = tmp_path / Path(name).stem
        with lzma.open(data / "text" / name, "rt", encoding="utf-8") as stream:
            path.write_text("".join(islice(stream, count)), encoding="utf-8")
        return path

    return take


def test_cached_words_have_the_librarys_ids(data, some):
    tokenizer = load_tokenizer(data / "tokenizer" / "hf_roberta")
    texts = [json.loads(line)["text"] for line in some("wikipedia_en.jsonl.xz", 100).open()]
    texts += [json.loads(line)["text"][:200_000] for line in some("novels_en.jsonl.xz", 1).open()]
    assert tokenizer.splits_at_spaces
    for text, pieces in zip(texts, SentenceEncoder(tokenizer).encode(texts), strict=True):
        assert [piece.tolist() for piece in pieces] == tokenizer.encode(sentences(text))


def test_captions_are_packed_cleaned_and_compared(prep, data, some, read_rows, tmp_path):
    roberta = data / "tokenizer" / "hf_roberta"
    captions = some("captions_without_images.tsv.xz", 1000)
    arguments = (captions, "--tokenizer", roberta, "--pack", "corpus", "--dedup", "near")
    ran = prep("text", tmp_path / "o", *arguments, "--language", "en", "--min-words", 4)
    assert ran.code == 0, ran.err
    left_out = read_manifest(tmp_path / "o").quarantined
    assert 0 < sum(left_out.values()) < 100
    rows = read_rows(tmp_path / "o")
    assert all(len(row["tokens"]) > 400 for row in rows[:-1])
    texts = dict(line.rstrip("\n").split("\t") for line in captions.open())
    found = {d.id: d.text for d in corpus_documents(tmp_path / "o", load_tokenizer(roberta))}
    assert len(found) == 1000 - sum(left_out.values())
    assert all(text == " ".join(texts[name].split()) for name, text in found.items())
    ran = prep("overlap", tmp_path / "o", tmp_path / "o", "--tokenizer", roberta, "--json")
    assert json.loads(ran.out)["exact"] == len(found)
