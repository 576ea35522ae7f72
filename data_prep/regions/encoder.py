"""A vision encoder: pictures in, maps of cells out.

The encoder sees the whole picture, squeezed into the size that it was made for: what its own
preprocessor would crop off has regions too, and a box of the picture is a box of the map.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_prep.quarantine import BadRecord
from data_prep.readers.images import Picture, open_picture
from data_prep.regions.feature_maps import feature_map
from data_prep.regions.model_folder import (
    Loaded,
    ModelFolder,
    load_model,
    on_device,
    one_thread,
)

# B pictures, D features of a cell, h x w cells


class Encoded(NamedTuple):
    """What an encoder makes of a picture."""

    width: int
    height: int
    cells: np.ndarray  # float32 [D, h, w]


class Encoder(NamedTuple):
    """A vision encoder, and the size of the pictures that it is given."""

    folder: ModelFolder
    height: int
    width: int
    batch_size: int

    def encoded(self, records: Sequence[Picture]) -> Iterator[Encoded | BadRecord]:
        """What it makes of each picture; batches begin at the first record."""
        remaining = iter(records)
        while batch := list(islice(remaining, self.batch_size)):
            pictures = [opened(record) for record in batch]
            maps = iter(self._maps([p for p in pictures if not isinstance(p, BadRecord)]))
            for picture in pictures:
                if isinstance(picture, BadRecord):
                    yield picture
                else:
                    yield Encoded(picture.width, picture.height, next(maps))

    def probe(self) -> tuple[int, int, int]:
        """D, h and w of its map.

        Raises:
            ValueError: the model does not make one.
        """
        try:
            return self._maps([Image.new("RGB", (self.width, self.height))])[0].shape
        except (RuntimeError, TypeError, AttributeError, IndexError) as error:
            told = f"--model {self.folder.path} does not work as a vision encoder"
            raise ValueError(f"{told}: {type(error).__name__}: {error}") from error

    def _maps(self, pictures: list[Image.Image]) -> np.ndarray:
        """float32 [B, D, h, w]."""
        if not pictures:
            return np.empty((0, 0, 0, 0), np.float32)
        loaded = load_model(self.folder, "AutoModel")
        encoder = vision_part(loaded.model)
        pixels = normalised(loaded, [self._squeezed(loaded, picture) for picture in pictures])
        with one_thread():
            states = encoder(pixels).last_hidden_state
            maps = feature_map(states, encoder.config, self.height, self.width)
            return maps.float().cpu().numpy()

    def _squeezed(self, loaded: Loaded, picture: Image.Image) -> Image.Image:
        return picture.resize((self.width, self.height), resampling(loaded.processor))


def encoder_of(folder: ModelFolder, batch_size: int) -> Encoder:
    """The encoder in the folder, with the size of picture that its preprocessor makes.

    Raises:
        ValueError: it cannot be loaded, or names no size.
    """
    loaded = load_model(folder, "AutoModel")
    height, width = picture_size(loaded)
    return Encoder(folder, height, width, batch_size)


def encoder_parameters(encoder: Encoder) -> dict[str, Any]:
    """How it sees pictures, for the manifest."""
    loaded = load_model(encoder.folder, "AutoModel")
    processor = loaded.processor
    return {
        "model_type": vision_part(loaded.model).config.model_type,
        "precision": encoder.folder.precision,
        "picture": [encoder.height, encoder.width],
        "resample": resampling(processor).name.lower(),
        "image_mean": _listed(processor, "image_mean"),
        "image_std": _listed(processor, "image_std"),
    }


def vision_part(model: Any) -> Any:
    """The encoder of pictures in a model that may have one of texts too (CLIP, SigLIP)."""
    return getattr(model, "vision_model", model)


def picture_size(loaded: Loaded) -> tuple[int, int]:
    """Height and width of the pictures that the encoder was made for.

    Raises:
        ValueError: its preprocessor and configuration name none.
    """
    processor, config = loaded.processor, vision_part(loaded.model).config
    names = ("crop_size", "size") if getattr(processor, "do_center_crop", False) else ("size",)
    for size in (getattr(processor, name, None) for name in names):
        if size and size.get("height") and size.get("width"):
            return int(size["height"]), int(size["width"])
        if size and size.get("shortest_edge"):
            return (int(size["shortest_edge"]),) * 2
    side = getattr(config, "image_size", None)
    if isinstance(side, int):
        return side, side
    if isinstance(side, list | tuple) and len(side) == 2:
        return int(side[0]), int(side[1])
    raise ValueError(
        "the model's preprocessor names no size: name a file that does with --preprocessor"
    )


def resampling(processor: Any) -> Image.Resampling:
    """The filter that the preprocessor resizes with."""
    found = getattr(processor, "resample", None)
    return Image.Resampling.BILINEAR if found is None else Image.Resampling(int(found))


def normalised(loaded: Loaded, pictures: list[Image.Image]) -> Any:
    """Tensor [B, 3, H, W] of pictures of one size, as the model takes it."""
    pixels = loaded.processor(
        pictures, do_resize=False, do_center_crop=False, do_pad=False, return_tensors="pt"
    )["pixel_values"]
    return on_device(loaded, pixels)


def opened(record: Picture) -> Image.Image | BadRecord:
    """The decoded picture, or why there is none."""
    try:
        return open_picture(record)
    except BadRecord as error:
        return error


def _listed(processor: Any, name: str) -> list[float]:
    value = getattr(processor, name, None)
    values = value if isinstance(value, list | tuple) else [value or 0.0] * 3
    return [float(number) for number in values]
