"""How a picture is shown, and becomes regions without a model: normalised patches on a grid."""

import io
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np
from numpy.typing import DTypeLike
from PIL import ExifTags, Image, ImageCms

# Mean and standard deviation of ImageNet's RGB values in [0, 1], the field's usual normalisation.
PIXEL_MEAN = np.array([0.485, 0.456, 0.406], dtype=np.float32)
PIXEL_STD = np.array([0.229, 0.224, 0.225], dtype=np.float32)
# Of every byte and colour: a quarter of the time that arithmetic on a whole picture takes.
_NORMALISED = (np.arange(256, dtype=np.float32)[:, None] / 255.0 - PIXEL_MEAN) / PIXEL_STD

_TURNS = {  # EXIF 2.32, 4.6.4: tag 274, Orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDEWAYS = frozenset(_TURNS[orientation] for orientation in (5, 6, 7, 8))
"""Turns that make width of height."""
_SHALLOW_GREYS = ("1", "L", "LA", "La")
_BITS_PER_SAMPLE, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 262, 339  # tags of TIFF 6.0
_WHITE_IS_ZERO, _SIGNED = 0, 2
_REMEDY = "save it scaled to 8 or 16 bits"
_MOST_ROUNDING = 1  # levels by which sRGB profiles of several makers differ


class NoGreyRange(ValueError):
    """Nothing says which number of a grey picture is white."""


def as_shown(image: Image.Image) -> Image.Image:
    """The RGB picture that a viewer shows; ``image`` itself if it is that already.

    Turned as its EXIF says, greys of more than 8 bits scaled by their range (see `_white_level`),
    transparent parts on white, colours in sRGB where a profile tells others. Broken EXIF and
    profiles that do not describe the picture count as none. Of several frames it is the current
    one, which is the first of a file just opened.

    Raises:
        NoGreyRange: greys of 32 bits or floats that have no sensible range.
    """
    key = _transparent_key(image)
    image.load()
    turn, profile = turn_of(image), image.info.get("icc_profile")
    if image.mode == "RGB" and key is None and turn is None and not profile:
        return image
    colours, alpha = _parts(image, key)
    shown = _in_srgb(colours, profile)
    if alpha is not None:
        colours, shown = shown, Image.new("RGB", shown.size, "white")
        shown.paste(colours, mask=alpha)
    if turn is not None:
        shown = shown.transpose(turn)
    if shown is not image:
        shown.info = {}  # nothing is to be turned, composed or converted a second time
    return shown


def turn_of(image: Image.Image) -> Image.Transpose | None:
    """How a loaded picture is to be turned; Pillow itself turns TIFF as it loads."""
    try:
        return _TURNS.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # what broken EXIF raises is no closed set: struct.error, SyntaxError, ...
        return None


def _transparent_key(image: Image.Image) -> Any:
    """The transparent colour, or alphas of a palette, in levels of the mode; None without one.

    That of a PNG counts in bits of the file, which Pillow forgets as it loads.
    """
    key: Any = image.info.get("transparency")
    tiles = getattr(image, "tile", [])  # none of a loaded picture
    if key is None or not tiles:
        return key
    if tiles[0].args in ("L;2", "L;4"):
        return key * (85 if tiles[0].args == "L;2" else 17)
    return tuple(level >> 8 for level in key) if tiles[0].args == "RGB;16B" else key


def _parts(image: Image.Image, key: Any) -> tuple[Image.Image, Image.Image | None]:
    """The colours in mode L, RGB or CMYK, and how opaque they are in mode L, if not wholly."""
    if image.mode[0] in "IF":  # I;16 of either byte order, I, F
        alpha = None if key is None else np.where(np.asarray(image) == key, 0, 255)
        opaque = None if alpha is None else Image.fromarray(alpha.astype(np.uint8))
        return _eight_bits(image), opaque
    grey = image.mode in _SHALLOW_GREYS
    if not image.has_transparency_data:
        mode = "L" if grey else image.mode if image.mode == "CMYK" else "RGB"
        return (image if image.mode == mode else image.convert(mode)), None
    if key is not None and key != image.info["transparency"]:
        image = image.copy()
        image.info["transparency"] = key
    rgba = image.convert("LA").convert("RGBA") if image.mode == "La" else image.convert("RGBA")
    return rgba.convert("L" if grey else "RGB"), rgba.getchannel("A")


def _eight_bits(image: Image.Image) -> Image.Image:
    """A deep grey picture in mode L; Pillow would clip it at 255 (Pillow#2574)."""
    levels, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.mode == "I" and tags and tags.get(_SAMPLE_FORMAT) != (_SIGNED,):
        levels = levels.view(np.uint32)
    scaled = levels.astype(np.float32)
    scaled *= np.float32(255 / _white_level(image, levels))
    if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        np.subtract(255, scaled, out=scaled)
    np.rint(scaled, out=scaled)
    return Image.fromarray(scaled.clip(0, 255, out=scaled).astype(np.uint8))


def _white_level(image: Image.Image, levels: np.ndarray) -> float:
    """The number that is white: the largest of as many bits as the file says that it holds.

    Pillow keeps greys of 8, 16 and 32 bits in mode I. Where the file does not say which, it is the
    fewest that hold all levels: of more, the picture would be black. Floats go from 0 to 1.

    Raises:
        NoGreyRange: levels beyond that, negative or no numbers, or a picture that would be black.
    """
    low, high = float(levels.min()), float(levels.max())
    if image.mode == "F":
        if not (low > -0.5 / 255 and high < 1 + 0.5 / 255):  # nor NaN; half a level is rounding
            told = f"floats from {low:g} to {high:g}, expected 0 to 1"
            raise NoGreyRange(f"a grey picture of {told}: {_REMEDY}")
        return 1
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(_BITS_PER_SAMPLE, (32 if image.mode == "I" and image.format != "PPM" else 16,))
    whites = [2**8 - 1, 2**16 - 1, int(np.iinfo(levels.dtype).max)]
    if bits[0] <= 16:  # 12 too
        whites = [2 ** (bits[0] - (tags.get(_SAMPLE_FORMAT) == (_SIGNED,))) - 1]
    white = next((white for white in whites if high <= white), 0)
    if low < 0 or not white or (white > 2**16 and high < white / 255):
        told = f"{low:,.0f} to {high:,.0f}, expected 0 to 255, to 65,535 or to the most of 32 bits"
        raise NoGreyRange(f"a grey picture of levels from {told}: {_REMEDY}")
    return white


def _in_srgb(picture: Image.Image, profile: object) -> Image.Image:
    """A picture in mode L, RGB or CMYK in RGB, by its ICC profile where that describes it."""
    transform = _to_srgb(profile, picture.mode) if isinstance(profile, bytes) else None
    if transform is not None:
        return transform.apply(picture)
    return picture if picture.mode == "RGB" else picture.convert("RGB")


@lru_cache(maxsize=8)
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """What makes sRGB of colours of ``profile``; None if they are, or it is none of ``mode``."""
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        target = ImageCms.createProfile("sRGB")
        transform = ImageCms.buildTransform(source, target, mode, "RGB")
    except ImageCms.PyCMSError:
        return None
    if mode == "CMYK":
        return transform
    probe = _every_colour(mode)
    levels = (np.asarray(picture, np.int16) for picture in (transform.apply(probe), probe))
    change = np.abs(next(levels) - next(levels).reshape(*probe.size[::-1], -1)).max()
    return transform if change > _MOST_ROUNDING else None


def _every_colour(mode: str) -> Image.Image:
    """All levels of grey, or colours evenly spread over RGB."""
    axis = np.arange(0, 256, 1 if mode == "L" else 15).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(axis[None])
    colours = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), axis=-1)
    return Image.fromarray(colours.reshape(-1, len(axis), 3))


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
        """[grid*grid, 3*patch*patch]: patches row by row, each patch rows, columns, RGB.

        Raises:
            ValueError: see `as_shown`.
        """
        g, p, table = self.grid, self.patch, _table(np.dtype(dtype))
        resized = as_shown(image).resize((self.side, self.side), Image.Resampling.BILINEAR)
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
