"""The regions of a batch: as the corpus holds them, behind the mean of those that are visible."""

import numpy as np
import pytest

from unimo_ds.config import CorruptionConfig
from unimo_ds.data.buffers import Buffers
from unimo_ds.data.corruption import mask_regions
from unimo_ds.data.regions import RegionRows, num_vectors
from unimo_ds.data.segments import ImageRef
from unimo_ds.data.shards import open_corpus

HIDE_NONE = ()


@pytest.fixture(scope="module")
def images(corpora):
    return open_corpus(corpora / "images")


VECTORS = "features", "class_ids", "class_probs"


def filled(images, refs):
    """The region arrays of a row, and the vectors as each of its regions shows them."""
    count = sum(1 + images.lengths[ref.row] for ref in refs)
    vectors = num_vectors(refs)
    rows = RegionRows(count, vectors, images.source.feature_size, 1, Buffers(pinned=False))
    for ref in refs:
        rows.add(ref, 0, CorruptionConfig())
    arrays = {name: tensor.numpy() for name, tensor in rows.arrays().items()}
    assert len(arrays["features"]) == vectors
    return arrays | {name: arrays[name][arrays["region_feature"]] for name in VECTORS}


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
def test_an_image_is_the_same_alone_and_beside_others_that_share_its_vectors(images, key):
    shown = [(0, HIDE_NONE), (1, key), (1, HIDE_NONE), (0, (7,)), (1, HIDE_NONE), (1, (8, 9))]
    refs = [ImageRef(images, row, of_key) for row, of_key in shown]
    together = filled(images, refs)
    start = 0
    for ref in refs:
        alone = filled(images, [ref])
        after = start + 1 + images.lengths[ref.row]
        for name in ("boxes", "region_masked", *VECTORS):
            assert together[name][start:after].tobytes() == alone[name].tobytes(), name
        start = after
    # Two images, and a mean for each choice of visible regions.
    means = 4 if key == HIDE_NONE else 5
    assert num_vectors(refs) == images.lengths[0] + images.lengths[1] + means


def test_lengths_that_the_rows_do_not_have_are_named(images):
    other = open_corpus(images.folder)
    other.lengths = images.lengths + 1
    with pytest.raises(ValueError, match=r"holds 16 regions, its lengths file says 17"):
        filled(other, [ImageRef(other, 0, HIDE_NONE)])
