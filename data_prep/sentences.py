"""Texts -> the token ids of their sentences.

White space within a sentence becomes single spaces, so a byte-level BPE gives every word the ids
that it has alone. Each different word goes through the tokenizer once; texts are looked up, several
times as fast as `tokenizers`' own batch (benchmarks/building.py), with the same ids.
"""

import re
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np

from unimo_ds.tokenizer import WordTokenizer

_SENTENCE_END = re.compile(r"""(?<=[.!?\u2026])["'\u201d\u2019)\]]*\s+|\s*\n\s*""")
_ENDS, _CLOSERS = frozenset(".!?\u2026"), "\"'\u201d\u2019)]"
_MOST_WORDS, _MOST_TOKENS = 1 << 20, 1 << 23  # a cache that has more begins anew


def sentences(text: str) -> list[str]:
    """The sentences and paragraphs of ``text``, white space within them made single spaces."""
    pieces = (" ".join(text[a:b].split()) for a, b in pairwise(sentence_bounds(text)))
    return [piece for piece in pieces if piece]


def sentence_bounds(text: str) -> list[int]:
    """Where the sentences and paragraphs of ``text`` begin, and its end; some may be empty."""
    return [0, *(m.end() for m in _SENTENCE_END.finditer(text)), len(text)]


class SentenceEncoder:
    """Encodes texts sentence by sentence; keeps the words that it has seen."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        self._tokenizer = tokenizer
        self._clear()

    def encode(self, texts: Sequence[str]) -> list[list[np.ndarray]]:
        """For each text the token ids of its sentences: uint16 [n], n > 0."""
        if self._tokenizer.splits_at_spaces:
            return self._looked_up(texts)
        found = [sentences(text) for text in texts]
        encoded = iter(self._tokenizer.encode(list(chain.from_iterable(found))))
        arrays = ([np.array(next(encoded), dtype=np.uint16) for _ in pieces] for pieces in found)
        return [[array for array in pieces if len(array)] for pieces in arrays]

    def encode_whole(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text as one, as `WordTokenizer.encode` gives them."""
        found = [text.split() for text in texts]
        by_word = [
            self._tokenizer.splits_at_spaces and " ".join(words) == text
            for text, words in zip(texts, found, strict=True)
        ]
        odd = [text for text, looked_up in zip(texts, by_word, strict=True) if not looked_up]
        encoded = iter(self._tokenizer.encode(odd) if odd else [])
        found = [words for words, looked_up in zip(found, by_word, strict=True) if looked_up]
        which = self._numbers(list(chain.from_iterable(found)))
        tokens, ends = self._tokens_of(which)
        cuts = np.cumsum([0, *map(len, found)])
        edges = np.concatenate([[0], ends])[cuts].tolist()
        flat = tokens.tolist()
        whole = iter([flat[a:b] for a, b in pairwise(edges)])
        self._forget()
        return [next(whole) if looked_up else next(encoded) for looked_up in by_word]

    def _clear(self) -> None:
        self._index = _Numbers()
        self._offsets = np.zeros(1, dtype=np.int64)
        self._tokens = np.empty(0, dtype=np.uint16)
        self._ends_sentence = np.empty(0, dtype=bool)

    def _looked_up(self, texts: Sequence[str]) -> list[list[np.ndarray]]:
        words: list[str] = []
        line_ends: list[int] = []
        text_ends: list[int] = []
        for text in texts:
            for line in text.split("\n"):
                words += line.split()
                line_ends.append(len(words))
            text_ends.append(len(words))
        if not words:
            return [[] for _ in texts]
        which = self._numbers(words)
        last = self._ends_sentence[which]
        last[[end - 1 for end in line_ends if end]] = True
        found = self._cut(which, np.flatnonzero(last) + 1, np.array(text_ends))
        self._forget()
        return found

    def _numbers(self, words: Sequence[str]) -> np.ndarray:
        """int64 [n]: the number of each word, whose ids are there from then on."""
        which = np.fromiter(map(self._index.__getitem__, words), np.int64, len(words))
        self._learn()
        return which

    def _forget(self) -> None:
        if len(self._index) > _MOST_WORDS or len(self._tokens) > _MOST_TOKENS:
            self._clear()

    def _tokens_of(self, which: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """uint16 [t]: the tokens of words ``which``; int64 [n]: where those of each word end."""
        starts, sizes = self._offsets[which], self._offsets[which + 1] - self._offsets[which]
        ends = np.cumsum(sizes)
        places = np.repeat(starts - (ends - sizes), sizes) + np.arange(sizes.sum())
        return self._tokens[places], ends

    def _cut(
        self, which: np.ndarray, sentence_ends: np.ndarray, text_ends: np.ndarray
    ) -> list[list[np.ndarray]]:
        """The tokens of words ``which``, cut behind the words at ``sentence_ends``."""
        tokens, ends = self._tokens_of(which)
        edges = [0, *ends[sentence_ends - 1].tolist()]
        pieces = [tokens[a:b] for a, b in pairwise(edges)]
        borders = [0, *np.searchsorted(sentence_ends, text_ends, side="right").tolist()]
        return [[p for p in pieces[a:b] if len(p)] for a, b in pairwise(borders)]

    def _learn(self) -> None:
        """The ids of words that have come for the first time go behind those that are there."""
        fresh, self._index.fresh = self._index.fresh, []
        if not fresh:
            return
        ids = self._tokenizer.encode(fresh)
        sizes = np.fromiter(map(len, ids), np.int64, len(ids))
        tokens = np.fromiter(chain.from_iterable(ids), np.uint16, int(sizes.sum()))
        ends = np.array([word.rstrip(_CLOSERS)[-1:] in _ENDS for word in fresh], dtype=bool)
        self._offsets = np.append(self._offsets, self._offsets[-1] + np.cumsum(sizes))
        self._tokens = np.append(self._tokens, tokens)
        self._ends_sentence = np.append(self._ends_sentence, ends)


class _Numbers(dict[str, int]):
    """Word -> number in the order of appearance; a word that is asked for is there from then on."""

    def __init__(self) -> None:
        super().__init__()
        self.fresh: list[str] = []

    def __missing__(self, word: str) -> int:
        self.fresh.append(word)
        self[word] = number = len(self)
        return number
