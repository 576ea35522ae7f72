"""Sixty and more hostile and odd pictures, each with the RGB picture that a viewer shows of it.

What is expected comes from the numbers that a file was made of, or from `ImageOps.exif_transpose`.
"""

import io
import struct
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageCms, ImageOps

WIDTH, HEIGHT = 40, 24
ORIENTATION = 0x0112


class Odd(NamedTuple):
    """A file, and what it shows."""

    name: str
    data: bytes
    shown: Image.Image  # RGB


def odd_pictures() -> list[Odd]:
    """All of them; every one is good."""
    kinds = (oriented, deep_greys, transparent, inks_and_profiles, frames, extremes)
    return [odd for kind in kinds for odd in kind()]


def colours(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """uint8 [H, W, 3]: a picture that no turn leaves as it is."""
    y, x = np.mgrid[:height, :width]
    red, green = x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1)
    return np.stack([red, green, (x + 2 * y) * 5 % 256], axis=-1).astype(np.uint8)


def ramp() -> np.ndarray:
    """float64 [H, W]: greys from 0 to 1, another in every pixel."""
    return np.linspace(0, 1, WIDTH * HEIGHT).reshape(HEIGHT, WIDTH)


def grey(shares: np.ndarray) -> Image.Image:
    return Image.fromarray((shares * 255).round().astype(np.uint8)).convert("RGB")


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> Image.Image:
    share = alpha[..., None] / 255
    return Image.fromarray((rgb * share + 255 * (1 - share)).round().astype(np.uint8))


def saved(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def transposed(data: bytes) -> Image.Image:
    """As Pillow's own `exif_transpose` leaves it."""
    return ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")


def exif(orientation: Any) -> Image.Exif:
    values = Image.Exif()
    values[ORIENTATION] = orientation
    return values


def png(width: int, height: int, bits: int, kind: int, rows: bytes, **chunks: bytes) -> bytes:
    """A PNG with any bit depth; ``rows`` without their filter bytes."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    stride = len(rows) // height
    lines = b"".join(b"\0" + rows[at : at + stride] for at in range(0, len(rows), stride))
    parts = {"IHDR": struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0), **chunks}
    parts |= {"IDAT": zlib.compress(lines), "IEND": b""}
    body = b"".join(chunk(name.encode(), content) for name, content in parts.items())
    return b"\x89PNG\r\n\x1a\n" + body


def tiff(samples: bytes, bits: int, *, photometric: int = 1, sample_format: int = 1) -> bytes:
    """An uncompressed grey TIFF of WIDTH x HEIGHT, as scanners and scientific programs write it."""
    tags = {
        256: WIDTH,
        257: HEIGHT,
        258: bits,
        259: 1,
        262: photometric,
        273: 8,
        277: 1,
        278: HEIGHT,
        279: len(samples),
        339: sample_format,
    }
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items()]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8 + len(samples)) + samples + directory


def oriented() -> Iterator[Odd]:
    """EXIF that turns, in every format that has it, and EXIF that is broken."""
    image = Image.fromarray(colours())
    for orientation in range(1, 9):
        for form in ("JPEG", "PNG", "TIFF"):
            data = saved(image, form, exif=exif(orientation))
            yield Odd(f"turned-{orientation}.{form.lower()}", data, transposed(data))
    data = saved(image, "WEBP", exif=exif(7), lossless=True)
    yield Odd("turned-7.webp", data, transposed(data))
    large = saved(Image.fromarray(colours(400, 402)), "JPEG", exif=exif(6), quality=95)
    yield Odd("turned-and-reduced.jpg", large, transposed(large))
    deep = Image.fromarray((ramp() * 65535).round().astype(">u2"))
    for form in ("PNG", "TIFF"):  # big-endian in both
        data = saved(deep, form, exif=exif(8))
        yield Odd(f"turned-deep.{form.lower()}", data, grey(np.rot90(ramp())))
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="6"/></x:xmpmeta>'
    data = saved(image, "JPEG", xmp=xmp)
    yield Odd("turned-by-xmp.jpg", data, transposed(data))
    broken = {
        "orientation-9": exif(9).tobytes(),
        "orientation-text": exif(6)
        .tobytes()
        .replace(b"\0\3\0\0\0\1\0\6", b"\0\2\0\0\0\2" + b"6\0"),
        "cut": exif(6).tobytes()[:11],
        "noise": b"Exif\0\0" + bytes(range(40)),
    }
    for name, values in broken.items():
        yield Odd(f"exif-{name}.png", saved(image, "PNG", exif=values), image)


def deep_greys() -> Iterator[Odd]:
    """Greys of 12, 16 and 32 bits, and floats."""
    shares = ramp()
    words = (shares * 65535).round()
    for form, kind in (("png", "<u2"), ("tif", "<u2"), ("tif", ">u2")):
        name = f"bits-16-{'little' if kind[0] == '<' else 'big'}.{form}"
        data = saved(Image.fromarray(words.astype(kind)), "PNG" if form == "png" else "TIFF")
        yield Odd(name, data, grey(shares))
    lzw = saved(Image.fromarray(words.astype(np.uint16)), "TIFF", compression="tiff_lzw")
    yield Odd("bits-16-packed.tif", lzw, grey(shares))
    yield Odd("white-is-zero.tif", tiff(words.astype("<u2").tobytes(), 16, photometric=0),
              grey(1 - shares))  # fmt: skip
    pairs = (shares * 4095).round().astype(int).reshape(-1, 2)
    packed = np.stack([pairs[:, 0] >> 4, pairs[:, 0] % 16 * 16 + (pairs[:, 1] >> 8), pairs[:, 1]])
    yield Odd("bits-12.tif", tiff((packed.T % 256).astype(np.uint8).tobytes(), 12), grey(shares))
    signed = (shares * 32767).round().astype("<i2").tobytes()
    yield Odd("signed-16.tif", tiff(signed, 16, sample_format=2), grey(shares))
    dark = (shares * 200).round()  # of 65,535
    data = b"P5 %d %d 65535\n" % (WIDTH, HEIGHT) + dark.astype(">u2").tobytes()
    yield Odd("dark-16.pgm", data, grey(dark / 65535))
    for most in (2**8 - 1, 2**16 - 1, 2**31 - 1):
        data = saved(Image.fromarray((shares * most).round().astype(np.int32)), "TIFF")
        yield Odd(f"up-to-{most}.tif", data, grey(shares))
    longs = (shares * (2**32 - 1)).round().astype("<u4").tobytes()
    yield Odd("unsigned-32.tif", tiff(longs, 32), grey(shares))
    yield Odd("float.tif", saved(Image.fromarray(shares.astype(np.float32)), "TIFF"), grey(shares))
    floats = tiff(shares.astype("<f4").tobytes(), 32, photometric=0, sample_format=3)
    yield Odd("float-white-is-zero.tif", floats, grey(1 - shares))


def transparent() -> Iterator[Odd]:
    """Every way to say that a part is transparent."""
    rgb, levels = colours(), (ramp() * 255).astype(np.uint8)
    greys = np.repeat(levels[..., None], 3, axis=2)
    alpha = np.flipud(levels)
    rgba = Image.fromarray(np.dstack([rgb, alpha]))
    for form in ("PNG", "TIFF", "WEBP"):
        options = {"lossless": True, "exact": True} if form == "WEBP" else {}
        yield Odd(f"rgba.{form.lower()}", saved(rgba, form, **options), on_white(rgb, alpha))
    turned = saved(rgba, "PNG", exif=exif(5))
    yield Odd("rgba-turned.png", turned, ImageOps.exif_transpose(_tagged(on_white(rgb, alpha), 5)))
    la = Image.fromarray(np.dstack([levels, alpha]))
    yield Odd("la.png", saved(la, "PNG"), on_white(greys, alpha))
    yield Odd("la.tif", saved(la, "TIFF"), on_white(greys, alpha))
    deep = np.dstack([levels, alpha]).astype(">u2") * 257
    yield Odd("la-16.png", png(WIDTH, HEIGHT, 16, 4, deep.tobytes()), on_white(greys, alpha))
    indices = (levels >> 4).astype(np.uint8)
    palette = np.arange(48, dtype=np.uint8)[::-1].reshape(16, 3) * 5
    paletted = Image.fromarray(indices)
    paletted.putpalette(palette.tobytes())
    entries = bytes(range(0, 256, 17))
    data = saved(paletted, "PNG", transparency=entries)
    shown = on_white(palette[indices], np.frombuffer(entries, np.uint8)[indices])
    yield Odd("palette-alphas.png", data, shown)
    shown = on_white(palette[indices], np.where(indices == 3, 0, 255))
    yield Odd("palette-key.png", saved(paletted, "PNG", transparency=3), shown)
    yield Odd("palette-key.gif", saved(paletted, "GIF", transparency=3), shown)
    pa = Image.merge("PA", (paletted, Image.fromarray(alpha)))
    yield Odd("pa.tif", saved(pa, "TIFF"), on_white(palette[indices], alpha))
    yield from _keyed(rgb, levels)


def _keyed(rgb: np.ndarray, levels: np.ndarray) -> Iterator[Odd]:
    """PNGs in which one colour is transparent, in bits of the file."""
    greys = np.repeat(levels[..., None], 3, axis=2)
    key = rgb[5, 7]
    shown = on_white(rgb, np.where((rgb == key).all(axis=2), 0, 255))
    size = (WIDTH, HEIGHT)
    packed = struct.pack(">3H", *key)
    yield Odd("key-rgb.png", png(*size, 8, 2, rgb.tobytes(), tRNS=packed), shown)
    words = (rgb.astype(">u2") * 257).tobytes()
    packed = struct.pack(">3H", *(key.astype(int) * 257))
    yield Odd("key-rgb-16.png", png(*size, 16, 2, words, tRNS=packed), shown)
    shown = on_white(greys, np.where(levels == 130, 0, 255))
    data = png(*size, 8, 0, levels.tobytes(), tRNS=struct.pack(">H", 130))
    yield Odd("key-grey.png", data, shown)
    words = (levels.astype(">u2") * 257).tobytes()
    data = png(*size, 16, 0, words, tRNS=struct.pack(">H", 130 * 257))
    yield Odd("key-grey-16.png", data, shown)
    for bits, key_level in ((1, 0), (2, 2), (4, 5)):
        coarse = levels >> (8 - bits)
        digits = np.unpackbits(coarse[..., None], axis=2)[..., 8 - bits :].reshape(HEIGHT, -1)
        rows = np.packbits(digits, axis=1).tobytes()
        data = png(*size, bits, 0, rows, tRNS=struct.pack(">H", key_level))
        steps = np.repeat(coarse[..., None] * (255 // (2**bits - 1)), 3, axis=2)
        yield Odd(
            f"key-grey-{bits}.png", data, on_white(steps, np.where(coarse == key_level, 0, 255))
        )


def inks_and_profiles() -> Iterator[Odd]:
    """CMYK with and without Adobe's marker, ICC profiles good, foreign and broken."""
    rgb = Image.fromarray(colours())
    inks = rgb.convert("CMYK")
    adobe = saved(inks, "JPEG", quality=100, subsampling=0)
    marker = adobe.index(b"\xff\xee\x00\x0eAdobe")
    yield Odd("cmyk-adobe.jpg", adobe, rgb)
    yield Odd("cmyk.jpg", adobe[:marker] + adobe[marker + 16 :], rgb)
    yield Odd("cmyk.tif", saved(inks, "TIFF"), rgb)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    yield Odd("srgb.png", saved(rgb, "PNG", icc_profile=srgb), rgb)
    # Red named blue and blue named red: what it shows is known without a colour management.
    swapped = srgb.replace(b"rXYZ", b"none").replace(b"bXYZ", b"rXYZ").replace(b"none", b"bXYZ")
    other = Image.fromarray(colours()[..., ::-1].copy())
    yield Odd("swapped.png", saved(rgb, "PNG", icc_profile=swapped), other)
    yield Odd("swapped.tif", saved(rgb, "TIFF", icc_profile=swapped), other)
    data = saved(rgb, "PNG", icc_profile=swapped, exif=exif(3))
    yield Odd("swapped-turned.png", data, other.transpose(Image.Transpose.ROTATE_180))
    alpha = np.fliplr((ramp() * 255).astype(np.uint8))
    data = saved(Image.fromarray(np.dstack([colours(), alpha])), "PNG", icc_profile=swapped)
    yield Odd("swapped-alpha.png", data, on_white(colours()[..., ::-1], alpha))
    linear = ramp() * 0.9 + 0.05
    encoded = 1.055 * linear ** (1 / 2.4) - 0.055  # IEC 61966-2-1
    data = saved(grey(linear).convert("L"), "PNG", icc_profile=linear_grey_profile())
    yield Odd("linear-grey.png", data, grey(encoded))
    for name, profile in {"noise": b"no profile", "other": linear_grey_profile()}.items():
        yield Odd(f"icc-{name}.png", saved(rgb, "PNG", icc_profile=profile), rgb)
    yield Odd("icc-other.jpg", saved(inks, "JPEG", quality=100, icc_profile=srgb), rgb)


def linear_grey_profile() -> bytes:
    """An ICC profile (version 2.4) of greys that are proportional to light."""
    curve = b"curv" + bytes(4) + struct.pack(">I", 0)  # no entries: the identity
    white = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)  # D50
    table = struct.pack(">I4sII4sII", 2, b"kTRC", 156, 12, b"wtpt", 168, 20)
    header = struct.pack(">I4sI4s4s4s", 188, bytes(4), 0x02400000, b"mntr", b"GRAY", b"XYZ ")
    header += bytes(12) + b"acsp" + bytes(28) + struct.pack(">3i", 63190, 65536, 54061)
    return header.ljust(128, b"\0") + table + curve + white


def frames() -> Iterator[Odd]:
    """Files of several pictures: the first is shown."""
    first = Image.fromarray(colours())
    more = {"save_all": True, "append_images": [Image.new("RGB", first.size, "red")]}
    yield Odd("pages.tif", saved(first, "TIFF", **more), first)
    yield Odd("animated.png", saved(first, "PNG", **more), first)
    yield Odd("animated.webp", saved(first, "WEBP", lossless=True, **more), first)
    coarse = first.quantize(32)
    yield Odd("animated.gif", saved(coarse, "GIF", **more), coarse.convert("RGB"))
    for name, orientation in (("mpo", 1), ("mpo-turned", 6)):
        data = saved(first, "MPO", exif=exif(orientation), **more)
        yield Odd(f"{name}.jpg", data, transposed(data))


def extremes() -> Iterator[Odd]:
    """One pixel, and strips as long as libjpeg (65,500) and 16 bits (65,535) allow."""
    for mode, colour in (("1", 1), ("L", 99), ("RGB", (9, 99, 199)), ("CMYK", (9, 9, 9, 99))):
        image = Image.new(mode, (1, 1), colour)
        form = "TIFF" if mode == "CMYK" else "PNG"
        yield Odd(f"pixel-{mode.lower()}.{form.lower()}", saved(image, form), image.convert("RGB"))
    clear = Image.new("LA", (1, 1), (0, 0))
    yield Odd("pixel-clear.png", saved(clear, "PNG"), Image.new("RGB", (1, 1), "white"))
    for name, size, orientation in (("wide", (65_500, 1), 1), ("high", (1, 65_500), 6)):
        data = saved(Image.fromarray(colours(*size)), "JPEG", exif=exif(orientation))
        yield Odd(f"strip-{name}.jpg", data, transposed(data))
    image = Image.fromarray(colours(1, 65_535))
    yield Odd("strip.png", saved(image, "PNG"), image)
    strip = Image.fromarray(np.linspace(0, 65535, 65_535).astype(np.uint16)[None])
    shown = Image.fromarray((np.linspace(0, 255, 65_535)).round().astype(np.uint8)[None])
    yield Odd("strip-deep.png", saved(strip, "PNG"), shown.convert("RGB"))


def _tagged(image: Image.Image, orientation: int) -> Image.Image:
    return Image.open(io.BytesIO(saved(image, "PNG", exif=exif(orientation))))
