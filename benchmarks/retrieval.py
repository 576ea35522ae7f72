"""What retrieval costs for each pair, text and image, phase by phase; what inverted lists lose.

    UNIMO_REAL_DATA=... python -m benchmarks.retrieval [--pairs 10000] [--rows 100000]

Pairs with a real caption each and 100,000 other real captions as texts [multi30k and COCO val2017
captions]; images of made-up regions (10 regions, 8 of 1,601 classes each, drawn around 500 themes).
The whole of `unimo-prep retrieve`, start-up included, then its phases in one process. Writes
benchmarks/retrieval.json and prints a table.
"""

import argparse
import json
import lzma
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.corpora import made_up_tokenizer
from data_prep.pool import default_workers
from data_prep.retrieve.image_vectors import CLASSES, fit_projection, raw_vectors
from data_prep.retrieve.index import FLAT, IVF, build_index, search
from data_prep.retrieve.text_vectors import fit_analysis
from data_prep.writer import read_batches, write_bytes, write_shard
from unimo_ds.data.schema import (
    IMAGES,
    IMAGES_FOLDER,
    MANIFEST_NAME,
    PAIRS,
    TEXTS,
    Manifest,
    RegionSource,
    read_manifest,
)
from unimo_ds.tokenizer import WordTokenizer, load_tokenizer

OUT = Path(__file__).with_suffix(".json")
SOURCE = RegionSource(
    name="precomputed", feature_size=64, num_classes=1601, kept_classes=8, max_regions=10
)
_ROWS_PER_SHARD = 16_384
_THEMES = 500
Numbers = dict[str, float]


def real_captions() -> Iterator[str]:
    """142,299 captions, or made-up ones without real data."""
    real = os.environ.get("UNIMO_REAL_DATA")
    if real:
        path = Path(real) / "text" / "captions_without_images.tsv.xz"
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield line.rstrip("\n").split("\t", 1)[1]
        return
    words, rng = made_up_tokenizer(5000), np.random.default_rng(1)
    while True:
        yield words.decode(rng.integers(4, 4000, 12))


def write(folder: Path, kind: str, rows: Iterator[dict[str, Any]], **about: Any) -> None:
    """A corpus of ``rows``."""
    folder.mkdir(parents=True)
    shards = []
    while shard := write_shard(
        folder, f"{kind}-{len(shards):05d}.arrow", kind, islice(rows, _ROWS_PER_SHARD)
    ):
        shards.append(shard)
    total = sum(shard.rows for shard in shards)
    manifest = Manifest(
        kind=kind,
        rows=total,
        shards=shards,
        quarantined={},
        command=["benchmarks"],
        seed=0,
        **about,
    )
    write_bytes(folder / MANIFEST_NAME, manifest.to_json().encode())


def images(count: int, name: str, rng: np.random.Generator) -> Iterator[dict[str, Any]]:
    """Regions whose classes are drawn around one theme an image."""
    themes = np.random.default_rng(7).integers(0, 1601, (_THEMES, 24), dtype=np.uint16)
    for number in range(count):
        theme = themes[number % _THEMES]
        ids = np.where(
            rng.random(80) < 0.7, theme[rng.integers(24, size=80)], rng.integers(1601, size=80)
        )
        yield {
            "id": f"{name}{number}",
            "width": 640,
            "height": 480,
            "num_regions": 10,
            "features": rng.random(640, np.float32).astype(np.float16),
            "boxes": np.tile(np.float32([0, 0, 1, 1, 1]), 10),
            "class_ids": ids.astype(np.uint16),
            "class_probs": np.full(80, 1 / 8, np.float16),
        }


def write_corpora(folder: Path, words: WordTokenizer, pairs: int, rows: int) -> None:
    """Fills ``folder`` with pairs, texts and images."""
    captions = list(islice(real_captions(), pairs + rows))
    ids = words.encode(captions)
    texts = ({"id": f"t{n}", "tokens": ids[pairs + n]} for n in range(len(ids) - pairs))
    told = {"tokenizer": words.fingerprint, "max_tokens": 510}
    write(folder / "texts", TEXTS, texts, **told)
    rng = np.random.default_rng(3)
    write(folder / "images", IMAGES, images(rows, "i", rng), regions=SOURCE)
    write(folder / "pairs" / IMAGES_FOLDER, IMAGES, images(pairs, "p", rng), regions=SOURCE)
    entries = (
        {
            "id": f"p{n}",
            "image_id": f"p{n}",
            "image_row": n,
            "captions": [ids[n]],
            "caption_texts": [captions[n]],
        }
        for n in range(pairs)
    )
    inner = folder / "pairs"
    (inner / "made").mkdir()
    write(inner / "made" / "x", PAIRS, entries, images=IMAGES_FOLDER, regions=SOURCE, **told)
    for path in (inner / "made" / "x").iterdir():
        path.rename(inner / path.name)
    (inner / "made" / "x").rmdir()
    (inner / "made").rmdir()


def whole(folder: Path, tokenizer: Path) -> Numbers:
    """Seconds of the command for texts alone, images alone and both."""
    numbers = {}
    for name, kinds in (
        ("texts", ("texts",)),
        ("images", ("images",)),
        ("both", ("texts", "images")),
    ):
        options = [part for kind in kinds for part in (f"--{kind}", folder / kind)]
        command = [sys.executable, "-m", "data_prep.cli.main", "retrieve", folder / "pairs"]
        command += ["--tokenizer", tokenizer, *options, "--replace"]
        began = time.perf_counter()
        done = subprocess.run([*map(str, command)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(done.stderr)
        numbers[f"whole command, {name}, s"] = time.perf_counter() - began
    return numbers


def timed(numbers: Numbers, name: str, count: int, run: Callable[[], Any]) -> Any:
    """Processor milliseconds of one process for each of ``count``."""
    began = time.process_time()
    result = run()
    numbers[f"{name}, ms each"] = 1e3 * (time.process_time() - began) / count
    return result


def phases(folder: Path, words: WordTokenizer) -> Numbers:
    """What each step costs, and the recall of inverted lists against the exact index."""
    numbers: Numbers = {}
    work = folder / "work"
    work.mkdir()
    shards = [folder / "texts" / s.name for s in read_manifest(folder / "texts").shards]
    ids = [row for s in shards for b in read_batches(s) for row in b.column("tokens").to_pylist()]
    texts = timed(numbers, "text: decoding", len(ids), lambda: words.decode_batch(ids))
    model = timed(numbers, "text: fitting", len(ids), lambda: fit_analysis(work, texts, 256, 1))
    vectors = timed(numbers, "text: vector", len(ids), lambda: model.vectors(texts))
    image_shards = [folder / "images" / s.name for s in read_manifest(folder / "images").shards]
    batches: list[pa.RecordBatch] = [b for s in image_shards for b in read_batches(s)]
    total = sum(batch.num_rows for batch in batches)
    raw = timed(
        numbers,
        "image: classes",
        total,
        lambda: np.concatenate([raw_vectors(b, SOURCE, CLASSES) for b in batches]),
    )
    project = timed(
        numbers, "image: fitting", 20_000, lambda: fit_projection(raw[:20_000], 256, CLASSES)
    )
    of_images = timed(numbers, "image: projection", total, lambda: project(raw))
    for kind, rows in (("text", vectors), ("image", of_images)):
        np.save(work / f"{kind}.npy", rows)
        queries = rows[:: max(1, len(rows) // 2000)]
        found = {}
        for index in (FLAT, IVF):
            path = work / f"{kind}.{index}"
            name = f"{kind}: index {index}"
            timed(
                numbers,
                name,
                len(rows),
                lambda p=path, i=index, k=kind: build_index(p, [work / f"{k}.npy"], i, 1),
            )
            found[index] = timed(
                numbers,
                f"{kind}: search {index}, one query",
                len(queries),
                lambda p=path, q=queries: search(p, q, 10),
            )
            numbers[f"{name}, bytes a row"] = path.stat().st_size / len(rows)
        exact, listed = (found[index].rows.tolist() for index in (FLAT, IVF))
        hits = [len({*a} & {*b}) for a, b in zip(exact, listed, strict=True)]
        numbers[f"{kind}: recall@10 of ivf"] = float(np.mean(hits)) / 10
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--rows", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        real = os.environ.get("UNIMO_REAL_DATA")
        if real:
            words = load_tokenizer(Path(real) / "tokenizer" / "hf_roberta")
        else:
            words = made_up_tokenizer(5000)
        words.save(folder / "tokenizer.json")
        words = load_tokenizer(folder / "tokenizer.json")
        write_corpora(folder, words, options.pairs, options.rows)
        numbers = whole(folder, folder / "tokenizer.json") | phases(folder, words)
    about = {
        "command": " ".join(["python -m benchmarks.retrieval", *sys.argv[1:]]),
        "date": time.strftime("%Y-%m-%d"),
        "cores": default_workers(),
        "load": os.getloadavg(),
        "python": platform.python_version(),
        "faiss": version("faiss-cpu"),
        "scikit-learn": version("scikit-learn"),
        "real captions": bool(real),
    }
    OUT.write_text(json.dumps(about | {"numbers": numbers}, indent=1) + "\n", encoding="utf-8")
    print("| what | |\n|---|---|")
    print("\n".join(f"| {name} | {value:,.4g} |" for name, value in numbers.items()))


if __name__ == "__main__":
    main()
