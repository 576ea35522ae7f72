"""Which Arrow types hold texts and bytes: however Parquet, polars or `datasets` store them.

Dictionaries (pandas' categories), large types, views and extensions are what they hold.
"""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from data_prep.quarantine import BadRecord, Reason
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
    """Does a column hold texts, lists of texts, or of structs with a text called ``raw``?"""
    kind = plain_type(kind)
    if _is_list(kind):
        kind = plain_type(kind.value_type)
        if pa.types.is_struct(kind) and kind.get_field_index("raw") >= 0:
            kind = kind.field("raw").type
    return is_text_or_bytes(kind)


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
    kind = plain_type(array.type)
    if is_binary(kind) or (_is_list(kind) and is_binary(kind.value_type)):
        return [_text(value) for value in values]
    return values


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
    return decoded(value) if isinstance(value, bytes) else value
