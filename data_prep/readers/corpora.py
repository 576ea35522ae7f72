"""Texts out of corpora: documents put together again from their rows, captions of pairs."""

from collections.abc import Iterator, Sequence
from itertools import groupby

import numpy as np
import pyarrow as pa

from data_prep.packing import JOIN, PART
from data_prep.readers.text import Document
from data_prep.writer import Folder, read_shard
from unimo_ds.data.schema import PAIRS, TEXTS, Manifest, read_manifest
from unimo_ds.tokenizer import SEP_ID, WordTokenizer


def corpus_documents(folder: Folder, tokenizer: WordTokenizer | None) -> Iterator[Document]:
    """The documents of a texts corpus, or every caption of a pairs corpus (``id/0``, ``id/1``...).

    Args:
        tokenizer: that texts were made with; captions need none.

    Raises:
        ValueError: no corpus of either kind, or texts of another tokenizer.
    """
    manifest = read_manifest(folder)
    if manifest.kind == PAIRS:
        yield from _captions(folder, manifest)
    elif manifest.kind == TEXTS:
        if tokenizer is None or tokenizer.fingerprint != manifest.tokenizer:
            given = tokenizer.fingerprint if tokenizer else "none"
            raise ValueError(
                f"{folder} was made with tokenizer {manifest.tokenizer}, not {given}: its texts "
                "can be read with --tokenizer of the same only"
            )
        yield from _documents(folder, manifest, tokenizer)
    else:
        raise ValueError(f"{folder} holds {manifest.kind}, expected texts or pairs")


def _captions(folder: Folder, manifest: Manifest) -> Iterator[Document]:
    row = 0
    for batch in _batches(folder, manifest, ("id", "caption_texts")):
        names, captions = (batch.column(name).to_pylist() for name in ("id", "caption_texts"))
        for name, texts in zip(names, captions, strict=True):
            row += 1
            yield from (
                Document(f"{name}/{k}", text, str(folder), row) for k, text in enumerate(texts)
            )


def _documents(folder: Folder, manifest: Manifest, tokenizer: WordTokenizer) -> Iterator[Document]:
    for name, parts in groupby(_parts(folder, manifest), key=lambda part: part[0]):
        found = list(parts)
        tokens = np.concatenate([tokens for _, tokens, _ in found])
        yield Document(name, tokenizer.decode(tokens).strip(), str(folder), found[0][2])


def _parts(folder: Folder, manifest: Manifest) -> Iterator[tuple[str, np.ndarray, int]]:
    """(document, tokens, row from 1); a row of several documents gives one for each."""
    row = 0
    for batch in _batches(folder, manifest, ("id", "tokens")):
        names = batch.column("id").to_pylist()
        for name, value in zip(names, batch.column("tokens"), strict=True):
            row += 1
            tokens = value.values.to_numpy()
            pieces = np.split(tokens, np.flatnonzero(tokens == SEP_ID))
            for document, piece in zip(_names(name, len(pieces)), pieces, strict=True):
                yield document, piece[piece != SEP_ID], row


def _names(row: str, count: int) -> Sequence[str]:
    """``a#1+b#0`` -> a, b. The names may hold both signs: then those of a row stay one."""
    if count == 1:
        return [row.rpartition(PART)[0]]
    names = row.split(JOIN)
    if len(names) != count:
        return [f"{row}/{k}" for k in range(count)]
    return [name.rpartition(PART)[0] for name in names]


def _batches(
    folder: Folder, manifest: Manifest, columns: Sequence[str]
) -> Iterator[pa.RecordBatch]:
    for shard in manifest.shards:
        yield from read_shard(folder / shard.name).select(columns).to_batches()
