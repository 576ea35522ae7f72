"""Builds a pairs corpus and, inside it, the images corpus that it refers to."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.engine import (
    Options,
    Receipt,
    build_shards,
    cut,
    finish,
    is_complete,
    refuse_empty,
    remove_receipts,
    start,
)
from data_prep.images import Images, make_images
from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.images import Picture
from data_prep.readers.pairs import Pair, picture_of
from data_prep.readers.tables.rows import TableRow
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


class Grouped(NamedTuple):
    """Pairs by image, in the order of the images' first appearance."""

    images: Images
    captions: dict[str, Pair]  # image id -> all that is said about it
    bad: list[Bad]


def group_by_picture(pairs: Sequence[Pair | Bad], image_root: Path | None) -> Grouped:
    """Finds the picture of every pair: in its source, below ``image_root``, or beside its source.

    Pairs of the same picture become one: its captions must never be each other's negatives.
    """
    pictures: dict[str, Picture] = {}
    captions: dict[str, Pair] = {}
    bad: list[Bad] = []
    for pair in pairs:
        if isinstance(pair, Bad):
            bad.append(pair)
            continue
        try:
            picture = picture_of(pair, pair.source, image_root)
            known = pictures.setdefault(picture.id, picture)
            if (known.path, known.place) != (picture.path, picture.place):
                raise BadRecord(Reason.DUPLICATE_ID, f"{picture.id!r} is also {known.path}")
        except BadRecord as error:
            bad.append(error.at(pair.source, pair.line, pair.image))
            continue
        add_captions(captions, picture.id, pair)
    return Grouped(Images(list(pictures.values()), []), captions, bad)


def group_by_row(pairs: Sequence[Pair | Bad], rows: Sequence[TableRow], bad: list[Bad]) -> Grouped:
    """Finds the row of a feature table for every pair, by the image's id; ``bad`` is the tables'.

    Rows that no pair asks for are left out.
    """
    by_id = {row.id: row for row in rows}
    captions: dict[str, Pair] = {}
    lost = []
    for pair in pairs:
        if isinstance(pair, Bad):
            lost.append(pair)
        elif name := next((n for n in (pair.image, *pair.others) if n in by_id), ""):
            add_captions(captions, name, pair)
        else:
            error = BadRecord(Reason.MISSING_IMAGE, f"no row {pair.image!r} in the feature tables")
            lost.append(error.at(pair.source, pair.line, pair.image))
    return Grouped(Images([by_id[name] for name in captions], bad), captions, lost)


def add_captions(captions: dict[str, Pair], image: str, pair: Pair) -> None:
    """Puts the pair's captions behind what is there about the image already."""
    known = captions.get(image)
    captions[image] = known._replace(captions=known.captions + pair.captions) if known else pair


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
    if not grouped.images.records:
        refuse_empty(folder, grouped.bad)
    fingerprint = load_tokenizer(tokenizer).fingerprint
    parameters = {"max_tokens": max_tokens, "tokenizer": fingerprint, "kind": PAIRS}
    parameters |= unit_parameters(phrases)
    start(folder, parameters)
    images, receipts = make_images(images_folder, grouped.images, plan, options)
    records, lost = _join(grouped, images_folder, receipts)
    pieces = cut(records, [*grouped.bad, *lost], plan.rows_per_shard)
    silent = replace(options, progress=lambda size: None)  # the bar counts images
    maker = PairMaker(tokenizer, max_tokens, phrases)
    done = build_shards(folder, maker, pieces, parameters, silent)
    fields = {"max_tokens": max_tokens, "tokenizer": fingerprint, "regions": images.regions}
    manifest = finish(folder, done, options, kind=PAIRS, images=IMAGES_FOLDER, **fields)
    remove_receipts(folder)
    remove_receipts(images_folder)
    return manifest


def _join(
    grouped: Grouped, images_folder: Folder, receipts: Sequence[Receipt]
) -> tuple[list[Captioned], list[Bad]]:
    """The pairs whose image was made, with its row; for the others the reason of their image."""
    shards = [receipt.shard for receipt in receipts if receipt.shard]
    tables = [read_shard(images_folder / shard.name, [0]) for shard in shards]
    names = [name for table in tables for name in table.column("id").to_pylist()]
    rows = {name: row for row, name in enumerate(names)}
    reasons = {bad.record: bad for receipt in receipts for bad in receipt.bad}
    records, lost = [], []
    for name, pair in grouped.captions.items():
        if name in rows:
            records.append(Captioned(name, rows[name], pair.captions, pair.source, pair.line))
        else:
            bad = reasons[name]
            lost.append(Bad(bad.reason, pair.source, pair.line, name, f"its image: {bad.detail}"))
    return records, lost
