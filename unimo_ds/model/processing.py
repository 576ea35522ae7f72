"""Pictures and texts to the tensors that the padded interface of the model takes.

Legend: B samples · L words · R regions · F feature width
"""

import copy
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import AutoProcessor, AutoTokenizer, BatchFeature, PreTrainedTokenizerFast

from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import (
    CLS,
    CLS_ID,
    MASK,
    PAD,
    SEP,
    SEP_ID,
    UNK,
    WordTokenizer,
    load_tokenizer,
)

PROCESSOR_FILE = "processor_config.json"


def hugging_face_tokenizer(words: WordTokenizer, max_length: int) -> PreTrainedTokenizerFast:
    """``words`` for `transformers`: [CLS] a [SEP], and [CLS] a [SEP] b [SEP] for pairs.

    Args:
        words: the tokenizer of the corpora.
        max_length: the most ids of a text, with [CLS] and [SEP].
    """
    with tempfile.TemporaryDirectory() as folder:
        words.save(Path(folder) / "tokenizer.json")
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    tokenizer.post_processor = TemplateProcessing(
        single=f"{CLS} $A {SEP}",
        pair=f"{CLS} $A {SEP} $B {SEP}",  # one [SEP] between, unlike RoBERTa
        special_tokens=[(CLS, CLS_ID), (SEP, SEP_ID)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=max_length,
        bos_token=CLS,
        cls_token=CLS,
        pad_token=PAD,
        eos_token=SEP,
        sep_token=SEP,
        unk_token=UNK,
        mask_token=MASK,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    )


def check_vocabulary(config: UnimoConfig, words: WordTokenizer, folder: Path) -> None:
    """Refuses a model whose words are not those of the tokenizer beside it.

    Raises:
        ValueError: another number of words (a padded vocabulary), or another [MASK].
    """
    if (words.vocab_size, words.mask_id) != (config.vocab_size, config.mask_token_id):
        raise ValueError(
            f"{folder}: the tokenizer has {words.vocab_size} words, the last of them {MASK}; the "
            f"model has {config.vocab_size}, {MASK} being {config.mask_token_id}: they must be the "
            "same (a padded vocabulary is cut by `resize_token_embeddings` of transformers, "
            "saved, and converted with `unimo-convert roberta`)"
        )


def folder_words(folder: Path) -> WordTokenizer:
    """The tokenizer in a model's folder, whose words are those of the model.

    Raises:
        ValueError: none there, or that of another model.
    """
    words = load_tokenizer(folder)
    if (folder / "config.json").is_file():
        check_vocabulary(UnimoConfig.from_pretrained(folder), words, folder)
    return words


class UnimoProcessor:
    """Calls a tokenizer for texts and cuts pictures into regions.

    Args:
        tokenizer: see hugging_face_tokenizer.
        grid: how pictures become regions; None where regions come from elsewhere (a detector), and
            are handed in as features and boxes.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerFast, grid: PixelGrid | None) -> None:
        self.tokenizer, self.grid = tokenizer, grid

    def __call__(
        self,
        images: Image.Image | Sequence[Image.Image] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        features: Sequence[np.ndarray] | None = None,
        boxes: Sequence[np.ndarray] | None = None,
    ) -> BatchFeature:
        """The arguments of the model's forward, padded to the longest sample.

        Args:
            images: pictures of any size.
            text: one text per sample; cut at the tokenizer's ``model_max_length``.
            features: [R, F] per sample, instead of images.
            boxes: [R, 5] per sample, with features.

        Returns:
            ``input_ids`` and ``attention_mask`` int64 [B, L] with text; ``features`` float32
            [B, R, F], ``boxes`` float32 [B, R, 5] and ``region_mask`` bool [B, R] with images.

        Raises:
            ValueError: nothing given, both images and features, pictures where regions are
                precomputed, or another number of images than of texts.
        """
        result: dict[str, Any] = {}
        if images is not None:
            if features is not None or boxes is not None:
                raise ValueError("give images, or features and boxes, not both")
            features, boxes = self._regions(images)
        if (features is None) != (boxes is None):
            raise ValueError("features and boxes go together: give both")
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            encoded = self.tokenizer(texts, padding=True, truncation=True, return_tensors="pt")
            result.update(input_ids=encoded["input_ids"], attention_mask=encoded["attention_mask"])
        if features is not None:
            if text is not None and len(texts) != len(features):
                raise ValueError(f"{len(features)} images and {len(texts)} texts: give one of each")
            result.update(_padded_regions(features, boxes))
        if not result:
            raise ValueError("nothing to process: give images, text, or features and boxes")
        return BatchFeature(result)

    def _regions(
        self, images: Image.Image | Sequence[Image.Image]
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        if self.grid is None:
            raise ValueError(
                "this model was trained on precomputed regions, which pictures cannot be turned "
                "into here: give features and boxes of the detector that made them"
            )
        pictures = [images] if isinstance(images, Image.Image) else list(images)
        boxes = self.grid.boxes().copy()  # theirs are read only, which torch warns of
        return [self.grid.features(picture) for picture in pictures], [boxes] * len(pictures)

    def decode(self, ids: torch.Tensor | Sequence[int]) -> str:
        """The text of generated ids, without special tokens and the space in front."""
        return self.tokenizer.decode(ids, skip_special_tokens=True).strip()

    def batch_decode(self, ids: torch.Tensor | Sequence[Sequence[int]]) -> list[str]:
        return [self.decode(row) for row in ids]

    def save_pretrained(self, folder: str | Path, **_unused: Any) -> None:
        """Writes the tokenizer's files and ``processor_config.json`` into ``folder``."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = copy.deepcopy(self.tokenizer)
        # What the last call padded and cut to is no property of the tokenizer.
        tokenizer.backend_tokenizer.no_padding()
        tokenizer.backend_tokenizer.no_truncation()
        tokenizer.save_pretrained(folder)
        grid = None if self.grid is None else {"grid": self.grid.grid, "patch": self.grid.patch}
        values = {"processor_class": type(self).__name__, "pixel_grid": grid}
        (folder / PROCESSOR_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def from_pretrained(cls, folder: str | Path, **_unused: Any) -> "UnimoProcessor":
        """The processor in ``folder``.

        Raises:
            ValueError: the folder holds none, or the tokenizer of another model.
        """
        path = Path(folder) / PROCESSOR_FILE
        if not path.is_file():
            raise ValueError(f"no processor in {folder}: {PROCESSOR_FILE} is missing")
        folder_words(Path(folder))
        grid = json.loads(path.read_text(encoding="utf-8"))["pixel_grid"]
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(tokenizer, None if grid is None else PixelGrid(**grid))


def _padded_regions(
    features: Sequence[np.ndarray], boxes: Sequence[np.ndarray]
) -> dict[str, torch.Tensor]:
    if len(features) != len(boxes):
        raise ValueError(f"{len(features)} features and {len(boxes)} boxes: give one of each")
    for i, (feature, box) in enumerate(zip(features, boxes, strict=True)):
        if box.shape != (len(feature), 5):
            raise ValueError(
                f"sample {i}: boxes are {list(box.shape)}, its features ask for {[len(feature), 5]}"
            )
    most = max((len(feature) for feature in features), default=0)
    width = features[0].shape[1] if len(features) else 0
    padded = {
        "features": torch.zeros(len(features), most, width),
        "boxes": torch.zeros(len(features), most, 5),
        "region_mask": torch.zeros(len(features), most, dtype=torch.bool),
    }
    for i, (feature, box) in enumerate(zip(features, boxes, strict=True)):
        count = len(feature)
        padded["features"][i, :count] = torch.as_tensor(np.asarray(feature, dtype=np.float32))
        padded["boxes"][i, :count] = torch.as_tensor(np.asarray(box, dtype=np.float32))
        padded["region_mask"][i, :count] = True
    return padded


AutoProcessor.register(UnimoConfig, UnimoProcessor)
