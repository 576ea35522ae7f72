"""How fast corpora are built, beside a plain loop and beside the libraries that do the work.

    python -m benchmarks.building [--megabytes 20] [--photos 3000]

Text: MB/s of UTF-8 out of a .jsonl into rows of tokens, as `unimo-prep text` makes them, as a plain
loop over `tokenizers` does it, and `tokenizers`' own batch alone, which is the limit that is asked
for. Pictures: photos a second into regions with 1,601 visual words, beside a plain loop and beside
Pillow's decoding and resizing alone. Every number comes from as many processes as there are cores;
runs take turns, medians are told. UNIMO_REAL_DATA names real texts and photos; without it they are
made up. Writes benchmarks/building.json and prints a table.
"""

import argparse
import io
import json
import lzma
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image
from tokenizers import Tokenizer

from data_prep.engine import Options
from data_prep.images import Images, build_images
from data_prep.pool import default_workers
from data_prep.readers.formats import find_sources
from data_prep.readers.pairs import read_pictures
from data_prep.readers.text import DocumentReader
from data_prep.regions.plan import RegionPlan
from data_prep.sentences import sentences
from data_prep.texts import build_texts
from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import load_tokenizer, train_tokenizer

ROOT = Path(__file__).parents[1]
REPEATS = 3
MAX_TOKENS = 510
SIDES = {"224 x 224": (224, 224), "640 x 480": (640, 480)}
Numbers = dict[str, float]


def write_texts(path: Path, megabytes: float) -> None:
    """Articles, or sentences of made-up words whose frequencies fall as those of English do."""
    real = os.environ.get("UNIMO_REAL_DATA")
    size = 0
    with path.open("w", encoding="utf-8") as file:
        for text in _articles(Path(real)) if real else _made_up():
            file.write(json.dumps({"text": text}) + "\n")
            size += len(text.encode())
            if size >= megabytes * 1e6:
                return


def _articles(data: Path) -> Iterable[str]:
    with lzma.open(data / "text" / "wikipedia_en.jsonl.xz", "rt") as lines:
        yield from (json.loads(line)["text"] for line in lines)


def _made_up() -> Iterable[str]:
    rng = np.random.default_rng(1)
    letters = np.array(list("etaoinshrdlu"))
    words = ["".join(rng.choice(letters, 2 + rank % 9)) for rank in range(60_000)]
    share = 1 / np.arange(1, len(words) + 1)
    while True:
        chosen = rng.choice(words, 400, p=share / share.sum())
        yield ". ".join(" ".join(chosen[k : k + 16]) for k in range(0, 400, 16)) + "."


def write_photos(folder: Path, count: int, size: tuple[int, int]) -> None:
    """Photos of that size as JPEG, or smooth noise."""
    folder.mkdir()
    real = os.environ.get("UNIMO_REAL_DATA")
    photos = sorted((Path(real) / "flickr8k" / "images").glob("*.jpg"))[:count] if real else []
    rng = np.random.default_rng(1)
    for number in range(count):
        if photos:
            picture = Image.open(photos[number % len(photos)]).convert("RGB")
        else:
            picture = Image.fromarray(rng.integers(0, 256, (56, 56, 3), dtype=np.uint8))
        picture.resize(size, Image.Resampling.BICUBIC).save(
            folder / f"{number:05d}.jpg", quality=90
        )


def tokenize_batch(tokenizer: Path, texts: list[str]) -> int:
    """`tokenizers`' own batch and nothing else."""
    encodings = Tokenizer.from_file(str(tokenizer)).encode_batch(texts, add_special_tokens=False)
    return len(encodings)


def plain_texts(tokenizer: Path, source: Path, out: Path) -> None:
    """One process, one document after the other, with the same rows."""
    words = load_tokenizer(tokenizer)
    rows: list[list[int]] = []
    with source.open() as lines:
        for line in lines:
            row: list[int] = []
            for ids in words.encode(sentences(json.loads(line)["text"])):
                if len(row) + len(ids) > MAX_TOKENS:
                    rows.append(row)
                    row = []
                row = row + ids
            rows.append(row)
    table = pa.table({"tokens": pa.array(rows, pa.list_(pa.uint16()))})
    with pa.ipc.new_file(str(out), table.schema) as writer:
        writer.write_table(table)


def decode_and_resize(paths: list[Path]) -> int:
    """Pillow and nothing else."""
    side = PixelGrid().side
    for path in paths:
        with Image.open(path) as picture:
            picture.convert("RGB").resize((side, side), Image.Resampling.BILINEAR)
    return len(paths)


def plain_photos(paths: list[Path], words: np.ndarray, out: Path) -> None:
    """One process, one photo after the other, compared with all words, and the same columns."""
    grid, squares = PixelGrid(), np.square(words).sum(axis=1)
    features, classes = [], []
    for path in paths:
        with Image.open(io.BytesIO(path.read_bytes())) as picture:
            found = grid.features(picture)
        features.append(found.astype(np.float16).reshape(-1))
        classes.append((squares - 2 * found @ words.T).argmin(axis=1))
    table = pa.table({"features": features, "classes": classes})
    with pa.ipc.new_file(str(out), table.schema) as writer:
        writer.write_table(table)


def medians(runs: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Seconds of each, in turns, so that a busy moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def bench_text(folder: Path, megabytes: float, pool: ProcessPoolExecutor) -> Numbers:
    workers = default_workers()
    source, file = folder / "texts.jsonl", folder / "tokenizer.json"
    write_texts(source, megabytes)
    texts = [json.loads(line)["text"] for line in source.open()]
    size = sum(len(text.encode()) for text in texts) / 1e6
    real = os.environ.get("UNIMO_REAL_DATA")
    made = (
        load_tokenizer(Path(real) / "tokenizer" / "hf_roberta")
        if real
        else train_tokenizer(texts[:2000], 8000)
    )
    made.save(file)
    parts = [texts[k::workers] for k in range(workers)]
    number = iter(range(10**6))

    def ours() -> None:
        options = Options(command=[], workers=workers)
        build_texts(folder / f"t{next(number)}", DocumentReader([source]), str(file), options)

    seconds = medians(
        {
            "unimo-prep text": ours,
            "tokenizers, batch alone": lambda: list(
                pool.map(tokenize_batch, [file] * workers, parts)
            ),
            "plain loop": lambda: plain_texts(file, source, folder / "plain.arrow"),
        }
    )
    return {f"text: {name}, MB/s": size / value for name, value in seconds.items()}


def bench_photos(folder: Path, count: int, name: str, pool: ProcessPoolExecutor) -> Numbers:
    workers = default_workers()
    photos = folder / name.replace(" ", "")
    write_photos(photos, count, SIDES[name])
    paths = sorted(photos.iterdir())
    words_path = folder / "visual_words.npy"
    if not words_path.exists():
        np.save(words_path, _words(paths))
    words = np.load(words_path)
    number = iter(range(10**6))

    def ours() -> None:
        pictures = read_pictures(find_sources([photos]))
        found = Images(pictures.records, pictures.bad)
        plan = RegionPlan(visual_words=words_path, rows_per_shard=-(-count // (2 * workers)))
        out = folder / f"{photos.name}-{next(number)}"
        build_images(out, found, plan, Options(command=[], workers=workers))

    parts = [paths[k::workers] for k in range(workers)]
    seconds = medians(
        {
            "unimo-prep images": ours,
            "Pillow, decode and resize alone": lambda: list(pool.map(decode_and_resize, parts)),
            "plain loop": lambda: plain_photos(paths, words, folder / "plain.arrow"),
        }
    )
    return {f"{name}: {what}, photos/s": count / value for what, value in seconds.items()}


def _words(paths: list[Path]) -> np.ndarray:
    """float32 [1601, F]: patches, and means of those next to them, as k-means would end near."""
    grid, rng = PixelGrid(), np.random.default_rng(1)
    patches = np.concatenate([grid.features(Image.open(path)) for path in paths[:200]])
    words = patches[rng.choice(len(patches), 1601, replace=len(patches) < 1601)]
    near = (np.square(words).sum(axis=1) - 2 * patches @ words.T).argmin(axis=1)
    sums, counts = np.zeros_like(words), np.bincount(near, minlength=len(words))[:, None]
    np.add.at(sums, near, patches)
    return np.where(counts, sums / counts.clip(min=1), words).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--megabytes", type=float, default=20)
    parser.add_argument("--photos", type=int, default=3000)
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    with (
        tempfile.TemporaryDirectory() as name,
        ProcessPoolExecutor(default_workers(), get_context("spawn")) as pool,
    ):
        load = os.getloadavg()[0]
        numbers = bench_text(Path(name), options.megabytes, pool)
        for side in SIDES:
            numbers |= bench_photos(Path(name), options.photos, side, pool)
    about = {"cores": default_workers(), "load_before": load, "date": time.strftime("%Y-%m-%d")}
    path = ROOT / "benchmarks" / "building.json"
    path.write_text(json.dumps(about | {"numbers": numbers}, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write("\n".join(f"| {name} | {value:,.3g} |" for name, value in numbers.items()))
    sys.stdout.write(f"\n\n{about}\n")


if __name__ == "__main__":
    main()
