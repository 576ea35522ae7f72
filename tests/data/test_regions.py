"""The regions of a batch: as the corpus holds them, behind the mean of those that are visible."""

import numpy as np
import pytest

from unimo_ds.config import CorruptionConfig
from unimo_ds.data.buffers import Buffers
from unimo_ds.data.corruption import mask_regions
from unimo_ds.data.regions import RegionRows
from unimo_ds.data.segments import ImageRef
from unimo_ds.data.shards import open_corpus

HIDE_NONE = ()


@pytest.fixture(scope="module")
def images(corpora):
    return open_corpus(corpora / "images")


def filled(images, refs):
    count = sum(1 + images.lengths[ref.row] for ref in refs)
    rows = RegionRows(count, images.source.feature_size, 1, Buffers(pinned=False))
    for ref in refs:
        rows.add(ref, 0, CorruptionConfig())
    return {name: tensor.numpy() for name, tensor in rows.arrays().items()}


def test_the_mean_is_numpys_to_the_bit(images):
    key = (1, 2, 3)
    arrays = filled(images, [ImageRef(images, row, key) for row in range(5)])
    start = 0
    for row in range(5):
        regions = images.regions(row)
        masked = mask_regions(regions.boxes, CorruptionConfig(), np.random.default_rng(key))
        after = start + 1 + len(masked)
        mean = regions.features[~masked].mean(axis=0, dtype=np.float32).astype(np.float16)
        assert arrays["features"][start].tobytes() == mean.tobytes()
        assert arrays["features"][start + 1 : after].tobytes() == regions.features.tobytes()
        assert arrays["region_masked"][start:after].tolist() == [False, *masked]
        start = after


@pytest.mark.parametrize("key", [HIDE_NONE, (5, 6)])
def test_an_image_shown_twice_is_the_same_twice(images, key):
    arrays = filled(images, [ImageRef(images, 0, key), *[ImageRef(images, 1, HIDE_NONE)] * 2])
    again = filled(images, [ImageRef(images, 1, HIDE_NONE)])
    size = 1 + images.lengths[1]
    for name in ("features", "boxes", "region_masked", "region_class_ids", "region_class_probs"):
        for part in (arrays[name][-2 * size : -size], arrays[name][-size:]):
            assert part.tobytes() == again[name].tobytes(), name


def test_lengths_that_the_rows_do_not_have_are_named(images):
    other = open_corpus(images.folder)
    other.lengths = images.lengths + 1
    with pytest.raises(ValueError, match=r"holds 16 regions, its lengths file says 17"):
        filled(other, [ImageRef(other, 0, HIDE_NONE)])
