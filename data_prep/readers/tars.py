"""Members of an uncompressed tar, by its headers alone: nothing is unpacked, nothing is trusted.

Read here and not with `tarfile`, which takes about twice as long and reads extended headers of any
size into memory.
"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.quarantine import Bad, BadRecord, Reason

_BLOCK = 512
_MOST_EXTENDED = 1 << 20  # bytes of a long name or of a PAX header
_ZEROS_CHUNK = 1 << 20
_PAX, _LONG_NAME = b"x", b"L"
_EXTENDED = (_PAX, _LONG_NAME, b"g", b"K")  # global PAX headers and link names tell us nothing
_FOLDER, _SPARSE = b"5", b"S"
_WITHOUT_DATA = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a FIFO",
}
_PACKED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd"}
_UNSAFE = frozenset((".pyd", ".pyc", ".so", ".pkl", ".pickle", ".pth", ".pt"))


class Member(NamedTuple):
    """A file in a tar."""

    name: str
    offset: int
    length: int  # bytes
    number: int  # of its header in the tar, from 1


def read_members(file: Path) -> Iterator[Member | Bad]:
    """The files in a tar, and entries for members that are none or that nobody should trust.

    Raises:
        ValueError: the tar is compressed, or none at all.
    """
    descriptor = os.open(file, os.O_RDONLY)
    try:
        start = os.pread(descriptor, _BLOCK, 0)
        packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
        if packed:
            raise ValueError(
                f"{file} is compressed with {packed}: pictures are read where they lie in a tar, "
                f"so unpack it once ({packed} -d) and name the .tar"
            )
        if not start or (start.strip(b"\0") and not _is_header(start)):
            found = "it is empty" if not start else "its first block has no valid checksum"
            raise ValueError(f"{file} is no tar: {found}")
        yield from _Headers(descriptor, str(file)).members()
    finally:
        os.close(descriptor)


class _BrokenTar(Exception):
    """The rest of a tar cannot be read."""

    def __init__(self, name: str, detail: str) -> None:
        super().__init__(detail)
        self.name = name


class _Headers:
    """Goes from header to header."""

    def __init__(self, descriptor: int, source: str) -> None:
        self._descriptor, self._source = descriptor, source
        self._size = os.fstat(descriptor).st_size
        self._at = self._number = 0
        self._ended = False  # by an end mark, and nothing came after it
        self._long_name = ""  # of the next member
        self._pax: dict[str, bytes] = {}

    def members(self) -> Iterator[Member | Bad]:
        try:
            while header := self._next():
                entry = self._entry(header)
                if entry:
                    yield entry
        except _BrokenTar as error:
            broken = BadRecord(Reason.BROKEN_ARCHIVE, str(error))
            yield broken.at(self._source, self._number, error.name)
            return
        if not self._ended:
            detail = "no end mark after the last member: the tar may have been cut there"
            yield BadRecord(Reason.BROKEN_ARCHIVE, detail).at(self._source, self._number)

    def _next(self) -> bytes:
        """The next header; empty at the end. Blocks of zeros end a tar, but tars may be joined."""
        header = os.pread(self._descriptor, _BLOCK, self._at)
        if header.count(0) == _BLOCK:
            self._ended = True
            self._skip_zeros()
            header = os.pread(self._descriptor, _BLOCK, self._at)
        if not header:
            return b""
        self._number += 1
        self._ended = False
        if len(header) < _BLOCK or not _is_header(header):
            detail = f"header {self._number}, at byte {self._at:,}, is cut short or damaged"
            raise _BrokenTar("", detail)
        self._at += _BLOCK
        return header

    def _skip_zeros(self) -> None:
        while chunk := os.pread(self._descriptor, _ZEROS_CHUNK, self._at):
            zeros = len(chunk) - len(chunk.lstrip(b"\0"))
            self._at += zeros if zeros == len(chunk) else zeros // _BLOCK * _BLOCK
            if zeros < len(chunk):
                return

    def _entry(self, header: bytes) -> Member | Bad | None:
        kind, length = header[156:157], _number(header[124:136])
        if kind in _EXTENDED:
            self._extend(kind, length)
            return None
        pax, name = self._pax, self._long_name or _header_name(header)
        self._pax, self._long_name = {}, ""
        name = pax["path"].decode("utf-8", "surrogateescape") if "path" in pax else name
        if kind in _WITHOUT_DATA:
            return self._bad(Reason.NO_FILE, name, _WITHOUT_DATA[kind])
        if kind == _FOLDER:
            return None
        if "size" in pax:
            length = _decimal(pax["size"], name)
        if kind == _SPARSE:
            self._skip_sparse_map(header)
        offset = self._at
        self._advance(name, length)
        if kind == _SPARSE or any(key.startswith("GNU.sparse") for key in pax):
            return self._bad(Reason.NO_FILE, name, "a sparse file")
        return self._checked(name, offset, length)

    def _checked(self, name: str, offset: int, length: int) -> Member | Bad:
        if not name.isascii():
            try:
                name.encode()
            except UnicodeEncodeError:
                return self._bad(Reason.BAD_UTF8, name, "a name that is no UTF-8")
        if name.startswith("/") or ".." in name.split("/"):
            return self._bad(Reason.PATH_ESCAPES, name, "a name that leads out of the tar")
        name = os.path.normpath(name) if "./" in name or "//" in name else name
        if "\0" in name or not name.strip("./"):
            return self._bad(Reason.BAD_RECORD, name, "a name that no file can have")
        suffix = os.path.splitext(name)[1]
        if suffix.lower() in _UNSAFE:
            detail = f"{suffix} may hold code, so it is not read"
            return self._bad(Reason.UNSAFE_MEMBER, name, detail)
        return Member(name, offset, length, self._number)

    def _extend(self, kind: bytes, length: int) -> None:
        if length > _MOST_EXTENDED:
            detail = f"an extended header of {length:,} bytes, at most {_MOST_EXTENDED:,}"
            raise _BrokenTar("", detail)
        content = os.pread(self._descriptor, length, self._at)
        self._advance("an extended header", length)
        if kind == _PAX:
            self._pax = _parse_pax(content)
        elif kind == _LONG_NAME:
            self._long_name = content.split(b"\0")[0].decode("utf-8", "surrogateescape")

    def _skip_sparse_map(self, header: bytes) -> None:
        more = header[482:483]
        while more.strip(b"\0"):
            block = os.pread(self._descriptor, _BLOCK, self._at)
            self._advance("a sparse file", _BLOCK)
            more = block[504:505]

    def _advance(self, name: str, length: int) -> None:
        left = self._size - self._at
        if length > left:
            raise _BrokenTar(name, f"a member of {length:,} bytes, {left:,} are there")
        self._at += -(-length // _BLOCK) * _BLOCK

    def _bad(self, reason: Reason, name: str, detail: str) -> Bad:
        return BadRecord(reason, detail).at(self._source, self._number, name)


def _is_header(block: bytes) -> bool:
    """Does the checksum fit?"""
    told = block[148:156].strip(b" \0")
    if len(block) < _BLOCK or not told.isdigit() or told.translate(None, b"01234567"):
        return False
    return sum(block) - sum(block[148:156]) + 8 * ord(" ") == int(told, 8)


def _number(field: bytes) -> int:
    """Octal digits, or GNU's binary for what they cannot hold."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:])
    digits = field.strip(b" \0") or b"0"
    if digits.translate(None, b"01234567"):
        raise _BrokenTar("", f"a member of {field!r} bytes")
    return int(digits, 8)


def _decimal(value: bytes, name: str) -> int:
    if not value.isdigit() or len(value) > 20:
        raise _BrokenTar(name, f"a member of {value!r:.40} bytes")
    return int(value)


def _header_name(header: bytes) -> str:
    name = header[:100].split(b"\0")[0]
    prefix = header[345:500].split(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "surrogateescape")


def _parse_pax(content: bytes) -> dict[str, bytes]:
    """Records ``length key=value``, each ended by a line feed."""
    told: dict[str, bytes] = {}
    at = 0
    while at < len(content):
        space = content.find(b" ", at, at + 9)
        digits = content[at:space]
        end = at + int(digits) if space > 0 and digits.isdigit() else 0
        equals = content.find(b"=", space, end)
        if not space < equals < end <= len(content):
            raise _BrokenTar("", "a PAX header that is none")
        key = content[space + 1 : equals].decode("utf-8", "replace")
        told[key] = content[equals + 1 : end - 1]
        at = end
    return told
