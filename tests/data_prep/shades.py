"""Pictures of one shade: a PNG to put somewhere, and what was found of it."""

import io

from PIL import Image

from data_prep.readers.images import Picture, open_picture


def shade_png(shade: int) -> bytes:
    """A PNG of 2 x 2 pixels of that red."""
    stream = io.BytesIO()
    Image.new("RGB", (2, 2), (shade, 0, 0)).save(stream, "PNG")
    return stream.getvalue()


def shade_of(picture: Picture) -> int:
    """The red of a picture's first pixel."""
    return open_picture(picture).getpixel((0, 0))[0]
