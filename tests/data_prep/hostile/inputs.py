"""A valid input of every kind that `unimo-prep` reads, and the command that builds it."""

import gzip
import io
import json
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset
from PIL import Image

from tests.data_prep.source_forms import FORMS
from tests.data_prep.test_region_tables import unimo_line

TEXTS = ["One tells of a fox.", "Two tells of a hen. It laid eggs.", "Three.", "Four says little."]
CAPTIONS = [["a red star", "a star"], ["two blue rings"], ["a hen", "the hen"], ["no fox"]]


class Tools(NamedTuple):
    """What all builds share, so that they take little time."""

    tokenizer: Path
    visual_words: Path  # of 3 x 3 patches of 4 x 4 pixels


class Input(NamedTuple):
    """A source in a folder of its own, and the words of the command but for the output."""

    command: str
    sources: list[Path]
    options: list[object]


def small_words(path: Path) -> Path:
    """Visual words that are random numbers: nothing here looks at classes."""
    np.save(path, np.random.default_rng(0).normal(size=(8, 48)).astype(np.float32))
    return path


def pictures(folder: Path, count: int = len(CAPTIONS)) -> list[Path]:
    """Small PNG files: every byte of theirs is under a checksum."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(5)
    paths = [folder / f"p{number}.png" for number in range(count)]
    for path in paths:
        Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8)).save(path)
    return paths


def pixels(tools: Tools) -> list[object]:
    return ["--grid", 3, "--patch", 4, "--visual-words", tools.visual_words, "--max-bad", 1]


def paired(form: str, folder: Path, pairs: Sequence, tools: Tools) -> Input:
    """Pictures with captions in one of the forms of source_forms."""
    source = FORMS[form](folder, pairs)
    options = [*pixels(tools), "--tokenizer", tools.tokenizer, "--image-root", folder]
    return Input("pairs", [source], options)


def text_file(name: str, folder: Path, data: bytes, tools: Tools) -> Input:
    path = folder / name
    path.write_bytes(data)
    return Input("text", [path], ["--tokenizer", tools.tokenizer, "--max-bad", 1])


def _lines() -> bytes:
    return b"".join(json.dumps({"text": text, "n": 1}).encode() + b"\n" for text in TEXTS)


def _table_of_texts() -> bytes:
    """As Excel's "Unicode text"."""
    rows = "".join(f'{n}\t"{text[:3]}\n""{text[3:]}"""\r\n' for n, text in enumerate(TEXTS))
    return f"id\ttext\r\n{rows}".encode("utf-16")


def _parquet() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"text": TEXTS}), stream)
    return stream.getvalue()


def _saved(folder: Path, tools: Tools) -> Input:
    Dataset.from_list([{"text": text} for text in TEXTS]).save_to_disk(folder / "saved")
    return Input("text", [folder / "saved"], ["--tokenizer", tools.tokenizer, "--max-bad", 1])


def _table(folder: Path, tools: Tools) -> Input:
    path = folder / "regions.tsv"
    path.write_text("".join(unimo_line(n) for n in range(4)))
    return Input("images", [path], ["--regions", "precomputed", "--max-bad", 1])


def _npz(folder: Path, tools: Tools) -> Input:
    rng = np.random.default_rng(2)
    (folder / "npz").mkdir()
    for n in range(3):
        arrays = {
            "features": rng.normal(size=(2, 6)).astype(np.float32),
            "boxes": np.array([[0, 0, 5, 5], [1, 1, 9, 9]], np.float32),
            "image_w": 10,
            "image_h": 10,
            "probs": np.full((2, 4), 0.25, np.float32),
        }
        np.savez(folder / "npz" / f"{n}.npz", **arrays)
    return Input("images", [folder / "npz"], ["--regions", "precomputed", "--max-bad", 1])


def _folder(folder: Path, tools: Tools) -> Input:
    pictures(folder / "pictures")
    return Input("images", [folder / "pictures"], pixels(tools))


def _of_form(form: str) -> Callable[[Path, Tools], Input]:
    def make(folder: Path, tools: Tools) -> Input:
        found = pictures(folder)
        return paired(form, folder, list(zip(found, CAPTIONS, strict=True)), tools)

    return make


def _of_text(name: str, data: Callable[[], bytes]) -> Callable[[Path, Tools], Input]:
    return lambda folder, tools: text_file(name, folder, data(), tools)


INPUTS: dict[str, Callable[[Path, Tools], Input]] = {
    **{f"pairs-{form}": _of_form(form) for form in FORMS},
    "text-txt": _of_text("a.txt", lambda: "\n".join(TEXTS).encode()),
    "text-paragraphs": _of_text("a.txt", lambda: "\n\n".join(TEXTS).encode()),
    "text-jsonl": _of_text("a.jsonl", _lines),
    "text-jsonl-gz": _of_text("a.jsonl.gz", lambda: gzip.compress(_lines(), mtime=0)),
    "text-jsonl-xz": _of_text("a.jsonl.xz", lambda: lzma.compress(_lines())),
    "text-tsv": _of_text("a.tsv", _table_of_texts),
    "text-parquet": _of_text("a.parquet", _parquet),
    "text-saved": _saved,
    "images-folder": _folder,
    "images-table": _table,
    "images-npz": _npz,
}
