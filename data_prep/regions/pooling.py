"""A vector for each box of a picture, out of an encoder's map of it.

RoIAlign (He et al. 2017, aligned form) with one bin: the mean over a regular grid of points in the
box, each read from the map by bilinear interpolation, where cell (i, j) has its value at
(i + 0.5, j + 0.5). Both the points and the interpolation are products of a row and a column part,
so the mean is two small matrices: pooled[r] = Σ_ij rows[r, i] columns[r, j] map[i, j].
"""

import numpy as np

# R regions, D features of a cell, h x w cells, G cells a side of a smaller map

POINTS = 14
"""A side: detectors pool 7 x 7 bins of 2 x 2 points, and take the mean over the bins."""


def pool_boxes(cells: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """float32 [R, D] of a map float32 [D, h, w] and boxes [R, 4], x1, y1, x2, y2 in [0, 1]."""
    _, height, width = cells.shape
    rows = _weights(boxes[:, 1], boxes[:, 3], height)
    columns = _weights(boxes[:, 0], boxes[:, 2], width)
    weights = (rows[:, :, None] * columns[:, None, :]).reshape(len(boxes), height * width)
    return (weights @ cells.reshape(len(cells), -1).T).astype(np.float32)


def shrink(cells: np.ndarray, side: int) -> np.ndarray:
    """float32 [D, G, G] of [D, h, w]: means over G x G equal areas, cut cells by their share."""
    _, height, width = cells.shape
    rows, columns = _shares(side, height), _shares(side, width)
    return (rows @ cells @ columns.T).astype(np.float32)


def _weights(begin: np.ndarray, end: np.ndarray, cells: int) -> np.ndarray:
    """float32 [R, cells]: how much each cell counts in the mean over the points of a box."""
    steps = (np.arange(POINTS, dtype=np.float64) + 0.5) / POINTS
    extent = end.astype(np.float64) - begin
    points = (begin[:, None] + steps * extent[:, None]) * cells - 0.5
    points = points.clip(0, cells - 1)  # RoIAlign repeats the border's cells
    distance = np.abs(points[:, :, None] - np.arange(cells))
    return (1 - distance).clip(min=0).mean(axis=1).astype(np.float32)


def _shares(side: int, cells: int) -> np.ndarray:
    """float32 [side, cells]: the share of each cell in each of ``side`` equal stretches."""
    edges = np.arange(side + 1) * (cells / side)
    start = np.maximum(edges[:-1, None], np.arange(cells))
    stop = np.minimum(edges[1:, None], np.arange(cells) + 1)
    return ((stop - start).clip(min=0) * (side / cells)).astype(np.float32)
