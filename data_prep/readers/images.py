"""Which pictures there are: folders of them, and JSONL files that name them."""

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.text import parse_object

PICTURE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
)


class Picture(NamedTuple):
    """A picture file. Size and time stand for its content when a build is resumed."""

    id: str
    path: str
    source: str
    line: int
    size: int
    changed_ns: int


def read_pictures(
    sources: Sequence[Path], image_root: Path | None = None
) -> tuple[list[Picture], list[Bad]]:
    """The pictures of folders (sub-folders too) and JSONL files, and the records that name none.

    The id of a picture is its path below the folder or the JSONL file's root; with several sources
    the name of the source stands in front.

    Raises:
        ValueError: a source that is neither, or none of them names a picture.
    """
    entries: list[Picture | Bad] = []
    for source in sources:
        prefix = f"{source.resolve().name}/" if len(sources) > 1 else ""
        found = _of_folder(source) if source.is_dir() else _of_jsonl(source, image_root)
        entries += [e if isinstance(e, Bad) else e._replace(id=prefix + e.id) for e in found]
    pictures, bad = unique(e for e in entries if not isinstance(e, Bad))
    bad = [e for e in entries if isinstance(e, Bad)] + bad
    if not pictures and not bad:
        raise ValueError(f"no picture in {', '.join(map(str, sources))}")
    return pictures, bad


def unique(pictures: Iterable[Picture]) -> tuple[list[Picture], list[Bad]]:
    """The pictures whose id comes for the first time, and entries for the others."""
    seen: dict[str, Picture] = {}
    bad = []
    for picture in pictures:
        if picture.id in seen:
            reason = BadRecord(Reason.DUPLICATE_ID, f"id {picture.id!r} was there before")
            bad.append(reason.at(picture.source, picture.line, picture.id))
        else:
            seen[picture.id] = picture
    return list(seen.values()), bad


def picture_below(root: Path, name: str, source: str, line: int) -> Picture:
    """The picture ``name`` in the folder ``root``, which it must not leave, by links neither.

    Raises:
        BadRecord: path_escapes, missing_image or bad_utf8.
    """
    try:
        name.encode()
    except UnicodeEncodeError as error:
        raise BadRecord(Reason.BAD_UTF8, f"a name that is no UTF-8: {error}") from error
    try:
        real_root, real = os.path.realpath(root), os.path.realpath(os.path.join(root, name))
        if os.path.commonpath([real_root, real]) != real_root:
            raise BadRecord(Reason.PATH_ESCAPES, f"{name!r} leads out of {root}")
        if not os.path.isfile(real):
            raise BadRecord(Reason.MISSING_IMAGE, f"no file {name!r} in {root}")
        state = os.stat(real)
    except (OSError, ValueError) as error:  # a name too long, or with a null byte
        raise BadRecord(Reason.MISSING_IMAGE, f"{name!r}: {error}") from error
    return Picture(os.path.normpath(name), real, source, line, state.st_size, state.st_mtime_ns)


def open_picture(path: str) -> Image.Image:
    """The decoded picture in RGB.

    Raises:
        BadRecord: broken_image or decompression_bomb.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                return image.convert("RGB")
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadRecord(Reason.DECOMPRESSION_BOMB, str(error)) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, struct.error, ValueError...
        raise BadRecord(Reason.BROKEN_IMAGE, f"{type(error).__name__}: {error}") from error


def _of_folder(folder: Path) -> Iterator[Picture | Bad]:
    for number, file in enumerate(sorted(folder.rglob("*")), 1):
        if file.suffix.lower() in PICTURE_SUFFIXES:
            try:
                yield picture_below(folder, str(file.relative_to(folder)), str(folder), number)
            except BadRecord as error:
                yield error.at(str(folder), number, str(file.relative_to(folder)))


def _of_jsonl(file: Path, image_root: Path | None) -> Iterator[Picture | Bad]:
    if not file.is_file() or file.suffix != ".jsonl":
        raise ValueError(
            f"{file} is neither a folder of pictures nor a .jsonl file that names them"
        )
    root = image_root or file.parent
    with file.open("rb") as stream:
        for line, content in enumerate(stream, 1):
            if not content.strip():
                continue
            try:
                name = parse_object(content).get("image")
                if not isinstance(name, str) or not name:
                    raise BadRecord(Reason.MISSING_FIELD, "no path in the field 'image'")
                yield picture_below(root, name, str(file), line)
            except BadRecord as error:
                yield error.at(str(file), line)
