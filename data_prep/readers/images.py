"""Which pictures there are, where they lie, and how one is opened."""

import io
import os
import re
import stat
import warnings
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from PIL import Image, UnidentifiedImageError

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.left_out import LeftOut, of_other_kind, suffix_of, walk
from data_prep.readers.near_names import did_you_mean
from data_prep.readers.places import Range, Row, read_place
from unimo_ds.pixels import SIDEWAYS, NoGreyRange, as_shown, turn_of

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)
_DECODERS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
"""Of Pillow's; that of EPS, which goes by the content and not by the name, runs Ghostscript."""
_URL = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://|(?:pipe|data|file|http|https|ftp|s3|gs|hf):")


class Picture(NamedTuple):
    """A picture. Size and time of its file stand for its content when a build is resumed."""

    id: str
    path: str  # of the file that it is or lies in
    source: str
    line: int
    size: int
    changed_ns: int
    place: Range | Row | None = None  # in the file; None: it is the file


def unique(pictures: Iterable[Picture]) -> tuple[list[Picture], list[Bad]]:
    """Each picture once, and entries for those that come again.

    Different pictures of one id stay: which of them is whole is known when they are decoded, see
    `data_prep.regions.rivals`.
    """
    seen: dict[tuple[str, str, Range | Row | None], Picture] = {}
    bad = []
    for picture in pictures:
        first = seen.setdefault((picture.id, picture.path, picture.place), picture)
        if first is not picture:
            reason = BadRecord(Reason.DUPLICATE_ID, f"id {picture.id!r} was there before")
            bad.append(reason.at(picture.source, picture.line, picture.id))
    return list(seen.values()), bad


def is_url(name: str) -> bool:
    """Is ``name`` a URL or a command (``pipe:``) where a path belongs?"""
    return bool(_URL.match(name))


class File(NamedTuple):
    """A regular file."""

    path: str  # without links
    size: int
    changed_ns: int


def file_below(root: Path, name: str) -> File:
    """The file ``name`` in the folder ``root``, which it must not leave, by links neither.

    Raises:
        BadRecord: url, path_escapes, missing_image, no_file or bad_utf8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(Reason.BAD_UTF8, f"a name that is no UTF-8: {error}") from error
    if is_url(name):
        detail = f"{name!r:.200} where a path belongs: nothing is fetched, name a local file"
        raise BadRecord(Reason.URL, detail)
    try:
        real_root = _real_folder(str(root))
        folder, base = os.path.split(os.path.join(real_root, name))
        real = os.path.join(_real_folder(folder), base)
        if base in ("", ".", "..") or os.path.islink(real):
            real = os.path.realpath(real)
        if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
            raise BadRecord(
                Reason.PATH_ESCAPES, f"{name!r} leads out of {root}{_remedy(real_root, name)}"
            )
        state = os.stat(real)
    except FileNotFoundError as error:
        detail = f"no file {name!r} in {root}{did_you_mean(real_root, name)}"
        raise BadRecord(Reason.MISSING_IMAGE, detail) from error
    except (OSError, ValueError) as error:  # a name too long, or with a null byte
        raise BadRecord(Reason.MISSING_IMAGE, f"{name!r:.200}: {error}") from error
    if not stat.S_ISREG(state.st_mode):
        raise BadRecord(Reason.NO_FILE, f"{name!r} in {root} is a folder, a pipe or a device")
    return File(real, state.st_size, state.st_mtime_ns)


def picture_below(root: Path, name: str, source: str, line: int) -> Picture:
    """The picture ``name`` in the folder ``root``.

    Raises:
        BadRecord: see `file_below`.
    """
    path, size, changed_ns = file_below(root, name)
    return Picture(os.path.normpath(name), path, source, line, size, changed_ns)


def find_picture(root: Path, names: Sequence[str], source: str, line: int) -> Picture:
    """The picture that has one of ``names`` in the folder ``root``, the first that is there.

    Raises:
        BadRecord: see `file_below`.
    """
    there = (name for name in names if os.path.isfile(os.path.join(root, name)))
    name = next(there, names[0]) if len(names) > 1 else names[0]
    try:
        return picture_below(root, name, source, line)
    except BadRecord as error:
        if error.reason is not Reason.MISSING_IMAGE or len(names) == 1:
            raise
        hint = did_you_mean(str(root), name)
        less = f"nor {names[-1]!r:.200} or others of its {len(names)} names"
        detail = f"{error.detail.removesuffix(hint)}, {less}{hint}"
        raise BadRecord(Reason.MISSING_IMAGE, detail) from error


def open_picture(picture: Picture) -> Image.Image:
    """The picture in RGB as a viewer shows it, see `as_shown`.

    Raises:
        BadRecord: broken_image, no_grey_range, decompression_bomb, or that its bytes cannot be
            read.
    """
    return open_scaled(picture, None)[0]


def open_scaled(picture: Picture, side: int | None) -> tuple[Image.Image, tuple[int, int]]:
    """The picture in RGB as a viewer shows it, and the width and height of that in the file.

    A JPEG that is to be made ``side`` pixels wide and high is decoded at half, a quarter or an
    eighth of its scale where at least twice ``side`` is left, as Pillow's own thumbnails are: that
    takes half the time, and pixels of the small picture differ by a third of a level.

    Raises:
        BadRecord: see `open_picture`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            data = io.BytesIO(read_place(picture.path, picture.place))
            image = Image.open(data, formats=_DECODERS)  # of bytes: there is no file to be closed
            size = image.size
            reduced = side and image.draft("RGB", (2 * side, 2 * side))
            shown = as_shown(image)
            if not reduced:
                return shown, shown.size
            return shown, size[::-1] if turn_of(image) in SIDEWAYS else size
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord(Reason.DECOMPRESSION_BOMB, str(error)) from error
    except NoGreyRange as error:
        raise BadRecord(Reason.NO_GREY_RANGE, str(error)) from error
    except BadRecord:
        raise
    except UnidentifiedImageError as error:  # whose message tells an address in memory
        raise BadRecord(Reason.BROKEN_IMAGE, "of no picture format that is read") from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ValueError...
        raise BadRecord(Reason.BROKEN_IMAGE, f"{type(error).__name__}: {error}") from error


def folder_pictures(folder: Path) -> Iterator[Picture | Bad | LeftOut]:
    """The files in ``folder`` and its sub-folders that have a picture's suffix, in order."""
    for number, name in enumerate(walk(folder), 1):
        if isinstance(name, LeftOut):
            yield name
        elif suffix_of(name) not in PICTURE_SUFFIXES:
            yield of_other_kind(name)
        else:
            try:
                yield picture_below(folder, name, str(folder), number)
            except BadRecord as error:
                yield error.at(str(folder), number, name)


def _remedy(root: str, name: str) -> str:
    """What to do about a path that leads out, where there is something."""
    if not os.path.isabs(name):
        return ""
    folder = os.path.dirname(name)
    if os.path.isdir(folder):
        return f": name a folder above it, such as --image-root {folder}"
    return did_you_mean(root, name) or f": there is no folder {folder} here"


@lru_cache(maxsize=1 << 16)
def _real_folder(folder: str) -> str:
    """Pictures of a folder come together, and a folder's real path costs more than their own."""
    return os.path.realpath(folder)
