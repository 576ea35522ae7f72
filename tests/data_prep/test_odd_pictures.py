"""Hostile and odd pictures are what a viewer shows, the same in corpora and in the processor."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from data_prep.readers.images import open_picture, open_scaled, picture_below
from tests.odd_pictures import colours, exif, odd_pictures, on_white, png, saved
from unimo_ds.model.processing import UnimoProcessor, hugging_face_tokenizer
from unimo_ds.pixels import NoGreyRange, PixelGrid, as_shown
from unimo_ds.tokenizer import train_tokenizer

GRID = PixelGrid(grid=2, patch=8)
SMALL = ("--grid", 2, "--patch", 8, "--num-classes", 2)
DEVIATIONS = np.array([0.229, 0.224, 0.225]) * 255  # levels in one unit of the features
MEANS = np.array([0.485, 0.456, 0.406]) * 255


@pytest.fixture(scope="module")
def odd():
    pictures = odd_pictures()
    assert len({picture.name for picture in pictures}) == len(pictures) >= 60
    return pictures


@pytest.fixture(scope="module")
def processor():
    words = train_tokenizer(["a red ball", "the dog"] * 4, vocab_size=300)
    return UnimoProcessor(hugging_face_tokenizer(words, 10), GRID)


def levels_of(features):
    """float [16, 16, 3]: the picture that features were cut from, by another route than ours."""
    patches = np.asarray(features, np.float64).reshape(2, 2, 8, 8, 3) * DEVIATIONS + MEANS
    return np.concatenate([np.concatenate(row, axis=1) for row in patches], axis=0)


def differing(found, odd):
    """Names of pictures that are two levels or more from what they show, with how many."""
    wrong = {}
    for picture in odd:
        shown = np.asarray(picture.shown.resize((16, 16), Image.Resampling.BILINEAR), float)
        # A JPEG that is decoded at a fraction of its size differs by more at single pixels.
        difference = np.abs(levels_of(found[picture.name]) - shown)
        difference = difference.mean() if "reduced" in picture.name else difference.max()
        if difference >= 2:
            wrong[picture.name] = round(float(difference), 1)
    return wrong


def test_corpora_hold_what_a_viewer_shows(odd, prep, read_rows, quarantine, tmp_path):
    (tmp_path / "p").mkdir()
    for picture in odd:
        (tmp_path / "p" / picture.name).write_bytes(picture.data)
    ran = prep("images", tmp_path / "o", tmp_path / "p", *SMALL)
    assert ran.code == 0, ran.err
    assert quarantine(tmp_path / "o") == []
    rows = {row["id"]: row for row in read_rows(tmp_path / "o")}
    assert differing({name: row["features"] for name, row in rows.items()}, odd) == {}
    sizes = {name: (row["width"], row["height"]) for name, row in rows.items()}
    assert sizes == {picture.name: picture.shown.size for picture in odd}
    assert prep("verify", tmp_path / "o").code == 0


def test_the_processor_gives_what_a_viewer_shows(odd, processor):
    images = [Image.open(io.BytesIO(picture.data)) for picture in odd]
    features = processor(images=images)["features"].numpy()
    found = dict(zip((picture.name for picture in odd), features, strict=True))
    assert differing(found, odd) == {}
    for image in images:  # what is shown once is not turned, composed or converted again
        shown = as_shown(image)
        assert shown.mode == "RGB" and np.array_equal(as_shown(shown), shown)


@pytest.mark.parametrize("mode", ["La", "RGBa", "LAB", "HSV", "YCbCr", "CMYK", "I;16B", "F"])
def test_modes_that_only_programs_make(mode, processor):
    rgb = colours()
    alpha = np.linspace(60, 255, rgb[..., 0].size).reshape(rgb.shape[:2]).astype(np.uint8)
    grey = np.repeat(rgb[..., :1], 3, axis=2)
    if mode == "La":
        image, shown = Image.fromarray(np.dstack([grey[..., 0], alpha])), on_white(grey, alpha)
    elif mode == "RGBa":
        image, shown = Image.fromarray(np.dstack([rgb, alpha])), on_white(rgb, alpha)
    elif mode in ("I;16B", "F"):
        depth = np.asarray(grey[..., 0], ">u2") * 257 if mode == "I;16B" else grey[..., 0] / 255
        image, shown = Image.fromarray(depth.astype(">u2" if mode == "I;16B" else "f4")), grey
    else:
        image, shown = Image.fromarray(rgb), rgb
    image = image if mode in ("I;16B", "F") else image.convert(mode)
    assert image.mode == mode
    difference = np.abs(np.asarray(as_shown(image), float) - np.asarray(shown, float))
    # Colours of LAB and HSV, and premultiplied ones, are kept in few levels.
    assert difference.mean() < (3 if mode in ("LAB", "HSV") else 1.5), difference.max()
    assert processor(images=image)["features"].shape == (1, 4, 192)


def _floats(*levels):
    return saved(Image.fromarray(np.array([levels], "f4")), "TIFF")


REFUSED = {
    "nan.tif": (_floats(0, np.nan), "no_grey_range", "from nan to nan, expected 0 to 1"),
    "infinite.tif": (_floats(0, np.inf), "no_grey_range", "from 0 to inf"),
    "metres.tif": (_floats(0.5, 31.25), "no_grey_range", "from 0.5 to 31.25"),
    "negative.tif": (_floats(-0.1, 1), "no_grey_range", "from -0.1 to 1"),
    "hounsfield.tif": (
        saved(Image.fromarray(np.array([[-1024, 3071]], "i4")), "TIFF"),
        "no_grey_range",
        "levels from -1,024 to 3,071, expected 0 to 255",
    ),
    "counts.tif": (
        saved(Image.fromarray(np.array([[0, 1_000_000]], "i4")), "TIFF"),
        "no_grey_range",
        "or to the most of 32 bits: save it scaled to 8 or 16 bits",
    ),
    "bomb.png": (png(65_535, 2_000, 16, 0, bytes(2_000)), "decompression_bomb", "exceeds limit"),
    "cut.png": (saved(Image.fromarray(colours()), "PNG")[:-60], "broken_image", "truncated"),
}


def test_what_has_no_range_is_quarantined_and_refused(prep, quarantine, processor, tmp_path):
    (tmp_path / "p").mkdir()
    for name, (data, _, _) in REFUSED.items():
        (tmp_path / "p" / name).write_bytes(data)
    Image.fromarray(colours()).save(tmp_path / "p" / "good.png")
    ran = prep("images", tmp_path / "o", tmp_path / "p", *SMALL, "--max-bad", 0.99)
    assert ran.code == 0, ran.err
    told = {bad["record"]: (bad["reason"], bad["detail"]) for bad in quarantine(tmp_path / "o")}
    assert told.keys() == REFUSED.keys()
    for name, (data, reason, detail) in REFUSED.items():
        assert told[name][0] == reason and detail in told[name][1], told[name]
        if reason == "no_grey_range":
            with pytest.raises(NoGreyRange, match="expected 0 to"):
                processor(images=Image.open(io.BytesIO(data)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow's, of corrupt EXIF
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP"])
def test_no_exif_costs_a_picture_or_turns_it_twice(form, tmp_path):
    rng = np.random.default_rng(4)
    image, good = Image.fromarray(colours(64, 40)), np.frombuffer(exif(6).tobytes(), np.uint8)
    sizes = set()
    for number in range(80):
        values = good.copy()
        values[rng.integers(6, len(values), 2)] = rng.integers(0, 256, 2)
        cut = int(rng.integers(6, len(values))) if number % 3 == 0 else len(values)
        path = tmp_path / f"{number}.picture"
        path.write_bytes(saved(image, form, exif=values[:cut].tobytes()))
        shown, size = open_scaled(picture_below(tmp_path, path.name, "", 0), 8)
        whole = open_picture(picture_below(tmp_path, path.name, "", 0))
        assert size == whole.size == as_shown(Image.open(path)).size
        assert (shown.width > shown.height) == (size[0] > size[1])
        assert as_shown(shown).size == shown.size
        sizes.add(size)
    assert sizes == {(64, 40), (40, 64)}


def test_a_build_begun_with_pictures_as_stored_is_not_gone_on_with(prep, make_pictures, tmp_path):
    make_pictures(tmp_path / "p", 2)
    (tmp_path / "p" / "broken.png").write_bytes(b"no picture")
    command = ("images", tmp_path / "o", tmp_path / "p", *SMALL)
    assert prep(*command).code == 3  # too many bad ones for a manifest
    path = tmp_path / "o" / ".receipts" / "parameters.json"
    parameters = json.loads(path.read_text())
    assert parameters.pop("pictures") == "as shown"
    path.write_text(json.dumps(parameters))
    again = prep(*command, "--resume")
    assert again.code == 2 and "pictures was None, is 'as shown'" in again.err
