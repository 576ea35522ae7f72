"""How a picture becomes regions without a model: normalised patches of pixels on a grid."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import DTypeLike
from PIL import Image

# Mean and standard deviation of ImageNet's RGB values in [0, 1], the field's usual normalisation.
PIXEL_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
PIXEL_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
# Of every byte and colour: a quarter of the time that arithmetic on a whole picture takes.
_NORMALISED = (np.arange(256, dtype=np.float32)[:, None] / 255.0 - PIXEL_MEAN) / PIXEL_STD


@dataclass(frozen=True, kw_only=True)
class PixelGrid:
    """A picture, resized to ``grid * patch`` pixels a side, is cut into ``grid * grid`` patches."""

    grid: int = 7
    patch: int = 16

    def __post_init__(self) -> None:
        if self.grid < 1 or self.patch < 1:
            raise ValueError(f"grid {self.grid} and patch {self.patch} must both be 1 or more")

    @property
    def side(self) -> int:
        return self.grid * self.patch

    @property
    def num_regions(self) -> int:
        return self.grid * self.grid

    @property
    def feature_size(self) -> int:
        return 3 * self.patch * self.patch

    def features(self, image: Image.Image, dtype: DTypeLike = np.float32) -> np.ndarray:
        """[grid*grid, 3*patch*patch]: patches row by row, each patch rows, columns, RGB."""
        g, p, table = self.grid, self.patch, _table(np.dtype(dtype))
        image = image if image.mode == "RGB" else image.convert("RGB")
        resized = image.resize((self.side, self.side), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized).reshape(g, p, g, p, 3).transpose(0, 2, 1, 3, 4)
        features = np.empty((g, g, p, p, 3), dtype)
        for colour in range(3):
            np.take(table[colour], pixels[..., colour], out=features[..., colour])
        return features.reshape(g * g, p * p * 3)

    def picture(self, features: np.ndarray) -> Image.Image:
        """The picture that ``features`` were cut from, as far as they hold it."""
        g, p = self.grid, self.patch
        pixels = features.astype(np.float32).reshape(g, g, p, p, 3).transpose(0, 2, 1, 3, 4)
        pixels = pixels.reshape(self.side, self.side, 3) * PIXEL_STD + PIXEL_MEAN
        return Image.fromarray((pixels.clip(0, 1) * 255 + 0.5).astype(np.uint8))

    def boxes(self) -> np.ndarray:
        """float32 [grid*grid, 5]: x1/W, y1/H, x2/W, y2/H, area share of each patch; read only."""
        return _boxes(self.grid)


@cache
def _table(dtype: np.dtype) -> np.ndarray:
    """[3, 256]: the normalised value of every byte of every colour."""
    return np.ascontiguousarray(_NORMALISED.T.astype(dtype))


@cache
def _boxes(grid: int) -> np.ndarray:
    row, column = np.divmod(np.arange(grid * grid), grid)
    edges = np.stack([column, row, column + 1, row + 1], axis=1) / grid
    area = np.full((grid * grid, 1), 1 / (grid * grid))
    boxes = np.concatenate([edges, area], axis=1).astype(np.float32)
    boxes.flags.writeable = False
    return boxes
