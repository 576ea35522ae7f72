"""Corpora to measure on: made-up words and regions in real sizes, by the product's own writer."""

import json
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tokenizers.pre_tokenizers import ByteLevel

from data_prep.writer import write_bytes, write_shard
from unimo_ds.data.schema import (
    IMAGES,
    IMAGES_FOLDER,
    MANIFEST_NAME,
    PAIRS,
    TEXTS,
    Manifest,
    RegionSource,
    ShardRecord,
)
from unimo_ds.tokenizer import CLS, MASK, PAD, SEP, UNK, WordTokenizer, import_roberta

# R regions, F features, k kept classes
FEATURES, CLASSES, KEPT = 2048, 1601, 8
ROWS_PER_SHARD = 2048
_BLOCK = 1 << 20  # of features, drawn at once and taken from at random places
_LARGEST = np.float16(2).view(np.uint16)


class Sizes(NamedTuple):
    """How much of everything; tokens and regions are the mean of what is drawn."""

    texts: int
    images: int
    pairs: int
    text_tokens: tuple[int, int] = (400, 510)  # of a text, fewest and most
    caption_tokens: tuple[int, int] = (8, 24)
    captions: int = 5
    regions: tuple[int, int] = (36, 100)  # of an image, fewest and most


def write_corpora(folder: Path, sizes: Sizes, vocab_size: int, seed: int) -> None:
    """Fills ``folder`` with ``tokenizer.json``, ``texts``, ``images`` and ``pairs``."""
    folder.mkdir(parents=True, exist_ok=True)
    words = made_up_tokenizer(vocab_size)
    words.save(folder / "tokenizer.json")
    rng = np.random.default_rng(seed)
    draw = _Words(words, rng)
    texts = ({"id": f"t{i}", "tokens": draw(sizes.text_tokens)} for i in range(sizes.texts))
    _write(folder / "texts", TEXTS, texts, tokenizer=words.fingerprint, max_tokens=510)
    write_images(folder / "images", sizes.images, sizes.regions, rng)
    write_images(folder / "pairs" / IMAGES_FOLDER, sizes.pairs, sizes.regions, rng)
    pairs = (_pair(i, draw, sizes) for i in range(sizes.pairs))
    about = {"tokenizer": words.fingerprint, "max_tokens": 510, "regions": _source(sizes.regions)}
    _write(folder / "pairs", PAIRS, pairs, images=IMAGES_FOLDER, **about)


def write_images(
    folder: Path, rows: int, regions: tuple[int, int], rng: np.random.Generator
) -> None:
    """An images corpus of ``rows`` images with ``regions[0]`` to ``regions[1]`` regions each."""
    drawn = _images(rows, regions, rng)
    _write(folder, IMAGES, drawn, regions=_source(regions))


def made_up_tokenizer(vocab_size: int) -> WordTokenizer:
    """A tokenizer in RoBERTa's layout whose words mean nothing; half of them begin a word."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    alphabet = sorted(ByteLevel.alphabet())
    size = vocab_size - 5 - len(alphabet)
    endless = (
        start + "".join(letters[(n // 26**place) % 26] for place in range(4))
        for n in range(size)
        for start in ("\u0120", "")
    )
    tokens = [CLS, PAD, SEP, UNK, *alphabet, *(next(endless) for _ in range(size)), MASK]
    vocab = {token: i for i, token in enumerate(tokens)}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "vocab.json").write_text(json.dumps(vocab), encoding="utf-8")
        (Path(folder) / "merges.txt").write_text("#version: 0.2\n", encoding="utf-8")
        return import_roberta(Path(folder))


class _Words:
    """Draws texts: frequencies fall with 1/rank, and three tokens of four begin a word."""

    def __init__(self, words: WordTokenizer, rng: np.random.Generator) -> None:
        self._rng = rng
        starts = words.word_starts()
        starts[[*range(4), words.mask_id]] = False
        inner = ~starts
        inner[[*range(4), words.mask_id]] = False
        self._starts, self._inner = np.flatnonzero(starts), np.flatnonzero(inner)

    def __call__(self, between: tuple[int, int]) -> np.ndarray:
        """uint16 [n], n within ``between``."""
        n = int(self._rng.integers(between[0], between[1] + 1))
        rank = self._rng.random(n)
        first, rest = (
            words[(len(words) ** rank).astype(np.int64) - 1]
            for words in (self._starts, self._inner)
        )
        return np.where(self._rng.random(n) < 0.75, first, rest).astype(np.uint16)


def _pair(number: int, draw: _Words, sizes: Sizes) -> dict[str, Any]:
    return {
        "id": f"p{number}",
        "image_id": f"i{number}",
        "image_row": number,
        "captions": [draw(sizes.caption_tokens) for _ in range(sizes.captions)],
        "caption_texts": ["made up"] * sizes.captions,
    }


def _images(
    rows: int, between: tuple[int, int], rng: np.random.Generator
) -> Iterator[dict[str, Any]]:
    # Drawing 75,000 numbers an image would take longer than all that is measured.
    block = rng.integers(0, _LARGEST, _BLOCK, dtype=np.uint16).view(np.float16)
    for number in range(rows):
        count = int(rng.integers(between[0], between[1] + 1))
        size = count * FEATURES
        start = int(rng.integers(0, _BLOCK - size + 1))
        yield {
            "id": f"i{number}",
            "width": 640,
            "height": 480,
            "num_regions": count,
            "features": block[start : start + size],
            "boxes": _boxes(count, rng).reshape(-1),
            "class_ids": rng.integers(0, CLASSES, count * KEPT, dtype=np.uint16),
            "class_probs": np.full(count * KEPT, 1 / (KEPT + 1), np.float16),
        }


def _boxes(count: int, rng: np.random.Generator) -> np.ndarray:
    corners = np.sort(rng.random((count, 2, 2), dtype=np.float32), axis=1).reshape(count, 4)
    area = (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
    return np.column_stack([corners, area])


def _source(regions: tuple[int, int]) -> RegionSource:
    return RegionSource(
        name="precomputed",
        feature_size=FEATURES,
        num_classes=CLASSES,
        kept_classes=KEPT,
        max_regions=regions[1],
    )


def _write(folder: Path, kind: str, rows: Iterator[dict[str, Any]], **about: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[ShardRecord] = []
    while shard := write_shard(
        folder, f"{kind}-{len(shards):05d}.arrow", kind, islice(rows, ROWS_PER_SHARD)
    ):
        shards.append(shard)
    manifest = Manifest(
        kind=kind,
        rows=sum(shard.rows for shard in shards),
        shards=shards,
        quarantined={},
        command=["benchmarks"],
        seed=0,
        **about,
    )
    write_bytes(folder / MANIFEST_NAME, manifest.to_json().encode())
