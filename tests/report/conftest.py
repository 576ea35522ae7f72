"""A tiny run, a tiny corpus of coloured squares and a tiny model, for the report's tests."""

import hashlib
import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image, ImageDraw

from unimo_ds.config import RunConfig
from unimo_ds.data.schema import (
    IMAGE_SCHEMA,
    IMAGES,
    IMAGES_FOLDER,
    MANIFEST_NAME,
    PAIR_SCHEMA,
    PAIRS,
    Manifest,
    RegionSource,
    ShardRecord,
)
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.modeling import UnimoForConditionalGeneration, UnimoForImageTextRetrieval
from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import WordTokenizer, train_tokenizer

GRID = PixelGrid(grid=4, patch=8)
COLOURS = ("red", "green", "blue", "black")
SHAPES = ("circle", "square")
NUM_PAIRS = 30
KEPT = 2


class Files(NamedTuple):
    """What the report reads."""

    run: Path
    model: Path
    pairs: Path
    scenes: Path


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("report")
    scenes = make_scenes()
    texts = [text for scene in scenes for text in scene["captions"]]
    tokenizer = train_tokenizer(texts, 320)
    tokenizer.save(folder / "model" / "tokenizer.json")
    write_pairs(folder / "pairs", scenes, tokenizer)
    lines = "".join(json.dumps(scene) + "\n" for scene in scenes)
    (folder / "heldout.jsonl").write_text(lines, encoding="utf-8")
    write_model(folder / "model", tokenizer.vocab_size)
    write_run(folder / "run", folder / "pairs")
    return Files(folder / "run", folder / "model", folder / "pairs", folder / "heldout.jsonl")


def make_scenes() -> list[dict]:
    rng = np.random.default_rng(7)
    scenes = []
    for i in range(NUM_PAIRS):
        things = [(str(rng.choice(COLOURS)), str(rng.choice(SHAPES))) for _ in range(2)]
        names = [" ".join(thing) for thing in things]
        captions = [
            f"a {names[0]} is left of a {names[1]}.",
            f"we see a {names[1]} & a {names[0]}.",
        ]
        objects = [{"colour": colour, "shape": shape} for colour, shape in things]
        scenes.append(
            {"image": f"heldout/{i:05d}.png", "captions": captions, "scene": {"objects": objects}}
        )
    return scenes


def draw(scene: dict) -> Image.Image:
    picture = Image.new("RGB", (GRID.side, GRID.side), "lightgrey")
    pen = ImageDraw.Draw(picture)
    for i, thing in enumerate(scene["scene"]["objects"]):
        corners = (16 * i + 2, 9, 16 * i + 14, 22)
        (pen.ellipse if thing["shape"] == "circle" else pen.rectangle)(
            corners, fill=thing["colour"]
        )
    return picture


def write_pairs(folder: Path, scenes: list[dict], tokenizer: WordTokenizer) -> None:
    source = RegionSource(
        name="pixels",
        feature_size=GRID.feature_size,
        num_classes=8,
        kept_classes=KEPT,
        max_regions=GRID.num_regions,
        parameters={"grid": GRID.grid, "patch": GRID.patch},
    )
    count, regions = len(scenes), GRID.num_regions
    images = {
        "id": [f"{i:05d}" for i in range(count)],
        "width": [GRID.side] * count,
        "height": [GRID.side] * count,
        "num_regions": [regions] * count,
        "features": [GRID.features(draw(s)).astype(np.float16).ravel() for s in scenes],
        "boxes": [GRID.boxes().ravel()] * count,
        "class_ids": [np.zeros(regions * KEPT, np.uint16)] * count,
        "class_probs": [np.full(regions * KEPT, 0.5, np.float16)] * count,
    }
    write_corpus(folder / IMAGES_FOLDER, IMAGES, pa.table(images, schema=IMAGE_SCHEMA), source)
    pairs = {
        "id": [f"heldout/{i:05d}.png" for i in range(count)],
        "image_id": images["id"],
        "image_row": list(range(count)),
        "captions": [tokenizer.encode(s["captions"]) for s in scenes],
        "caption_texts": [s["captions"] for s in scenes],
    }
    table = pa.table(pairs, schema=PAIR_SCHEMA)
    write_corpus(folder, PAIRS, table, source, tokenizer.fingerprint, IMAGES_FOLDER)


def write_corpus(
    folder: Path,
    kind: str,
    table: pa.Table,
    source: RegionSource,
    tokenizer: str = "",
    images: str = "",
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    shard, lengths = folder / f"{kind}-00000.arrow", folder / f"{kind}-00000.lengths.npy"
    with pa.OSFile(str(shard), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    np.save(lengths, np.full(len(table), GRID.num_regions, np.int32))
    record = ShardRecord(
        name=shard.name,
        rows=len(table),
        bytes=shard.stat().st_size,
        sha256=hashlib.sha256(shard.read_bytes()).hexdigest(),
        lengths=lengths.name,
        lengths_sha256=hashlib.sha256(lengths.read_bytes()).hexdigest(),
        length_sum=GRID.num_regions * len(table),
    )
    manifest = Manifest(
        kind=kind,
        rows=len(table),
        shards=[record],
        quarantined={},
        command=["made by a test"],
        seed=1,
        tokenizer=tokenizer,
        regions=source,
        images=images,
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")


def write_model(folder: Path, vocab_size: int) -> None:
    torch.manual_seed(3)
    config = UnimoConfig(
        vocab_size=vocab_size,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=128,
        max_position_embeddings=66,
        image_feature_size=GRID.feature_size,
        image_class_size=8,
        initializer_range=0.2,
    )
    tensors = UnimoForImageTextRetrieval(config).state_dict()
    written = UnimoForConditionalGeneration(config)
    tensors |= written.state_dict()
    written.save_pretrained(folder, state_dict=tensors)


def write_run(folder: Path, pairs: Path) -> None:
    folder.mkdir()
    values = json.loads(RunConfig(name="tiny <run>").to_json())
    values["data"]["heldout_pairs"] = [str(pairs)]
    values["train"]["steps"] = 600
    (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")
    (folder / "command.txt").write_text("deepspeed --module unimo_ds.pretrain tiny.toml\n")
    rng = np.random.default_rng(1)
    train = [train_line(step, rng) for step in range(10, 610, 10)]
    heldout = [heldout_line(step) for step in range(100, 700, 100)]
    text = "".join(json.dumps(line) + "\n" for line in train + heldout)
    (folder / "metrics.jsonl").write_text(text, encoding="utf-8")


def train_line(step: int, rng: np.random.Generator) -> dict:
    fall = np.exp(-step / 200)
    losses = {"mlm": 6 * fall + 0.8, "seq2seq": 6 * fall + 0.6, "mrfr": 5e2 * fall + 1}
    losses |= {"mrc": 2 * fall + 1, "cmcl": 4 * fall + 0.2}
    line = {"type": "train", "step": step, "seconds": step * 0.3, "loss": sum(losses.values())}
    for name, value in losses.items():
        line[f"loss/{name}"] = float(value * rng.normal(1, 0.06))
    for name in ("mlm", "seq2seq", "mrc", "cmcl"):
        line[f"accuracy/{name}"] = float(np.clip((1 - fall) * rng.normal(0.9, 0.05), 0, 1))
    line |= {"lr": 1e-3 * min(1, step / 60) * (1 - step / 660), "grad_norm": float(3 * fall + 0.3)}
    line |= {"tokens_per_second": float(rng.normal(9000, 500)), "samples_per_second": 120.0}
    line |= {"mfu": 0.21, "data_wait": 0.004, "packing": 0.93, "memory_gib": 1.5}
    return line


def heldout_line(step: int) -> dict:
    reach = 1 - np.exp(-step / 300)
    line = {"type": "heldout", "step": step, "seconds": step * 0.3 + 1, "candidates": 200}
    for k, most in ((1, 0.7), (5, 0.85), (10, 0.95)):
        line[f"image_to_text_r{k}"] = float(most * reach)
        line[f"text_to_image_r{k}"] = float(most * reach * 0.95)
    for name in ("mlm", "seq2seq", "mrfr", "mrc", "cmcl"):
        line[f"loss/{name}"] = float(5 * (1 - reach) + 1)
    line |= {"accuracy/mlm": float(reach * 0.8), "accuracy/mrc": None}
    return line
