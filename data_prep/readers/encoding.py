"""The one way from the bytes of a text file to UTF-8: what a byte-order mark says is done.

Windows editors, Excel and PowerShell begin files with one. That of UTF-8 is dropped, and UTF-16
behind its own is read as what it is. A mark anywhere else is a character of the text.
"""

import codecs
import io
from pathlib import Path
from typing import IO

from data_prep.quarantine import BadRecord, Reason

_UTF16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
_UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)  # the first begins as that of UTF-16 does
_PROBE = 64  # bytes that tell the encoding
_LEAST_PROBE = 4
_CHUNK = 1 << 16
_CUT = b"\xff"
"""In no UTF-8: what half a character at the end of a file is made, so that its line is bad."""


def utf8_stream(stream: IO[bytes], file: Path) -> IO[bytes]:
    """``stream``, which is at its beginning, as UTF-8 without a byte-order mark.

    Characters that UTF-16 cannot hold come as bytes that are no UTF-8 either: they cost the line
    that they stand in.

    Raises:
        ValueError: UTF-32, or UTF-16 without a mark; with the file and how to convert it.
    """
    start = stream.read(_PROBE)
    refused = _refused(start)
    if refused:
        raise ValueError(f"{file} {refused}")
    return io.BufferedReader(_Utf8(start, stream), _CHUNK)


def utf8_bytes(content: bytes) -> bytes:
    """The whole ``content`` of a file as UTF-8 without a byte-order mark.

    Raises:
        BadRecord: bad_utf8, see `utf8_stream`.
    """
    refused = _refused(content[:_PROBE])
    if refused:
        raise BadRecord(Reason.BAD_UTF8, f"the file {refused}", content)
    if content[:2] in _UTF16:
        return _Utf8(b"", io.BytesIO(content)).readall() or b""
    return content.removeprefix(codecs.BOM_UTF8)


def file_text(file: Path) -> str:
    """The text of a small file.

    Raises:
        ValueError: not UTF-8, see `utf8_stream`; also UnicodeDecodeError.
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        return utf8_stream(stream, file).read().decode("utf-8")


def mark_size(start: bytes, file: Path) -> int:
    """How many bytes to pass over at the beginning of a file whose rows are found by their place.

    Raises:
        ValueError: UTF-16 or UTF-32.
    """
    refused = _refused(start[:_PROBE]) or (start[:2] in _UTF16 and _told("UTF-16"))
    if refused:
        raise ValueError(f"{file} {refused}")
    return len(codecs.BOM_UTF8) if start.startswith(codecs.BOM_UTF8) else 0


def _refused(start: bytes) -> str:
    """Why a file that begins so is not read; empty if it is."""
    if start.startswith(_UTF32):
        return _told("UTF-32")
    if len(start) < _LEAST_PROBE or start[:2] in _UTF16:
        return ""
    even, odd = start[0 : len(start) & ~1 : 2], start[1::2]
    for encoding, whole, halves in (("UTF-16LE", even, odd), ("UTF-16BE", odd, even)):
        if all(whole) and 2 * halves.count(0) >= len(halves):  # no text holds a NUL
            return _told(encoding, " without a byte-order mark")
    return ""


def _told(encoding: str, without: str = "") -> str:
    convert = f"iconv -f {encoding} -t UTF-8 FILE > NEW"
    return f"is {encoding}{without}: expected UTF-8, so save it as that ({convert})"


class _Utf8(io.RawIOBase):
    """What ``start`` and then ``stream`` hold, as UTF-8."""

    def __init__(self, start: bytes, stream: IO[bytes]) -> None:
        self._stream = stream
        start = start or stream.read(2)
        encoding = _UTF16.get(start[:2])
        decoder = codecs.getincrementaldecoder(encoding) if encoding else None
        self._decoder = decoder("surrogatepass") if decoder else None
        start = start[2:] if encoding else start.removeprefix(codecs.BOM_UTF8)
        self._ready = self._utf8(start)
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._ready and not self._ended:
            data = self._stream.read(_CHUNK)
            self._ended = not data
            self._ready = self._utf8(data)
        size = min(len(buffer), len(self._ready))
        buffer[:size] = self._ready[:size]
        self._ready = self._ready[size:]
        return size

    def _utf8(self, data: bytes) -> bytes:
        if self._decoder is None:
            return data
        try:
            text = self._decoder.decode(data, final=not data)
        except UnicodeDecodeError:
            self._decoder.reset()
            return _CUT
        return text.encode("utf-8", "surrogatepass")
