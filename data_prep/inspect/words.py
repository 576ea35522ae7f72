"""Texts of a page: where their tokens begin."""

from collections.abc import Sequence
from typing import NamedTuple

from unimo_ds.tokenizer import WordTokenizer

MOST_TOKENS = 160
"""Of one text in the page."""


class Token(NamedTuple):
    """A token as a person reads it; ``space`` is the white space that it begins with."""

    space: str
    text: str
    starts_word: bool


class Words(NamedTuple):
    """A text, its length, and the tokens it is shown with; none without a tokenizer."""

    name: str
    text: str  # as it was given; empty where only ids are stored and nobody can read them
    count: int
    tokens: list[Token]
    left_out: int


class Reader:
    """Reads token ids, as far as there is a tokenizer to read them with."""

    def __init__(self, tokenizer: WordTokenizer | None) -> None:
        self._tokenizer = tokenizer
        self._starts = tokenizer.word_starts() if tokenizer else None

    def words(self, ids: Sequence[int], name: str = "", text: str = "") -> Words:
        """A text of the corpus; at most 160 of its tokens are shown."""
        tokens = [self._token(i) for i in ids[:MOST_TOKENS]] if self._tokenizer else []
        tokens[:1] = [token._replace(space="") for token in tokens[:1]]
        if not self._tokenizer and not text:
            text = " ".join(str(i) for i in ids[:MOST_TOKENS])
        return Words(name, text, len(ids), tokens, max(len(ids) - MOST_TOKENS, 0))

    def _token(self, token_id: int) -> Token:
        assert self._tokenizer is not None and self._starts is not None
        if token_id >= self._tokenizer.vocab_size:
            return Token(" ", f"[{token_id}?]", True)
        text = self._tokenizer.token(token_id)
        bare = text.lstrip() or text
        space = text[: len(text) - len(bare)]
        return Token(space, bare, bool(self._starts[token_id]))
