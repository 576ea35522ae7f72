"""Vectors of images out of their regions: what classes they show, or their mean feature.

UNIMO keeps images whose detected objects overlap strongly with those of the pair (Li et al. 2021,
section 2.1); the classes of `pixels` and `grid` regions are visual words instead.
"""

import numpy as np
import pyarrow as pa

from data_prep.retrieve.text_vectors import unit_length
from unimo_ds.data.schema import RegionSource

CLASSES, FEATURES = "classes", "features"
KINDS = (CLASSES, FEATURES)


def class_masses(batch: pa.RecordBatch, source: RegionSource) -> np.ndarray:
    """float32 [N, K]: for each image of a record batch the probability of each class, summed over
    its regions and divided by their number."""
    regions = batch.column("num_regions").to_numpy().astype(np.int64)
    kept = source.kept_classes
    ids = batch.column("class_ids").flatten().to_numpy().reshape(-1, kept)
    probs = batch.column("class_probs").flatten().to_numpy().astype(np.float32).reshape(-1, kept)
    image = np.repeat(np.arange(len(regions)), regions)
    flat = image[:, None] * source.num_classes + ids
    sums = np.bincount(
        flat.ravel(), probs.ravel(), minlength=len(regions) * source.num_classes
    ).reshape(len(regions), source.num_classes)
    return (sums / np.maximum(regions, 1)[:, None]).astype(np.float32)


def mean_features(batch: pa.RecordBatch, source: RegionSource) -> np.ndarray:
    """float32 [N, F]: the mean of the regions' features, each of length 1 before."""
    regions = batch.column("num_regions").to_numpy().astype(np.int64)
    features = batch.column("features").flatten().to_numpy().reshape(-1, source.feature_size)
    rows = unit_length(features.astype(np.float32))
    starts = np.concatenate([[0], np.cumsum(regions)[:-1]])
    sums = np.add.reduceat(rows, starts, axis=0) if len(rows) else rows
    return sums / np.maximum(regions, 1)[:, None]


def raw_vectors(batch: pa.RecordBatch, source: RegionSource, by: str) -> np.ndarray:
    """float32 [N, K or F]: of class masses their square roots, whose cosine is that of
    Bhattacharyya: one large region does not drown the others."""
    if by == FEATURES:
        return mean_features(batch, source)
    return np.sqrt(class_masses(batch, source))


class Projection:
    """Centres (features only) and projects raw vectors to their leading directions."""

    def __init__(self, mean: np.ndarray, components: np.ndarray) -> None:
        self.mean, self.components = mean, components  # float32 [W], [D, W]

    def __call__(self, raw: np.ndarray) -> np.ndarray:
        """float32 [N, D], of length 1."""
        return unit_length((raw - self.mean) @ self.components.T)


def fit_projection(raw: np.ndarray, dimensions: int, by: str) -> Projection:
    """The leading eigenvectors of ``raw``'s second moments; all of ``raw`` where it is narrow."""
    width = raw.shape[1]
    mean = raw.mean(axis=0) if by == FEATURES else np.zeros(width, np.float32)
    if width <= dimensions:
        return Projection(mean.astype(np.float32), np.eye(width, dtype=np.float32))
    centred = raw - mean
    moments = centred.T.astype(np.float64) @ centred.astype(np.float64)
    _, vectors = np.linalg.eigh(moments)
    components = vectors[:, ::-1][:, :dimensions].T
    # An eigenvector has no sign of its own.
    signs = np.sign(components[np.arange(len(components)), np.abs(components).argmax(axis=1)])
    return Projection(mean.astype(np.float32), (components * signs[:, None]).astype(np.float32))


def overlap(masses: np.ndarray, others: np.ndarray) -> np.ndarray:
    """float32 [N]: Σ min / Σ max of the class masses [K] of one image and [N, K] of others."""
    low = np.minimum(masses, others).sum(axis=1)
    return low / np.maximum(np.maximum(masses, others).sum(axis=1), 1e-12)
