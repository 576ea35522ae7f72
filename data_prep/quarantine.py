"""Records that could not be used: counted, listed with their place, never dropped in silence."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple

from data_prep.writer import Folder

QUARANTINE_NAME = "quarantine.jsonl"
MOST_EXCERPT = 2000
"""Characters of a bad record that the quarantine keeps."""


class Reason(StrEnum):
    """Why a record was left out."""

    BROKEN_IMAGE = "broken_image"
    NO_GREY_RANGE = "no_grey_range"  # floats or greys of 32 bits, and no number that is white
    DECOMPRESSION_BOMB = "decompression_bomb"
    BAD_UTF8 = "bad_utf8"
    BAD_JSON = "bad_json"
    BAD_RECORD = "bad_record"  # a row of a feature table that is not of its format
    MISSING_FIELD = "missing_field"
    EMPTY_TEXT = "empty_text"
    EMPTY_CAPTION = "empty_caption"
    TOO_LONG = "too_long"
    MISSING_IMAGE = "missing_image"
    PATH_ESCAPES = "path_escapes"
    URL = "url"  # or a command, where a path belongs
    TOO_LARGE = "too_large"
    NO_FILE = "no_file"  # a link or a device where a file belongs
    UNSAFE_MEMBER = "unsafe_member"  # of an archive: a pickle or a program
    BROKEN_ARCHIVE = "broken_archive"
    BAD_BOX = "bad_box"
    NO_BOXES = "no_boxes"  # for this picture in the file of boxes
    DUPLICATE_ID = "duplicate_id"
    NON_FINITE_FEATURES = "non_finite_features"
    FEATURE_OVERFLOW = "feature_overflow"
    WRONG_FEATURE_SIZE = "wrong_feature_size"
    BOX_OUTSIDE_IMAGE = "box_outside_image"
    BOX_COLUMN_ORDER = "box_column_order"
    FILTERED_LANGUAGE = "filtered_language"
    FILTERED_LENGTH = "filtered_length"
    FILTERED_WORD_LENGTH = "filtered_word_length"
    FILTERED_SYMBOLS = "filtered_symbols"
    FILTERED_REPETITION = "filtered_repetition"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    CONTAMINATED = "contaminated"  # shares a run of words with a corpus that is held out
    LEFT_OUT = "left_out"  # counted by kind: hidden files, other splits, never downloaded


UNWANTED = frozenset(
    (
        Reason.FILTERED_LANGUAGE,
        Reason.FILTERED_LENGTH,
        Reason.FILTERED_WORD_LENGTH,
        Reason.FILTERED_SYMBOLS,
        Reason.FILTERED_REPETITION,
        Reason.EXACT_DUPLICATE,
        Reason.NEAR_DUPLICATE,
        Reason.CONTAMINATED,
        Reason.LEFT_OUT,
    )
)
"""Reasons of records that are not bad, but not wanted; `--max-bad` does not count them."""


class Bad(NamedTuple):
    """One line of ``quarantine.jsonl``."""

    reason: Reason
    source: str  # file or folder, as it was named
    line: int  # line, row or number of the record there, from 1; 0 where it has none
    record: str  # id of the record, as far as it has one
    detail: str
    excerpt: str = ""  # how the record begins in the source, as far as the reader has it at hand

    def to_line(self) -> str:
        """As it stands in the file."""
        return json.dumps(self._asdict(), ensure_ascii=False) + "\n"


class BadRecord(Exception):
    """Raised while one record is being made into rows; carries the entry for the quarantine."""

    def __init__(self, reason: Reason, detail: str, raw: object = b"") -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail, self.excerpt = reason, detail, excerpt_of(raw)

    def at(self, source: str, line: int, record: str = "", raw: object = b"") -> Bad:
        """The entry for a record at that place; ``raw`` is the record where it is not known yet."""
        return Bad(self.reason, source, line, record, self.detail, self.excerpt or excerpt_of(raw))


def excerpt_of(raw: object) -> str:
    """The beginning of a record, given as bytes, as text or as the object that it was parsed to."""
    if isinstance(raw, Exception):  # a reader found nothing that it could show
        return ""
    if isinstance(raw, bytes):
        raw = raw[: 4 * MOST_EXCERPT].decode(errors="backslashreplace").rstrip("\r\n")
    elif not isinstance(raw, str):
        try:
            raw = json.dumps(raw, ensure_ascii=False, default=str)
        except RecursionError:
            raw = "(nested too deeply to be shown)"
    return raw[:MOST_EXCERPT].encode(errors="backslashreplace").decode()


def read_quarantine(folder: Folder) -> Iterator[Bad]:
    """The entries of a corpus, one by one.

    Raises:
        ValueError: no such file, or a line that is no entry.
    """
    path = folder / QUARANTINE_NAME
    if not path.is_file():
        raise ValueError(f"{path} is missing: {folder} is no corpus, or one of an unfinished build")
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                values = json.loads(line)
                yield Bad(**(values | {"reason": Reason(values["reason"])}))
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                told = f"{path}: line {number} is no entry ({error!r}); see `unimo-prep verify`"
                raise ValueError(told) from error


def count_reasons(entries: Iterable[Bad]) -> dict[str, int]:
    """Reason -> number of entries, in alphabetical order."""
    return dict(sorted(Counter(str(bad.reason) for bad in entries).items()))
