"""Records that could not be used: counted, listed with their place, never dropped in silence."""

import json
from collections import Counter
from collections.abc import Iterable
from enum import StrEnum
from typing import NamedTuple

QUARANTINE_NAME = "quarantine.jsonl"


class Reason(StrEnum):
    """Why a record was left out."""

    BROKEN_IMAGE = "broken_image"
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
    DUPLICATE_ID = "duplicate_id"
    NON_FINITE_FEATURES = "non_finite_features"
    FEATURE_OVERFLOW = "feature_overflow"
    WRONG_FEATURE_SIZE = "wrong_feature_size"
    BOX_OUTSIDE_IMAGE = "box_outside_image"
    BOX_COLUMN_ORDER = "box_column_order"


class Bad(NamedTuple):
    """One line of ``quarantine.jsonl``."""

    reason: Reason
    source: str  # file or folder, as it was named
    line: int  # line, row or number of the record there, from 1; 0 where it has none
    record: str  # id of the record, as far as it has one
    detail: str

    def to_line(self) -> str:
        """As it stands in the file."""
        return json.dumps(self._asdict(), ensure_ascii=False) + "\n"


class BadRecord(Exception):
    """Raised while one record is being made into rows; carries the entry for the quarantine."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail

    def at(self, source: str, line: int, record: str = "") -> Bad:
        """The entry for a record at that place."""
        return Bad(self.reason, source, line, record, self.detail)


def count_reasons(entries: Iterable[Bad]) -> dict[str, int]:
    """Reason -> number of entries, in alphabetical order."""
    return dict(sorted(Counter(str(bad.reason) for bad in entries).items()))
