"""Small demo corpora: pairs in eight shards, and what may be retrieved for them."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.conftest import prep as run_prep


class Small(NamedTuple):
    """Folders of corpora that belong together."""

    pairs: Path
    texts: Path
    images: Path
    tokenizer: Path


@pytest.fixture(scope="session")
def built(corpora: Path, tmp_path_factory: pytest.TempPathFactory) -> Small:
    """Built once; nobody writes into it."""
    folder = tmp_path_factory.mktemp("stages")
    words = corpora / "tokenizer.json"
    shared = ("--visual-words", corpora / "pairs" / "images" / "visual_words.npy")
    pixels = ("--grid", 4, "--patch", 8, "--num-classes", 16, *shared)
    text = ("--tokenizer", words, "--max-tokens", 126, "--rows-per-shard", 8)
    run_prep("pairs", folder / "pairs", corpora / "raw/pairs/train.jsonl", *text, *pixels)
    return Small(folder / "pairs", corpora / "texts", corpora / "images", words)


@pytest.fixture
def small(built: Small, tmp_path: Path) -> Small:
    """A copy of the pairs to work on."""
    shutil.copytree(built.pairs, tmp_path / "pairs")
    return built._replace(pairs=tmp_path / "pairs")


@pytest.fixture
def copied(built: Small, tmp_path: Path) -> Callable[[str], Path]:
    """Further copies, by name."""

    def copy(name: str) -> Path:
        shutil.copytree(built.pairs, tmp_path / name)
        return tmp_path / name

    return copy
