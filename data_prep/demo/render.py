"""How a scene of the demo world looks: drawn four times too large, then shrunk to be smooth."""

from functools import cache
from math import cos, pi, sin

import numpy as np
from PIL import Image, ImageDraw

from data_prep.demo.world import COLOURS, SIZES, Scene

PICTURE_SIDE = 64
_SCALE = 4
_CELL = PICTURE_SIDE // 2
_BACKGROUNDS = np.array(
    [(199, 209, 219), (212, 204, 190), (194, 210, 198), (214, 198, 204), (203, 200, 216)],
    dtype=np.float32,
)
_OUTLINE = 2.0 * _SCALE
_OUTLINE_COLOUR = (16, 16, 20)
"""One for all: a shape is then drawn by the same pixels whatever its colour, and soon learned."""


def render(scene: Scene, rng: np.random.Generator) -> Image.Image:
    """RGB picture of 64 x 64 pixels; ``rng`` makes the background."""
    canvas = _background(rng)
    for thing in scene.things:
        row, column = divmod(thing.cell, 2)
        colours, mask = _stamp(thing.shape, thing.colour, thing.size, thing.texture)
        corner = (column * _CELL, row * _CELL)
        canvas.paste(colours, corner, mask)
    return canvas


def _background(rng: np.random.Generator) -> Image.Image:
    base = _BACKGROUNDS[int(rng.integers(len(_BACKGROUNDS)))] + rng.uniform(-8, 8, size=3)
    slope = rng.uniform(-9, 9, size=2)
    ramp = np.linspace(-1, 1, PICTURE_SIDE)
    light = slope[0] * ramp[:, None] + slope[1] * ramp[None, :]
    noise = rng.normal(0, 2.5, size=(PICTURE_SIDE, PICTURE_SIDE, 1))
    pixels = base + light[:, :, None] + noise
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@cache
def _stamp(shape: str, colour: str, size: str, texture: str) -> tuple[Image.Image, Image.Image]:
    """Colours and coverage of a thing in its cell: there are 288 of them, each drawn once."""
    side = _CELL * _SCALE
    radius = SIZES[size] * _SCALE
    outer = _shape_mask(shape, side, radius)
    inner = _shape_mask(shape, side, radius - _OUTLINE / 2)
    fill = Image.new("RGB", (side, side), COLOURS[colour])
    fill.paste(_shade(COLOURS[colour]), (0, 0), _texture_mask(texture, side))
    drawn = Image.new("RGB", (side, side), _OUTLINE_COLOUR)
    drawn.paste(fill, (0, 0), inner)
    small = (_CELL, _CELL)
    return drawn.resize(small, Image.Resampling.BOX), outer.resize(small, Image.Resampling.BOX)


def _shade(colour: tuple[int, int, int]) -> tuple[int, int, int]:
    """The second tone of a texture: lighter where the colour is dark, darker where it is light."""
    light = sum(colour) / 3 > 150
    target, share = (0, 0.38) if light else (255, 0.55)
    red, green, blue = (round(c + (target - c) * share) for c in colour)
    return red, green, blue


def _texture_mask(texture: str, side: int) -> Image.Image:
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    if texture == "striped":
        for offset in range(-side, side, 6 * _SCALE):
            draw.line((offset, side, offset + side, 0), fill=255, width=round(2.4 * _SCALE))
    elif texture == "dotted":
        step, radius = 5 * _SCALE, 1.3 * _SCALE
        for y in range(step // 2, side, step):
            for x in range(step // 2 + (y // step % 2) * step // 2, side, step):
                draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    return mask


def _shape_mask(shape: str, side: int, radius: float) -> Image.Image:
    mask = Image.new("L", (side, side), 0)
    draw = ImageDraw.Draw(mask)
    middle = side / 2
    if shape in ("circle", "ring"):
        draw.ellipse(_square_around(middle, radius), fill=255)
        if shape == "ring":
            hole = radius * 0.5 if radius % _SCALE == 0 else radius * 0.5 + _OUTLINE / 4
            draw.ellipse(_square_around(middle, hole), fill=0)
    elif shape == "square":
        draw.rectangle(_square_around(middle, radius * 0.88), fill=255)
    elif shape == "cross":
        arm = radius * 0.36
        draw.rectangle((middle - arm, middle - radius, middle + arm, middle + radius), fill=255)
        draw.rectangle((middle - radius, middle - arm, middle + radius, middle + arm), fill=255)
    else:
        draw.polygon(_corners(shape, middle, radius), fill=255)
    return mask


def _square_around(middle: float, radius: float) -> tuple[float, float, float, float]:
    return middle - radius, middle - radius, middle + radius, middle + radius


def _corners(shape: str, middle: float, radius: float) -> list[tuple[float, float]]:
    count, inner = (3, radius) if shape == "triangle" else (10, radius * 0.42)
    return [
        (
            middle + (radius if i % 2 == 0 else inner) * sin(2 * pi * i / count),
            middle - (radius if i % 2 == 0 else inner) * cos(2 * pi * i / count),
        )
        for i in range(count)
    ]
