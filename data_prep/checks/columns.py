"""Columns beside a shard of pairs: do they belong to its rows, and do they keep to their rules?"""

from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa

from data_prep.checks.rows import Rules
from data_prep.writer import Folder, read_batches, shard_schema
from unimo_ds.data.schema import REWRITES, STAGES, Level
from unimo_ds.tokenizer import NUM_LEADING_SPECIALS

_SENTENCE = int(Level.SENTENCE)


def column_problems(shard: Folder, path: Folder, stage: str, rules: Rules) -> Iterator[str]:
    """What is wrong with the columns in ``path`` of a shard of pairs that is whole.

    Of one kind the first row is told.
    """
    if not shard_schema(path).equals(STAGES[stage]):
        yield f"{path}: its columns are not those of {stage}"
        return
    check = _rewrites if stage == REWRITES else _related
    told: set[str] = set()
    row = 0
    theirs = (one for batch in read_batches(path) for one in _rows(batch))
    for pair in (one for batch in read_batches(shard) for one in _rows(batch)):
        columns = next(theirs, None)
        if columns is None or columns["id"] != pair["id"]:
            found = "no row" if columns is None else repr(columns["id"])
            yield f"{path}: row {row} is {found}, the shard has {pair['id']!r}"
            return
        for what in _row_problems(pair, columns, check, rules):
            if what not in told:
                told.add(what)
                yield f"{path}: row {row} ({pair['id']}): {what}"
        row += 1
    if next(theirs, None) is not None:
        yield f"{path}: more than the {row} rows of the shard"


def _rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    return batch.to_pylist()


Check = Callable[[dict[str, Any], dict[str, Any], Rules], Iterator[str]]


def _row_problems(
    pair: dict[str, Any], columns: dict[str, Any], check: Check, rules: Rules
) -> Iterator[str]:
    values = [value for name, value in columns.items() if name != "id"]
    if any(value is None for value in values):
        yield "a list that is missing"
        return
    yield from check(pair, columns, rules)


def _rewrites(pair: dict[str, Any], columns: dict[str, Any], rules: Rules) -> Iterator[str]:
    lists = [value for name, value in columns.items() if name != "id"]
    if len({len(value) for value in lists}) > 1:
        yield "lists of different lengths"
        return
    sources = pair["caption_texts"]
    names = ("caption", "level", "positive", "begin", "end", "text", "tokens")
    for caption, level, positive, begin, end, text, ids in zip(
        *(columns[name] for name in names), strict=True
    ):
        if caption >= len(sources):
            yield f"a rewrite of caption {caption}, there are {len(sources)}"
            continue
        if level not in iter(Level) or positive not in (0, 1):
            yield f"level {level}, positive {positive}"
        source = sources[caption]
        if not 0 <= begin <= end <= len(source):
            yield f"characters {begin} to {end} of a caption that has {len(source)}"
        elif level != _SENTENCE and not _replaced(source, text, begin, end):
            yield f"rewrite {text!r:.60} differs from its caption outside the span it tells"
        if not ids:
            yield "a rewrite without tokens"
        elif len(ids) > rules.max_tokens:
            yield f"a rewrite over max_tokens {rules.max_tokens} tokens"
        elif min(ids) < NUM_LEADING_SPECIALS or max(ids) >= rules.vocab_size:
            yield "a rewrite with the id of no word"
        if not positive and text in sources:
            yield "a negative that is a caption of the image"


def _replaced(source: str, text: str, begin: int, end: int) -> bool:
    rest = source[end:]
    fits = text.startswith(source[:begin]) and text.endswith(rest)
    return fits and len(text) >= begin + len(rest) and text != source


def _related(pair: dict[str, Any], columns: dict[str, Any], rules: Rules) -> Iterator[str]:
    for kind, size in zip(("text", "image"), rules.searched, strict=True):
        rows, names, scores = (columns[f"{kind}_{what}"] for what in ("rows", "ids", "scores"))
        if not len(rows) == len(names) == len(scores):
            yield f"lists of different lengths for each related {kind}"
        elif any(not 0 <= row < size for row in rows):
            yield f"a related {kind} beyond the {size} rows that were searched"
        elif scores != sorted(scores, reverse=True):
            yield f"related {kind}s that are not in the order of their scores"
        elif kind == "image" and pair["image_id"] in names:
            yield "its own image among the related ones"
