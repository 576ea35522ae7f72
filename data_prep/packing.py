"""Which sentences share a row of a texts corpus.

``document``: a document fills rows of its own with its sentences (RoBERTa's DOC-SENTENCES).
``corpus``: a row that is not full goes on with the next document behind one [SEP], which UNIMO puts
between texts (RoBERTa's FULL-SENTENCES, which has two). ``sentence``: every sentence is a row.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from itertools import chain
from typing import NamedTuple

import numpy as np

from unimo_ds.tokenizer import SEP_ID

SHORTEST_LEFTOVER = 8
"""Tokens; a last row shorter than this shares evenly with the row before it."""
JOIN, PART = "+", "#"
"""``a#1+b#0``: the second row that holds some of document a is the first that holds some of b."""

_SEPARATOR = np.array([SEP_ID], dtype=np.uint16)


class Pack(StrEnum):
    """What a row may hold."""

    DOCUMENT = "document"
    SENTENCE = "sentence"
    CORPUS = "corpus"


class Row(NamedTuple):
    """A row of a texts corpus."""

    id: str
    tokens: np.ndarray  # uint16 [n], without [CLS] and [SEP] around them


class Packer(NamedTuple):
    """Fills rows of at most ``max_tokens`` tokens; none are lost, none are empty."""

    pack: Pack
    max_tokens: int
    word_starts: np.ndarray  # bool [vocab_size]

    def rows(self, documents: Iterable[tuple[str, Sequence[np.ndarray]]]) -> Iterator[Row]:
        """The rows of documents, given as id and sentences, in their order."""
        cut = ((name, self._short(pieces)) for name, pieces in documents)
        if self.pack == Pack.CORPUS:
            return self._across(cut)
        return chain.from_iterable(self._within(name, pieces) for name, pieces in cut)

    def _short(self, pieces: Sequence[np.ndarray]) -> list[np.ndarray]:
        """A sentence longer than a row is cut before a word, or anywhere if there is none."""
        parts = []
        for piece in pieces:
            while len(piece) > self.max_tokens:
                starts = np.flatnonzero(self.word_starts[piece[: self.max_tokens + 1]])
                end = int(starts[-1]) if len(starts) and starts[-1] > 0 else self.max_tokens
                parts.append(piece[:end])
                piece = piece[end:]
            parts.append(piece)
        return parts

    def _within(self, name: str, pieces: list[np.ndarray]) -> Iterator[Row]:
        filled = [[p] for p in pieces] if self.pack == Pack.SENTENCE else self._filled(pieces)
        for number, row in enumerate(filled):
            yield Row(f"{name}{PART}{number}", np.concatenate(row))

    def _filled(self, pieces: list[np.ndarray]) -> list[list[np.ndarray]]:
        rows: list[list[np.ndarray]] = []
        length = self.max_tokens + 1
        for piece in pieces:
            if length + len(piece) > self.max_tokens:
                rows.append([])
                length = 0
            rows[-1].append(piece)
            length += len(piece)
        if len(rows) > 1 and length < SHORTEST_LEFTOVER:
            rows[-2:] = _shared(rows[-2] + rows[-1], self.max_tokens)
        return rows

    def _across(self, documents: Iterable[tuple[str, list[np.ndarray]]]) -> Iterator[Row]:
        row: list[np.ndarray] = []
        names: list[str] = []
        length = 0
        for name, pieces in documents:
            parts: Counter[str] = Counter()
            started = False
            for piece in pieces:
                separator = [] if started or not row else [_SEPARATOR]
                if length + len(separator) + len(piece) > self.max_tokens:
                    yield Row(JOIN.join(names), np.concatenate(row))
                    row, names, length, separator, started = [], [], 0, [], False
                if not started:
                    names.append(f"{name}{PART}{parts[name]}")
                    parts[name] += 1
                    started = True
                row += [*separator, piece]
                length += len(separator) + len(piece)
        if row:
            yield Row(JOIN.join(names), np.concatenate(row))


def _shared(pieces: list[np.ndarray], max_tokens: int) -> list[list[np.ndarray]]:
    """Two rows of whole pieces, as equally long as their borders allow."""
    ends = np.cumsum([len(piece) for piece in pieces])
    best = int(np.argmin(np.abs(ends[:-1] - ends[-1] / 2)))
    assert max(ends[best], ends[-1] - ends[best]) <= max_tokens
    return [pieces[: best + 1], pieces[best + 1 :]]
