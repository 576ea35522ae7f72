"""State that hides in tokenizer files: switched off, refused, or part of the fingerprint."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, normalizers, processors
from transformers import BartTokenizerFast, PreTrainedTokenizerFast, RobertaTokenizerFast
from typer.testing import CliRunner

from data_prep.cli.main import app
from unimo_ds.tokenizer import WordTokenizer, load_tokenizer, train_tokenizer

TEXT = "a heron stands on one leg; two ducks swim, naïvely, past the reeds " * 4
Values = dict[str, Any]


@pytest.fixture(scope="module")
def words() -> WordTokenizer:
    return train_tokenizer([TEXT] * 5, 300)


@pytest.fixture
def changed(words: WordTokenizer, tmp_path: Path) -> Callable[[Callable[[Tokenizer], Any]], Path]:
    """Writes the tokenizer as a library that changed it saves it."""

    def write(change: Callable[[Tokenizer], Any]) -> Path:
        tokenizer = Tokenizer.from_str(words.to_json())
        change(tokenizer)
        tokenizer.save(str(tmp_path / "changed.json"))
        return tmp_path / "changed.json"

    return write


def test_a_clean_file_has_the_fingerprint_that_its_corpora_were_made_with(
    words: WordTokenizer, tmp_path: Path
) -> None:
    values = json.loads(words.to_json())
    left_out = ("post_processor", "truncation", "padding")
    kept = {name: value for name, value in values.items() if name not in left_out}
    expected = hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
    words.save(tmp_path / "t.json")
    assert load_tokenizer(tmp_path / "t.json").fingerprint == words.fingerprint == expected


OF_CALLS: dict[str, Callable[[Tokenizer], Any]] = {
    "truncated from the left with a stride": lambda t: t.enable_truncation(
        9, stride=2, direction="left"
    ),
    "padded to multiples, on the left": lambda t: t.enable_padding(
        direction="left", pad_id=1, pad_token="<pad>", pad_to_multiple_of=8
    ),
    "trimmed": lambda t: setattr(
        t, "post_processor", processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    ),
}


@pytest.mark.parametrize("name", OF_CALLS)
def test_what_a_file_says_of_calls_is_switched_off(
    words: WordTokenizer, changed: Callable[..., Path], name: str
) -> None:
    path = changed(OF_CALLS[name])
    loaded = load_tokenizer(path)
    texts = [TEXT, "one heron", ""]
    assert loaded.encode(texts) == words.encode(texts)
    assert loaded.encode_with_places(texts) == words.encode_with_places(texts)
    assert loaded.fingerprint == words.fingerprint
    assert loaded.to_json() == words.to_json()


def test_a_tokenizer_that_transformers_called_and_saved_is_the_same(
    words: WordTokenizer, tmp_path: Path
) -> None:
    words.save(tmp_path / "t.json")
    called = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "t.json"), pad_token="<pad>")
    called([TEXT, "one heron"], truncation=True, max_length=6, padding="max_length")
    called.save_pretrained(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "tokenizer.json").read_text())["truncation"]
    assert load_tokenizer(tmp_path / "saved").encode([TEXT]) == words.encode([TEXT])


def test_a_normalizer_is_part_of_the_fingerprint(
    words: WordTokenizer, changed: Callable[..., Path]
) -> None:
    loaded = load_tokenizer(changed(lambda t: setattr(t, "normalizer", normalizers.Lowercase())))
    assert loaded.encode(["HERON"]) == words.encode(["heron"]) != words.encode(["HERON"])
    assert loaded.fingerprint != words.fingerprint and not loaded.splits_at_spaces


def _without_a_byte(values: Values) -> None:
    vocab = values["model"]["vocab"]
    vocab["unreachable"] = vocab.pop("\u00e9")


REFUSED: dict[str, tuple[Callable[[Values], Any], str]] = {
    "one token behind the mask": (
        lambda v: v["added_tokens"].append(
            {**v["added_tokens"][-1], "id": 300, "content": "[IMG]"}
        ),
        r"1 tokens were added behind <mask>, which is 299.*300: \[IMG\];",
    ),
    "a padded vocabulary": (
        lambda v: v["model"]["vocab"].update(
            {"<mask>": 299} | {f"madeupword{i}": 300 + i for i in range(6)}
        ),
        "6 tokens were added behind <mask>.*madeupword0 madeupword1 madeupword2 ...",
    ),
    "a hole before the mask": (
        lambda v: (
            v["model"]["vocab"].update({"<mask>": 305}) or v["added_tokens"][-1].update(id=305)
        ),
        "not 0 to 299",
    ),
    "a mask that texts can say": (
        lambda v: v["added_tokens"][-1].update(special=False),
        "<mask> are not marked special",
    ),
    "dropout": (lambda v: v["model"].update(dropout=0.1), r"BPE dropout 0\.1"),
    "a byte that no token has": (_without_a_byte, "1 of 256 bytes have no id"),
    "words of characters": (
        lambda v: v.update(pre_tokenizer={"type": "Whitespace"}),
        "a BPE on characters, expected a byte-level BPE",
    ),
    "text that cannot be put together again": (
        lambda v: v.update(decoder=None),
        "without a byte-level decoder",
    ),
    "pieces in the way of BERT": (
        lambda v: v["model"].update(continuing_subword_prefix="##", merges=[]),
        "continuing_subword_prefix is '##'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_go_wrong_without_a_word_is_refused_in_one_line(
    words: WordTokenizer, tmp_path: Path, name: str
) -> None:
    change, message = REFUSED[name]
    values = json.loads(words.to_json())
    change(values)
    (tmp_path / "t.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=message) as refusal:
        load_tokenizer(tmp_path / "t.json")
    assert str(refusal.value).startswith(f"{tmp_path / 't.json'}: ")
    assert "\n" not in str(refusal.value)


@pytest.fixture
def published(words: WordTokenizer, tmp_path: Path) -> Path:
    """RoBERTa's two files, without the mask, as fairseq's dictionary has none."""
    model = json.loads(words.to_json())["model"]
    vocab = {token: i for token, i in model["vocab"].items() if token != "<mask>"}
    folder = tmp_path / "published"
    folder.mkdir()
    (folder / "vocab.json").write_text(json.dumps(vocab))
    merges = "\n".join(" ".join(pair) for pair in model["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    return folder


SAVED_BY = {
    "roberta": lambda folder: RobertaTokenizerFast.from_pretrained(folder),
    "with a space": lambda folder: RobertaTokenizerFast.from_pretrained(
        folder, add_prefix_space=True
    ),
    "bart": lambda folder: BartTokenizerFast.from_pretrained(folder),
}


@pytest.mark.parametrize("name", SAVED_BY)
def test_every_form_of_robertas_folder_gives_the_same_words(
    words: WordTokenizer, published: Path, tmp_path: Path, name: str
) -> None:
    SAVED_BY[name](published).save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "vocab.json").exists()
    for folder in (published, tmp_path / "saved"):
        out = tmp_path / f"{folder.name}.json"
        done = CliRunner().invoke(app, ["tokenizer", str(out), str(folder)])
        assert done.exit_code == 0, done.output
        for loaded in (load_tokenizer(out), load_tokenizer(folder)):
            assert loaded.fingerprint == words.fingerprint
            assert loaded.encode(["heron"]) == words.encode(["heron"])
    shutil.copytree(published, tmp_path / "saved", dirs_exist_ok=True)
    assert load_tokenizer(tmp_path / "saved").fingerprint == words.fingerprint


def test_corpora_of_a_folders_file_as_it_stands_keep_their_tokenizer(
    published: Path, tmp_path: Path
) -> None:
    RobertaTokenizerFast.from_pretrained(published).save_pretrained(tmp_path / "saved")
    as_it_stands = load_tokenizer(tmp_path / "saved" / "tokenizer.json")
    imported = load_tokenizer(tmp_path / "saved")
    assert as_it_stands.encode(["heron"]) != imported.encode(["heron"])
    assert f"as it stands in tokenizer.json is {as_it_stands.fingerprint}" in imported.source


def test_a_folder_that_holds_more_than_robertas_words_is_not_imported(
    words: WordTokenizer, published: Path, tmp_path: Path
) -> None:
    (published / "added_tokens.json").write_text('{"<mask>": 299, "[IMG]": 300}')
    with pytest.raises(ValueError, match="adds tokens to the 300 words"):
        load_tokenizer(published)
    (published / "added_tokens.json").write_text('{"<mask>": 299}')
    assert load_tokenizer(published).fingerprint == words.fingerprint
    train_tokenizer(["other words altogether"] * 4, 300).save(published / "tokenizer.json")
    with pytest.raises(ValueError, match=r"has \d+ words, vocab.json and merges.txt 300"):
        CliRunner().invoke(
            app, ["tokenizer", str(tmp_path / "t.json"), str(published)], catch_exceptions=False
        )
    (published / "vocab.json").unlink()
    values = json.loads(words.to_json())
    values["normalizer"] = {"type": "Lowercase"}
    (published / "tokenizer.json").write_text(json.dumps(values))
    done = CliRunner().invoke(app, ["tokenizer", str(tmp_path / "t.json"), str(published)])
    assert done.exit_code != 0 and not (tmp_path / "t.json").exists()
