"""Builds a pairs corpus and, inside it, the images corpus that it refers to."""

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.engine import (
    Options,
    build_shards,
    cut,
    finish,
    is_complete,
    refuse_empty,
    remove_receipts,
    start,
)
from data_prep.images import Images, MadeImages, make_images
from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.images import Picture
from data_prep.readers.pairs import Pair, picture_of
from data_prep.readers.places import Range, Row
from data_prep.readers.tables.rows import TableRow
from data_prep.regions.maps import BoxedPicture
from data_prep.regions.plan import RegionPlan
from data_prep.texts import (
    cached_encoder,
    cached_unit_encoder,
    unit_parameters,
)
from data_prep.writer import Folder, read_shard
from unimo_ds.data.schema import IMAGES_FOLDER, PAIRS, Manifest
from unimo_ds.tokenizer import load_tokenizer


class Captioned(NamedTuple):
    """A pair whose image is a row of the images corpus; its id is the image's."""

    id: str
    image_row: int
    captions: tuple[str, ...]
    source: str
    line: int


class PairMaker(NamedTuple):
    """Captions -> tokens; a caption that is too long is left out, a pair without captions too."""

    tokenizer: str
    max_tokens: int
    phrases: bool = False
    kind: str = PAIRS

    def rows(self, records: Sequence[Captioned], bad: list[Bad]) -> Iterator[dict[str, Any]]:
        encoded = self._encoded([text for pair in records for text in pair.captions])
        for pair in records:
            captions = [(text, *next(encoded)) for text in pair.captions]
            kept = [caption for caption in captions if len(caption[1]) <= self.max_tokens]
            for _, ids, _ in captions:
                if len(ids) > self.max_tokens:
                    detail = f"a caption of {len(ids)} tokens, at most {self.max_tokens}"
                    bad.append(Bad(Reason.TOO_LONG, pair.source, pair.line, pair.id, detail))
            if kept:
                yield {
                    "id": pair.id,
                    "image_id": pair.id,
                    "image_row": pair.image_row,
                    "captions": [ids for _, ids, _ in kept],
                    "caption_texts": [text for text, _, _ in kept],
                    **({"units": np.concatenate([u for *_, u in kept])} if self.phrases else {}),
                }

    def _encoded(self, texts: list[str]) -> Iterator[tuple[Sequence[int], Sequence[bool]]]:
        """The tokens of each text, and the beginnings of its units, if they are asked for."""
        if self.phrases:
            return iter(cached_unit_encoder(self.tokenizer).mark(texts))
        return ((ids, ()) for ids in cached_encoder(self.tokenizer).encode_whole(texts))


class Subject(NamedTuple):
    """What captions are about: a picture, or the row of a table that has this id."""

    id: str
    path: str = ""  # of a picture; others may have its id
    place: Range | Row | None = None


class Grouped(NamedTuple):
    """Pairs by image, in the order of the images' first appearance."""

    images: Images
    captions: dict[Subject, Pair]  # all that is said about it
    bad: list[Bad]


def group_by_picture(pairs: Sequence[Pair | Bad], image_root: Path | None) -> Grouped:
    """Finds the picture of every pair: in its source, below ``image_root``, or beside its source.

    Pairs of the same picture become one: its captions must never be each other's negatives.
    """
    pictures: dict[Subject, Picture] = {}
    said: dict[Subject, list[Pair]] = {}
    bad: list[Bad] = []
    for pair in pairs:
        if isinstance(pair, Bad):
            bad.append(pair)
            continue
        try:
            picture = picture_of(pair, pair.source, image_root)
        except BadRecord as error:
            bad.append(error.at(pair.source, pair.line, pair.image))
            continue
        subject = _subject(picture)
        pictures.setdefault(subject, picture)
        said.setdefault(subject, []).append(pair)
    captions = _joined(said, bad)
    return Grouped(Images([pictures[subject] for subject in captions], []), captions, bad)


def group_by_row(pairs: Sequence[Pair | Bad], rows: Sequence[TableRow], bad: list[Bad]) -> Grouped:
    """Finds the row of a feature table for every pair, by the image's id; ``bad`` is the tables'.

    Rows that no pair asks for are left out.
    """
    by_id: dict[str, list[TableRow]] = {}
    for row in rows:
        by_id.setdefault(row.id, []).append(row)
    said: dict[Subject, list[Pair]] = {}
    lost = []
    for pair in pairs:
        if isinstance(pair, Bad):
            lost.append(pair)
        elif name := next((n for n in (pair.image, *pair.others) if n in by_id), ""):
            said.setdefault(Subject(name), []).append(pair)
        else:
            error = BadRecord(Reason.MISSING_IMAGE, f"no row {pair.image!r} in the feature tables")
            lost.append(error.at(pair.source, pair.line, pair.image))
    captions = _joined(said, lost)
    wanted = [row for subject in captions for row in by_id[subject.id]]
    return Grouped(Images(wanted, bad, one_image=True), captions, lost)


def _joined(said: dict[Subject, list[Pair]], bad: list[Bad]) -> dict[Subject, Pair]:
    """All captions of an image as one pair.

    Several records may have found it under names that are guesses only (the number of a row, a file
    without its folder): then nobody knows which of them it belongs to, and they go to ``bad``.
    """
    captions: dict[Subject, Pair] = {}
    for subject, pairs in said.items():
        guessed = [pair for pair in pairs if _is_guess(subject, pair)]
        meant = {pair.subject or pair.image for pair in guessed}
        if len(meant) > 1:
            detail = (
                f"{subject.id!r} may be the picture of {' or of '.join(sorted(meant)[:2])}: name "
                "each picture by a path of its own"
            )
            error = BadRecord(Reason.DUPLICATE_ID, detail)
            bad += [error.at(pair.source, pair.line, pair.image) for pair in guessed]
            pairs = [pair for pair in pairs if not _is_guess(subject, pair)]
        if pairs:
            texts = tuple(text for pair in pairs for text in pair.captions)
            captions[subject] = pairs[0]._replace(captions=texts)
    return captions


def _is_guess(subject: Subject, pair: Pair) -> bool:
    return subject.id not in (pair.image, os.path.normpath(pair.image))


def build_pairs(
    folder: Folder,
    grouped: Grouped,
    plan: RegionPlan,
    tokenizer: str,
    options: Options,
    *,
    max_tokens: int = 510,
    phrases: bool = False,
) -> Manifest | None:
    """Fills ``folder`` with pairs and ``folder/images`` with their images; None if it was complete.

    Raises:
        ValueError: bad arguments, or a folder that holds something else.
        TooManyBad: see `data_prep.engine.finish`.
    """
    images_folder = folder / IMAGES_FOLDER
    if is_complete(folder, options):
        remove_receipts(images_folder)
        return None
    if max_tokens < 1:
        raise ValueError(f"--max-tokens {max_tokens}: 1 at least")
    maker = PairMaker(tokenizer, max_tokens, phrases)
    grouped = _without_long_rivals(grouped, maker)
    if not grouped.images.records:
        refuse_empty(folder, grouped.bad)
    fingerprint = load_tokenizer(tokenizer).fingerprint
    parameters = {"max_tokens": max_tokens, "tokenizer": fingerprint, "kind": PAIRS}
    parameters |= unit_parameters(phrases)
    made = make_images(images_folder, grouped.images, plan, options)
    start(folder, parameters)
    records, lost = _join(grouped, images_folder, made)
    pieces = cut(records, [*grouped.bad, *lost], plan.rows_per_shard)
    silent = replace(options, progress=lambda size: None)  # the bar counts images
    options.on_stage("captions")
    done = build_shards(folder, maker, pieces, parameters, silent)
    regions = made.manifest.regions
    fields = {"max_tokens": max_tokens, "tokenizer": fingerprint, "regions": regions}
    manifest = finish(folder, done, options, kind=PAIRS, images=IMAGES_FOLDER, **fields)
    remove_receipts(folder)
    remove_receipts(images_folder)
    return manifest


def _without_long_rivals(grouped: Grouped, maker: PairMaker) -> Grouped:
    """Without pictures whose captions are all too long, where another picture has their id."""
    counts = Counter(subject.id for subject in grouped.captions)
    bad: list[Bad] = []
    dropped = set()
    for subject, pair in grouped.captions.items():
        if subject.path and counts[subject.id] > 1:
            record = Captioned(subject.id, 0, pair.captions, pair.source, pair.line)
            long: list[Bad] = []
            if not list(maker.rows([record], long)):
                dropped.add(subject)
                bad += long
    if not dropped:
        return grouped
    captions = {key: pair for key, pair in grouped.captions.items() if key not in dropped}
    pictures = [picture for picture in grouped.images.records if _subject(picture) not in dropped]
    images = grouped.images._replace(records=pictures)
    return Grouped(images, captions, grouped.bad + bad)


def _join(
    grouped: Grouped, images_folder: Folder, made: MadeImages
) -> tuple[list[Captioned], list[Bad]]:
    """The pairs whose image was made, with its row; for the others the reason of their image."""
    shards = [receipt.shard for receipt in made.receipts if receipt.shard]
    tables = [read_shard(images_folder / shard.name, [0]) for shard in shards]
    names = [name for table in tables for name in table.column("id").to_pylist()]
    rows = {name: row for row, name in enumerate(names)}
    taken = {_subject(record) for record in made.records}
    entries = [bad for receipt in made.receipts for bad in receipt.bad]
    by_name = {bad.record: bad for bad in entries}
    by_place = {(bad.record, bad.source, bad.line): bad for bad in entries}  # several have one name
    records, lost = [], []
    for subject, pair in grouped.captions.items():
        name = subject.id
        if name in rows and subject in taken:
            records.append(Captioned(name, rows[name], pair.captions, pair.source, pair.line))
        else:
            bad = by_place.get((name, pair.source, pair.line)) or by_name[name]
            lost.append(Bad(bad.reason, pair.source, pair.line, name, f"its image: {bad.detail}"))
    return records, lost


def _subject(record: Picture | BoxedPicture | TableRow) -> Subject:
    if isinstance(record, TableRow):
        return Subject(record.id)
    picture = record.picture if isinstance(record, BoxedPicture) else record
    return Subject(picture.id, picture.path, picture.place)
