"""What fields and columns are called that hold pictures, captions, splits: one table for all.

Names count without regard to case, the first of a table that is there. Readers of JSON, sidecars,
CSV, Parquet and Arrow all look here.
"""

import ast
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

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

_SPOKEN = ("raw", "caption", "text")  # fields of a caption that is an object
_SUCCESS = frozenset(("success", "ok", "downloaded"))  # img2dataset says the first
_SERIES = re.compile(r"([a-z]+?)s?[ _.-]?(\d{1,4})")
_LITERAL = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LITERALS = re.compile(rf"\[\s*{_LITERAL}(?:\s*,\s*{_LITERAL})*\s*\]", re.DOTALL)


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
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        value = [value]
    return tuple(_spoken(part) if isinstance(part, dict) else part for part in value)


def all_captions(values: Iterable[Any]) -> tuple[Any, ...]:
    """The captions in the values of several fields, None for an empty one beside others."""
    found = [captions_in(value) for value in values]
    several = len(found) > 1 and any(found)
    return tuple(text for texts in found for text in (texts or ((None,) if several else ())))


def record_captions(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """The captions of a JSON object; fields that are null or an empty list give way to others."""
    filled = {name for name, value in record.items() if value is not None and value != []}
    fields = caption_fields(name for name in record if name in filled)
    if len(fields) > 1 or any(map(_SERIES.fullmatch, map(str.lower, fields))):
        fields = caption_fields(record)
    return all_captions(record[name] for name in fields)


def record_image(record: Mapping[str, Any]) -> str:
    """The name of the picture that a JSON object tells of; empty if it names none."""
    texts = (name for name, value in record.items() if isinstance(value, str) and value)
    field = named(texts, IMAGE_NAMES)
    return str(record[field]) if field else ""


def cell_captions(cell: str) -> tuple[str, ...]:
    """The captions in a cell of a text table: one, or a list as JSON or Python writes it."""
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return (cell,)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if found is None and _LITERALS.fullmatch(text):
        try:
            found = [ast.literal_eval(part) for part in re.findall(_LITERAL, text, re.DOTALL)]
        except (ValueError, SyntaxError):
            return (cell,)
    is_list = isinstance(found, list) and found and all(isinstance(part, str) for part in found)
    return tuple(found) if is_list else (cell,)


def not_downloaded(status: Any) -> str:
    """What to tell of a picture by the ``status`` of its download; empty if nothing is amiss.

    It is told in words, as truth or as a code of HTTP; other numbers are no status of a download.
    """
    if status is None or status != status:  # as pandas writes nothing
        return ""
    if isinstance(status, str):
        status = status.strip()
        status = int(status) if status.isdecimal() and len(status) <= 3 else status
    if isinstance(status, bool):
        good = status
    elif isinstance(status, int | float):
        good = not 100 <= status < 600 or 200 <= status < 300
    else:
        good = not status or str(status).casefold() in _SUCCESS
    return "" if good else f"status {status!r:.40}"


def record_status(record: Mapping[str, Any]) -> str:
    """`not_downloaded` of a JSON object."""
    field = named(record, STATUSES)
    return not_downloaded(record[field]) if field else ""


def _spoken(part: Mapping[str, Any]) -> Any:
    field = named(part, _SPOKEN)
    return part[field] if field else part
