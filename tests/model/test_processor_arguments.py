"""The processor takes what processors of transformers take, and says what it does not take."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import TensorType

from unimo_ds.model.processing import UnimoProcessor, hugging_face_tokenizer
from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import WordTokenizer, train_tokenizer

TEXTS = ["two owls sleep in a barn", "an owl"]
GRID = PixelGrid(grid=3, patch=2)


@pytest.fixture(scope="module")
def words() -> WordTokenizer:
    return train_tokenizer(TEXTS * 4, vocab_size=290)


@pytest.fixture(scope="module")
def processor(words: WordTokenizer) -> UnimoProcessor:
    return UnimoProcessor(hugging_face_tokenizer(words, 12), GRID)


def _bytes(*shape: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, shape, dtype=np.uint8)


def _as_float(pixels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(pixels).movedim(-1, 0).float() / 255


RGB, GREY = _bytes(9, 14, 3), _bytes(9, 14)
ARRAYS: dict[str, tuple[Any, np.ndarray]] = {
    "rows, columns, RGB": (RGB, RGB),
    "RGB, rows, columns": (RGB.transpose(2, 0, 1), RGB),
    "floats of numpy, reversed in memory": ((RGB[::-1] / 255.0)[::-1], RGB),
    "a tensor as torchvision makes it": (_as_float(RGB), RGB),
    "a tensor that asks for its gradient": (_as_float(RGB).requires_grad_(), RGB),
    "half precision": (_as_float(RGB).half(), RGB),
    "grey": (GREY, GREY),
    "one channel": (torch.from_numpy(GREY)[None], GREY),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_the_pictures_that_they_show(processor: UnimoProcessor, name: str) -> None:
    array, pixels = ARRAYS[name]
    expected = GRID.features(Image.fromarray(pixels))
    for images in (array, [array], [array, Image.fromarray(pixels)]):
        found = processor(images=images)["features"]
        np.testing.assert_array_equal(found[0], expected)
        np.testing.assert_array_equal(found[-1], expected)


def test_an_array_of_four_axes_is_several_pictures(processor: UnimoProcessor) -> None:
    several = _bytes(2, 5, 6, 3)
    expected = np.stack([GRID.features(Image.fromarray(pixels)) for pixels in several])
    for images in (several, torch.from_numpy(several).permute(0, 3, 1, 2)):
        np.testing.assert_array_equal(processor(images=images)["features"], expected)
    transparent = _bytes(5, 6, 4)
    same = processor(images=[transparent, Image.fromarray(transparent)])["features"]
    assert torch.equal(same[0], same[1])


def test_channels_that_could_be_either_axis_are_told(processor: UnimoProcessor) -> None:
    strip = _bytes(3, 11, 3)
    with pytest.raises(ValueError, match=r"\[3, 11, 3\] may have its channels first or last"):
        processor(images=strip)
    last = processor(images=strip, input_data_format="channels_last")["features"]
    first = processor(images=strip, images_kwargs={"input_data_format": "channels_first"})
    np.testing.assert_array_equal(last[0], GRID.features(Image.fromarray(strip)))
    turned = np.ascontiguousarray(strip.transpose(1, 2, 0))
    np.testing.assert_array_equal(first["features"][0], GRID.features(Image.fromarray(turned)))


NO_PICTURES = {
    "normalised": (torch.randn(3, 8, 9), r"floats from -\d.*, expected 0 to 1"),
    "floats of bytes": (RGB.astype(np.float32), "expected 0 to 1"),
    "not a number": (np.full((8, 9, 3), np.nan), "floats from nan to nan"),
    "16 bits": (RGB.astype(np.uint16), "uint16, whose white may be any number"),
    "64 bits": (torch.zeros(3, 8, 9, dtype=torch.long), "int64, whose white"),
    "a mask": (RGB > 9, "an array of bool"),
    "five channels": (_bytes(8, 9, 5), "has no axis of 1, 3 or 4 channels"),
    "one axis": (_bytes(8), "expected 2 or 3 axes"),
    "nothing": (_bytes(0, 9, 3), "is empty"),
    "a path": ("owl.jpg", "a picture is a str.*PIL.Image.open"),
    "lists of lists": ([[RGB], [RGB]], "a picture is a list"),
}


@pytest.mark.parametrize("name", NO_PICTURES)
def test_what_may_be_another_picture_is_refused(processor: UnimoProcessor, name: str) -> None:
    images, message = NO_PICTURES[name]
    with pytest.raises(ValueError, match=message):
        processor(images=images)


def test_options_of_texts_reach_the_tokenizer(
    processor: UnimoProcessor, words: WordTokenizer
) -> None:
    owls, owl = words.encode(TEXTS)
    fixed = processor(text=TEXTS, padding="max_length", max_length=7, return_tensors="pt")
    assert fixed["input_ids"].tolist()[0] == [0, *owls[:5], 2]
    assert fixed["input_ids"].tolist()[1] == ([0, *owl, 2] + [1] * 7)[:7]
    left = processor(text=TEXTS, padding_side="left", pad_to_multiple_of=4)["attention_mask"]
    assert left.shape[1] % 4 == 0 and not left[1, 0] and left[1, -1]
    whole = processor(text=TEXTS[0] * 3, truncation=False)["input_ids"]
    assert whole.shape[1] > 12
    bare = processor(text=[TEXTS[1]], text_kwargs={"add_special_tokens": False})["input_ids"]
    assert bare.tolist() == [owl]
    assert set(processor(text=TEXTS, return_attention_mask=False)) == {"input_ids"}
    pair = processor(text=["an owl"], text_pair=["in a barn"], max_length=12)["input_ids"]
    assert pair[0].tolist().count(2) == 2
    ragged = processor(text=TEXTS, padding=False, return_tensors=None)["input_ids"]
    assert ragged == [[0, *owls[:10], 2], [0, *owl, 2]]


TENSORS: dict[Any, Callable[[Any], bool]] = {
    "np": lambda x: isinstance(x, np.ndarray),
    "pt": lambda x: isinstance(x, torch.Tensor),
    TensorType.PYTORCH: lambda x: isinstance(x, torch.Tensor),
    None: lambda x: isinstance(x, list),
}


@pytest.mark.parametrize("kind", TENSORS)
def test_all_that_comes_back_is_of_the_kind_asked_for(processor: UnimoProcessor, kind: Any) -> None:
    found = processor(images=[RGB, GREY], text=TEXTS, return_tensors=kind)
    assert set(found) == {"input_ids", "attention_mask", "features", "boxes", "region_mask"}
    assert all(TENSORS[kind](value) for value in found.values())
    grouped = processor(images=[RGB, GREY], text=TEXTS, common_kwargs={"return_tensors": kind})
    assert all(TENSORS[kind](value) for value in grouped.values())


def test_arguments_that_no_one_would_read_are_named(processor: UnimoProcessor) -> None:
    for name in ("do_rescale", "do_resize", "max_lenght", "suffix"):
        with pytest.raises(ValueError, match=f"does not know {name}; .* max_length"):
            processor(images=[RGB], text="an owl", **{name: False})
    with pytest.raises(ValueError, match="does not know do_normalize, size"):
        processor(images=[RGB], images_kwargs={"size": 224, "do_normalize": False})
    with pytest.raises(ValueError, match="return_tensors is 'tf', expected 'pt' or 'np' or None"):
        processor(text="an owl", return_tensors="tf")
    with pytest.raises(ValueError, match="input_data_format is 'HWC', expected None or 'channels"):
        processor(images=RGB, input_data_format="HWC")


def test_special_words_are_read_where_they_are_asked_for(processor: UnimoProcessor) -> None:
    ids = processor(text=TEXTS)["input_ids"]
    assert processor.batch_decode(ids, skip_special_tokens=True) == TEXTS
    shown = processor.batch_decode(ids, skip_special_tokens=False)
    assert shown[0] == f"<s> {TEXTS[0]}</s>" and shown[1].startswith("<s> an owl</s><pad>")
    assert processor.decode(ids[1].tolist(), True, True) == TEXTS[1]
