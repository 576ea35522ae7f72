"""Words of texts as numbers, and runs of n of them: what filters and de-duplication compare.

Words are runs of letters and digits after NFKC and case folding. A run of n words is one 64-bit
number, so two different ones are taken for the same with a chance of 2**-64.
"""

import re
import unicodedata

import numpy as np
import xxhash

_WORD = re.compile(r"\w+")
_FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd: multiplication is a bijection of 64-bit numbers


def plain_words(text: str) -> list[str]:
    """The words of ``text`` without case, punctuation and compatibility forms."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())


def word_hashes(words: list[str]) -> np.ndarray:
    """uint64 [n]: one number a word (which has no line end), the same on every machine."""
    encoded = "\n".join(words).encode().split(b"\n") if words else []
    return np.fromiter(map(xxhash.xxh3_64_intdigest, encoded), np.uint64, len(words))


def gram_hashes(hashes: np.ndarray, n: int) -> np.ndarray:
    """uint64 [max(0, words - n + 1)]: one number for every run of ``n`` words."""
    count = max(0, len(hashes) - n + 1)
    grams = np.zeros(count, dtype=np.uint64)
    for k in range(n):
        grams = grams * _FACTOR + hashes[k : k + count]
    return grams ^ (grams >> np.uint64(32))
