"""Which documents a build leaves out by looking at each alone: filters, and what is held out."""

import io
from collections.abc import Iterable, Iterator
from functools import cache
from typing import NamedTuple

import numpy as np

from data_prep.cleaning.filters import Filters
from data_prep.cleaning.grams import gram_hashes, plain_words, word_hashes
from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.text import Document
from unimo_ds.storage import location

SHORTEST_GRAM = 8
"""Words; a held-out text shorter than the n-gram is looked for as a whole if it has that many."""


class Run(NamedTuple):
    """Some words in a row."""

    key: tuple[int, int]  # how many, and the number that stands for them
    words: str


def runs_of(text: str, n: int) -> Iterator[Run]:
    """All runs of ``n`` words, or a shorter text as a whole if it has `SHORTEST_GRAM`."""
    words = plain_words(text)
    size = min(n, len(words))
    if size >= min(n, SHORTEST_GRAM):
        for at, gram in enumerate(gram_hashes(word_hashes(words), size).tolist()):
            yield Run((size, gram), " ".join(words[at : at + size]))


class HeldOut(NamedTuple):
    """Runs of words of held-out texts."""

    grams: dict[int, np.ndarray]  # words in a run -> sorted uint64 [runs]

    @staticmethod
    def of(texts: Iterable[str], n: int) -> "HeldOut":
        """What `runs_of` gives for ``texts``."""
        found: dict[int, list[np.ndarray]] = {}
        for text in texts:
            hashes = word_hashes(plain_words(text))
            size = min(n, len(hashes))
            if size >= min(n, SHORTEST_GRAM):
                found.setdefault(size, []).append(np.unique(gram_hashes(hashes, size)))
        return HeldOut({size: np.unique(np.concatenate(found[size])) for size in sorted(found)})

    def shared(self, text: str) -> Iterator[Run]:
        """The runs that ``text`` has too."""
        words = plain_words(text)
        hashes = word_hashes(words)
        for size, known in self.grams.items():
            grams = gram_hashes(hashes, size)
            at = np.searchsorted(known, grams).clip(max=len(known) - 1)
            for hit in np.flatnonzero(known[at] == grams).tolist():
                yield Run((size, int(grams[hit])), " ".join(words[hit : hit + size]))

    def arrays(self) -> dict[str, np.ndarray]:
        """What `numpy.savez` writes and `load_held_out` reads."""
        return {str(size): grams for size, grams in self.grams.items()}


@cache
def load_held_out(path: str) -> HeldOut:
    """The runs in a file; read once in a process."""
    content = io.BytesIO(location(path).read_bytes())
    with np.load(content, allow_pickle=False) as arrays:
        return HeldOut({int(name): arrays[name] for name in arrays.files})


class Sieve(NamedTuple):
    """Lets documents pass or says why not; picklable, and the same for the same document."""

    filters: Filters = Filters()
    held_out: str = ""  # file or URL of runs of words that no document may have

    def verdict(self, document: Document) -> Bad | None:
        """The entry for the quarantine, or None."""
        found = self.filters.verdict(document.text)
        if not found and self.held_out:
            shared = next(load_held_out(self.held_out).shared(document.text), None)
            if shared:
                found = BadRecord(Reason.CONTAMINATED, f"held out: {shared.words!r}")
        return found.at(document.source, document.line, document.id) if found else None
