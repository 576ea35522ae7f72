"""What the model was shown, as a picture inside the page."""

import base64
import io

import numpy as np
from PIL import Image, ImageDraw

from unimo_ds.data.schema import RegionSource
from unimo_ds.data.shards import Regions
from unimo_ds.pixels import PixelGrid

LARGEST_SIDE = 160
"""Pixels of the longer side; a page holds about a hundred pictures."""

BOX_BACKGROUND = (38, 42, 52)


def picture_of(regions: Regions, source: RegionSource) -> Image.Image:
    """The picture that ``regions`` were cut from; their boxes where the source keeps no pixels."""
    if source.name == "pixels":
        picture = PixelGrid(**source.parameters).picture(np.asarray(regions.features))
    else:
        picture = box_picture(regions)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return picture


def box_picture(regions: Regions) -> Image.Image:
    """The boxes of ``regions``, coloured by their most probable class."""
    picture = Image.new("RGB", (LARGEST_SIDE, LARGEST_SIDE), BOX_BACKGROUND)
    draw = ImageDraw.Draw(picture)
    for box, class_ids, probs in zip(
        regions.boxes, regions.class_ids, regions.class_probs, strict=True
    ):
        x1, y1, x2, y2 = (float(edge) * (LARGEST_SIDE - 1) for edge in box[:4])
        # Neighbouring class ids get hues that are far apart: steps of the golden ratio.
        hue = (
            int(int(class_ids[int(np.argmax(probs))]) * 0.618 * 360 % 360) if len(class_ids) else 0
        )
        draw.rectangle((x1, y1, max(x1, x2), max(y1, y2)), outline=f"hsl({hue}, 80%, 65%)")
    return picture


def heat_map_picture(values: np.ndarray, low: float, high: float) -> Image.Image:
    """``values`` [N, M] as one pixel each, ``low`` and below dark, ``high`` and above bright."""
    span = high - low
    share = np.nan_to_num((values - low) / span if span > 0 else np.zeros_like(values))
    return Image.fromarray(colours_of(share))


def colours_of(shares: np.ndarray) -> np.ndarray:
    """uint8 [..., 3]: viridis, brightness rising evenly from 0 to 1."""
    at = np.linspace(0, 1, len(_VIRIDIS))
    channels = [np.interp(shares.clip(0, 1), at, channel) for channel in np.array(_VIRIDIS).T]
    return np.stack(channels, axis=-1).round().astype(np.uint8)


# Nine evenly spaced colours of matplotlib's viridis; between them it is nearly linear.
_VIRIDIS = (
    (68, 1, 84),
    (71, 45, 123),
    (59, 82, 139),
    (44, 114, 142),
    (33, 145, 140),
    (40, 174, 128),
    (94, 201, 98),
    (173, 220, 48),
    (253, 231, 37),
)


def data_uri(picture: Image.Image, *, exact: bool = False) -> str:
    """``picture`` inside an address: PNG if every pixel counts, else a small WebP."""
    buffer = io.BytesIO()
    if exact:
        picture.save(buffer, "PNG", optimize=True)
    else:
        picture.save(buffer, "WEBP", quality=88)
    kind = "png" if exact else "webp"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"
