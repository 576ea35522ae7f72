"""Records that must be refused, for every form that can say them; good ones stand around them."""

import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from PIL import Image

GOOD = ["a red star", "a star"]
"""What a faulty picture is said to show."""


class Named:
    """Stands for a picture file in forms that write names only: its name is any text."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.stem, self.suffix = name, ""


class Content(NamedTuple):
    """A picture file that must not become a row: forms may hold its bytes or name it."""

    make: Callable[[Path], None]


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims that size, whatever its data."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = data or zlib.compress(bytes((3 * width + 1) * min(height, 4)))
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def _bytes(data: bytes) -> Content:
    return Content(lambda path: path.write_bytes(data) and None)


def _cut(path: Path) -> None:
    Image.new("RGB", (64, 64), (9, 8, 7)).save(path)
    path.write_bytes(path.read_bytes()[:60])


def _wrong_checksum(path: Path) -> None:
    Image.new("RGB", (8, 8), (1, 2, 3)).save(path)
    data = bytearray(path.read_bytes())
    data[-20] ^= 1  # in the checksum of the pixels or in the pixels
    path.write_bytes(bytes(data))


CONTENTS: dict[str, Content] = {
    "no-picture": _bytes(b"this is not a picture"),
    "empty": Content(lambda path: path.touch()),
    "html": _bytes(b"<!DOCTYPE html><html><body>404</body></html>"),
    "pickle": _bytes(b"\x80\x04\x95\x1f\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94."),
    "svg-that-fetches": _bytes(b'<svg xmlns="x"><image href="http://127.0.0.1:9/"/></svg>'),
    "gigapixel": _bytes(png(40_000, 30_000)),
    "bomb": _bytes(png(20_000, 20_000, zlib.compress(bytes(60_001 * 400)))),
    "no-pixels": _bytes(png(64, 64, zlib.compress(b""))),
    "zero-wide": _bytes(png(0, 5)),
    "cut": Content(_cut),
    "wrong-checksum": Content(_wrong_checksum),
    "eps-program": _bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\n%%EOF\n"),
}

NAMES: dict[str, str] = {
    "absent": "nobody.png",
    "up": "../outside.png",
    "far-up": "../../../../../../etc/passwd",
    "absolute": "/etc/passwd",
    "device": "/dev/zero",
    "link-out": "link.png",
    "pipe": "fifo.png",
    "folder": "folder.png",
    "url": "http://127.0.0.1:9/a.png",
    "file-url": "file:///etc/passwd",
    "s3-url": "s3://bucket/a.png",
    "command": "pipe:touch pwned",
    "shell": "$(touch pwned).png",
    "too-long": "a" * 5000 + ".png",
    "home": "~/a.png",
    "dot": ".",
}

CAPTIONS: dict[str, list[str]] = {
    "no-words": [""],
    "white-space": [" \t "],
    "too-long": ["star " * 3000],
}


def place_traps(folder: Path) -> None:
    """What the names in NAMES lead to if they are followed."""
    outside = folder.parent / "outside.png"
    Image.new("RGB", (8, 8)).save(outside)
    (folder / "link.png").symlink_to(outside)
    os.mkfifo(folder / "fifo.png")
    (folder / "folder.png").mkdir()
