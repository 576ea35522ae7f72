"""How good scores are: recall among candidates, and pairwise accuracy with its interval.

Legend: Q queries · C candidates · P clusters that are resampled together
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from unimo_ds.train.heldout import DEPTHS, rank_of_best

RESAMPLES = 2000
_CONFIDENCE = 0.95


def recalls(scores_QC: Tensor, positive_QC: Tensor) -> dict[str, float]:
    """R@1/5/10: the share of queries whose best positive is among so many; ties count against."""
    ranks_Q = rank_of_best(scores_QC, positive_QC)
    return {f"r{depth}": float((ranks_Q <= depth).double().mean()) for depth in DEPTHS}


class Accuracy(NamedTuple):
    """A share of wins."""

    share: float
    low: float  # of the 95 % interval
    high: float
    count: int  # what the share is of


def accuracy(won: np.ndarray, cluster: np.ndarray) -> Accuracy:
    """The share of ``won``, and what it may have been with other data.

    Args:
        won: bool [n].
        cluster: int [n], what belongs together (rewrites of one picture's captions) and is drawn
            together by the percentile bootstrap, which is keyed and gives the same every time.

    Raises:
        ValueError: there is nothing to count.
    """
    if not len(won):
        raise ValueError("0 comparisons, expected at least 1")
    members = np.unique(cluster, return_inverse=True)[1]
    wins_P = np.bincount(members, weights=won)
    counts_P = np.bincount(members)
    drawn = np.random.default_rng(1).integers(len(counts_P), size=(RESAMPLES, len(counts_P)))
    shares = wins_P[drawn].sum(axis=1) / counts_P[drawn].sum(axis=1)
    tail = (1 - _CONFIDENCE) / 2
    low, high = np.quantile(shares, [tail, 1 - tail])
    return Accuracy(float(np.mean(won)), float(low), float(high), len(won))
