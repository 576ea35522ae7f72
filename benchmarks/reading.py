"""Reading rows of regions: our shards beside raw numpy, `datasets` and webdataset, in one run.

    python -m benchmarks.reading [--gib 1]

The same rows lie in all stores and the same work is done with each: the features (36 x 2048
float16) and boxes of a row are copied into a batch that is there already, as training does. Every
repeat times all stores, each time in another order, in processor seconds, which other processes
disturb least: nothing waits for a disk, as every store was read before. webdataset streams: it has
no random row.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import datasets
import numpy as np
import pyarrow as pa
import webdataset

from benchmarks.corpora import FEATURES, write_images
from unimo_ds.data.shards import ImageCorpus, open_corpus

REGIONS = 36
BATCH = 32  # rows of what is copied into
REPEATS = 15
SECONDS = 0.1  # about what a store reads in a repeat
WARM_UP_SECONDS = 4  # enough for all rows, but of stores so slow that a missing page matters little
PAGE = 4096
ROW_BYTES = REGIONS * (2 * FEATURES + 4 * 5)
OURS, MEMMAP = "unimo_ds shards", "numpy memmap"


class Batch(NamedTuple):
    """What rows are copied into."""

    features: np.ndarray  # float16 [BATCH, R, F]
    boxes: np.ndarray  # float32 [BATCH, R, 5]


Read = Callable[[Sequence[int], Batch], None]


class Store(NamedTuple):
    """Reads the rows of given numbers into a batch."""

    name: str
    read: Read
    random: bool = True  # otherwise the rows are the first ones, in order


class Speed(NamedTuple):
    """Medians over the repeats."""

    rows_per_second: float  # of a processor core
    of_memmap: float  # of the quotients within each repeat


def measure(folder: Path, gib: float, repeats: int = REPEATS) -> dict[str, float]:
    """Rows per second of every store, and the share of memmap's: name -> number.

    Args:
        folder: for the stores; five times ``gib`` are written there.
        gib: size of the region corpus, in GiB.
    """
    folder.mkdir(exist_ok=True)
    rows = max(4 * BATCH, round(gib * 2**30 / ROW_BYTES))
    write_images(folder / "corpus", rows, (REGIONS, REGIONS), np.random.default_rng(1))
    corpus = open_corpus(folder / "corpus")
    assert isinstance(corpus, ImageCorpus)
    stores = [
        ours(corpus),
        memmap(corpus, folder),
        *hugging_face(corpus, folder / "datasets"),
        tars(corpus, folder / "tars"),
    ]
    numbers = {"reading: corpus, GiB": _size(corpus) / 2**30}
    for order in ("random", "sequential"):
        compared = [store for store in stores if store.random or order == "sequential"]
        for name, speed in race(compared, rows, order, repeats).items():
            numbers[f"reading: {name}, {order} rows/s"] = speed.rows_per_second
            if name != MEMMAP:
                numbers[f"reading: {name}, {order}, share of memmap"] = speed.of_memmap
    return numbers


def race(stores: Sequence[Store], rows: int, order: str, repeats: int) -> dict[str, Speed]:
    """The speed of each store, timed in turns."""
    rng = np.random.default_rng(2)
    counts = {store.name: _calibrated(store, rows, new_batch()) for store in stores}
    found: dict[str, list[float]] = {store.name: [] for store in stores}
    for repeat in range(repeats):
        chosen = rng.permutation(rows).tolist() if order == "random" else list(range(rows))
        batch, turn = new_batch(), repeat % len(stores)
        for store in [*stores[turn:], *stores[:turn]]:
            mine = chosen[: counts[store.name]]
            found[store.name].append(len(mine) / _seconds(store, mine, batch))
    return {
        name: Speed(
            statistics.median(speeds),
            statistics.median(a / b for a, b in zip(speeds, found[MEMMAP], strict=True)),
        )
        for name, speeds in found.items()
    }


def ours(corpus: ImageCorpus) -> Store:
    """The product's reader."""

    def read(rows: Sequence[int], batch: Batch) -> None:
        for k, row in enumerate(rows):
            arrays, of_row = corpus.region_rows(row)
            batch.features[k % BATCH] = arrays.features[of_row]
            batch.boxes[k % BATCH] = arrays.boxes[of_row]

    return Store(OURS, read)


def memmap(corpus: ImageCorpus, folder: Path) -> Store:
    """One file of features and one of boxes, as arrays: the least that numpy can do."""
    shapes = {"features": (np.float16, FEATURES), "boxes": (np.float32, 5)}
    arrays = {}
    for name, (dtype, width) in shapes.items():
        path, shape = folder / f"{name}.bin", (len(corpus), REGIONS, width)
        with path.open("wb") as file:
            for row in range(len(corpus)):
                file.write(getattr(corpus.regions(row), name))
        # np.asarray: the subclass would add a microsecond to every row.
        arrays[name] = np.asarray(np.memmap(path, dtype, "r", shape=shape))
    features, boxes = arrays["features"], arrays["boxes"]

    def read(rows: Sequence[int], batch: Batch) -> None:
        for k, row in enumerate(rows):
            batch.features[k % BATCH] = features[row]
            batch.boxes[k % BATCH] = boxes[row]

    return Store(MEMMAP, read)


def hugging_face(corpus: ImageCorpus, folder: Path) -> list[Store]:
    """A `datasets` folder, read in its two fastest formats."""
    tables = [
        pa.ipc.open_file(pa.memory_map(str(corpus.folder / shard.name))).read_all()
        for shard in corpus.manifest.shards
    ]
    table = pa.concat_tables(tables).select(["features", "boxes"])
    datasets.disable_progress_bars()
    datasets.Dataset(table).save_to_disk(folder)
    dataset = datasets.load_from_disk(folder)
    arrow, numpy = dataset.with_format("arrow"), dataset.with_format("numpy")

    def read_arrow(rows: Sequence[int], batch: Batch) -> None:
        for k, row in enumerate(rows):
            table = arrow[row]
            features, boxes = (
                table.column(name).chunk(0).flatten().to_numpy() for name in ("features", "boxes")
            )
            batch.features[k % BATCH] = features.reshape(REGIONS, FEATURES)
            batch.boxes[k % BATCH] = boxes.reshape(REGIONS, 5)

    def read_numpy(rows: Sequence[int], batch: Batch) -> None:
        for k, row in enumerate(rows):
            found = numpy[row]
            batch.features[k % BATCH] = found["features"].reshape(REGIONS, FEATURES)
            batch.boxes[k % BATCH] = found["boxes"].reshape(REGIONS, 5)

    return [Store("datasets (arrow)", read_arrow), Store("datasets (numpy)", read_numpy)]


def tars(corpus: ImageCorpus, folder: Path) -> Store:
    """webdataset shards with two .npy members a row."""
    folder.mkdir()
    pattern = str(folder / "%05d.tar")
    with webdataset.ShardWriter(pattern, maxcount=2048, verbose=0) as writer:
        for row in range(len(corpus)):
            regions = corpus.regions(row)
            parts = {"features.npy": regions.features, "boxes.npy": regions.boxes}
            writer.write({"__key__": f"{row:08d}"} | parts)
    paths = sorted(map(str, folder.glob("*.tar")))

    def stream() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        pipeline = webdataset.WebDataset(paths, shardshuffle=False).decode()
        return iter(pipeline.to_tuple("features.npy", "boxes.npy"))

    def read(rows: Sequence[int], batch: Batch) -> None:
        for k, (features, boxes) in enumerate(islice(stream(), len(rows))):
            batch.features[k % BATCH] = features
            batch.boxes[k % BATCH] = boxes

    return Store("webdataset", read, random=False)


def new_batch() -> Batch:
    """A batch whose rows begin at as many places of a page.

    Rows of the stores are whole pages long, and where a copy goes to addresses just above those it
    comes from, modulo a page, the processor makes it three times slower: every store has the same
    share of that.
    """
    size, step = REGIONS * FEATURES, PAGE // BATCH // 2  # in float16 numbers
    features = np.zeros((BATCH, size + step), np.float16)[:, :size]
    boxes = np.zeros((BATCH, REGIONS, 5), np.float32)
    return Batch(features.reshape(BATCH, REGIONS, FEATURES, copy=False), boxes)


def _calibrated(store: Store, rows: int, batch: Batch) -> int:
    """Reads all rows once, as far as `WARM_UP_SECONDS` allow; how many rows take `SECONDS`."""
    few = range(BATCH)
    speed = len(few) / min(_seconds(store, few, batch) for _ in range(3))
    store.read(range(min(rows, int(speed * WARM_UP_SECONDS))), batch)
    return max(BATCH, min(rows, int(speed * SECONDS)))


def _seconds(store: Store, rows: Sequence[int], batch: Batch) -> float:
    start = time.process_time()
    store.read(rows, batch)
    return time.process_time() - start


def _size(corpus: ImageCorpus) -> int:
    return sum(shard.bytes for shard in corpus.manifest.shards)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the region corpus")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name, number in measure(Path(folder), options.gib).items():
            sys.stdout.write(f"{name}: {number:,.3g}\n")


if __name__ == "__main__":
    main()
