"""Writes the raw demo corpus: pictures, captions and prose, all of it a function of the seed."""

import json
from collections.abc import Mapping, Sequence
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
    ``texts/prose.jsonl``.

    Raises:
        ValueError: ``folder`` is not empty, or the world has not so many scenes.
    """
    if folder.exists() and any(folder.iterdir()):
        raise ValueError(f"{folder} is not empty: name a new folder for the demo corpus")
    plan = {
        TRAIN: (size.pairs, folder / "pairs" / TRAIN),
        HELDOUT: (size.heldout, folder / "pairs" / HELDOUT),
        IMAGES: (size.images, folder / "images"),
    }
    tasks = []
    for purpose, (count, pictures) in plan.items():
        pictures.mkdir(parents=True)
        found = scenes(seed, purpose, count)
        tasks += [
            _Pictures(pictures, purpose, first, found[first : first + _CHUNK])
            for first in range(0, count, _CHUNK)
        ]
        if purpose != IMAGES:
            _write_lines(folder / "pairs" / f"{purpose}.jsonl", _pair_lines(seed, purpose, found))
    prose = [
        {"id": f"prose-{i:05d}", "text": paragraph(generator(seed, PROSE, i))}
        for i in range(size.texts)
    ]
    _write_lines(folder / "texts" / "prose.jsonl", prose)
    for _ in run_tasks(partial(_draw, seed), tasks, workers):
        pass


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
