"""Which format a source has: by the names in a folder, by the beginning of a file."""

import glob
import json
import os
from collections.abc import Iterator, Sequence
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from data_prep.quarantine import Bad
from data_prep.readers.caption_tables import (
    header_of,
    is_conceptual_line,
    is_token_line,
)
from data_prep.readers.encoding import file_text, utf8_stream
from data_prep.readers.fields import CAPTIONS, IMAGE_NAMES
from data_prep.readers.images import PICTURE_SUFFIXES, is_url
from data_prep.readers.json_stream import MAX_RECORD, json_items
from data_prep.readers.left_out import (
    BROKEN_LINKS,
    NO_FILES,
    LeftOut,
    Tally,
    by_name,
    note_of,
    of_other_kind,
    suffix_of,
    walk,
)
from data_prep.readers.lines import text_lines
from data_prep.sources import braced


class Format(StrEnum):
    """What pictures and captions come in."""

    FOLDER = "folder"
    SIDECARS = "sidecars"
    WEBDATASET = "webdataset"
    DATASET = "dataset"
    PARQUET = "parquet"
    ARROW = "arrow"
    JSONL = "jsonl"
    JSON = "json"
    COCO = "coco"
    KARPATHY = "karpathy"
    VISUAL_GENOME = "visual-genome"
    FLICKR = "flickr-token"
    TABLE = "table"
    CONCEPTUAL = "conceptual-captions"


LOOKED_FOR = (
    "a folder of pictures (with .txt or .json beside them: img2dataset's files), of .tar or "
    ".parquet files, or of a dataset that `save_to_disk` wrote; .tar; .parquet; .arrow; .jsonl; "
    ".json that is a list of records, COCO's, Karpathy's or Visual Genome's; lines "
    "name.jpg#0<TAB>caption; a table with a header of pictures and captions; lines "
    "caption<TAB>url or path"
)
_SUFFIXES = {
    ".tar": Format.WEBDATASET,
    ".parquet": Format.PARQUET,
    ".arrow": Format.ARROW,
    ".jsonl": Format.JSONL,
}
_PACKED_TARS = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
_MOST_FILES = 1_000_000  # that a pattern of braces may stand for


class Source(NamedTuple):
    """A file or folder of one format."""

    path: Path
    form: Format
    label: str  # what the ids of pictures in it begin with
    split: str = ""  # that all its records belong to
    left_out: tuple[Bad, ...] = ()  # of the folder that this is the first file of


def find_sources(
    given: Sequence[Path], form: Format | None = None, *, captioned: bool = False
) -> list[Source]:
    """The sources that names, patterns (``*``, ``?``, ``{000..012}``) and folders stand for.

    ``form`` is taken for granted where it is given. ``captioned``: captions are wanted, so a folder
    of pictures must have them beside the pictures.

    Raises:
        ValueError: no such file, or of no format that is known.
    """
    by_path: dict[str, Source] = {}
    for path in (file for name in given for file in _expanded(name)):
        for part in _parts(path, form or detect(path, captioned=captioned)):
            by_path.setdefault(os.path.abspath(part.path), part)
    paths, found = list(by_path), by_path.values()
    names = [source.path.name for source in found]
    if len(set(names)) < len(names):
        common = os.path.commonpath([os.path.dirname(path) for path in paths])
        names = [os.path.relpath(path, common) for path in paths]
    return [source._replace(label=name) for source, name in zip(found, names, strict=True)]


def detect(path: Path, *, captioned: bool = False) -> Format:
    """The format of a file or folder.

    Raises:
        ValueError: it has none that is known; the error lists what was looked for.
    """
    found = _of_folder(path, captioned) if path.is_dir() else _of_file(path)
    if found is None:
        raise ValueError(f"{path} is of no known format; looked for: {LOOKED_FOR}")
    return found


def _expanded(given: Path) -> list[Path]:
    name = str(given)
    if is_url(name.replace(":/", "://", 1)):  # Path makes one slash of two
        raise ValueError(f"{name} is no file or folder here: nothing is fetched or run")
    if given.exists():
        if not given.is_dir() and not given.is_file():
            raise ValueError(f"{name} is neither a file nor a folder, but a pipe or a device")
        return [given]
    patterns = list(islice(braced(name), _MOST_FILES + 1))
    if len(patterns) > _MOST_FILES:
        raise ValueError(f"{name} stands for more than {_MOST_FILES:,} files")
    found = [sorted(glob.glob(p)) if glob.has_magic(p) else [p] for p in patterns]
    files = [Path(file) for files in found for file in files]
    missing = [str(file) for file in files if not file.exists()]
    if missing or not files:
        raise ValueError(f"no file {missing[0] if missing else name}")
    return files


def _parts(path: Path, form: Format) -> Iterator[Source]:
    """The files of a folder that is no source by itself."""
    if form is Format.DATASET:
        yield from _dataset_files(path, "")
    elif path.is_dir() and form in (Format.WEBDATASET, Format.PARQUET, Format.ARROW):
        yield from _files_in(path, form)
    else:
        yield Source(path, form, path.name)


def _files_in(folder: Path, form: Format) -> Iterator[Source]:
    suffix = next(s for s, known in _SUFFIXES.items() if known is form)
    tally, files = Tally(), []
    for name in walk(folder):
        entry = name if isinstance(name, LeftOut) else None
        if isinstance(name, str) and suffix_of(name) != suffix:
            entry = of_other_kind(name)
        elif isinstance(name, str) and not (folder / name).is_file():
            entry = LeftOut(BROKEN_LINKS if (folder / name).is_symlink() else NO_FILES, name)
        if entry:
            tally.add(folder, entry)
        else:
            files.append(folder / str(name))
    if not files:
        raise ValueError(f"{folder} holds no {suffix} file{note_of(tally.entries())}")
    for number, file in enumerate(files):
        yield Source(file, form, file.name, left_out=() if number else tuple(tally.entries()))


def _dataset_files(folder: Path, split: str) -> Iterator[Source]:
    """The Arrow files of a dataset, or of all datasets in a folder of splits."""
    try:
        if (folder / "dataset_dict.json").is_file():
            names = json.loads(file_text(folder / "dataset_dict.json"))["splits"]
            for name in names:
                yield from _dataset_files(folder / _plain(name, folder), name)
            return
        files = json.loads(file_text(folder / "state.json"))["_data_files"]
        for entry in files:
            yield Source(folder / _plain(entry["filename"], folder), Format.ARROW, "", split)
    except (OSError, KeyError, TypeError, RecursionError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{folder} is no dataset that `save_to_disk` wrote: {type(error).__name__}: {error}"
        ) from error


def _plain(name: str, folder: Path) -> str:
    if Path(name).name != name or name == "..":
        raise ValueError(f"{folder} refers to {name!r}: expected a name in this folder")
    return name


def _of_folder(folder: Path, captioned: bool) -> Format | None:
    names = {entry.name for entry in os.scandir(folder) if not by_name(entry.name)}
    if names & {"state.json", "dataset_dict.json"}:
        return Format.DATASET
    if any(name.lower().endswith((".tar", *_PACKED_TARS)) for name in names):
        return Format.WEBDATASET
    picture, beside = _first_picture(folder)
    if picture and (beside or not captioned):
        return Format.SIDECARS if captioned else Format.FOLDER
    kinds = {suffix_of(name) for name in walk(folder) if isinstance(name, str)}
    for suffix in (".parquet", ".arrow"):
        if suffix in kinds:
            return _SUFFIXES[suffix]
    return None if captioned else Format.FOLDER


def _first_picture(folder: Path) -> tuple[bool, bool]:
    """Is there a picture, and does the first folder that has one hold captions beside it?"""
    for _, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not by_name(name))
        names = [name for name in names if not by_name(name)]
        stems = {Path(n).stem for n in names if suffix_of(n) in PICTURE_SUFFIXES}
        if stems:
            said = {Path(n).stem for n in names if suffix_of(n) in (".txt", ".json")}
            return True, bool(stems & said)
    return False, False


def _of_file(file: Path) -> Format | None:
    name = file.name.lower()
    if name.endswith((".jsonl.gz", ".jsonl.xz")):
        return Format.JSONL
    if suffix_of(name) in _SUFFIXES:
        return _SUFFIXES[suffix_of(name)]
    if name.endswith(_PACKED_TARS):
        return Format.WEBDATASET  # whose reader says what to do
    with file.open("rb") as stream:
        start = stream.read(512)
    if start[257:262] == b"ustar":
        return Format.WEBDATASET
    if start[:4] == b"PAR1":
        return Format.PARQUET
    if start[:6] == b"ARROW1":
        return Format.ARROW
    with file.open("rb") as stream:
        start = utf8_stream(stream, file).read(512)
    if suffix_of(name) == ".json" or start.lstrip()[:1] in (b"{", b"["):
        return _of_json(file)
    return _of_lines(file)


def _of_json(file: Path) -> Format:
    for key, item in json_items(file):
        fields = item.keys() if isinstance(item, dict) else set()
        if not key:
            genome = "regions" in fields or {"objects", "relationships"} <= fields
            return Format.VISUAL_GENOME if genome else Format.JSON
        if key.lower() in (*IMAGE_NAMES, *CAPTIONS[:2]):
            return Format.JSONL
        if key == "images" and "sentences" in fields:
            return Format.KARPATHY
        if key in ("images", "annotations"):
            return Format.COCO
    raise ValueError(
        f"{file} is neither a list of records nor COCO's or Karpathy's JSON; looked for: "
        f"{LOOKED_FOR}"
    )


def _of_lines(file: Path) -> Format | None:
    line = next((line for _, line in text_lines(file, MAX_RECORD) if isinstance(line, str)), "")
    if is_token_line(line):
        return Format.FLICKR
    if header_of(line):
        return Format.TABLE
    return Format.CONCEPTUAL if is_conceptual_line(line) else None
