"""The corpora of the demo ablation, made by `unimo-prep` from one world."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

READY_NAME = "ready.json"
SCARCE, PLENTY = "scarce", "plenty"
HELDOUT = "heldout"


class WorldSize(NamedTuple):
    """How many of each the world has; the scarce pairs are the first of the plenty."""

    scarce: int = 200
    plenty: int = 4000
    heldout: int = 200  # more of them would share pairs of coloured shapes
    images: int = 3000
    texts: int = 3000
    seed: int = 7


class World(NamedTuple):
    """Where things are."""

    folder: Path

    @property
    def tokenizer(self) -> str:
        return str(self.folder / "tokenizer.json")

    def corpus(self, name: str) -> str:
        return str(self.folder / name)


def build_world(folder: Path, size: WorldSize, told: Callable[[str], None]) -> World:
    """The corpora in ``folder``: texts, images, and scarce, plenty and heldout pairs with columns.

    What an earlier call has made is taken as it is.

    Raises:
        ValueError: a command failed, or the folder holds a world of another size.
    """
    world = World(folder)
    ready = folder / READY_NAME
    if ready.is_file():
        theirs = json.loads(ready.read_text(encoding="utf-8"))
        if theirs != size._asdict():
            raise ValueError(
                f"{folder} holds a world of {theirs}, asked for is {size._asdict()}: name a new "
                "folder with --out"
            )
        return world
    for command in _commands(world, size):
        told(" ".join(["unimo-prep", *command[:2]]))
        _prepare(command, world, size)
    ready.write_text(json.dumps(size._asdict()) + "\n", encoding="utf-8")
    return world


def _commands(world: World, size: WorldSize) -> list[list[str]]:
    raw, at = world.folder / "raw", world.corpus
    words = ["--tokenizer", world.tokenizer, "--max-tokens", "126"]
    # A region is the picture's quarter: one thing each, and a short sequence.
    pixels = ["--regions", "pixels", "--grid", "2", "--patch", "16", "--num-classes", "64"]
    # Unpaired images alone make the visual words, so that no size knows more of them.
    shared = [*pixels, "--visual-words", str(world.folder / "images" / "visual_words.npy")]
    prose, train = str(raw / "texts" / "prose.jsonl"), raw / "pairs" / "train.jsonl"
    counts = [f"--{name}" for name in ("pairs", "heldout", "images", "texts", "seed")]
    values = (size.plenty, size.heldout, size.images, size.texts, size.seed)
    numbers = [part for pair in zip(counts, map(str, values), strict=True) for part in pair]
    sources = {PLENTY: train, SCARCE: raw / "pairs" / "scarce.jsonl"}
    sources[HELDOUT] = raw / "pairs" / "heldout.jsonl"
    rewrite = ["--tokenizer", world.tokenizer, "--paraphrase", "demo"]
    unpaired = ["--texts", at("texts"), "--images", at("images"), "--tokenizer", world.tokenizer]
    return [
        ["demo", str(raw), *numbers],
        ["tokenizer", world.tokenizer, prose, str(train), "--vocab-size", "640"],
        ["text", at("texts"), prose, *words],
        ["images", at("images"), str(raw / "images"), *pixels],
        *(["pairs", at(name), str(file), *words, *shared] for name, file in sources.items()),
        *(["rewrite", at(name), *rewrite] for name in (PLENTY, SCARCE)),
        ["rewrite", at(HELDOUT), *rewrite, "--per-caption", "1"],
        *(["retrieve", at(name), *unpaired] for name in (PLENTY, SCARCE)),
    ]


_WHOLE = ("demo", "tokenizer")
"""Commands whose output is there wholly or not at all; the others go on with --resume."""


def _prepare(command: list[str], world: World, size: WorldSize) -> None:
    whole = command[0] in _WHOLE
    if not (whole and Path(command[1]).exists()):
        line = [sys.executable, "-m", "data_prep.cli.main", *command]
        ran = subprocess.run(line if whole else [*line, "--resume"], capture_output=True, text=True)
        if ran.returncode:
            raise ValueError(f"unimo-prep {' '.join(command)} failed:\n{ran.stderr.strip()}")
    if command[0] == "demo":
        pairs = world.folder / "raw" / "pairs"
        lines = (pairs / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        (pairs / "scarce.jsonl").write_text("".join(lines[: size.scarce]), encoding="utf-8")
