"""Coverage-guided fuzzing of everything that reads other people's files, with atheris.

``python -m tests.data_prep.hostile.fuzz_readers SEEDS [libFuzzer's options]``: the first byte of an
input picks the reader, the rest is the file. A reader may refuse what it is given with ValueError
or OSError; any other exception ends the run with the input that caused it.
"""

import contextlib
import io
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["data_prep", "unimo_ds"], enable_loader_override=False):
    from data_prep.readers.boxes import read_boxes
    from data_prep.readers.formats import Format, find_sources
    from data_prep.readers.pairs import read_pairs
    from data_prep.readers.tables.scan import read_tables
    from data_prep.readers.text import DocumentReader
    from data_prep.verify import damage
    from unimo_ds.data.schema import read_manifest
    from unimo_ds.tokenizer import load_tokenizer

FOLDER = Path(tempfile.mkdtemp(prefix="unimo-fuzz-"))


def _pairs(form: Format, path: Path) -> None:
    read_pairs(find_sources([path], form, captioned=True), (), lambda count: None)


def _texts(path: Path) -> None:
    for _ in DocumentReader([path]):
        pass


def _tables(path: Path) -> None:
    read_tables([path], "auto")


def _boxes(path: Path) -> None:
    for _ in read_boxes(path):
        pass


def _manifest(path: Path) -> None:
    target = path.with_name("manifest.json")
    target.write_bytes(path.read_bytes())
    for _ in damage(FOLDER):
        pass
    read_manifest(FOLDER)


READERS = (
    ("a.jsonl", lambda path: _pairs(Format.JSONL, path)),
    ("a.json", lambda path: _pairs(Format.JSON, path)),
    ("a.json", lambda path: _pairs(Format.COCO, path)),
    ("a.json", lambda path: _pairs(Format.KARPATHY, path)),
    ("a.json", lambda path: _pairs(Format.VISUAL_GENOME, path)),
    ("a.txt", lambda path: _pairs(Format.FLICKR, path)),
    ("a.csv", lambda path: _pairs(Format.TABLE, path)),
    ("a.tsv", lambda path: _pairs(Format.CONCEPTUAL, path)),
    ("a.tar", lambda path: _pairs(Format.WEBDATASET, path)),
    ("b.txt", _texts),
    ("b.jsonl", _texts),
    ("b.jsonl.gz", _texts),
    ("b.tsv", _texts),
    ("b.csv", _texts),
    ("c.tsv", _tables),
    ("c.npz", _tables),
    ("d.json", _boxes),
    ("d.jsonl", _boxes),
    ("e.json", _manifest),
    ("f.json", load_tokenizer),
)
"""The name that a file gets, which tells the readers its format, and who reads it."""


def one_input(data: bytes) -> None:
    if not data:
        return
    name, read = READERS[data[0] % len(READERS)]
    path = FOLDER / name
    path.write_bytes(data[1:])
    with contextlib.suppress(ValueError, OSError):
        read(path)


def main() -> None:
    sys.stdout = io.StringIO()  # what readers say counts for nothing here
    atheris.Setup(sys.argv, one_input)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
