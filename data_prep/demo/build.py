"""Writes the raw demo corpus: pictures, captions and prose, all of it a function of the seed."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_prep.demo.language import captions
from data_prep.demo.prose import paragraph
from data_prep.demo.render import render
from data_prep.demo.world import HELDOUT, IMAGES, PROSE, TRAIN, Scene, generator, scenes
from data_prep.pool import run_tasks

_CHUNK = 256  # pictures a task


class DemoSize(NamedTuple):
    """How many of each there are."""

    pairs: int
    heldout: int
    images: int
    texts: int


class _Pictures(NamedTuple):
    folder: Path
    purpose: str
    first: int
    scenes: list[Scene]


def build_demo(folder: Path, size: DemoSize, seed: int, workers: int) -> None:
    """Fills ``folder``: ``pairs/{train,heldout}.jsonl`` and their pictures, ``images/*.png``,
    ``texts/prose.jsonl``. It gets its name when it is whole.

    Raises:
        ValueError: ``folder`` is not empty, or the world has not so many scenes.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder for the demo corpus")
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    tasks = [
        *_plan(unfinished / "pairs" / TRAIN, TRAIN, size.pairs, seed),
        *_plan(unfinished / "pairs" / HELDOUT, HELDOUT, size.heldout, seed),
        *_plan(unfinished / "images", IMAGES, size.images, seed),
    ]
    numbers = range(size.texts)
    prose = [
        {"id": f"prose-{i:05d}", "text": paragraph(generator(seed, PROSE, i))} for i in numbers
    ]
    _write_lines(unfinished / "texts" / "prose.jsonl", prose)
    for _ in run_tasks(partial(_draw, seed), tasks, workers):
        pass
    os.replace(unfinished, folder)


def _plan(folder: Path, purpose: str, count: int, seed: int) -> Iterator[_Pictures]:
    """What is to be drawn into ``folder``; its captions, if it has any, are written at once."""
    folder.mkdir(parents=True)
    found = scenes(seed, purpose, count)
    if purpose != IMAGES:
        _write_lines(folder.with_suffix(".jsonl"), _pair_lines(seed, purpose, found))
    for first in range(0, count, _CHUNK):
        yield _Pictures(folder, purpose, first, found[first : first + _CHUNK])


def _pair_lines(seed: int, purpose: str, found: list[Scene]) -> list[dict[str, object]]:
    return [
        {
            "image": f"{purpose}/{index:05d}.png",
            "captions": captions(scene, generator(seed, purpose, index, 0, 2)),
            "scene": scene.to_json(),
        }
        for index, scene in enumerate(found)
    ]


def _draw(seed: int, pictures: _Pictures) -> None:
    for index, scene in enumerate(pictures.scenes, pictures.first):
        picture = render(scene, generator(seed, pictures.purpose, index, 0, 1))
        picture.save(pictures.folder / f"{index:05d}.png")


def _write_lines(path: Path, values: Sequence[Mapping[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (json.dumps(value, ensure_ascii=False) + "\n" for value in values)
    path.write_text("".join(lines), encoding="utf-8")
