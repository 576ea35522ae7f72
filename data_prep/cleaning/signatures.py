"""What is kept of a document to find its duplicates: a hash of its words, and their MinHash."""

import hashlib
from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from data_prep.cleaning.grams import gram_hashes, plain_words, word_hashes
from data_prep.cleaning.sieve import Sieve
from data_prep.quarantine import Bad, Reason
from data_prep.readers.text import Document

DIGEST_SIZE = 16
_GRAMS_AT_ONCE = 4096  # times permutations numbers lie in memory
_SEED = 1


class Nearness(NamedTuple):
    """When two documents count as the same."""

    near: bool = True  # else only if they have the same words in the same order
    threshold: float = 0.8  # Jaccard similarity of their sets of shingles
    permutations: int = 128
    shingle: int = 5  # words

    def check(self) -> None:
        """Refuses what cannot work.

        Raises:
            ValueError: with the value and what it may be, or datasketch is missing.
        """
        if not 0 < self.threshold <= 1:
            raise ValueError(f"--threshold {self.threshold:g} is not above 0 and at most 1")
        if not 16 <= self.permutations <= 1024 or self.shingle < 1:
            raise ValueError(
                f"--permutations {self.permutations}, --shingle {self.shingle}: expected 16 to "
                "1024, and 1 or more"
            )
        if self.near:
            datasketch()


def datasketch() -> Any:
    """The library.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import datasketch as library
    except ImportError as error:
        raise ValueError("--dedup near needs datasketch: pip install 'unimo-ds[dedup]'") from error
    return library


class SignatureMaker(NamedTuple):
    """Documents -> a table with a row for each; picklable."""

    nearness: Nearness
    sieve: Sieve

    @property
    def schema(self) -> pa.Schema:
        """Of the table: ``reason`` and ``detail`` where the sieve holds a document back, else
        ``digest`` and, if near duplicates are looked for, ``minhash``."""
        fields = [
            pa.field("id", pa.string()),
            pa.field("reason", pa.string()),
            pa.field("detail", pa.string()),
            pa.field("digest", pa.binary(DIGEST_SIZE)),
        ]
        if self.nearness.near:
            fields.append(pa.field("minhash", pa.binary(4 * self.nearness.permutations)))
        return pa.schema(fields)

    def table(self, documents: Sequence[Document]) -> pa.Table:
        """The signatures of ``documents``, in their order."""
        rows = [self._row(document) for document in documents]
        names = self.schema.names
        arrays = [
            pa.array([row[name] for row in rows], self.schema.field(name).type) for name in names
        ]
        return pa.Table.from_arrays(arrays, schema=self.schema)

    def _row(self, document: Document) -> dict[str, Any]:
        bad = self.sieve.verdict(document)
        words = [] if bad else plain_words(document.text) or document.text.split()
        row: dict[str, Any] = {
            "id": document.id,
            "reason": bad and str(bad.reason),
            "detail": bad and bad.detail,
            "digest": None if bad else _digest(words),
        }
        if self.nearness.near:
            row["minhash"] = self._minhash(words).tobytes()
        return row

    def _minhash(self, words: list[str]) -> np.ndarray:
        """uint32 [permutations]; a text shorter than a shingle is one."""
        hashes = word_hashes(words)
        grams = gram_hashes(hashes, max(1, min(self.nearness.shingle, len(hashes))))
        sketch = _empty(self.nearness.permutations).copy()
        numbers = np.unique(grams >> np.uint64(32)).tolist()
        for first in range(0, len(numbers), _GRAMS_AT_ONCE):
            sketch.update_batch(numbers[first : first + _GRAMS_AT_ONCE])
        return sketch.hashvalues


def withheld(table: pa.Table, row: int, document: Document) -> Bad | None:
    """What the sieve said of the document in ``row``."""
    reason = table.column("reason")[row].as_py()
    if reason is None:
        return None
    detail = table.column("detail")[row].as_py()
    return Bad(Reason(reason), document.source, document.line, document.id, detail)


def _digest(words: Sequence[str]) -> bytes:
    return hashlib.blake2b(" ".join(words).encode(), digest_size=DIGEST_SIZE).digest()


@cache
def _empty(permutations: int) -> Any:
    # affine32 stores four bytes a permutation and maps hashes one to one
    return datasketch().MinHash(
        num_perm=permutations, seed=_SEED, hashfunc=_same, scheme="affine32"
    )


def _same(value: int) -> int:
    return value
