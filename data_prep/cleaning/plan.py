"""What a build of texts is told about cleaning, and how it is carried out."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from data_prep.cleaning.duplicates import Duplicates
from data_prep.cleaning.filters import Filters
from data_prep.cleaning.sieve import HeldOut, Sieve
from data_prep.cleaning.signatures import Nearness, SignatureMaker, withheld
from data_prep.cleaning.survey import Signatures, sign, slices_of
from data_prep.engine import Options, Slice
from data_prep.quarantine import Bad, Reason
from data_prep.readers.corpora import corpus_documents
from data_prep.receipts import RECEIPTS_FOLDER
from data_prep.writer import Folder, atomic_file, sha256_of
from unimo_ds.data.schema import MANIFEST_NAME, read_manifest
from unimo_ds.tokenizer import WordTokenizer

SIGNATURES, HELD_OUT = "signatures", "held-out.npz"


class Cleaning(NamedTuple):
    """Which documents are left out."""

    filters: Filters = Filters()
    nearness: Nearness | None = None  # None: duplicates stay
    against: tuple[Folder, ...] = ()  # corpora whose documents are not taken once more
    decontaminate: tuple[Folder, ...] = ()  # corpora that no document may share a run of words with
    ngram: int = 13  # words in such a run

    def check(self) -> None:
        """Refuses what cannot work.

        Raises:
            ValueError: with the value and what it may be.
        """
        self.filters.check()
        if self.nearness:
            self.nearness.check()
        elif self.against:
            raise ValueError("--against needs --dedup exact or --dedup near")
        if self.ngram < 1:
            raise ValueError(f"--ngram {self.ngram}: 1 at least")

    def parameters(self) -> dict[str, Any]:
        """All that the bytes of a corpus depend on, the content of other corpora too."""
        return {
            "filters": self.filters.parameters(),
            "dedup": self.nearness._asdict() if self.nearness else {},
            "against": [_fingerprint(folder) for folder in self.against],
            "decontaminate": [_fingerprint(folder) for folder in self.decontaminate],
            "ngram": self.ngram,
        }

    def sieve(self, folder: Folder, tokenizer: WordTokenizer) -> Sieve:
        """Looks at each document alone; what is held out is kept in ``folder`` for the workers."""
        if not self.decontaminate:
            return Sieve(self.filters)
        path = folder / RECEIPTS_FOLDER / HELD_OUT
        if not path.is_file():
            texts = (
                document.text
                for corpus in self.decontaminate
                for document in corpus_documents(corpus, tokenizer)
            )
            write_held_out(path, HeldOut.of(texts, self.ngram))
        return Sieve(self.filters, str(path))


AS_IT_IS = Cleaning()
"""Nothing is left out."""


def write_held_out(path: Folder, held_out: HeldOut) -> None:
    """Puts runs of words where `load_held_out` finds them."""
    with atomic_file(path) as file:
        np.savez(file, **held_out.arrays())


def without_duplicates(
    folder: Folder,
    slices: Callable[[], Iterable[Slice]],
    cleaning: Cleaning,
    sieve: Sieve,
    tokenizer: WordTokenizer,
    options: Options,
) -> Iterator[Slice]:
    """``slices()`` with the documents that are left out among the bad ones, each with its reason.

    Raises:
        ValueError: the input has changed since the build was begun.
    """
    assert cleaning.nearness
    kept = folder / RECEIPTS_FOLDER / SIGNATURES
    tables, owners = [], []
    others = SignatureMaker(cleaning.nearness, Sieve())
    for number, corpus in enumerate(cleaning.against):
        options.on_stage(f"signatures of {corpus}")
        pieces = slices_of(corpus_documents(corpus, tokenizer))
        signed = sign(kept / f"against-{number}", others, pieces, options)
        tables += signed
        owners += [f"{corpus}: "] * len(signed)
    own = len(tables)
    options.on_stage("signatures")
    tables += sign(kept, SignatureMaker(cleaning.nearness, sieve), slices(), options)
    signatures = Signatures(tables, cleaning.nearness)
    options.on_stage("duplicates")
    with TemporaryDirectory() as scratch:
        found = signatures.duplicates(Path(scratch) / "minhashes.npy")
    options.on_stage("documents")
    for number, piece in enumerate(slices(), own):
        if number >= len(tables) or tables[number].num_rows != len(piece.records):
            raise ValueError(f"the input of {folder} changes while it is read")
        start, documents, bad = int(signatures.starts[number]), [], []
        for row, document in enumerate(piece.records):
            entry = withheld(tables[number], row, document)
            entry = entry or _duplicate(document, start + row, found, signatures, owners)
            if entry:
                bad.append(entry)
            else:
                documents.append(document)
        yield Slice(documents, [*piece.bad, *bad], piece.size)


def _duplicate(
    document: Any, index: int, found: Duplicates, signatures: Signatures, owners: list[str]
) -> Bad | None:
    first = int(found.first[index])
    if first == index:
        return None
    table, name = signatures.name(first)
    owner = owners[table] if table < len(owners) else ""
    reason = Reason.EXACT_DUPLICATE if found.exact[index] else Reason.NEAR_DUPLICATE
    return Bad(reason, document.source, document.line, document.id, f"as {owner}{name}")


def _fingerprint(corpus: Folder) -> str:
    read_manifest(corpus)
    return sha256_of(corpus / MANIFEST_NAME)
