"""Pictures and texts to tensors, offline, and back from the folder they are saved in."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, AutoTokenizer, pipeline

from unimo_ds.model.body import UnimoModel
from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.modeling import UnimoForMaskedLM
from unimo_ds.model.processing import UnimoProcessor, hugging_face_tokenizer
from unimo_ds.model.vocabulary import folder_words
from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import WordTokenizer, load_tokenizer, train_tokenizer

TEXTS = ["a red ball on a green table", "the dog"]


@pytest.fixture(scope="module")
def words() -> WordTokenizer:
    return train_tokenizer(TEXTS * 4, vocab_size=300)


@pytest.fixture
def processor(words: WordTokenizer) -> UnimoProcessor:
    return UnimoProcessor(hugging_face_tokenizer(words, 10), PixelGrid(grid=2, patch=2))


def _picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def test_texts_become_ids_between_cls_and_sep(
    processor: UnimoProcessor, words: WordTokenizer
) -> None:
    found = processor(text=TEXTS)
    expected = [[0, *ids, 2] for ids in words.encode(TEXTS)]
    assert set(found) == {"input_ids", "attention_mask"}
    for ids, mask, row in zip(found["input_ids"], found["attention_mask"], expected, strict=True):
        assert ids[mask.bool()].tolist() == row
        assert bool((ids[~mask.bool()] == 1).all())
    assert processor.batch_decode(found["input_ids"]) == TEXTS
    long = processor(text="a red ball " * 20)["input_ids"]
    assert long.shape == (1, 10) and long[0, -1] == 2
    pair = processor.tokenizer("a", "the")["input_ids"]
    assert pair == [0, *words.encode(["a"])[0], 2, *words.encode(["the"])[0], 2]


def test_pictures_become_the_grid_s_regions(processor: UnimoProcessor) -> None:
    found = processor(images=[_picture(0), _picture(1)], text=TEXTS)
    grid = PixelGrid(grid=2, patch=2)
    assert found["features"].shape == (2, 4, 12)
    np.testing.assert_array_equal(found["features"][1], grid.features(_picture(1)))
    np.testing.assert_array_equal(found["boxes"][0], grid.boxes())
    assert bool(found["region_mask"].all())
    config = UnimoConfig(
        vocab_size=300,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        image_feature_size=12,
    )
    states = UnimoModel(config).eval()(**found).last_hidden_state
    assert states.shape == (2, 5 + found["input_ids"].shape[1], 8)


def test_regions_of_a_detector_are_padded(words: WordTokenizer) -> None:
    processor = UnimoProcessor(hugging_face_tokenizer(words, 10), grid=None)
    features = [np.full((n, 6), n, dtype=np.float16) for n in (1, 3)]
    boxes = [np.full((n, 5), n / 4, dtype=np.float32) for n in (1, 3)]
    found = processor(features=features, boxes=boxes)
    assert found["region_mask"].tolist() == [[True, False, False], [True, True, True]]
    assert found["features"].dtype == torch.float32
    assert bool((found["features"][1] == 3).all()) and not found["features"][0, 1:].any()
    assert bool((found["boxes"][0, 0] == 0.25).all())
    with pytest.raises(ValueError, match="give features and boxes of the detector"):
        processor(images=[_picture(0)])


def test_it_is_saved_and_loaded(
    processor: UnimoProcessor, words: WordTokenizer, tmp_path: Path
) -> None:
    before = processor(images=_picture(0), text=TEXTS[0])
    processor(text=TEXTS)  # a padding call must leave nothing behind in the file
    processor.save_pretrained(tmp_path)
    UnimoConfig(vocab_size=words.vocab_size).save_pretrained(tmp_path)
    for loaded in (
        UnimoProcessor.from_pretrained(tmp_path),
        AutoProcessor.from_pretrained(tmp_path),
    ):
        assert type(loaded) is UnimoProcessor
        after = loaded(images=_picture(0), text=TEXTS[0])
        assert all(torch.equal(after[name], before[name]) for name in before)
        assert loaded.tokenizer.model_max_length == 10
    auto = AutoTokenizer.from_pretrained(tmp_path)
    assert auto(TEXTS)["input_ids"] == [[0, *ids, 2] for ids in words.encode(TEXTS)]
    assert auto.mask_token_id == words.mask_id
    assert load_tokenizer(tmp_path).encode(TEXTS) == words.encode(TEXTS)


@pytest.mark.parametrize(
    ("name", "value"), [("mask_token_id", 7), ("vocab_size", 320), ("vocab_size", 200)]
)
def test_a_folder_whose_model_has_other_words_is_refused(
    processor: UnimoProcessor, words: WordTokenizer, tmp_path: Path, name: str, value: int
) -> None:
    processor.save_pretrained(tmp_path)
    UnimoConfig(**{"vocab_size": words.vocab_size, name: value}).save_pretrained(tmp_path)
    message = f"the tokenizer has {words.vocab_size} words, the last of them <mask>; the model has"
    for loads in (UnimoProcessor.from_pretrained, folder_words):
        with pytest.raises(ValueError, match=message):
            loads(tmp_path)


def test_a_saved_folder_fills_masks_in_a_pipeline(
    processor: UnimoProcessor, words: WordTokenizer, tmp_path: Path
) -> None:
    config = UnimoConfig(
        vocab_size=words.vocab_size,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
    )
    model = UnimoForMaskedLM(config).eval()
    the = words.encode(["the"])[0][0]
    with torch.no_grad():
        model.language_head.decoder.bias[the] = 9
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    fill = pipeline("fill-mask", model=str(tmp_path), tokenizer=str(tmp_path), device="cpu")
    assert fill("<mask> dog")[0]["token"] == the


def test_what_cannot_be_processed_is_refused(processor: UnimoProcessor, tmp_path: Path) -> None:
    features, boxes = [np.zeros((2, 6))], [np.zeros((2, 5))]
    with pytest.raises(ValueError, match="nothing to process"):
        processor()
    with pytest.raises(ValueError, match="not both"):
        processor(images=_picture(0), features=features, boxes=boxes)
    with pytest.raises(ValueError, match="go together"):
        processor(features=features)
    with pytest.raises(ValueError, match="1 images and 2 texts"):
        processor(images=_picture(0), text=TEXTS)
    with pytest.raises(ValueError, match=r"sample 0: boxes are \[3, 5\].*\[2, 5\]"):
        processor(features=features, boxes=[np.zeros((3, 5))])
    with pytest.raises(ValueError, match="no processor in"):
        UnimoProcessor.from_pretrained(tmp_path)
