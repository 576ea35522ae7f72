"""The nearest visual word of each region, found without comparing it with every word in full.

In a few orthogonal directions, those in which the words differ most, a distance is cheap; with the
lengths of what is left it is a lower bound of the whole one: |x-c|^2 >= |Px-Pc|^2 + (|x'|-|c'|)^2,
where x' is x without Px. Only words whose bound is below the best distance are compared in full.
"""

import numpy as np

from data_prep.regions.visual_words import load_visual_words

# R regions, F features, K words, D directions
_DIRECTIONS = 64
_MOST_CANDIDATES = 64  # comparing with more one by one takes longer than with all at once
_ROUNDING = 1e-5  # of the squared lengths: what float32 may be wrong by


class WordSearch:
    """Words, ready to be searched."""

    def __init__(self, words: np.ndarray) -> None:
        """``words``: float32 [K, F]."""
        from scipy.linalg import eigh  # a second of import that few commands need

        self._centre = words.mean(axis=0)
        self._words = words - self._centre
        count = min(_DIRECTIONS, words.shape[1])
        spread = (self._words.T @ self._words).astype(np.float64)
        most = [words.shape[1] - count, words.shape[1] - 1]
        self._directions = np.ascontiguousarray(
            eigh(spread, subset_by_index=most)[1], dtype=np.float32
        )
        self._squares = np.einsum("kf,kf->k", self._words, self._words)
        self._outline = np.ascontiguousarray(-2 * self._outlines(self._words, self._squares).T)
        self._slack = float(self._squares.max(initial=0))

    def nearest(self, features: np.ndarray) -> np.ndarray:
        """uint16 [R]: the nearest word of each of ``features`` [R, F]; the first of equally near
        ones, as far as float32 tells them apart."""
        x_RF = features.astype(np.float32) - self._centre
        squares = np.einsum("rf,rf->r", x_RF, x_RF)
        # distances here lack the square of x, which is the same for all words
        bounds_RK = self._outlines(x_RF, squares) @ self._outline
        bounds_RK += self._squares
        found = bounds_RK.argmin(axis=1)
        best = self._distances(x_RF, found)
        below_RK = bounds_RK <= (best + _ROUNDING * (squares + self._slack))[:, None]
        rows, words = np.divmod(np.flatnonzero(below_RK), len(self._words))
        counts = np.bincount(rows, minlength=len(found))
        crowded = np.flatnonzero(counts > _MOST_CANDIDATES)
        if len(crowded):
            found[crowded] = self._among_all(x_RF[crowded])
        few = (counts > 1) & (counts <= _MOST_CANDIDATES)
        rows, words = rows[few[rows]], words[few[rows]]
        if len(rows):
            distances = self._distances(x_RF[rows], words)
            order = np.lexsort((words, distances, rows))
            first = np.flatnonzero(np.diff(rows, prepend=-1))
            found[rows[first]] = words[order][first]
        return found.astype(np.uint16)

    def _among_all(self, x_RF: np.ndarray) -> np.ndarray:
        """int64 [R], by comparing with every word; for features unlike those the words are of."""
        return (self._squares - 2 * (x_RF @ self._words.T)).argmin(axis=1)

    def _outlines(self, vectors: np.ndarray, squares: np.ndarray) -> np.ndarray:
        """[N, D + 1]: ``vectors`` [N, F] in the directions, and the length of what is left."""
        within = vectors @ self._directions
        left = squares - np.einsum("nd,nd->n", within, within)
        return np.concatenate([within, np.sqrt(left.clip(min=0))[:, None]], axis=1)

    def _distances(self, x_RF: np.ndarray, words: np.ndarray) -> np.ndarray:
        return self._squares[words] - 2 * np.einsum("rf,rf->r", x_RF, self._words[words])


def load_word_search(path: str) -> WordSearch:
    """A search among the words of a ``visual_words.npy``; made anew only for other words.

    Raises:
        ValueError: not such a file.
    """
    global _last
    words = load_visual_words(path)
    if _last is None or _last[0] is not words:
        _last = (words, WordSearch(words))
    return _last[1]


_last: tuple[np.ndarray, WordSearch] | None = None
