"""Builds a pairs corpus and, inside it, the images corpus that it refers to."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

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
from data_prep.images import Images, RegionPlan, make_images
from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.images import Picture, picture_below
from data_prep.readers.pairs import Pair
from data_prep.readers.region_tables import TableRow
from data_prep.texts import cached_tokenizer
from data_prep.writer import read_shard
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
    kind: str = PAIRS

    def rows(self, records: Sequence[Captioned], bad: list[Bad]) -> Iterator[dict[str, Any]]:
        tokenizer = cached_tokenizer(self.tokenizer)
        encoded = iter(tokenizer.encode([text for pair in records for text in pair.captions]))
        for pair in records:
            captions = [(text, next(encoded)) for text in pair.captions]
            kept = [(text, ids) for text, ids in captions if len(ids) <= self.max_tokens]
            for _, ids in captions:
                if len(ids) > self.max_tokens:
                    detail = f"a caption of {len(ids)} tokens, at most {self.max_tokens}"
                    bad.append(Bad(Reason.TOO_LONG, pair.source, pair.line, pair.id, detail))
            if kept:
                yield {
                    "id": pair.id,
                    "image_id": pair.id,
                    "image_row": pair.image_row,
                    "captions": [ids for _, ids in kept],
                    "caption_texts": [text for text, _ in kept],
                }


class Grouped(NamedTuple):
    """Pairs by image, in the order of the images' first appearance."""

    images: Images
    captions: dict[str, Pair]  # image id -> all that is said about it
    bad: list[Bad]


def group_by_picture(pairs: Sequence[Pair | Bad], image_root: Path | None) -> Grouped:
    """Finds the picture of every pair below ``image_root``, else below the folder of its source.

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
            root = image_root or Path(pair.source).parent
            picture = picture_below(root, pair.image, pair.source, pair.line)
            known = pictures.setdefault(picture.id, picture)
            if known.path != picture.path:
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
        elif pair.image in by_id:
            add_captions(captions, pair.image, pair)
        else:
            error = BadRecord(Reason.MISSING_IMAGE, f"no row {pair.image!r} in the feature tables")
            lost.append(error.at(pair.source, pair.line, pair.image))
    return Grouped(Images([by_id[name] for name in captions], bad), captions, lost)


def add_captions(captions: dict[str, Pair], image: str, pair: Pair) -> None:
    """Puts the pair's captions behind what is there about the image already."""
    known = captions.get(image)
    captions[image] = known._replace(captions=known.captions + pair.captions) if known else pair


def build_pairs(
    folder: Path,
    grouped: Grouped,
    plan: RegionPlan,
    tokenizer: str,
    options: Options,
    *,
    max_tokens: int = 510,
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
    start(folder, parameters)
    images, receipts = make_images(images_folder, grouped.images, plan, options)
    records, lost = _join(grouped, images_folder, receipts)
    pieces = cut(records, [*grouped.bad, *lost], plan.rows_per_shard)
    silent = replace(options, progress=lambda size: None)  # the bar counts images
    maker = PairMaker(tokenizer, max_tokens)
    done = build_shards(folder, maker, pieces, parameters, silent)
    fields = {"max_tokens": max_tokens, "tokenizer": fingerprint, "regions": images.regions}
    manifest = finish(folder, done, options, kind=PAIRS, images=IMAGES_FOLDER, **fields)
    remove_receipts(folder)
    remove_receipts(images_folder)
    return manifest


def _join(
    grouped: Grouped, images_folder: Path, receipts: Sequence[Receipt]
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
