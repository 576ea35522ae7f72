"""Which documents are worth training on: language, length, repetition. All are off by default.

The measures and `GOPHER`, their usual thresholds, are those of Rae et al. 2021 (Gopher), table A1.
"""

import re
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from data_prep.cleaning.grams import gram_hashes, plain_words, word_hashes
from data_prep.quarantine import BadRecord, Reason

_LANGUAGE_CHARACTERS = 2000  # of the beginning, which tells the language
_TOP_GRAMS, _REPEATED = (2, 3, 4), (5, 6, 7, 8, 9, 10)
_TOP_STEP, _REPEATED_STEP = 0.02, 0.01  # a threshold falls by this with every further word
_SYMBOLS = re.compile(r"#|\u2026|\.\.\.")
_PARAGRAPHS = re.compile(r"\n\s*\n")


class Filters(NamedTuple):
    """Thresholds; None: not looked at."""

    languages: tuple[str, ...] = ()  # ISO 639 codes
    language_confidence: float | None = None
    min_characters: int | None = None
    max_characters: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    max_duplicate_lines: float | None = None  # share of lines that stood before
    max_duplicate_paragraphs: float | None = None
    max_top_grams: float | None = None  # share of characters in the most frequent 2-gram
    max_duplicate_grams: float | None = None  # share of characters in repeated 5-grams
    max_symbols: float | None = None  # "#" and ellipses a word
    min_mean_word: float | None = None  # characters
    max_mean_word: float | None = None

    def check(self) -> None:
        """Refuses what cannot be meant.

        Raises:
            ValueError: a share outside 0 and 1, a minimum above its maximum, an unknown language.
        """
        for name in ("max_duplicate_lines", "max_duplicate_paragraphs", "max_top_grams"):
            _check_share(name, getattr(self, name))
        _check_share("max_duplicate_grams", self.max_duplicate_grams)
        _check_share("language_confidence", self.language_confidence)
        for name in ("characters", "words", "mean_word"):
            low, high = getattr(self, f"min_{name}"), getattr(self, f"max_{name}")
            if low is not None and high is not None and low > high:
                raise ValueError(
                    f"--min-{_option(name)} {low} is above --max-{_option(name)} {high}"
                )
        if self.languages:
            known = set(_identifier().labels)
            unknown = sorted(set(self.languages) - known)
            if unknown:
                raise ValueError(
                    f"--language {', '.join(unknown)}: expected {', '.join(sorted(known))}"
                )

    def parameters(self) -> dict[str, Any]:
        """What is looked at, as JSON takes it."""
        given = {name: value for name, value in self._asdict().items() if value is not None}
        return given | {"languages": list(self.languages)}

    def verdict(self, text: str) -> BadRecord | None:
        """Why ``text`` is left out, with the figure and its bound; None: it is not."""
        if self == _OFF:
            return None
        checks = (self._length, self._lines, self._words, self._language)  # the cheap ones first
        return next((found for check in checks if (found := check(text))), None)

    def _length(self, text: str) -> BadRecord | None:
        low, high = self.min_characters, self.max_characters
        return _outside(Reason.FILTERED_LENGTH, "characters", len(text), low, high)

    def _lines(self, text: str) -> BadRecord | None:
        for name, bound, pieces in (
            ("duplicate lines", self.max_duplicate_lines, text.split("\n")),
            ("duplicate paragraphs", self.max_duplicate_paragraphs, _PARAGRAPHS.split(text)),
        ):
            if bound is not None:
                kept = [piece.strip() for piece in pieces if piece.strip()]
                share = 1 - len(set(kept)) / len(kept) if kept else 0.0
                found = _outside(Reason.FILTERED_REPETITION, f"share of {name}", share, None, bound)
                if found:
                    return found
        return None

    def _words(self, text: str) -> BadRecord | None:
        words = text.split()
        count = len(words)
        mean = sum(map(len, words)) / max(count, 1)
        found = _outside(
            Reason.FILTERED_LENGTH, "words", count, self.min_words, self.max_words
        ) or _outside(
            Reason.FILTERED_WORD_LENGTH,
            "characters a word",
            mean,
            self.min_mean_word,
            self.max_mean_word,
        )
        if not found and self.max_symbols is not None:
            symbols = len(_SYMBOLS.findall(text)) / max(count, 1)
            found = _outside(
                Reason.FILTERED_SYMBOLS, "symbols a word", symbols, None, self.max_symbols
            )
        return found or self._grams(text)

    def _grams(self, text: str) -> BadRecord | None:
        if self.max_top_grams is None and self.max_duplicate_grams is None:
            return None
        words = plain_words(text)
        hashes = word_hashes(words)
        ends = np.cumsum([0, *map(len, words)])
        top = (_TOP_GRAMS, self.max_top_grams, _TOP_STEP, top_share, "the most frequent")
        repeated = (_REPEATED, self.max_duplicate_grams, _REPEATED_STEP, repeated_share, "repeated")
        for sizes, bound, step, share, name in (top, repeated):
            for k, n in enumerate(sizes):
                if bound is None or len(words) < n:
                    break
                most = max(bound - k * step, 0.0)
                told = f"share of characters in {name} {n}-gram"
                found = _outside(
                    Reason.FILTERED_REPETITION, told, share(hashes, ends, n), None, most
                )
                if found:
                    return found
        return None

    def _language(self, text: str) -> BadRecord | None:
        if not self.languages:
            return None
        code, confidence = _identifier().classify(text[:_LANGUAGE_CHARACTERS])
        if code in self.languages and confidence >= (self.language_confidence or 0.0):
            return None
        return BadRecord(Reason.FILTERED_LANGUAGE, f"{code}, confidence {confidence:.2f}")


_OFF = Filters()
GOPHER = Filters(
    min_words=50,
    max_words=100_000,
    max_duplicate_lines=0.3,
    max_duplicate_paragraphs=0.3,
    max_top_grams=0.2,
    max_duplicate_grams=0.15,
    max_symbols=0.1,
    min_mean_word=3,
    max_mean_word=10,
)


def top_share(hashes: np.ndarray, ends: np.ndarray, n: int) -> float:
    """Share of the characters that lie in the most frequent run of ``n`` words, if it comes twice.

    Args:
        hashes: uint64 [words].
        ends: int [words + 1]: characters before each word, and in all.
    """
    grams, first, counts = np.unique(gram_hashes(hashes, n), return_index=True, return_counts=True)
    if not len(grams) or counts.max() < 2:
        return 0.0
    most = first[counts == counts.max()]
    size = (ends[most + n] - ends[most]).max()
    return min(1.0, float(size * counts.max() / max(ends[-1], 1)))


def repeated_share(hashes: np.ndarray, ends: np.ndarray, n: int) -> float:
    """Share of the characters that lie in runs of ``n`` words that stood before; arguments as in
    `top_share`."""
    grams = gram_hashes(hashes, n)
    _, first = np.unique(grams, return_index=True)
    repeated = np.ones(len(grams), dtype=bool)
    repeated[first] = False
    if not repeated.any():
        return 0.0
    change = np.zeros(len(hashes) + 1, dtype=np.int64)
    change[: len(grams)] += repeated
    change[n : n + len(grams)] -= repeated
    covered = np.cumsum(change)[:-1] > 0
    return float(np.diff(ends)[covered].sum() / max(ends[-1], 1))


def _outside(
    reason: Reason, name: str, value: float, low: float | None, high: float | None
) -> BadRecord | None:
    if low is not None and value < low:
        return BadRecord(reason, f"{name}: {value:.4g}, at least {low:g}")
    if high is not None and value > high:
        return BadRecord(reason, f"{name}: {value:.4g}, at most {high:g}")
    return None


def _check_share(name: str, value: float | None) -> None:
    if value is not None and not 0 <= value <= 1:
        raise ValueError(f"--{_option(name)} {value:g} is no share between 0 and 1")


def _option(name: str) -> str:
    return name.replace("_", "-")


@cache
def _identifier() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as error:
        raise ValueError("--language needs py3langid: pip install 'unimo-ds[language]'") from error
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
