"""Images of a page: the picture, the regions over it, and what they are called."""

import base64
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from data_prep.inspect.sampling import grid_of
from data_prep.quarantine import BadRecord
from data_prep.readers.images import open_picture, picture_below
from data_prep.regions.boxes import lies_sideways
from data_prep.regions.class_names import CLASS_NAMES_NAME
from data_prep.regions.pixels import grid_of_source
from data_prep.regions.plan import PIXELS
from unimo_ds.data.schema import RegionSource
from unimo_ds.data.shards import ImageCorpus, Regions

LONG_SIDE = 480
"""Units, and pixels at most, of the longer side of a picture in the page."""
_LABELS, _CHIPS = 8, 10
_FONT, _CHARACTER = 15, 8.2  # units: size, and width of a letter on average
_CELL = 40
_WIDEST_MAP = 14  # columns of a grid whose cells still hold a number


class Chip(NamedTuple):
    """A class in the line below a picture."""

    name: str
    probability: str
    hue: int


class View(NamedTuple):
    """One drawing of an image: an SVG, and what stands below it."""

    svg: str
    note: str


class Picture(NamedTuple):
    """An image of the corpus as the page shows it."""

    id: str
    size: str
    regions: int
    main: View
    aside: list[View]
    chips: list[Chip]


class ClassNames(NamedTuple):
    """What classes are called; without names they are numbers."""

    names: Sequence[str]
    unnamed: str  # "class" or "visual word"

    def of(self, class_id: int) -> str:
        """The first name of a class."""
        if class_id < len(self.names):
            return self.names[class_id].split(",")[0]
        return f"{self.unnamed} {class_id}"


def class_names(corpus: ImageCorpus) -> ClassNames:
    """The lines of ``class_names.txt`` beside the manifest, if it is there."""
    path = corpus.folder / CLASS_NAMES_NAME
    text = path.read_text(encoding="utf-8", errors="replace") if path.is_file() else ""
    return ClassNames(
        text.splitlines(), "visual word" if corpus.source.visual_words_sha256 else "class"
    )


def picture_of(
    corpus: ImageCorpus, row: int, names: ClassNames, image_root: Path | None
) -> Picture:
    """Image ``row`` of ``corpus``: its file below ``image_root``, else rebuilt from its pixels,
    else its boxes on an empty canvas."""
    regions, name, size = corpus.regions(row), corpus.image_id(row), corpus.size(row)
    columns, rows = grid_of(regions.boxes)
    rebuilt = _rebuilt(regions, corpus.source)
    file, trouble = _file(name, size, image_root)
    shown = file or rebuilt
    width, height = _fitted(file.size if file else size)
    best = regions.class_probs.argmax(axis=1) if len(regions.boxes) else np.empty(0, np.int64)
    classes = [int(ids[at]) for ids, at in zip(regions.class_ids, best, strict=True)]
    probs = [float(p[at]) for p, at in zip(regions.class_probs, best, strict=True)]
    if columns:
        over, chips = _lines(columns, rows, width, height), []
    else:
        order = sorted(range(len(probs)), key=lambda i: (-probs[i], i))
        over = _boxes(regions.boxes, classes, names, order, width, height)
        chips = _chips(classes, probs, names, order)
    what = "photo" if file else "picture rebuilt from its pixels" if rebuilt else "boxes"
    alt = f"{what} {name}, {len(regions.boxes)} regions"
    aside = [_rebuilt_view(rebuilt, name)] if file and rebuilt else []
    if columns:
        aside.append(_word_map(classes, columns, rows, width / height, names))
    note = trouble or ("rebuilt from its pixels" if rebuilt and not file else "")
    main = View(_drawing(shown, over, width, height, alt), note)
    told = f"{size[0]} x {size[1]}"
    return Picture(name, told, len(regions.boxes), main, aside, chips)


def data_uri(image: Image.Image) -> str:
    """A picture inside a page."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=84, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def hue_of(class_id: int) -> int:
    """Neighbouring ids get hues that are far apart: steps of the golden angle."""
    return int(class_id * 137.508) % 360


def _rebuilt(regions: Regions, source: RegionSource) -> Image.Image | None:
    if source.name != PIXELS:
        return None
    return grid_of_source(source).picture(np.asarray(regions.features))


def _file(name: str, size: tuple[int, int], root: Path | None) -> tuple[Image.Image | None, str]:
    """The picture file, or why there is none that regions of a picture of ``size`` lie on."""
    if root is None:
        return None, ""
    try:
        image = open_picture(picture_below(root, name, "", 0))
    except BadRecord as error:
        return None, error.detail
    if lies_sideways(size, *image.size):
        told = f"shown as {image.width} x {image.height}, its regions are of {size[0]} x {size[1]}"
        return None, f"{told}, the picture before its EXIF turned it"
    image.thumbnail((LONG_SIDE, LONG_SIDE))
    return image, ""


def _fitted(size: tuple[int, int]) -> tuple[int, int]:
    scale = LONG_SIDE / max(size)
    return max(round(size[0] * scale), 1), max(round(size[1] * scale), 1)


def _drawing(
    image: Image.Image | None, over: str, width: int, height: int, description: str
) -> str:
    canvas = f'<rect class="canvas" width="{width}" height="{height}"/>'
    if image:
        canvas = (
            f'<image href="{data_uri(image)}" width="{width}" height="{height}" '
            'preserveAspectRatio="none"/>'
        )
    return (
        f'<svg class="picture" viewBox="0 0 {width} {height}" role="img" '
        f'aria-label="{escape(description)}">{canvas}{over}</svg>'
    )


def _lines(columns: int, rows: int, width: int, height: int) -> str:
    across = "".join(f"M{i * width / columns:.1f} 0V{height}" for i in range(1, columns))
    down = "".join(f"M0 {i * height / rows:.1f}H{width}" for i in range(1, rows))
    return f'<path class="lines" d="{across}{down}"/>'


def _boxes(
    boxes: np.ndarray,
    classes: Sequence[int],
    names: ClassNames,
    order: Sequence[int],
    width: int,
    height: int,
) -> str:
    """All boxes, small ones on top; the likeliest are labelled where labels do not collide."""
    parts, labels = [], []
    taken: list[tuple[float, float, float, float]] = []
    labelled = set(order[:_LABELS])
    for at in np.argsort(-boxes[:, 4], kind="stable").tolist():
        left, top, right, bottom = boxes[at, :4] * [width, height, width, height]
        hue, name = hue_of(classes[at]), names.of(classes[at])
        faint = "" if at in labelled else " faint"
        parts.append(
            f'<rect class="box{faint}" style="--hue:{hue}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{right - left:.1f}" height="{bottom - top:.1f}"><title>{escape(name)}</title>'
            "</rect>"
        )
    for at in order[:_LABELS]:
        left, top = boxes[at, 0] * width, boxes[at, 1] * height
        name = names.of(classes[at])
        wide = len(name) * _CHARACTER + 10
        x = max(min(float(left), width - wide), 0.0)
        place = (x, float(top), x + wide, float(top) + _FONT + 6)
        if not any(_overlap(place, other) for other in taken):
            taken.append(place)
            labels.append(_label(place, name, hue_of(classes[at])))
    return "".join([*parts, *labels])


def _overlap(a: Sequence[float], b: Sequence[float]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _label(place: tuple[float, float, float, float], name: str, hue: int) -> str:
    x, y, right, bottom = place
    return (
        f'<g class="label" style="--hue:{hue}"><rect x="{x:.1f}" y="{y:.1f}" rx="3" '
        f'width="{right - x:.1f}" height="{bottom - y:.1f}"/>'
        f'<text x="{x + 5:.1f}" y="{y + _FONT:.1f}" textLength="{right - x - 10:.1f}" '
        f'lengthAdjust="spacingAndGlyphs">{escape(name)}</text></g>'
    )


def _chips(
    classes: Sequence[int], probs: Sequence[float], names: ClassNames, order: Sequence[int]
) -> list[Chip]:
    found: dict[int, float] = {}
    for at in order:
        found.setdefault(classes[at], probs[at])
    first = list(found.items())[:_CHIPS]
    return [Chip(names.of(c), "" if p >= 1 else f"{p:.2f}", hue_of(c)) for c, p in first]


def _rebuilt_view(rebuilt: Image.Image, name: str) -> View:
    side = rebuilt.width
    drawn = _drawing(rebuilt, "", side, side, f"picture {name} rebuilt from its pixels")
    return View(drawn, "as the model sees it")


def _word_map(
    classes: Sequence[int], columns: int, rows: int, aspect: float, names: ClassNames
) -> View:
    """A cell for each region in the colour of its class."""
    cell_height = _CELL * columns / rows / aspect
    parts = []
    for at, class_id in enumerate(classes):
        x, y = at % columns * _CELL, at // columns * cell_height
        parts.append(
            f'<rect class="cell" style="--hue:{hue_of(class_id)}" x="{x}" y="{y:.1f}" '
            f'width="{_CELL}" height="{cell_height:.1f}"><title>{escape(names.of(class_id))}'
            "</title></rect>"
        )
        if columns <= _WIDEST_MAP:
            parts.append(
                f'<text x="{x + _CELL / 2}" y="{y + cell_height / 2 + 4:.1f}" '
                f'text-anchor="middle">{class_id}</text>'
            )
    different = len(set(classes))
    svg = (
        f'<svg class="words" viewBox="0 0 {columns * _CELL} {rows * cell_height:.0f}" role="img" '
        f'aria-label="{different} different classes">{"".join(parts)}</svg>'
    )
    return View(svg, f"{different} {names.unnamed}{'es' if names.unnamed == 'class' else 's'}")
