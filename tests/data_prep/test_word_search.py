"""Pixel regions made fast are those made plainly: nearest words, scaled decoding, the table."""

import numpy as np
import pytest
from PIL import Image

from data_prep.readers.images import Picture, open_picture, open_scaled
from data_prep.regions.word_search import WordSearch
from unimo_ds.pixels import PIXEL_MEAN, PIXEL_STD, PixelGrid


@pytest.mark.parametrize("kind", ["smooth", "noise", "one", "few directions"])
def test_nearest_words_are_those_of_a_full_comparison(kind):
    rng = np.random.default_rng(5)
    words = rng.normal(size=(300, 96))
    features = rng.normal(size=(500, 96))
    if kind == "smooth":  # as k-means words of patches: most of it in few directions
        scale = 1 / (1 + np.arange(96)) ** 1.5
        words, features = words * scale, features * scale + 5
    if kind == "few directions":
        words, features = words[:, :3], features[:, :3]
    if kind == "one":
        words = words[:1]
    words, features = words.astype(np.float32), features.astype(np.float16)
    found = WordSearch(words).nearest(features)
    exact = features.astype(np.float64)[:, None] - words.astype(np.float64)
    distances = np.square(exact).sum(axis=2)
    chosen = np.take_along_axis(distances, found[:, None].astype(int), 1)[:, 0]
    assert found.dtype == np.uint16
    np.testing.assert_allclose(chosen, distances.min(axis=1), rtol=1e-4)
    assert (found == distances.argmin(axis=1)).mean() > 0.99


def test_features_are_normalised_pixels_bit_for_bit():
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    pixels = (np.asarray(image, dtype=np.float32) / 255.0 - PIXEL_MEAN) / PIXEL_STD
    features = PixelGrid(grid=2, patch=16).features(image)
    assert (features[1] == pixels[:16, 16:].reshape(-1)).all() and features.dtype == np.float32


def test_a_large_jpeg_is_decoded_small_and_looks_the_same(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 32, 3), dtype=np.uint8))
    photo = coarse.resize((640, 480), Image.Resampling.BICUBIC)
    for name, mode in (("a.jpg", "RGB"), ("grey.jpg", "L"), ("a.png", "RGB")):
        photo.convert(mode).save(tmp_path / name)
        state = (tmp_path / name).stat()
        path = str(tmp_path / name)
        picture = Picture(name, path, "", 0, state.st_size, state.st_mtime_ns)
        whole = open_picture(picture)
        scaled, size = open_scaled(picture, 56)
        assert size == whole.size == (640, 480)
        assert scaled.size == ((160, 120) if name.endswith("jpg") else size)
        small = [np.asarray(p.resize((56, 56), 2), dtype=int) for p in (whole, scaled)]
        assert np.abs(small[0] - small[1]).mean() < 1
