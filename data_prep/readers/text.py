"""Documents out of .txt, .jsonl, .parquet files and saved Hugging Face dataset folders.

A ``.txt`` file holds one document per paragraph if a blank line stands in its first MiB, else one
per line. ``.gz`` and ``.xz`` may follow ``.txt`` and ``.jsonl``.
"""

import gzip
import json
import lzma
import zlib
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from data_prep.quarantine import Bad, BadRecord, Reason

_PROBE = 1 << 20
_PACKED = (".gz", ".xz")


class Document(NamedTuple):
    """One text with an id that no other document of the build has."""

    id: str
    text: str
    source: str
    line: int


class DocumentReader:
    """Iterates over the documents of files, and over entries for those that cannot be read.

    ``bytes_read`` of ``total_bytes`` says how far it is.
    """

    def __init__(self, paths: Sequence[Path], field: str = "text") -> None:
        self._files = [file for path in paths for file in _files(path)]
        self._field = field
        self._ids: set[str] = set()
        self._opened = 0
        self._raw: IO[bytes] | None = None
        self.total_bytes = sum(file.stat().st_size for file in self._files)

    @property
    def bytes_read(self) -> int:
        """Of the files as they lie on the disk, packed ones too."""
        return self._opened + (self._raw.tell() if self._raw else 0)

    def __iter__(self) -> Iterator[Document | Bad]:
        names = Counter(file.name for file in self._files)
        for number, file in enumerate(self._files):
            label = file.name if names[file.name] == 1 else f"{number}/{file.name}"
            try:
                for line, record in self._records(file):
                    yield self._document(file, label, line, record)
            except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
                raise ValueError(f"{file} is damaged: {error}") from error
            self._raw = None
            self._opened += file.stat().st_size

    def _records(self, file: Path) -> Iterator[tuple[int, Any]]:
        """(line, dict or text or BadRecord) of one file."""
        kind = _kind(file)
        if kind == ".parquet":
            return _tables(b for b in pq.ParquetFile(file).iter_batches(columns=[self._field]))
        if kind == ".arrow":
            return _tables(iter(pa.ipc.open_stream(pa.memory_map(str(file)))))
        return self._lines(file, kind)

    def _lines(self, file: Path, kind: str) -> Iterator[tuple[int, Any]]:
        with file.open("rb") as raw, unpacked(raw, file) as stream:
            self._raw = raw
            if kind == ".jsonl":
                yield from _parsed(stream)
            elif b"\n\n" in _start_of(file).replace(b"\r", b""):
                yield from _paragraphs(stream)
            else:
                yield from ((n, _decoded(line)) for n, line in enumerate(stream, 1) if line.strip())
            self._raw = None

    def _document(self, file: Path, label: str, line: int, record: Any) -> Document | Bad:
        try:
            if isinstance(record, BadRecord):
                raise record
            text, name = record, f"{label}:{line}"
            if isinstance(record, dict):
                given = record.get("id")
                text, name = record.get(self._field), name if given is None else str(given)
            if not isinstance(text, str):
                raise BadRecord(Reason.MISSING_FIELD, f"no text in the field {self._field!r}")
            if not text.strip():
                raise BadRecord(Reason.EMPTY_TEXT, "nothing but white space")
            if name in self._ids:
                raise BadRecord(Reason.DUPLICATE_ID, f"id {name!r} was there before")
        except BadRecord as error:
            return error.at(str(file), line)
        if isinstance(record, dict):  # ids that were made here cannot come twice
            self._ids.add(name)
        return Document(name, text, str(file), line)


def unpacked(raw: IO[bytes], file: Path) -> IO[bytes]:
    """``raw`` itself, or what it holds if the name of the file ends in .gz or .xz."""
    if file.suffix == ".gz":
        return cast(IO[bytes], gzip.GzipFile(fileobj=raw))
    if file.suffix == ".xz":
        return lzma.LZMAFile(raw)
    return raw


def parse_object(line: bytes) -> dict[str, Any]:
    """The JSON object on a line.

    Raises:
        BadRecord: not UTF-8, not JSON, or not an object.
    """
    text = _decoded(line)
    if isinstance(text, BadRecord):
        raise text
    try:
        value = json.loads(text)
    except (
        ValueError,
        RecursionError,
    ) as error:  # ValueError: also numbers of 4300 digits and more
        raise BadRecord(Reason.BAD_JSON, str(error)) from error
    if not isinstance(value, dict):
        raise BadRecord(Reason.BAD_JSON, f"{type(value).__name__} instead of an object")
    if "\\u" in text:
        check_surrogates(value)
    return value


def check_surrogates(value: object) -> None:
    """Half a character, which JSON can write (``"\\ud83d"``), is no text.

    Raises:
        BadRecord: bad_utf8.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise BadRecord(Reason.BAD_UTF8, str(error)) from error


def _files(path: Path) -> list[Path]:
    """``path`` itself, or the data files of the dataset folder that it is."""
    if path.is_dir():
        state = path / "state.json"
        if not state.is_file():
            raise ValueError(
                f"{path} is a folder without state.json, so no dataset that Hugging Face's "
                "save_to_disk wrote: name files, or one split of a dataset"
            )
        names = [entry["filename"] for entry in json.loads(state.read_text())["_data_files"]]
        return [path / Path(name).name for name in names]
    if not path.is_file():
        raise ValueError(f"no file {path}")
    if _kind(path) not in (".txt", ".jsonl", ".parquet"):
        raise ValueError(f"{path}: expected .txt, .jsonl (both also .gz or .xz) or .parquet")
    return [path]


def _kind(file: Path) -> str:
    return Path(file.stem).suffix if file.suffix in _PACKED else file.suffix


def _start_of(file: Path) -> bytes:
    with file.open("rb") as raw, unpacked(raw, file) as stream:
        return stream.read(_PROBE)


def _parsed(stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            try:
                yield number, parse_object(line)
            except BadRecord as error:
                yield number, error


def _paragraphs(stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    lines: list[bytes] = []
    number = 0
    for number, line in enumerate(stream, 1):
        if line.strip():
            lines.append(line)
        elif lines:
            yield number - len(lines), _decoded(b"".join(lines))
            lines = []
    if lines:
        yield number + 1 - len(lines), _decoded(b"".join(lines))


def _tables(batches: Iterator[pa.RecordBatch]) -> Iterator[tuple[int, Any]]:
    number = 0
    for batch in batches:
        for record in batch.to_pylist():
            number += 1
            yield number, record


def _decoded(line: bytes) -> "str | BadRecord":
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        return BadRecord(Reason.BAD_UTF8, str(error))
