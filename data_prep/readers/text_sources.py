"""Which files a source of texts means: a file, a pattern, a folder, a saved dataset."""

import json
from collections.abc import Iterator
from glob import glob, has_magic
from pathlib import Path

from data_prep.readers.encoding import file_text
from data_prep.readers.lines import PACKED, kind_of

CSV = ".csv"  # in folders of texts it mostly tells of them, so it is taken where it is named
ROWS, TABLES, TARS = (".tsv", CSV), (".parquet", ".arrow"), (".tar",)
LINES = (".txt", ".jsonl", *ROWS)
_KNOWN = ".txt, .jsonl, .tsv, .csv, .tar (also .gz, .xz, .zst), .parquet or .arrow"


def text_files(source: Path) -> list[Path]:
    """The files that ``source`` means, in the order in which they are read.

    A folder stands for all files of a known format below it but .csv, by name; a folder that
    Hugging Face's ``save_to_disk`` wrote for the files that its ``state.json`` lists; a name with
    ``*``, ``?`` or ``[...]`` for what fits it.

    Raises:
        ValueError: there is none, or one of another format; for a ``DatasetDict`` its splits.
    """
    if source.is_dir():
        return _of_folder(source)
    if source.is_file():
        return [_checked(source)]
    if has_magic(str(source)):
        found = sorted(Path(name) for name in glob(str(source), recursive=True))
        files = [file for path in found for file in text_files(path)]
        if files:
            return files
        raise ValueError(f"no file fits the pattern {source}")
    raise ValueError(f"no file {source}: expected {_KNOWN}, a folder of them or a pattern")


def _of_folder(folder: Path) -> list[Path]:
    if (folder / "state.json").is_file():
        return _of_dataset(folder)
    if (folder / "dataset_dict.json").is_file():
        told = " or ".join(str(folder / name) for name in _splits(folder)) or "one of its folders"
        raise ValueError(f"{folder} is a DatasetDict of several splits: name {told}")
    files = [file for file in _walk(folder) if _is_known(file) and kind_of(file) != CSV]
    if not files:
        raise ValueError(
            f"{folder} holds neither {_KNOWN} files nor the state.json of a dataset that Hugging "
            "Face's save_to_disk wrote"
        )
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """The files below, hidden ones and links out of the folder left out."""
    root = folder.resolve()
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if not hidden and path.is_file() and path.resolve().is_relative_to(root):
            yield path


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
    packed = file.suffix in PACKED
    return kind_of(file) in (LINES + TARS if packed else LINES + TABLES + TARS)


def _checked(file: Path) -> Path:
    if not _is_known(file):
        raise ValueError(f"{file}: expected {_KNOWN}")
    return file
