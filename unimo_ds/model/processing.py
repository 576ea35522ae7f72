"""Pictures and texts to the tensors that the padded interface of the model takes.

Legend: B samples · L words · R regions · F feature width
"""

import copy
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoProcessor,
    AutoTokenizer,
    BatchFeature,
    PreTrainedTokenizerFast,
    TensorType,
)

from unimo_ds.model.configuration import UnimoConfig
from unimo_ds.model.picture_arrays import (
    CHANNELS_FIRST,
    CHANNELS_LAST,
    PictureArray,
    pictures_of,
)
from unimo_ds.model.vocabulary import folder_words
from unimo_ds.pixels import PixelGrid
from unimo_ds.tokenizer import CLS, CLS_ID, MASK, PAD, SEP, SEP_ID, UNK, WordTokenizer

PROCESSOR_FILE = "processor_config.json"
_OF_TEXTS = "input_ids", "attention_mask"


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
        model_input_names=list(_OF_TEXTS),
    )


_TENSORS: dict[str | None, Callable[[torch.Tensor], Any]] = {
    "pt": lambda tensor: tensor,
    "np": lambda tensor: tensor.numpy(),
    None: lambda tensor: tensor.tolist(),
}
_CHOICES = {
    "return_tensors": tuple(_TENSORS),
    "input_data_format": (None, CHANNELS_FIRST, CHANNELS_LAST),
}
_DEFAULTS = {"padding": True, "truncation": True, "max_length": None}
_TEXT_OPTIONS = (
    *_DEFAULTS,
    "text_pair",
    "add_special_tokens",
    "padding_side",
    "pad_to_multiple_of",
    "return_attention_mask",
)
_GROUPS = ("text_kwargs", "images_kwargs", "common_kwargs")


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
        images: Image.Image | PictureArray | Sequence[Image.Image | PictureArray] | None = None,
        text: str | Sequence[str] | None = None,
        *,
        features: Sequence[np.ndarray] | None = None,
        boxes: Sequence[np.ndarray] | None = None,
        return_tensors: str | TensorType | None = "pt",
        input_data_format: str | None = None,
        **options: Any,
    ) -> BatchFeature:
        """The arguments of the model's forward, padded to the longest sample.

        Args:
            images: pictures of any size, of PIL; or arrays, [H, W], [H, W, C] or [C, H, W] with
                C = 1, 3 or 4, uint8, or float from 0 to 1; or one array of several.
            text: one text per sample.
            features: [R, F] per sample, instead of images.
            boxes: [R, 5] per sample, with features.
            return_tensors: ``pt``, ``np``, or None for lists.
            input_data_format: ``channels_first`` or ``channels_last``, where shapes leave it open.
            options: of the tokenizer: ``padding`` (True: to the longest), ``truncation`` (True: at
                ``max_length``), ``max_length`` (the tokenizer's ``model_max_length``),
                ``text_pair``, ``add_special_tokens``, ``padding_side``, ``pad_to_multiple_of``,
                ``return_attention_mask``; also in ``text_kwargs`` or ``common_kwargs``.

        Returns:
            ``input_ids`` and ``attention_mask`` int64 [B, L] with text; ``features`` float32
            [B, R, F], ``boxes`` float32 [B, R, 5] and ``region_mask`` bool [B, R] with images.

        Raises:
            ValueError: nothing given, both images and features, pictures where regions are
                precomputed, another number of images than of texts, an array that could be two
                pictures, or an unknown argument.
        """
        settings = _settings(
            {"return_tensors": return_tensors, "input_data_format": input_data_format} | options
        )
        kind, data_format = settings.pop("return_tensors"), settings.pop("input_data_format")
        result: dict[str, Any] = {}
        if images is not None:
            if features is not None or boxes is not None:
                raise ValueError("give images, or features and boxes, not both")
            features, boxes = self._regions(pictures_of(images, data_format))
        if (features is None) != (boxes is None):
            raise ValueError("features and boxes go together: give both")
        if text is not None:
            texts = [text] if isinstance(text, str) else list(text)
            encoded = self.tokenizer(texts, **settings, return_tensors=kind)
            result.update({name: encoded[name] for name in _OF_TEXTS if name in encoded})
        if features is not None:
            if text is not None and len(texts) != len(features):
                raise ValueError(f"{len(features)} images and {len(texts)} texts: give one of each")
            regions = _padded_regions(features, boxes)
            result.update({name: _TENSORS[kind](tensor) for name, tensor in regions.items()})
        if not result:
            raise ValueError("nothing to process: give images, text, or features and boxes")
        return BatchFeature(result)

    def _regions(self, pictures: list[Image.Image]) -> tuple[list[np.ndarray], list[np.ndarray]]:
        if self.grid is None:
            raise ValueError(
                "this model was trained on precomputed regions, which pictures cannot be turned "
                "into here: give features and boxes of the detector that made them"
            )
        boxes = self.grid.boxes().copy()  # theirs are read only, which torch warns of
        return [self.grid.features(picture) for picture in pictures], [boxes] * len(pictures)

    def decode(
        self,
        ids: torch.Tensor | Sequence[int],
        skip_special_tokens: bool = True,
        clean_up_tokenization_spaces: bool | None = None,
    ) -> str:
        """The text of generated ids, without special tokens and the space in front."""
        text = self.tokenizer.decode(
            ids,
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )
        return str(text).strip()

    def batch_decode(
        self, ids: torch.Tensor | Sequence[Sequence[int]], **options: bool
    ) -> list[str]:
        """`decode` of each."""
        return [self.decode(row, **options) for row in ids]

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


def _settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """``options``, with those that stand in groups, over the defaults.

    Raises:
        ValueError: names those that a processor of UNIMO does not know, or what else may stand
            where one does.
    """
    settings = _DEFAULTS | {name: value for name, value in options.items() if name not in _GROUPS}
    for group in _GROUPS:
        settings |= options.get(group) or {}
    known = {*_CHOICES, *_TEXT_OPTIONS}
    if unknown := settings.keys() - known:
        raise ValueError(
            f"UnimoProcessor does not know {', '.join(sorted(unknown))}; besides images, text, "
            f"features and boxes it takes {', '.join(sorted(known))} (how pictures are cut is the "
            "model's own)"
        )
    for name, choices in _CHOICES.items():
        value = settings[name] = getattr(settings[name], "value", settings[name])
        if value not in choices:
            raise ValueError(f"{name} is {value!r}, expected {' or '.join(map(repr, choices))}")
    return settings


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
