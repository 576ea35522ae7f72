"""What fields and columns are called that hold pictures, captions, splits: one table for all.

Names count without regard to case, the first of a table that is there. Readers of JSON, sidecars,
CSV, Parquet and Arrow all look here.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from data_prep.quarantine import BadRecord, Reason

CAPTIONS = (
    *("captions", "caption", "sentences", "sentence"),
    *("text", "txt", "comment", "title", "raw"),
)
"""Texts or lists of texts; all columns of a series (``caption_0``, ``caption_1``, ...) together."""
PICTURES = ("image", "img", "jpg", "jpeg", "png", "webp", "picture")
"""The bytes of a picture, in Parquet and Arrow."""
IMAGE_NAMES = ("image", "image_name", "file_name", "filename", "filepath", "image_path", "path")
KEYS, URLS = ("key", "__key__"), ("url",)
SPLITS, STATUSES = ("split",), ("status", "download_status")

SPOKEN = ("raw", "caption", "text")
"""Fields of a caption that is an object."""

_SUCCESS = frozenset(("success", "ok", "downloaded", "true"))  # img2dataset says the first
_NOTHING = frozenset(("", "nan", "none", "null"))
_NUMBER = re.compile(r"[+-]?\d{1,20}(?:\.\d{0,20})?")
_SERIES = re.compile(r"([a-z]+?)s?[ _.-]?(\d{1,4})")
_CAPTION = re.compile(r"captions?(?:[ _.-]?\d{1,4})?")
_LITERAL = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ITEM = rf"(?:{_LITERAL}|None|null|nan)"
_LITERALS = re.compile(rf"\[\s*{_ITEM}(?:\s*,\s*{_ITEM})*\s*\]", re.DOTALL)
_LISTED = re.compile(
    rf"\[\s*(?:(?:None|null|nan)\s*,\s*)*(?:np\.str_\(|\{{)?\s*{_LITERAL}\s*[\],:)}}'\"]", re.DOTALL
)
"""How a list begins that holds texts in quotes, readable or not; "[a dog] runs" does not."""


def named(names: Iterable[str], wanted: Iterable[str]) -> str:
    """The field that is called as the first of ``wanted`` that is there; empty if none is."""
    there: dict[str, str] = {}
    for name in names:
        there.setdefault(name.strip().lower(), name)
    return next((there[name] for name in wanted if name in there), "")


def caption_fields(names: Iterable[str]) -> tuple[str, ...]:
    """The fields that hold captions: one of `CAPTIONS`, and the series of its name in order."""
    names = tuple(names)
    series: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        if match := _SERIES.fullmatch(name.strip().lower()):
            series.setdefault(match[1], []).append((int(match[2]), name))
    for stem in CAPTIONS:
        one = named(names, (stem,))
        several = [name for _, name in sorted(series.get(stem, ()))]
        if one or several:
            return (one, *several) if one else tuple(several)
    return ()


def captions_in(value: Any) -> tuple[Any, ...]:
    """The captions in a value: a text, a list of texts, or of objects with a text each, as
    Karpathy's ``{"raw": text}``. What is no text stays what it is, to be counted."""
    if value is None or value != value:  # as pandas writes nothing
        return ()
    if not isinstance(value, list | tuple):
        value = [value]
    return tuple(_spoken(part) if isinstance(part, dict) else part for part in value)


def all_captions(values: Iterable[Any]) -> tuple[Any, ...]:
    """The captions in the values of several fields; empty ones beside others hold none, as the
    last of a series do where a picture has fewer captions."""
    found = [captions_in(value) for value in values]
    filled = [texts for texts in found if not all(map(_is_empty, texts))]
    return tuple(text for texts in filled or found for text in texts)


def record_captions(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """The captions of a JSON object. The names in it tell which field holds them: one that is empty
    gives way to none of another meaning, but ``captions`` to ``caption`` and its series."""
    fields = caption_fields(record)
    if len(fields) == 1 and all(map(_is_empty, captions_in(record[fields[0]]))):
        others = (name for name in record if _CAPTION.fullmatch(name.strip().lower()))
        fields = caption_fields(name for name in others if name not in fields) or fields
    return all_captions(record[name] for name in fields)


def record_image(record: Mapping[str, Any]) -> str:
    """The name of the picture that a JSON object tells of; empty if it names none."""
    texts = (name for name, value in record.items() if isinstance(value, str) and value)
    field = named(texts, IMAGE_NAMES)
    return str(record[field]) if field else ""


def cell_captions(cell: str) -> tuple[Any, ...]:
    """The captions in a cell of a text table: one, or a list as JSON or Python writes it. What is
    no text stays what it is; a list of texts in quotes that is written otherwise is a BadRecord."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return (cell,)
    try:
        values = json.loads(text, parse_constant=lambda name: None)
        holds_numbers = values and '"' not in text and None not in values
        return (cell,) if holds_numbers else captions_in(values)
    except (ValueError, RecursionError):
        pass
    if _LITERALS.fullmatch(text):
        try:
            return tuple(map(_literal, re.findall(_ITEM, text, re.DOTALL)))
        except (ValueError, SyntaxError):
            pass
    if not _LISTED.match(text):
        return (cell,)
    detail = f"a list that neither JSON nor Python reads as texts: {text!r:.80}"
    return (BadRecord(Reason.BAD_RECORD, detail),)


def not_downloaded(status: Any) -> str:
    """What to tell of a picture by the ``status`` of its download; empty if nothing is amiss.

    It is told in words, as truth or as a code of HTTP; other numbers are no status of a download.
    """
    if status is None or status != status:  # as pandas writes nothing
        return ""
    if isinstance(status, str):
        status = status.strip()
    word = str(status).casefold()  # truths and numbers come as texts out of text tables
    number = float(word) if _NUMBER.fullmatch(word) else None
    if number is not None:
        good = not 100 <= number < 600 or 200 <= number < 300
    else:
        good = word in _SUCCESS or word in _NOTHING
    return "" if good else f"status {status!r:.40}"


def record_status(record: Mapping[str, Any]) -> str:
    """`not_downloaded` of a JSON object."""
    field = named(record, STATUSES)
    return not_downloaded(record[field]) if field else ""


def _is_empty(caption: Any) -> bool:
    return caption is None or (isinstance(caption, str) and not caption.strip())


def _literal(item: str) -> str | None:
    return str(ast.literal_eval(item)) if item[0] in "'\"" else None


def _spoken(part: Mapping[str, Any]) -> Any:
    field = named(part, SPOKEN)
    return part[field] if field else part
