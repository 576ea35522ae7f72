"""Where the units of span masking begin: words, and noun phrases, which are masked as one.

UNIMO masks phrases (Li et al. 2021, section 2.3). Here they are the NP chunks of TextBlob's English
parser, which needs no download. Determiners, pronouns and conjunctions stay outside: what a phrase
names is to be guessed, and the grammar alone gives "the" away, at the cost of the budget of tokens.
A name is such a phrase too.
"""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from data_prep.sentences import sentence_bounds, sentences
from unimo_ds.tokenizer import SEP_ID, WordTokenizer

LONGEST = 10
"""Words; what the parser takes for a longer phrase is a list or a table, and stays words."""

_WINDOW = 200  # words that the parser, whose time is quadratic, gets at once
_WORD = re.compile(
    r"(?:\w\.){2,}"  # U.S.
    r"|\w+(?=n['\u2019]t\b)|n['\u2019]t\b"  # do n't
    r"|['\u2019](?:s|d|m|ll|re|ve)\b"
    r"|\w+(?:[-.,:/&]\w+)*"
    r"|[^\w\s]",
    re.IGNORECASE,
)
_NO_PARSER = "phrases and scene graphs need textblob: pip install 'unimo-ds[text]'"
_OUTSIDE = frozenset(["DT", "PDT", "WDT", "CC", "PRP", "PRP$", "WP", "WP$", "EX"])


class Marked(NamedTuple):
    """The tokens of a text, and which of them begin a unit. n tokens."""

    tokens: np.ndarray  # uint16 [n]
    begins: np.ndarray  # bool [n]


class UnitEncoder:
    """Encodes texts with the beginnings of their units."""

    def __init__(self, tokenizer: WordTokenizer) -> None:
        self._tokenizer = tokenizer
        self._word_starts = tokenizer.word_starts()

    def encode(self, texts: Sequence[str]) -> list[list[Marked]]:
        """For each text its sentences, n > 0, with the ids that `SentenceEncoder` gives them."""
        found = [sentences(text) for text in texts]
        marked = iter(self.mark([piece for pieces in found for piece in pieces]))
        aligned = ([next(marked) for _ in pieces] for pieces in found)
        return [[piece for piece in pieces if len(piece.tokens)] for pieces in aligned]

    def mark(self, texts: Sequence[str]) -> list[Marked]:
        """Each text as a whole, as `WordTokenizer.encode` takes it; n may be 0."""
        encoded = self._tokenizer.encode_with_places(texts)
        return [self._marked(text, *one) for text, one in zip(texts, encoded, strict=True)]

    def _marked(self, text: str, ids: list[int], places: list[tuple[int, int]]) -> Marked:
        tokens = np.array(ids, dtype=np.uint16)
        begins = self._word_starts[tokens]
        begins[:1] = True
        first_of_word = np.flatnonzero(begins).tolist()
        starts, ends = [start for start, _ in places], [end for _, end in places]
        for first, end in find_phrases(text) if len(tokens) else ():
            # A token may hold the space before its word. A phrase grows to whole words.
            word = bisect_right(first_of_word, bisect_right(ends, first)) - 1
            begins[first_of_word[word] + 1 : bisect_left(starts, end)] = False
        return Marked(tokens, begins)


class UnitStream:
    """The beginnings of what goes into a packer, for the rows that come out of it.

    A packer keeps the order of tokens and adds nothing but [SEP]; that, what follows it and the
    first token of a row begin units too.
    """

    def __init__(self) -> None:
        self._left: list[np.ndarray] = []

    def through(
        self, documents: Iterable[tuple[str, list[Marked]]]
    ) -> Iterator[tuple[str, list[np.ndarray]]]:
        """The documents as the packer wants them."""
        for name, pieces in documents:
            self._left += [piece.begins for piece in pieces]
            yield name, [piece.tokens for piece in pieces]

    def of_row(self, tokens: np.ndarray) -> np.ndarray:
        """bool [n]: of the next row, which has the tokens uint16 [n]."""
        left = self._left[0] if len(self._left) == 1 else np.concatenate(self._left)
        is_word = tokens != SEP_ID
        count = int(is_word.sum())
        begins = np.ones(len(tokens), dtype=bool)
        begins[is_word] = left[:count]
        begins[:1] = True
        self._left = [left[count:]]
        return begins


def parser_version() -> str:
    """The parser that `find_phrases` uses, which the bytes of a corpus depend on.

    Raises:
        ValueError: it is not installed.
    """
    try:
        return f"textblob {version('textblob')}"  # to import it takes seconds
    except PackageNotFoundError as error:
        raise ValueError(_NO_PARSER) from error


def find_phrases(text: str) -> list[tuple[int, int]]:
    """(first character, one past the last) of the noun phrases in ``text``, within sentences.

    Raises:
        ValueError: the parser is not installed.
    """
    found = [list(_WORD.finditer(text, a, b)) for a, b in pairwise(sentence_bounds(text))]
    windows = [words[i : i + _WINDOW] for words in found for i in range(0, len(words), _WINDOW)]
    told = [[word.group().replace("\u2019", "'") for word in words] for words in windows]
    parsed = _parser().parse(told, tokenize=False, collapse=False)
    return [
        (words[first].start(), words[end - 1].end())
        for words, tagged in zip(windows, parsed, strict=True)
        for first, end in _runs(tagged)
    ]


def tagged_words(texts: Sequence[str]) -> list[list[tuple[str, int, int, str, str]]]:
    """Of each text its words: (in lower case, first character, one past the last, tag, chunk).

    A text is taken as one sentence, as captions are; tags are those of the Penn treebank.

    Raises:
        ValueError: the parser is not installed.
    """
    found = [list(_WORD.finditer(text))[:_WINDOW] for text in texts]
    told = [[word.group().replace("\u2019", "'") for word in words] for words in found]
    parsed = _parser().parse(told, tokenize=False, collapse=False)
    filled = iter(parsed)
    return [
        [
            (word.group().lower(), word.start(), word.end(), tag, chunk)
            for word, (_, tag, chunk, *_) in zip(words, next(filled), strict=True)
        ]
        if words
        else []
        for words in found
    ]


def _runs(tagged: Sequence[Sequence[str]]) -> list[tuple[int, int]]:
    """(first word, one past the last) of noun phrases among lists of word, tag, chunk, ..."""
    runs: list[tuple[int, int]] = []
    is_open = False
    for i, (_, tag, chunk, *_) in enumerate(tagged):
        inside = chunk.endswith("-NP") and tag not in _OUTSIDE
        if inside and is_open and chunk == "I-NP":
            runs[-1] = (runs[-1][0], i + 1)
        elif inside:
            runs.append((_first_adjective(tagged, i), i + 1))
        is_open = inside
    return [(first, end) for first, end in runs if end - first <= LONGEST]


def _first_adjective(tagged: Sequence[Sequence[str]], i: int) -> int:
    """The chunker leaves "black and" of "black and white dog" outside."""
    while (
        i >= 2
        and tagged[i][1].startswith("JJ")
        and tagged[i - 1][1] == "CC"
        and tagged[i - 2][1].startswith("JJ")
    ):
        i -= 2
    return i


@cache
def _parser() -> Any:
    try:
        from textblob.en import parser
    except ImportError as error:
        raise ValueError(_NO_PARSER) from error
    return parser
