"""What rows must keep to, checked on a record batch at a time."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unimo_ds.data.schema import IMAGES, RELATED, TEXTS, Manifest, RegionSource
from unimo_ds.tokenizer import MAX_VOCAB_SIZE, NUM_LEADING_SPECIALS, SEP_ID, WordTokenizer

# N rows, R regions, F features, k kept classes

AREA_TOLERANCE = 1e-3
SUM_TOLERANCE = 0.03  # of probabilities that were rounded to float16
_EXPONENT_OF_FLOAT16 = np.uint16(0x7C00)  # all ones: infinite or not a number


class Rules(NamedTuple):
    """What the manifest and the tokenizer promise of rows."""

    kind: str
    max_tokens: int
    regions: RegionSource | None
    vocab_size: int = MAX_VOCAB_SIZE
    mask_id: int = -1
    word_starts: np.ndarray | None = None  # bool [vocab_size]
    searched: tuple[int, int] = (0, 0)  # rows of the texts and images that pairs relate to


class Finding(NamedTuple):
    """What is wrong, and in which rows of the batch."""

    what: str
    rows: np.ndarray


def rules_of(manifest: Manifest, tokenizer: WordTokenizer | None) -> Rules:
    """The rules for a corpus; without a tokenizer any id of a word is right."""
    parameters = manifest.stages.get(RELATED, {}).get("parameters", {})
    searched = [int(parameters.get(kind, {}).get("rows", 0)) for kind in (TEXTS, IMAGES)]
    rules = Rules(
        manifest.kind, manifest.max_tokens, manifest.regions, searched=(searched[0], searched[1])
    )
    if tokenizer is None:
        return rules
    return rules._replace(
        vocab_size=tokenizer.vocab_size,
        mask_id=tokenizer.mask_id,
        word_starts=tokenizer.word_starts(),
    )


def row_lengths(kind: str, batch: pa.RecordBatch) -> np.ndarray:
    """[N]: what the lengths file must say of the rows."""
    if kind == IMAGES:
        return batch.column("num_regions").to_numpy()
    if kind == TEXTS:
        return pc.list_value_length(batch.column("tokens")).to_numpy()
    captions = batch.column("captions")
    return np.diff(captions.values.offsets.to_numpy()[captions.offsets.to_numpy()])


def token_lists(batch: pa.RecordBatch, kind: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of texts or pairs: all tokens, where texts or captions begin in them, and where rows do."""
    column = batch.column("tokens" if kind == TEXTS else "captions")
    outer = column.offsets.to_numpy()
    if kind == TEXTS:
        return column.values.to_numpy(), outer[:-1], outer[:-1]
    inner = column.values.offsets.to_numpy()
    return column.values.values.to_numpy(), inner[:-1], inner[outer[:-1]]


def wrong_rows(batch: pa.RecordBatch, rules: Rules) -> Iterator[Finding]:
    """Every rule that rows of a batch break; none is yielded without rows."""
    checks = {TEXTS: _text, IMAGES: _image}.get(rules.kind, _pair)
    yield from (found for found in checks(batch, rules) if len(found.rows))


def _text(batch: pa.RecordBatch, rules: Rules) -> Iterator[Finding]:
    tokens = batch.column("tokens")
    lengths = pc.list_value_length(tokens).to_numpy()
    yield Finding("no tokens", np.flatnonzero(lengths == 0))
    too_long = np.flatnonzero(lengths > rules.max_tokens)
    yield Finding(f"more than max_tokens {rules.max_tokens} tokens", too_long)
    yield from _token_ids(tokens.values, tokens.offsets.to_numpy(), rules)


def _pair(batch: pa.RecordBatch, rules: Rules) -> Iterator[Finding]:
    captions = batch.column("captions")
    counts = pc.list_value_length(captions).to_numpy()
    texts = pc.list_value_length(batch.column("caption_texts")).to_numpy()
    yield Finding("no caption", np.flatnonzero(counts == 0))
    yield Finding("not as many captions as caption_texts", np.flatnonzero(counts != texts))
    outer = captions.offsets.to_numpy()
    inner = captions.values.offsets.to_numpy()
    lengths = np.diff(inner)
    yield Finding("a caption without tokens", _rows_of(np.flatnonzero(lengths == 0), outer))
    too_long = np.flatnonzero(lengths > rules.max_tokens)
    yield Finding(f"a caption over max_tokens {rules.max_tokens} tokens", _rows_of(too_long, outer))
    yield from _token_ids(captions.values.values, inner[outer], rules)


def _token_ids(tokens: pa.Array, offsets: np.ndarray, rules: Rules) -> Iterator[Finding]:
    ids = tokens.to_numpy()
    special = (ids < NUM_LEADING_SPECIALS) | (ids == rules.mask_id)
    if rules.kind == TEXTS:  # `--pack corpus` puts one [SEP] between two documents
        special &= ~_separates(ids, offsets)
    yield Finding("the id of a special token", _rows_of(np.flatnonzero(special), offsets))
    unknown = _rows_of(np.flatnonzero(ids >= rules.vocab_size), offsets)
    yield Finding(f"a token id the tokenizer's {rules.vocab_size} words do not have", unknown)


def _separates(ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """bool, for each id: is it a [SEP] within a row, with no other before it?"""
    found = ids == SEP_ID
    found[1:] &= ids[:-1] != SEP_ID
    ends = np.concatenate([offsets[:-1], offsets[1:] - 1])
    found[ends[(ends >= 0) & (ends < len(ids))]] = False
    return found


def _image(batch: pa.RecordBatch, rules: Rules) -> Iterator[Finding]:
    source = rules.regions
    assert source is not None
    regions = batch.column("num_regions").to_numpy().astype(np.int64)
    size = np.minimum(batch.column("width").to_numpy(), batch.column("height").to_numpy())
    yield Finding("a width or height below 1", np.flatnonzero(size < 1))
    most = source.max_regions
    yield Finding(f"not 1 to {most} regions", np.flatnonzero((regions < 1) | (regions > most)))
    widths = {"features": source.feature_size, "boxes": 5}
    widths |= dict.fromkeys(("class_ids", "class_probs"), source.kept_classes)
    shapes_fit = True
    for name, width in widths.items():
        lengths = pc.list_value_length(batch.column(name)).to_numpy()
        wrong = np.flatnonzero(lengths != regions * width)
        shapes_fit = shapes_fit and not len(wrong)
        yield Finding(f"{name} are not {width} for every region", wrong)
    if shapes_fit:  # else nobody can say which numbers belong together
        yield from _numbers(batch, source)


def _numbers(batch: pa.RecordBatch, source: RegionSource) -> Iterator[Finding]:
    bits = batch.column("features").flatten().to_numpy().view(np.uint16)
    infinite = (bits & _EXPONENT_OF_FLOAT16) == _EXPONENT_OF_FLOAT16
    offsets = batch.column("features").offsets.to_numpy()
    not_finite = _rows_of(np.flatnonzero(infinite), offsets - offsets[0])
    yield Finding("features that are infinite or not a number", not_finite)
    ends = np.concatenate([[0], np.cumsum(batch.column("num_regions").to_numpy())])
    boxes = batch.column("boxes").flatten().to_numpy().reshape(-1, 5)
    for what, wrong in _box_rules(boxes).items():
        yield Finding(what, _rows_of(np.flatnonzero(wrong), ends))
    kept = source.kept_classes
    ids = batch.column("class_ids").flatten().to_numpy().reshape(-1, kept)
    beyond = (ids >= source.num_classes).any(axis=1)
    what = f"a class id that is not below num_classes {source.num_classes}"
    yield Finding(what, _rows_of(np.flatnonzero(beyond), ends))
    probs = batch.column("class_probs").flatten().to_numpy().astype(np.float32).reshape(-1, kept)
    fits = (probs >= 0).all(axis=1) & (probs.sum(axis=1) <= 1 + SUM_TOLERANCE)
    what = "class probabilities below 0, with a sum above 1, or not a number"
    yield Finding(what, _rows_of(np.flatnonzero(~fits), ends))


def _box_rules(boxes: np.ndarray) -> dict[str, np.ndarray]:
    """Of boxes float32 [R, 5]; comparisons are false for what is not a number."""
    left, top, right, bottom, area = boxes.T
    inside = ((boxes >= 0) & (boxes <= 1)).all(axis=1)
    ordered = (left <= right) & (top <= bottom)
    fits = np.abs((right - left) * (bottom - top) - area) <= AREA_TOLERANCE
    return {
        "a box that is not within [0, 1]": ~inside,
        "a box that ends before it begins": inside & ~ordered,
        "a box whose fifth number is not its area": inside & ordered & ~fits,
    }


def _rows_of(items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """The rows that items lie in, when row i has those from offsets[i] to offsets[i + 1]."""
    rows = np.unique(np.searchsorted(offsets, items, side="right") - 1)
    return rows[rows < len(offsets) - 1]
