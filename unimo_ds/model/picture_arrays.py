"""Pictures as programs hold them, in numpy and torch, as the pictures that regions are cut from.

Legend: B pictures · H rows · W columns · C channels: 1 grey, 3 RGB, 4 RGBA
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

CHANNELS_FIRST, CHANNELS_LAST = "channels_first", "channels_last"
_CHANNELS = (1, 3, 4)

PictureArray = np.ndarray | torch.Tensor
"""[H, W], [H, W, C] or [C, H, W]; uint8, or float from 0 (black) to 1."""


def pictures_of(
    images: Image.Image | PictureArray | Sequence[Image.Image | PictureArray],
    data_format: str | None = None,
) -> list[Image.Image]:
    """Each of ``images`` as a picture of PIL.

    Args:
        images: one picture or several; an array of four axes is several, [B, H, W, C] or
            [B, C, H, W].
        data_format: ``channels_first`` or ``channels_last`` where shapes leave it open.

    Raises:
        ValueError: what is no picture, or an array that could be two.
    """
    if isinstance(images, (np.ndarray, torch.Tensor)) and images.ndim == 4:
        images = list(images)
    several = isinstance(images, Sequence) and not isinstance(images, (str, bytes))
    return [_picture(image, data_format) for image in (images if several else [images])]


def _picture(image: Any, data_format: str | None) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, torch.Tensor):
        image = image.detach().cpu()
        image = (image.float() if image.is_floating_point() else image).numpy()
    if not isinstance(image, np.ndarray):
        raise ValueError(
            f"a picture is a {type(image).__name__}, expected one of PIL, numpy or torch: open "
            "files with PIL.Image.open, and give one flat list"
        )
    pixels = _as_bytes(_channels_last(image, data_format))
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _channels_last(array: np.ndarray, data_format: str | None) -> np.ndarray:
    """[H, W, C]."""
    shape = list(array.shape)
    if array.ndim == 2:
        array = array[..., None]
    elif array.ndim != 3:
        raise ValueError(f"a picture is an array of shape {shape}, expected 2 or 3 axes")
    else:
        first, last = shape[0] in _CHANNELS, shape[2] in _CHANNELS
        if data_format is None and first and last:
            raise ValueError(
                f"a picture of shape {shape} may have its channels first or last: say "
                f"input_data_format='{CHANNELS_FIRST}' or '{CHANNELS_LAST}'"
            )
        at_front = first if data_format is None else data_format == CHANNELS_FIRST
        if not (first if at_front else last):
            raise ValueError(f"a picture of shape {shape} has no axis of 1, 3 or 4 channels there")
        array = np.moveaxis(array, 0, 2) if at_front else array
    if 0 in array.shape:
        raise ValueError(f"a picture of shape {shape} is empty")
    return array


def _as_bytes(array: np.ndarray) -> np.ndarray:
    """uint8; of floats the nearest byte."""
    if array.dtype == np.uint8:
        return array
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(
            f"a picture is an array of {array.dtype}, whose white may be any number: give uint8, "
            "or float from 0 to 1"
        )
    scaled = np.rint(array.astype(np.float32) * 255)
    if not (scaled.min() >= 0 and scaled.max() <= 255):  # so written, NaN is refused
        raise ValueError(
            f"a picture is an array of floats from {array.min():.4g} to {array.max():.4g}, "
            "expected 0 to 1: give uint8, or undo its normalisation"
        )
    return scaled.astype(np.uint8)
