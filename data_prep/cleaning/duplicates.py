"""Which documents say the same: equal digests, or MinHashes that agree, found band by band."""

from typing import NamedTuple

import numpy as np

from data_prep.cleaning.signatures import Nearness, datasketch

_PAIRS_AT_ONCE = 1 << 14
_MISSED, _EXTRA = 0.9, 0.1  # candidates are compared afterwards: extra ones cost time only
_FACTOR = np.uint64(0x9E3779B97F4A7C15)

# N documents, P permutations


class Duplicates(NamedTuple):
    """For each of N documents the first that says the same: itself, if it is to be kept."""

    first: np.ndarray  # int64 [N]
    exact: np.ndarray  # bool [N]: and has the same words in the same order


def find_duplicates(
    digests: np.ndarray, minhashes: np.ndarray | None, nearness: Nearness
) -> Duplicates:
    """Groups documents that are duplicates of one another, directly or through others.

    A pair whose Jaccard similarity is the threshold is found with a probability of about 0.87, one
    0.05 above with 0.98 (128 permutations, 0.8); then the share of equal permutations decides.

    Args:
        digests: uint64 [N, 2].
        minhashes: uint32 [N, P], may be memory-mapped; None: exact duplicates only.
    """
    count = len(digests)
    same = _first_of_equals(digests)
    if minhashes is None or not count:
        return Duplicates(same, same != np.arange(count))
    pairs = [np.stack([same, np.arange(count)])]
    library = datasketch().MinHashLSH(
        threshold=nearness.threshold,
        num_perm=nearness.permutations,
        weights=(_EXTRA, _MISSED),
    )
    for band in range(library.b):
        columns = slice(band * library.r, (band + 1) * library.r)
        candidates = _candidates(_keys(minhashes[:, columns]))
        pairs.append(_confirmed(candidates, minhashes, nearness.threshold))
    left, right = np.concatenate(pairs, axis=1)
    groups = _connected(left, right, count)
    earliest = np.full(groups.max() + 1, count, dtype=np.int64)
    np.minimum.at(earliest, groups, np.arange(count))
    found = earliest[groups]
    equal = (digests == digests[found]).all(axis=1)
    return Duplicates(found, equal & (found != np.arange(count)))


def _connected(left: np.ndarray, right: np.ndarray, count: int) -> np.ndarray:
    """int [N]: the same number for all that pairs connect."""
    from scipy.sparse import coo_array  # a second of import that few commands need
    from scipy.sparse.csgraph import connected_components

    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def _first_of_equals(digests: np.ndarray) -> np.ndarray:
    """int64 [N]: the first row that is equal to each row of ``digests`` [N, 2]."""
    order = np.lexsort((digests[:, 1], digests[:, 0]))  # stable: equal rows stay in their order
    new = np.ones(len(order), dtype=bool)
    new[1:] = (digests[order][1:] != digests[order][:-1]).any(axis=1)
    found = np.empty(len(order), dtype=np.int64)
    found[order] = order[np.maximum.accumulate(np.where(new, np.arange(len(order)), 0))]
    return found


def _keys(band: np.ndarray) -> np.ndarray:
    """uint64 [N]: equal where the rows of ``band`` [N, rows] are."""
    keys = np.zeros(len(band), dtype=np.uint64)
    for column in band.T:
        keys = (keys ^ column) * _FACTOR
        keys ^= keys >> np.uint64(29)
    return keys


def _candidates(keys: np.ndarray) -> np.ndarray:
    """int64 [2, pairs]: each document of a bucket with its first and with the one before it."""
    order = np.argsort(keys, kind="stable")
    equal = keys[order][1:] == keys[order][:-1]
    at = np.flatnonzero(equal) + 1
    starts = np.flatnonzero(np.concatenate([[True], ~equal]))
    first = starts[np.searchsorted(starts, at, side="right") - 1]
    apart = first != at - 1
    left = np.concatenate([order[at - 1], order[first[apart]]])
    return np.stack([left, np.concatenate([order[at], order[at[apart]]])])


def _confirmed(pairs: np.ndarray, minhashes: np.ndarray, threshold: float) -> np.ndarray:
    """Those of ``pairs`` whose MinHashes agree in at least that share of permutations."""
    parts = [
        (minhashes[left] == minhashes[right]).mean(axis=1) >= threshold
        for left, right in (
            pairs[:, i : i + _PAIRS_AT_ONCE] for i in range(0, pairs.shape[1], _PAIRS_AT_ONCE)
        )
    ]
    return pairs[:, np.concatenate(parts)] if parts else pairs
