"""The command line in this process, small inputs, and folders compared byte by byte."""

import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from data_prep.cli.main import main
from data_prep.writer import read_shard
from unimo_ds.data.schema import read_manifest
from unimo_ds.tokenizer import train_tokenizer

SENTENCES = [
    "the quick brown fox jumps over the lazy dog.",
    "a red star stands above a blue ring.",
    "nobody knows why the small green circle left.",
]


class Ran(NamedTuple):
    """What a command did."""

    code: int
    out: str
    err: str


@pytest.fixture
def prep(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> Callable[..., Ran]:
    """Runs `unimo-prep` with these arguments, in this process unless they ask for workers."""

    def run(*arguments: object) -> Ran:
        words = [str(argument) for argument in arguments]
        has_workers = words[0] not in ("tokenizer", "stats", "quarantine", "inspect")
        if has_workers and "--workers" not in words:
            words += ["--workers", "1"]
        monkeypatch.setattr(sys, "argv", ["unimo-prep", *words])
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as error:
            code = int(error.code or 0)
        captured = capsys.readouterr()
        return Ran(code, captured.out, " ".join(captured.err.split()))

    return run


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small tokenizer that knows the words of SENTENCES."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    train_tokenizer(SENTENCES * 3, 400).save(path)
    return path


@pytest.fixture
def sentences() -> list[str]:
    return list(SENTENCES)


@pytest.fixture
def write_lines() -> Callable[[Path, Sequence[Any]], Path]:
    """Writes values as JSON lines; bytes stay as they are."""

    def write(path: Path, values: Sequence[Any]) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [v if isinstance(v, bytes) else json.dumps(v).encode() for v in values]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


@pytest.fixture
def make_pictures() -> Callable[..., list[Path]]:
    """Random pictures 000.png, 001.png, ... of 16 x 16 pixels."""

    def make(folder: Path, count: int) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(3)
        paths = [folder / f"{number:03d}.png" for number in range(count)]
        for path in paths:
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(path)
        return paths

    return make


@pytest.fixture
def builder_sources(
    make_pictures: Callable[..., list[Path]],
    write_lines: Callable[..., Path],
    sentences: list[str],
    tmp_path: Path,
) -> Callable[[int, int], dict[str, Path]]:
    """For each builder a source in ``tmp_path / "in"``; the last line of each file is broken."""

    def make(pictures: int, texts: int) -> dict[str, Path]:
        folder = tmp_path / "in" / "p"
        paths = make_pictures(folder, pictures)
        written = [{"text": f"{n} {text}"} for n in range(texts) for text in sentences]
        pairs = [{"image": path.name, "captions": sentences[:2]} for path in paths]
        return {
            "text": write_lines(tmp_path / "in" / "texts.jsonl", [*written, b"{"]),
            "images": folder,
            "pairs": write_lines(folder / "pairs.jsonl", [*pairs, b"{"]),
        }

    return make


@pytest.fixture
def read_rows() -> Callable[[Path], list[dict[str, Any]]]:
    """All rows of a corpus, in order."""

    def read(folder: Path) -> list[dict[str, Any]]:
        shards = [read_shard(folder / shard.name) for shard in read_manifest(folder).shards]
        return pa.concat_tables(shards).to_pylist()

    return read


@pytest.fixture
def quarantine() -> Callable[[Path], list[dict[str, Any]]]:
    """The lines of a corpus's quarantine."""

    def read(folder: Path) -> list[dict[str, Any]]:
        lines = (folder / "quarantine.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]

    return read


@pytest.fixture
def contents() -> Callable[[Path], dict[str, object]]:
    """File -> bytes of a folder; manifests without their command, which names it, and digest."""

    def read(folder: Path) -> dict[str, object]:
        found: dict[str, object] = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = str(path.relative_to(folder))
                found[name] = path.read_bytes()
                if path.name == "manifest.json":
                    manifest = json.loads(path.read_text()) | {"command": None, "digest": None}
                    for told in manifest["stages"].values():
                        told["command"] = None
                    found[name] = manifest
        return found

    return read
