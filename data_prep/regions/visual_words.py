"""Classes for regions that have none: the nearest of K k-means centres of their features."""

from functools import cache

import numpy as np
from threadpoolctl import threadpool_limits

from unimo_ds.storage import location

VISUAL_WORDS_NAME = "visual_words.npy"
MAX_CLASSES = 65_536
"""Class ids are stored as uint16."""
_SAMPLE_PER_CLASS = 32
_SMALLEST_SAMPLE = 16_384


def sample_size(num_classes: int) -> int:
    """Features to fit ``num_classes`` centres on."""
    return max(_SAMPLE_PER_CLASS * num_classes, _SMALLEST_SAMPLE)


def fit_visual_words(features: np.ndarray, num_classes: int, seed: int) -> np.ndarray:
    """float32 [K, F]: centres of ``features`` [N, F]; the same for the same input, bit for bit.

    Raises:
        ValueError: fewer different features than centres.
    """
    from sklearn.cluster import MiniBatchKMeans  # a second of import that few commands need

    if len(features) < num_classes:
        most = len(features)
        fewer = f"--num-classes K with K from 2 to {most}, or " if most > 1 else ""
        raise ValueError(
            f"{num_classes} visual words (--num-classes) cannot be fitted on {most} regions: name "
            f"{fewer}more pictures"
        )
    with threadpool_limits(1):  # sums over threads would differ in their last bits
        model = MiniBatchKMeans(
            num_classes, random_state=seed, n_init=1, batch_size=2048, max_iter=20, init_size=None
        )
        model.fit(features.astype(np.float32))
    return model.cluster_centers_.astype(np.float32)


def load_visual_words(path: str) -> np.ndarray:
    """float32 [K, F] out of a ``visual_words.npy``, a file or a URL; read once while unchanged.

    Raises:
        ValueError: not such a file.
    """
    try:
        state = location(path).stat()
        return _loaded(path, state.st_size, state.st_mtime_ns)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is no file of visual words: {error}") from error


@cache
def _loaded(path: str, size: int, changed_ns: int) -> np.ndarray:
    with location(path).open("rb") as file:
        words = np.load(file, allow_pickle=False)
    if words.ndim != 2 or words.dtype != np.float32 or not 0 < len(words) <= MAX_CLASSES:
        raise ValueError(f"{words.dtype} {words.shape}, expected float32 [classes, features]")
    return words
