"""Builds a texts corpus."""

from collections.abc import Iterable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from data_prep.cleaning.plan import AS_IT_IS, Cleaning, without_duplicates
from data_prep.cleaning.sieve import Sieve
from data_prep.engine import (
    Options,
    Slice,
    build_shards,
    finish,
    is_complete,
    remove_receipts,
    start,
)
from data_prep.packing import Pack, Packer
from data_prep.phrases import Marked, UnitEncoder, UnitStream, parser_version
from data_prep.quarantine import Bad, Reason
from data_prep.readers.text import Document, DocumentReader
from data_prep.sentences import SentenceEncoder
from data_prep.writer import Folder
from unimo_ds.data.schema import TEXTS, Manifest
from unimo_ds.tokenizer import WordTokenizer, load_tokenizer

_SLICE_CHARACTERS = 16_000_000  # a slice ends here even if it has fewer documents than it may
_CHUNK_CHARACTERS = 1_000_000  # tokenised at a time

_Piece = TypeVar("_Piece", np.ndarray, Marked)


class _Encoder(Protocol[_Piece]):
    def encode(self, texts: Sequence[str]) -> list[list[_Piece]]:
        """For each text its sentences."""


class TextMaker(NamedTuple):
    """Documents -> rows of tokens; see `data_prep.packing` for what a row holds and is called."""

    tokenizer: str
    max_tokens: int
    pack: Pack = Pack.DOCUMENT
    sieve: Sieve = Sieve()
    phrases: bool = False
    kind: str = TEXTS

    def rows(self, records: Sequence[Document], bad: list[Bad]) -> Iterator[dict[str, Any]]:
        packer = Packer(self.pack, self.max_tokens, _word_starts(self.tokenizer))
        if not self.phrases:
            for row in packer.rows(self._encoded(cached_encoder(self.tokenizer), records, bad)):
                yield {"id": row.id, "tokens": row.tokens}
            return
        units = UnitStream()
        marked = self._encoded(cached_unit_encoder(self.tokenizer), records, bad)
        for row in packer.rows(units.through(marked)):
            yield {"id": row.id, "tokens": row.tokens, "units": units.of_row(row.tokens)}

    def _encoded(
        self, encoder: _Encoder[_Piece], records: Sequence[Document], bad: list[Bad]
    ) -> Iterator[tuple[str, list[_Piece]]]:
        for chunk in _chunks(self._passed(records, bad)):
            encoded = encoder.encode([document.text for document in chunk])
            for document, pieces in zip(chunk, encoded, strict=True):
                if pieces:
                    yield document.id, pieces
                else:
                    bad.append(
                        Bad(Reason.EMPTY_TEXT, document.source, document.line, document.id, "")
                    )

    def _passed(self, records: Sequence[Document], bad: list[Bad]) -> Iterator[Document]:
        for document in records:
            entry = self.sieve.verdict(document)
            if entry:
                bad.append(entry)
            else:
                yield document


@cache
def cached_tokenizer(path: str) -> WordTokenizer:
    """The tokenizer at ``path``, loaded once in a process."""
    return load_tokenizer(path)


@cache
def cached_encoder(path: str) -> SentenceEncoder:
    """Of the tokenizer at ``path``, made once in a process."""
    return SentenceEncoder(cached_tokenizer(path))


@cache
def cached_unit_encoder(path: str) -> UnitEncoder:
    """Of the tokenizer at ``path``, made once in a process."""
    return UnitEncoder(cached_tokenizer(path))


def unit_parameters(phrases: bool) -> dict[str, str]:
    """What the parameters of a build say of its units.

    Raises:
        ValueError: they are asked for, but there is no parser.
    """
    return {"phrases": parser_version()} if phrases else {}


@cache
def _word_starts(path: str) -> np.ndarray:
    return cached_tokenizer(path).word_starts()


def build_texts(
    folder: Folder,
    reader: DocumentReader,
    tokenizer: str,
    options: Options,
    *,
    max_tokens: int = 510,
    rows_per_shard: int = 65_536,
    pack: Pack = Pack.DOCUMENT,
    cleaning: Cleaning = AS_IT_IS,
    phrases: bool = False,
) -> Manifest | None:
    """Fills ``folder`` with the documents of ``reader``; None if it was complete already.

    Raises:
        ValueError: bad arguments, a folder that holds something else, or no parser for phrases.
        TooManyBad: see `data_prep.engine.finish`.
    """
    if is_complete(folder, options):
        return None
    if max_tokens < 1 or rows_per_shard < 1:
        raise ValueError(
            f"--max-tokens {max_tokens}, --rows-per-shard {rows_per_shard}: 1 at least"
        )
    cleaning.check()
    words = cached_tokenizer(tokenizer)
    parameters = {
        "max_tokens": max_tokens,
        "rows_per_shard": rows_per_shard,
        "tokenizer": words.fingerprint,
        "pack": str(pack),
        **cleaning.parameters(),
        **unit_parameters(phrases),
    }
    start(folder, parameters)
    options.on_stage("texts that are held out")
    sieve = cleaning.sieve(folder, words)
    maker = TextMaker(tokenizer, max_tokens, pack, sieve, phrases)
    slices: Iterable[Slice] = _slices(reader, rows_per_shard)
    if cleaning.nearness:  # the first pass looks through the sieve
        maker = maker._replace(sieve=Sieve())
        slices = without_duplicates(
            folder, partial(_slices, reader, rows_per_shard), cleaning, sieve, words, options
        )
    options.on_stage("documents")
    receipts = build_shards(folder, maker, slices, parameters, options)
    manifest = finish(
        folder, receipts, options, kind=TEXTS, max_tokens=max_tokens, tokenizer=words.fingerprint
    )
    remove_receipts(folder)
    return manifest


def _slices(reader: DocumentReader, most_documents: int) -> Iterator[Slice]:
    """Documents are counted: how many rows they make is known only when they are tokenised."""
    documents: list[Document] = []
    bad: list[Bad] = []
    characters = position = 0
    for record in reader:
        if isinstance(record, Bad):
            bad.append(record)
            continue
        documents.append(record)
        characters += len(record.text)
        if len(documents) == most_documents or characters >= _SLICE_CHARACTERS:
            yield Slice(documents, bad, reader.bytes_read - position)
            documents, bad, characters, position = [], [], 0, reader.bytes_read
    if documents or bad:
        yield Slice(documents, bad, reader.bytes_read - position)


def _chunks(documents: Iterable[Document]) -> Iterator[list[Document]]:
    chunk: list[Document] = []
    characters = 0
    for document in documents:
        chunk.append(document)
        characters += len(document.text)
        if characters >= _CHUNK_CHARACTERS:
            yield chunk
            chunk, characters = [], 0
    if chunk:
        yield chunk
