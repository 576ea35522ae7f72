"""Which Arrow types hold texts and bytes: however Parquet, polars or `datasets` store them.

Dictionaries (pandas' categories), large types, views and extensions are what they hold.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.fields import SPOKEN, named
from data_prep.readers.lines import decoded


def plain_type(kind: pa.DataType) -> pa.DataType:
    """The type of the values, without what is only about how they are stored."""
    while True:
        if isinstance(kind, pa.BaseExtensionType):
            kind = kind.storage_type
        elif pa.types.is_dictionary(kind) or pa.types.is_run_end_encoded(kind):
            kind = kind.value_type
        else:
            return kind


def is_text(kind: pa.DataType) -> bool:
    """Does a column hold texts?"""
    kind = plain_type(kind)
    return (
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def is_binary(kind: pa.DataType) -> bool:
    """Does a column hold bytes?"""
    kind = plain_type(kind)
    tests: tuple[Callable[[pa.DataType], bool], ...]
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)
    return any(test(kind) for test in tests)


def is_text_or_bytes(kind: pa.DataType) -> bool:
    """Does a column hold texts, perhaps by a writer that does not say so (Spark's legacy files)?"""
    return is_text(kind) or is_binary(kind)


def is_status(kind: pa.DataType) -> bool:
    """Can a column hold the status of a download: text, truth, or a code of HTTP?"""
    kind = plain_type(kind)
    numeric = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return is_text_or_bytes(kind) or pa.types.is_boolean(kind) or numeric


def is_captions(kind: pa.DataType) -> bool:
    """Does a column hold texts, structs with a text in a field of `SPOKEN`, or lists of either?

    One without any value, as pandas writes it, holds as many as one of texts that are null.
    """
    kind = _spoken_type(kind)
    return is_text_or_bytes(kind) or pa.types.is_null(kind)


def struct_field(kind: pa.DataType, name: str, fits: Callable[[pa.DataType], bool]) -> bool:
    """Is ``kind`` a struct with a field ``name`` that fits?"""
    if not pa.types.is_struct(kind) or kind.get_field_index(name) < 0:
        return False
    return fits(kind.field(name).type)


def values_of(array: pa.Array) -> list[Any]:
    """The values as Python has them, texts that are stored as bytes too; a BadRecord for each that
    is no UTF-8."""
    try:
        values = array.to_pylist()
    except UnicodeDecodeError:
        values = [_value(item) for item in array]
    if is_binary(_spoken_type(array.type)):
        return [_text(value) for value in values]
    return values


def _spoken_type(kind: pa.DataType) -> pa.DataType:
    """The type of the captions in a column: of its values, or of those in its lists or structs."""
    kind = plain_type(kind)
    if _is_list(kind):
        kind = plain_type(kind.value_type)
    if pa.types.is_struct(kind) and (field := named((part.name for part in kind), SPOKEN)):
        kind = plain_type(next(part.type for part in kind if part.name == field))
    return kind


def _is_list(kind: pa.DataType) -> bool:
    tests: tuple[Callable[[pa.DataType], bool], ...] = (
        pa.types.is_list,
        pa.types.is_large_list,
        pa.types.is_fixed_size_list,
        pa.types.is_list_view,
        pa.types.is_large_list_view,
    )
    return any(test(kind) for test in tests)


def _value(item: pa.Scalar) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError as error:
        if _is_list(item.type):
            return [_value(part) for part in item.values]
        return BadRecord(Reason.BAD_UTF8, str(error))


def _text(value: Any) -> Any:
    if isinstance(value, list):
        return [_text(part) for part in value]
    if isinstance(value, dict):
        return {name: _text(part) for name, part in value.items()}
    return decoded(value) if isinstance(value, bytes) else value
