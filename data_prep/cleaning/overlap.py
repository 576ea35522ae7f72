"""How much of a held-out corpus stands in a training corpus."""

import hashlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from rich.table import Table

from data_prep.cleaning.plan import HELD_OUT, write_held_out
from data_prep.cleaning.sieve import HeldOut, Sieve, load_held_out, runs_of
from data_prep.cleaning.signatures import Nearness, SignatureMaker
from data_prep.cleaning.survey import Signatures, sign, slices_of
from data_prep.engine import Options
from data_prep.readers.corpora import corpus_documents
from data_prep.readers.text import Document
from data_prep.writer import Folder, read_shard
from unimo_ds.data.schema import PAIRS, Manifest, read_manifest
from unimo_ds.tokenizer import WordTokenizer, load_tokenizer

EXACT, NEAR, NGRAM, PICTURE = "exact", "near", "n-gram", "picture"
_SHOWN = 3


class Match(NamedTuple):
    """A held-out text or picture, and where it stands in the training corpus."""

    kind: str
    held_out: str  # id
    train: str  # id
    told: str  # what both have


class Overlap(NamedTuple):
    """All that was found."""

    texts: int  # held-out documents or captions
    pictures: int  # held-out pictures; 0 without pairs on both sides
    matches: list[Match]

    @property
    def share(self) -> float:
        """Of the held-out texts and pictures that stand in the training corpus."""
        parts = [0.0]
        for total, kinds in ((self.texts, (EXACT, NEAR, NGRAM)), (self.pictures, (PICTURE,))):
            names = {match.held_out for match in self.matches if match.kind in kinds}
            parts.append(len(names) / total if total else 0.0)
        return max(parts)

    def summary(self) -> dict[str, Any]:
        """For programs."""
        counts = Counter(match.kind for match in self.matches)
        return {
            "texts": self.texts,
            "pictures": self.pictures,
            "share": self.share,
            **{kind: counts[kind] for kind in (EXACT, NEAR, NGRAM, PICTURE)},
        }


def find_overlap(
    train: Folder,
    held_out: Folder,
    tokenizer: str | None,
    nearness: Nearness,
    ngram: int,
    workers: int,
) -> Overlap:
    """Held-out texts that training texts repeat exactly, nearly or in a run of ``ngram`` words, and
    for pairs on both sides pictures with the same id or the same features.

    A text is reported once, as the strongest kind that it is.

    Raises:
        ValueError: corpora of other kinds, or texts without their tokenizer.
    """
    words = load_tokenizer(tokenizer) if tokenizer else None
    nearness.check()
    options = Options(command=[], workers=workers)
    maker = SignatureMaker(nearness, Sieve())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        sides = [
            sign(folder / side, maker, slices_of(corpus_documents(corpus, words)), options)
            for side, corpus in (("train", train), ("held-out", held_out))
        ]
        matches = list(_repeated(sides, nearness, folder / "minhashes.npy"))
        known = {match.held_out for match in matches}
        found = _sharing(train, held_out, words, ngram, folder / HELD_OUT, options)
        matches += [match for match in found if match.held_out not in known]
        texts = sum(table.num_rows for table in sides[1])
    pictures, same = _pictures(train, held_out)
    return Overlap(texts, pictures, [*matches, *same])


def overlap_table(overlap: Overlap) -> Table:
    """For a person."""
    told = f"{overlap.texts:,} held-out texts, {overlap.pictures:,} held-out pictures"
    table = Table("matches", "count", "for example", title=told)
    for kind in (EXACT, NEAR, NGRAM, PICTURE):
        found = [match for match in overlap.matches if match.kind == kind]
        shown = "\n".join(f"{m.held_out} = {m.train} {m.told}"[:100] for m in found[:_SHOWN])
        table.add_row(kind, f"{len(found):,}", shown)
    table.add_row("share that stands in training", f"{overlap.share:.2%}", "")
    return table


def _repeated(sides: list[list[pa.Table]], nearness: Nearness, scratch: Path) -> Iterator[Match]:
    signatures = Signatures([*sides[0], *sides[1]], nearness)
    found = signatures.duplicates(scratch)
    border = int(signatures.starts[len(sides[0])])
    for index in range(border, len(found.first)):
        first = int(found.first[index])
        if first < border:
            kind = EXACT if found.exact[index] else NEAR
            yield Match(kind, signatures.name(index)[1], signatures.name(first)[1], "")


def _sharing(
    train: Folder,
    held_out: Folder,
    words: WordTokenizer | None,
    ngram: int,
    path: Path,
    options: Options,
) -> Iterator[Match]:
    """The held-out texts that share a run of words with a training text."""
    write_held_out(path, HeldOut.of((d.text for d in corpus_documents(held_out, words)), ngram))
    tasks = enumerate(piece.records for piece in slices_of(corpus_documents(train, words)))
    found = dict(options.run(partial(_hits, str(path)), tasks))
    owners: dict[tuple[int, int], str] = {}
    for number in sorted(found):
        owners = found[number] | owners  # the first training text of a run counts
    for document in corpus_documents(held_out, words):
        shared = next((run for run in runs_of(document.text, ngram) if run.key in owners), None)
        if shared:
            yield Match(NGRAM, document.id, owners[shared.key], shared.words)


def _hits(path: str, task: tuple[int, list[Document]]) -> tuple[int, dict[tuple[int, int], str]]:
    held_out = load_held_out(path)
    found: dict[tuple[int, int], str] = {}
    for document in task[1]:
        for run in held_out.shared(document.text):
            found.setdefault(run.key, document.id)
    return task[0], found


def _pictures(train: Folder, held_out: Folder) -> tuple[int, list[Match]]:
    """Pictures of both; features tell them apart where both were made alike, else their ids do."""
    sides = [read_manifest(train), read_manifest(held_out)]
    if any(side.kind != PAIRS for side in sides):
        return 0, []
    alike = sides[0].regions == sides[1].regions
    told = "same regions" if alike else "same id"
    known: dict[str | bytes, str] = {}
    for name, key in _named(train, sides[0], alike):
        known.setdefault(key, name)
    others = list(_named(held_out, sides[1], alike))
    return len(others), [
        Match(PICTURE, name, known[key], told) for name, key in others if key in known
    ]


def _named(
    corpus: Folder, manifest: Manifest, by_features: bool
) -> Iterator[tuple[str, str | bytes]]:
    """(id, what tells a picture) of the pictures of a pairs corpus."""
    folder = corpus / manifest.images
    for shard in read_manifest(folder).shards:
        for batch in read_shard(folder / shard.name).to_batches():
            names = batch.column("id").to_pylist()
            if not by_features:
                yield from zip(names, names, strict=True)
                continue
            for name, value in zip(names, batch.column("features"), strict=True):
                content = value.values.to_numpy().tobytes()
                yield name, hashlib.blake2b(content, digest_size=16).digest()
