"""Which files a source of texts means: a file, a pattern, a folder, a saved dataset."""

import json
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path

from data_prep.readers.encoding import file_text
from data_prep.readers.left_out import (
    BROKEN_LINKS,
    NO_FILES,
    OUTER_LINKS,
    LeftOut,
    Tally,
    note_of,
    of_other_kind,
    suffix_of,
    walk,
)
from data_prep.readers.lines import PACKED, kind_of

CSV = ".csv"  # in folders of texts it mostly tells of them, so it is taken where it is named
ROWS, TABLES, TARS = (".tsv", CSV), (".parquet", ".arrow"), (".tar",)
LINES = (".txt", ".jsonl", *ROWS)
_PACKED = ".tar (also .gz, .xz, .zst), .parquet or .arrow"
_IN_FOLDERS = f".txt, .jsonl, .tsv, {_PACKED}"
_KNOWN = f".txt, .jsonl, .tsv, .csv, {_PACKED}"


def text_files(source: Path, tally: Tally) -> list[Path]:
    """The files that ``source`` means, in the order in which they are read; ``tally`` counts what
    lies beside them in a folder.

    A folder stands for all files of a known format below it but .csv, by name; a folder that
    Hugging Face's ``save_to_disk`` wrote for the files that its ``state.json`` lists; a name with
    ``*``, ``?`` or ``[...]`` for what fits it.

    Raises:
        ValueError: there is none, or one of another format; for a ``DatasetDict`` its splits.
    """
    if source.is_dir():
        return _of_folder(source, tally)
    if source.is_file():
        return [_checked(source)]
    if has_magic(str(source)):
        found = sorted(Path(name) for name in glob(str(source), recursive=True))
        files = [file for path in found for file in text_files(path, tally)]
        if files:
            return files
        raise ValueError(f"no file fits the pattern {source}")
    raise ValueError(f"no file {source}: expected {_KNOWN}, a folder of them or a pattern")


def _of_folder(folder: Path, tally: Tally) -> list[Path]:
    if (folder / "state.json").is_file():
        return _of_dataset(folder)
    if (folder / "dataset_dict.json").is_file():
        told = " or ".join(str(folder / name) for name in _splits(folder)) or "one of its folders"
        raise ValueError(f"{folder} is a DatasetDict of several splits: name {told}")
    own = Tally()
    files = []
    for entry in _walk(folder):
        if isinstance(entry, LeftOut):
            own.add(folder, entry)
            tally.add(folder, entry)
        else:
            files.append(entry)
    if not files:
        raise ValueError(
            f"{folder} holds neither {_IN_FOLDERS} files nor the state.json of a dataset that "
            "Hugging Face's save_to_disk wrote (name .csv files themselves or by a pattern)"
            f"{note_of(own.entries())}"
        )
    return files


def _walk(folder: Path) -> Iterator[Path | LeftOut]:
    """The files below of a known format, which links must not lead out of the folder."""
    root = folder.resolve()
    for name in walk(folder):
        if isinstance(name, LeftOut):
            yield name
            continue
        path = folder / name
        if path.is_symlink() and not path.exists():
            yield LeftOut(BROKEN_LINKS, name)
        elif not path.is_file():
            yield LeftOut(NO_FILES, name)
        elif not path.resolve().is_relative_to(root):
            yield LeftOut(OUTER_LINKS, name)
        else:
            takes = _is_known(path) and kind_of(path) != CSV
            yield path if takes else of_other_kind(name)


def _of_dataset(folder: Path) -> list[Path]:
    state = folder / "state.json"
    try:
        names = [entry["filename"] for entry in json.loads(file_text(state))["_data_files"]]
        files = [folder / Path(name).name for name in names]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{state} is not the state of a saved dataset: {error!r}") from error
    for file in files:
        if not file.is_file():
            raise ValueError(f"{file} is missing, {state} lists it: save the dataset again")
    return files


def _splits(folder: Path) -> list[str]:
    try:
        return [
            Path(name).name
            for name in json.loads(file_text(folder / "dataset_dict.json"))["splits"]
        ]
    except (ValueError, KeyError, TypeError):
        return []


def _is_known(file: Path) -> bool:
    packed = suffix_of(file.name) in PACKED
    return kind_of(file) in (LINES + TARS if packed else LINES + TABLES + TARS)


def _checked(file: Path) -> Path:
    if not _is_known(file):
        raise ValueError(f"{file}: expected {_KNOWN}")
    return file
