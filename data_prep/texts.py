"""Builds a texts corpus."""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.engine import (
    Options,
    Slice,
    build_shards,
    finish,
    is_complete,
    remove_receipts,
    start,
)
from data_prep.quarantine import Bad, Reason
from data_prep.readers.text import Document, DocumentReader
from data_prep.splitting import Splitter
from unimo_ds.data.schema import TEXTS, Manifest
from unimo_ds.tokenizer import WordTokenizer, load_tokenizer

_SLICE_CHARACTERS = 16_000_000  # a slice ends here even if it has fewer documents than it may
_CHUNK_CHARACTERS = 1_000_000  # tokenised at a time


class TextMaker(NamedTuple):
    """Documents -> rows of tokens; a document of several rows is called ``id#0``, ``id#1``, ..."""

    tokenizer: str
    max_tokens: int
    kind: str = TEXTS

    def rows(self, records: Sequence[Document], bad: list[Bad]) -> Iterator[dict[str, Any]]:
        splitter = Splitter(cached_tokenizer(self.tokenizer), self.max_tokens)
        for chunk in _chunks(records):
            for document, rows in zip(chunk, splitter.rows([d.text for d in chunk]), strict=True):
                if not rows:
                    bad.append(
                        Bad(Reason.EMPTY_TEXT, document.source, document.line, document.id, "")
                    )
                for number, tokens in enumerate(rows):
                    yield {"id": f"{document.id}#{number}", "tokens": tokens}


@cache
def cached_tokenizer(path: str) -> WordTokenizer:
    """The tokenizer at ``path``, loaded once in a process."""
    return load_tokenizer(path)


def build_texts(
    folder: Path,
    reader: DocumentReader,
    tokenizer: str,
    options: Options,
    *,
    max_tokens: int = 510,
    rows_per_shard: int = 65_536,
) -> Manifest | None:
    """Fills ``folder`` with the documents of ``reader``; None if it was complete already.

    Raises:
        ValueError: bad arguments, or a folder that holds something else.
        TooManyBad: see `data_prep.engine.finish`.
    """
    if is_complete(folder, options):
        return None
    if max_tokens < 1 or rows_per_shard < 1:
        raise ValueError(
            f"--max-tokens {max_tokens}, --rows-per-shard {rows_per_shard}: 1 at least"
        )
    fingerprint = load_tokenizer(tokenizer).fingerprint
    parameters = {
        "max_tokens": max_tokens,
        "rows_per_shard": rows_per_shard,
        "tokenizer": fingerprint,
    }
    start(folder, parameters)
    maker = TextMaker(tokenizer, max_tokens)
    receipts = build_shards(folder, maker, _slices(reader, rows_per_shard), parameters, options)
    manifest = finish(
        folder, receipts, options, kind=TEXTS, max_tokens=max_tokens, tokenizer=fingerprint
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


def _chunks(documents: Sequence[Document]) -> Iterator[list[Document]]:
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
