"""Where in a memory-mapped Arrow file the values of a column of bytes lie."""

from collections.abc import Iterator
from itertools import repeat

import numpy as np
import pyarrow as pa

from data_prep.readers.places import Range

_INLINE = 12  # bytes that a view holds itself, behind its length
_VIEW = np.dtype([("length", "<i4"), ("prefix", "<i4"), ("buffer", "<i4"), ("offset", "<i4")])


class Compressed(Exception):
    """The values do not lie in the file as they are."""


def value_ranges(values: pa.Array, whole: pa.Buffer) -> Iterator[Range | None]:
    """Where in ``whole`` each of the validated ``values`` lies; None where there is none.

    Raises:
        Compressed: not within ``whole``.
    """
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    if pa.types.is_dictionary(values.type):
        ranges = [*value_ranges(values.dictionary, whole)]
        for at in values.indices.to_pylist():
            yield None if at is None else ranges[at]
    elif pa.types.is_run_end_encoded(values.type):
        ends, start = values.run_ends.to_pylist(), values.offset
        for end, place in zip(ends, value_ranges(values.values, whole), strict=True):
            count = min(end, values.offset + len(values)) - start
            yield from repeat(place, max(count, 0))
            start = max(start, end)
    elif pa.types.is_binary_view(values.type):
        yield from _of_views(values, whole)
    else:
        yield from _of_offsets(values, whole)


def _of_offsets(values: pa.Array, whole: pa.Buffer) -> Iterator[Range | None]:
    valid = values.is_valid().to_pylist()
    _, offsets, data = values.buffers()
    start = _start(data, whole)
    width = np.int64 if pa.types.is_large_binary(values.type) else np.int32
    count = offsets.size // width().itemsize  # validated to be enough
    ends = np.frombuffer(offsets, width, count)[values.offset :][: len(values) + 1].tolist()
    for number, is_there in enumerate(valid):
        begin, end = ends[number], ends[number + 1]
        yield Range(start + begin, end - begin) if is_there else None


def _of_views(values: pa.Array, whole: pa.Buffer) -> Iterator[Range | None]:
    valid = values.is_valid().to_pylist()
    _, views, *data = values.buffers()
    starts = [_start(buffer, whole) for buffer in data]
    own = _start(views, whole) + values.offset * _VIEW.itemsize
    table = np.frombuffer(views, _VIEW, len(values), values.offset * _VIEW.itemsize)
    for number, (is_there, view) in enumerate(zip(valid, table.tolist(), strict=True)):
        length, _, buffer, offset = view
        inline = own + number * _VIEW.itemsize + 4
        begin = inline if length <= _INLINE else starts[buffer] + offset if is_there else 0
        yield Range(begin, length) if is_there else None


def _start(buffer: pa.Buffer | None, whole: pa.Buffer) -> int:
    start = buffer.address - whole.address if buffer else 0
    if buffer and not 0 <= start <= whole.size - buffer.size:
        raise Compressed
    return start
