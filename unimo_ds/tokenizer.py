"""Words to ids and back: byte-level BPE in RoBERTa's layout, on the `tokenizers` library.

The special ids are UNIMO's = fairseq's = RoBERTa's: [CLS] ``<s>`` 0, [PAD] 1, [SEP] ``</s>`` 2,
[UNK] 3, [MASK] the last id. A tokenizer file is the library's ``tokenizer.json``.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CLS, PAD, SEP, UNK, MASK = "<s>", "<pad>", "</s>", "<unk>", "<mask>"
CLS_ID, PAD_ID, SEP_ID, UNK_ID = 0, 1, 2, 3
NUM_LEADING_SPECIALS = 4
"""Ids below this are special; random replacement words are drawn from here up to [MASK]."""

MAX_VOCAB_SIZE = 65_536
"""Token ids are stored as uint16."""


class WordTokenizer:
    """A byte-level BPE tokenizer and the word boundaries that masking needs."""

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        # A text that says "<s>" means three characters, not the start of a sequence.
        tokenizer.encode_special_tokens = True
        self._tokenizer = tokenizer
        self.source = source
        self.vocab_size = tokenizer.get_vocab_size()
        found = [tokenizer.token_to_id(token) for token in (CLS, PAD, SEP, UNK)]
        expected = [CLS_ID, PAD_ID, SEP_ID, UNK_ID]
        mask_id = tokenizer.token_to_id(MASK)
        if found != expected or mask_id is None:
            raise ValueError(
                f"{source}: special tokens {CLS} {PAD} {SEP} {UNK} {MASK} have ids "
                f"{[*found, mask_id]}, expected {expected} and a last one: "
                "make it with `unimo-prep tokenizer`"
            )
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise ValueError(
                f"{source} has {self.vocab_size} words, "
                f"corpora hold at most {MAX_VOCAB_SIZE} (uint16)"
            )
        self.mask_id: int = mask_id
        values = json.loads(tokenizer.to_str())
        self.fingerprint = _fingerprint(values)
        self.splits_at_spaces = _splits_at_spaces(values)
        """Are the ids of words between single spaces those of each word encoded alone?"""

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without [CLS] and [SEP]."""
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def encode_with_places(
        self, texts: Sequence[str]
    ) -> list[tuple[list[int], list[tuple[int, int]]]]:
        """`encode`, and for each token (first character, one past the last) of its text.

        A token may hold the space before its word; the bytes of one character may be several.
        """
        encodings = self._tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [(encoding.ids, encoding.offsets) for encoding in encodings]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ``ids``, special tokens left out."""
        return self._tokenizer.decode([int(i) for i in ids], skip_special_tokens=True)

    def decode_batch(self, texts: Iterable[Sequence[int]]) -> list[str]:
        """`decode` of each."""
        return self._tokenizer.decode_batch(list(texts), skip_special_tokens=True)

    def token(self, token_id: int) -> str:
        """One token as a person reads it, with its leading space."""
        return self._tokenizer.decode([int(token_id)], skip_special_tokens=False)

    def word_starts(self) -> np.ndarray:
        """bool [vocab_size]: does a token begin a word (with a space, or no letter or digit)?"""
        starts = np.ones(self.vocab_size, dtype=bool)
        for token, index in self._tokenizer.get_vocab().items():
            starts[index] = _begins_word(token)
        return starts

    def to_json(self) -> str:
        """What ``tokenizer.json`` holds."""
        return str(self._tokenizer.to_str(pretty=True))

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(self.to_json(), encoding="utf-8")


def load_tokenizer(path: str | Path) -> WordTokenizer:
    """The tokenizer in the file ``path``, or in the folder ``path`` as ``tokenizer.json``, or as
    RoBERTa's ``vocab.json`` + ``merges.txt``.

    Raises:
        ValueError: nothing readable there, or special ids that are not RoBERTa's.
    """
    path = Path(path)
    if path.is_dir() and (path / "tokenizer.json").is_file():
        path = path / "tokenizer.json"
    if path.is_dir():
        return import_roberta(path)
    if not path.is_file():
        raise ValueError(
            f"no tokenizer at {path}: make one with `unimo-prep tokenizer {path} FILES...`"
        )
    try:
        return WordTokenizer(Tokenizer.from_str(path.read_text(encoding="utf-8-sig")), str(path))
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is no tokenizer file: {error}") from error
    except ValueError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{path} is no tokenizer file: {error}") from error


def import_roberta(folder: Path) -> WordTokenizer:
    """RoBERTa's ``vocab.json`` and ``merges.txt`` as they are published, ids unchanged."""
    vocab, merges = folder / "vocab.json", folder / "merges.txt"
    if not (vocab.is_file() and merges.is_file()):
        raise ValueError(f"{folder} holds neither tokenizer.json nor vocab.json and merges.txt")
    model = _published_model(vocab, merges)
    return WordTokenizer(_assemble(Tokenizer(model)), str(folder))


def _published_model(vocab: Path, merges: Path) -> models.BPE:
    # Not by the library's own reader, which takes an editor's byte-order mark for a word.
    try:
        words = json.loads(vocab.read_text(encoding="utf-8-sig"))
        lines = merges.read_text(encoding="utf-8-sig").split("\n")
        pairs = [line.split(" ") for line in lines if line and not line.startswith("#version")]
        return models.BPE(words, [(left, right) for left, right in pairs], unk_token=UNK)
    except Exception as error:  # the library raises bare Exception
        raise ValueError(f"{vocab} and {merges.name} are no byte-level BPE: {error}") from error


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> WordTokenizer:
    """A byte-level BPE of at most ``vocab_size`` words learned from ``texts``; deterministic."""
    smallest = NUM_LEADING_SPECIALS + len(pre_tokenizers.ByteLevel.alphabet()) + 1
    if not smallest <= vocab_size <= MAX_VOCAB_SIZE:
        raise ValueError(f"vocab_size {vocab_size} is not within {smallest} and {MAX_VOCAB_SIZE}")
    tokenizer = Tokenizer(models.BPE(unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 1,  # [MASK] comes last, as in RoBERTa
        special_tokens=[CLS, PAD, SEP, UNK],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return WordTokenizer(_assemble(tokenizer), "trained")


def _fingerprint(values: dict[str, Any]) -> str:
    # Of what decides the ids of words. A Hugging Face folder adds [CLS] and [SEP] around them.
    around = ("post_processor", "truncation", "padding")
    deciding = {name: value for name, value in values.items() if name not in around}
    return hashlib.sha256(json.dumps(deciding, sort_keys=True).encode()).hexdigest()[:16]


def _splits_at_spaces(values: dict[str, Any]) -> bool:
    # GPT-2's pattern takes a space only in front of a word, and BPE stays within what it cuts.
    cut = values["pre_tokenizer"] or {}
    byte_level = cut.get("type") == "ByteLevel" and cut["add_prefix_space"]
    whole = not values["normalizer"] and all(added["special"] for added in values["added_tokens"])
    model = values["model"]
    exact = model["type"] == "BPE" and not model.get("dropout") and not model.get("fuse_unk")
    return bool(byte_level and cut.get("use_regex", True) and whole and exact)


def _begins_word(token: str) -> bool:
    # Byte-level BPE writes the bytes 0-32 (white space) as U+0100-U+0120 and non-ASCII bytes above:
    # a token goes on with a word if it begins with a letter, a digit or part of a non-ASCII letter.
    first = token[0]
    return 0x100 <= ord(first) <= 0x120 or (first.isascii() and not first.isalnum())


def _assemble(tokenizer: Tokenizer) -> Tokenizer:
    # A space goes before the first word, so that a word has one id wherever it stands in a text.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([CLS, PAD, SEP, UNK, AddedToken(MASK, lstrip=True, special=True)])
    return tokenizer
