"""Documents longer than a row holds become several rows, cut where a sentence ends."""

import re
from collections.abc import Sequence
from itertools import chain, pairwise

import numpy as np

from unimo_ds.tokenizer import WordTokenizer

SHORTEST_LEFTOVER = 8
"""Tokens; a last row shorter than this shares evenly with the row before it."""

_SENTENCE_END = re.compile(r"""(?<=[.!?\u2026])["'\u201d\u2019)\]]*\s+|\s*\n\s*""")


def sentences(text: str) -> list[str]:
    """The sentences and paragraphs of ``text``, white space within them made single spaces."""
    cuts = [0, *(m.end() for m in _SENTENCE_END.finditer(text)), len(text)]
    pieces = (" ".join(text[a:b].split()) for a, b in pairwise(cuts))
    return [piece for piece in pieces if piece]


class Splitter:
    """Tokenises documents and fills rows of at most ``max_tokens`` tokens with their sentences."""

    def __init__(self, tokenizer: WordTokenizer, max_tokens: int) -> None:
        self._tokenizer, self._max_tokens = tokenizer, max_tokens
        self._word_starts = tokenizer.word_starts()

    def rows(self, texts: Sequence[str]) -> list[list[list[int]]]:
        """For each text its rows of token ids; none are lost, none are empty."""
        found = [sentences(text) for text in texts]
        encoded = iter(self._tokenizer.encode(list(chain.from_iterable(found))))
        documents = [[next(encoded) for _ in pieces] for pieces in found]
        return [self._filled(pieces) for pieces in documents]

    def _filled(self, pieces: list[list[int]]) -> list[list[int]]:
        short = list(chain.from_iterable(self._cut(piece) for piece in pieces if piece))
        rows: list[list[list[int]]] = []
        length = self._max_tokens + 1
        for piece in short:
            if length + len(piece) > self._max_tokens:
                rows.append([])
                length = 0
            rows[-1].append(piece)
            length += len(piece)
        if len(rows) > 1 and length < SHORTEST_LEFTOVER:
            rows[-2:] = _shared(rows[-2] + rows[-1], self._max_tokens)
        return [list(chain.from_iterable(row)) for row in rows]

    def _cut(self, piece: list[int]) -> list[list[int]]:
        """A sentence longer than a row is cut before a word, or anywhere if there is none."""
        parts = []
        while len(piece) > self._max_tokens:
            starts = np.flatnonzero(self._word_starts[piece[: self._max_tokens + 1]])
            end = int(starts[-1]) if len(starts) and starts[-1] > 0 else self._max_tokens
            parts.append(piece[:end])
            piece = piece[end:]
        return [*parts, piece]


def _shared(pieces: list[list[int]], max_tokens: int) -> list[list[list[int]]]:
    """Two rows of whole pieces, as equally long as their borders allow."""
    ends = np.cumsum([len(piece) for piece in pieces])
    best = int(np.argmin(np.abs(ends[:-1] - ends[-1] / 2)))
    assert max(ends[best], ends[-1] - ends[best]) <= max_tokens
    return [pieces[: best + 1], pieces[best + 1 :]]
