"""Nearest neighbours by inner product, on faiss: exact, or in inverted lists of bytes.

Vectors lie in one file per shard of the corpus searched; an index is made from them and saved, and
every worker maps it into memory.
"""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.writer import Version, read_array, version_of

AUTO, FLAT, IVF = "auto", "flat", "ivf"
KINDS = (AUTO, FLAT, IVF)
MOST_FLAT = 200_000
"""Vectors that are searched exactly by default."""
_PROBED = 32  # inverted lists, of one for each 100 vectors up to 4,096
_TRAINED_ON = 64  # vectors for each list


class Neighbours(NamedTuple):
    """Of Q queries, nearest first; -1 where there are fewer."""

    rows: np.ndarray  # int64 [Q, k]
    scores: np.ndarray  # float32 [Q, k]


def resolved(kind: str, count: int) -> str:
    """The kind of index for so many vectors.

    Raises:
        ValueError: a kind that there is not.
    """
    if kind not in KINDS:
        raise ValueError(f"--index {kind}: expected one of {', '.join(KINDS)}")
    return kind if kind != AUTO else (FLAT if count <= MOST_FLAT else IVF)


def build_index(path: Path, parts: Sequence[Path], kind: str, seed: int) -> None:
    """Makes an index of the vectors in ``parts`` (float32 [N_i, D] each), in their order.

    Raises:
        ValueError: faiss is not installed.
    """
    faiss = _faiss()
    arrays = [np.load(part, mmap_mode="r", allow_pickle=False) for part in parts]
    width, count = arrays[0].shape[1], sum(map(len, arrays))
    index = faiss.IndexFlatIP(width)
    if kind == IVF:
        lists = max(1, min(4096, count // 100))
        quantizer = index
        index = faiss.IndexIVFScalarQuantizer(
            quantizer, width, lists, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        index.cp.seed = seed
        step = max(1, count // (lists * _TRAINED_ON))
        index.train(np.concatenate([array[::step] for array in arrays]))
        index.nprobe = min(_PROBED, lists)
    for array in arrays:
        index.add(np.ascontiguousarray(array))
    temporary = path.with_name(f".{path.name}.tmp")
    faiss.write_index(index, str(temporary))
    temporary.replace(path)


def search(path: Path, queries: np.ndarray, count: int) -> Neighbours:
    """The ``count`` nearest of every query; equal scores by row. Deterministic: one thread."""
    index = _load(path, version_of(path))
    wanted = min(count, index.ntotal)
    scores, rows = index.search(np.ascontiguousarray(queries, np.float32), wanted)
    order = np.lexsort((rows, -scores), axis=1)
    return Neighbours(
        np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
    )


@lru_cache(maxsize=2)
def _load(path: Path, version: Version) -> Any:
    return _faiss().read_index(str(path), _faiss().IO_FLAG_MMAP_IFC)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ValueError("retrieval needs faiss: pip install 'unimo-ds[retrieve]'") from error
    faiss.omp_set_num_threads(1)  # workers are processes
    return faiss


def load_vectors(paths: Sequence[Path]) -> np.ndarray:
    """[N, D]: all vectors of a corpus."""
    return np.concatenate([read_array(path) for path in paths])
