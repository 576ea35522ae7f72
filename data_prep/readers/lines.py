"""Lines of files, packed or not, that never take more memory than the longest line may have."""

import gzip
import io
import lzma
from collections.abc import Iterator
from pathlib import Path
from typing import IO, cast

import pyarrow as pa

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.encoding import utf8_stream
from data_prep.readers.left_out import suffix_of

PACKED = (".gz", ".xz", ".zst")
MAX_RECORD_BYTES = 1 << 25
"""32 MiB: what is longer is no document but a damaged or a hostile file."""

_SKIPPED_AT_ONCE = 1 << 20


def kind_of(file: Path) -> str:
    """The suffix that tells the format; what a packer has put behind it is left out."""
    return suffix_of(file.stem if suffix_of(file.name) in PACKED else file.name)


def unpacked(raw: IO[bytes], file: Path) -> IO[bytes]:
    """``raw`` itself, or what it holds if the name of the file ends in .gz, .xz or .zst."""
    packer = suffix_of(file.name)
    if packer == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if packer == ".xz":
        return lzma.LZMAFile(raw)
    if packer == ".zst":
        stream = pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), "zstd")
        return cast(IO[bytes], io.BufferedReader(stream))
    return raw


def bounded_lines(
    stream: IO[bytes], limit: int = MAX_RECORD_BYTES
) -> Iterator[tuple[int, bytes | BadRecord]]:
    """(number from 1, line with its end); too_large for a line of more than ``limit`` bytes, of
    which no more than that is ever held."""
    number = 0
    while line := stream.readline(limit + 1):
        number += 1
        if len(line) > limit and not line.endswith(b"\n"):
            yield number, _skip_rest(stream, len(line), limit)
        else:
            yield number, line


def text_lines(file: Path, limit: int = MAX_RECORD_BYTES) -> Iterator[tuple[int, str | BadRecord]]:
    """(number from 1, line with its end) of a text file, which may be packed; a BadRecord for a
    line that is too long or no UTF-8.

    Raises:
        ValueError: of an encoding that is not read.
        OSError, EOFError, zlib.error, lzma.LZMAError: a packed file that is damaged.
    """
    with file.open("rb") as raw, unpacked(raw, file) as stream:
        for number, line in bounded_lines(utf8_stream(stream, file), limit):
            yield number, line if isinstance(line, BadRecord) else decoded(line)


def _skip_rest(stream: IO[bytes], size: int, limit: int) -> BadRecord:
    while part := stream.readline(_SKIPPED_AT_ONCE):
        size += len(part)
        if part.endswith(b"\n"):
            break
    return BadRecord(Reason.TOO_LARGE, f"a line of {size:,} bytes, at most {limit:,} are read")


def decoded(line: bytes) -> str | BadRecord:
    """The text of some bytes, or bad_utf8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return BadRecord(Reason.BAD_UTF8, str(error), line)
