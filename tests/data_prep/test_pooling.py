"""RoIAlign and area means over a map, against the plain loops that define them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.regions.pooling import POINTS, pool_boxes, shrink


def roi_align(cells, box):
    """float64 [D]: points of RoIAlign's aligned form, one bin, each interpolated by hand."""
    _, height, width = cells.shape
    x1, y1, x2, y2 = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    total = np.zeros(len(cells))
    for i in range(POINTS):
        for j in range(POINTS):
            y = y1 + (i + 0.5) / POINTS * (y2 - y1) - 0.5
            x = x1 + (j + 0.5) / POINTS * (x2 - x1) - 0.5
            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
            top, left = min(int(y), max(height - 2, 0)), min(int(x), max(width - 2, 0))
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            down, across = y - top, x - left
            above = cells[:, top, left] * (1 - across) + cells[:, top, right] * across
            below = cells[:, bottom, left] * (1 - across) + cells[:, bottom, right] * across
            total += above * (1 - down) + below * down
    return total / POINTS**2


def mean_area(cells, top, left, bottom, right):
    """float64 [D]: the mean of a map over a rectangle in units of cells."""
    total, area = np.zeros(len(cells)), 0.0
    for i in range(cells.shape[1]):
        for j in range(cells.shape[2]):
            high = max(0.0, min(bottom, i + 1) - max(top, i))
            wide = max(0.0, min(right, j + 1) - max(left, j))
            total += cells[:, i, j] * high * wide
            area += high * wide
    return total / area


share = st.floats(0, 1, width=32)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 9),
    st.integers(1, 9),
    st.lists(st.tuples(share, share, share, share), min_size=1, max_size=4),
    st.integers(0, 1000),
)
def test_boxes_are_pooled_as_by_roi_align(height, width, corners, seed):
    cells = np.random.default_rng(seed).normal(size=(3, height, width)).astype(np.float32)
    boxes = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    found = pool_boxes(cells, np.array(boxes, np.float32))
    wanted = [roi_align(cells.astype(np.float64), box) for box in boxes]
    assert found.dtype == np.float32 and np.allclose(found, wanted, atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 9), st.integers(0, 1000))
def test_maps_are_shrunk_by_area(height, width, side, seed):
    side = min(side, height, width)
    cells = np.random.default_rng(seed).normal(size=(2, height, width)).astype(np.float32)
    found = shrink(cells, side)
    high, wide = height / side, width / side
    for i in range(side):
        for j in range(side):
            edges = i * high, j * wide, (i + 1) * high, (j + 1) * wide
            assert np.allclose(found[:, i, j], mean_area(cells, *edges), atol=1e-5)


def test_a_box_over_everything_is_near_the_mean_and_a_cell_is_itself():
    cells = np.arange(49, dtype=np.float32).reshape(1, 7, 7)
    whole, one = pool_boxes(cells, np.array([[0, 0, 1, 1], [3 / 7, 2 / 7, 4 / 7, 3 / 7]]))
    assert whole[0] == pytest.approx(24, abs=1e-4) and one[0] == pytest.approx(17, abs=1e-4)
