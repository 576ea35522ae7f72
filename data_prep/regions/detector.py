"""Regions out of an object detector: its boxes, classes and query states."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from data_prep.quarantine import BadRecord
from data_prep.readers.images import Picture
from data_prep.regions.boxes import as_float16, check_finite, likeliest, with_area
from data_prep.regions.encoder import opened
from data_prep.regions.model_folder import (
    Loaded,
    ModelFolder,
    load_model,
    on_device,
    one_thread,
)
from data_prep.regions.rows import Regions

# B pictures, Q queries, R regions, D features of a query, K classes, k kept classes

_KIND = "AutoModelForObjectDetection"
_SETTINGS = ("size", "resample", "rescale_factor", "image_mean", "image_std")


class Detections(NamedTuple):
    """What a detector says of a picture."""

    logits: np.ndarray  # float32 [Q, K], or [Q, K + 1] with "no object" behind the classes
    boxes: np.ndarray  # float32 [Q, 4]: centre x, y, width, height as shares of the picture
    states: np.ndarray  # float32 [Q, D]


class DetectorReader(NamedTuple):
    """The most confident of a detector's queries."""

    folder: ModelFolder
    num_classes: int  # K
    kept_classes: int  # k
    min_score: float
    min_regions: int
    max_regions: int
    batch_size: int

    @property
    def wants_gpu(self) -> bool:
        """See `RegionReader`."""
        return self.folder.wants_gpu

    def regions_of(self, records: Sequence[Picture]) -> Iterator[Regions | BadRecord]:
        """See `RegionReader`."""
        remaining = iter(records)
        while batch := list(islice(remaining, self.batch_size)):
            pictures = [opened(record) for record in batch]
            found = iter(detect(self.folder, [p for p in pictures if isinstance(p, Image.Image)]))
            for picture in pictures:
                try:
                    if isinstance(picture, BadRecord):
                        yield picture
                    else:
                        yield self._regions(picture, next(found))
                except BadRecord as error:
                    yield error

    def _regions(self, picture: Image.Image, found: Detections) -> Regions:
        check_finite("class scores", found.logits)
        check_finite("boxes", found.boxes)
        scores, probs = scores_and_classes(found.logits, self.num_classes)
        order = np.argsort(-scores, kind="stable")
        good = int((scores >= self.min_score).sum())
        order = order[: min(max(good, self.min_regions), self.max_regions)]
        features = as_float16(found.states[order])
        ids, kept = likeliest(probs[order], self.kept_classes)
        boxes = with_area(_corners(found.boxes[order]))
        return Regions(picture.width, picture.height, features, boxes, ids, kept)


def detect(folder: ModelFolder, pictures: Sequence[Image.Image]) -> list[Detections]:
    """What the detector says of each picture.

    Pictures that the preprocessor makes equally large go through it together. None is padded: not
    every detector tells padding from picture, and none shall depend on its neighbours.
    """
    loaded = load_model(folder, _KIND)
    pixels = [prepared(loaded, picture) for picture in pictures]
    sizes: dict[Any, list[int]] = {}
    for number, tensor in enumerate(pixels):
        sizes.setdefault(tuple(tensor.shape), []).append(number)
    found: dict[int, Detections] = {}
    for same in sizes.values():
        batch = _batch(loaded, [pixels[number] for number in same])
        found |= dict(zip(same, batch, strict=True))
    return [found[number] for number in range(len(pictures))]


def probe(folder: ModelFolder) -> tuple[int, int]:
    """Width of a query state, and how many classes the detector knows.

    Raises:
        ValueError: the model does not work as a detector.
    """
    loaded = load_model(folder, _KIND)
    try:
        (found,) = detect(folder, [Image.new("RGB", (64, 48))])
    except (RuntimeError, TypeError, AttributeError, KeyError) as error:
        told = f"--model {folder.path} does not work as an object detector"
        raise ValueError(f"{told}: {type(error).__name__}: {error}") from error
    classes = int(loaded.model.config.num_labels)
    if found.logits.shape[1] not in (classes, classes + 1):
        raise ValueError(
            f"--model {folder.path} gives {found.logits.shape[1]} numbers for {classes} classes: "
            "expected one for each, or one more for no object"
        )
    return found.states.shape[1], classes


def detector_parameters(folder: ModelFolder) -> dict[str, Any]:
    """How it sees pictures, for the manifest."""
    loaded = load_model(folder, _KIND)
    told = loaded.processor.to_dict()
    settings = {name: _plain(told.get(name)) for name in _SETTINGS}
    return {"model_type": loaded.model.config.model_type, "precision": folder.precision, **settings}


def class_names(folder: ModelFolder) -> list[str]:
    """The detector's names of its classes."""
    labels = load_model(folder, _KIND).model.config.id2label
    return [str(labels[number]) for number in range(len(labels))]


def scores_and_classes(logits: np.ndarray, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """How sure the detector is of each query, float32 [Q], and what it then is, float32 [Q, K].

    With a "no object" class the logits are a softmax: the score is the likeliest class's share of
    it, and the classes are the softmax without "no object". Without one they are K independent
    sigmoids: the score is the largest, and the classes are the sigmoids, scaled to sum to 1.
    """
    logits = logits.astype(np.float64)
    if logits.shape[1] == num_classes:
        odds = np.exp(-np.logaddexp(0, -logits))
        scores = odds.max(axis=1)
    else:
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        scores = odds[:, :-1].max(axis=1) / odds.sum(axis=1)
        real = logits[:, :-1]  # scaled anew: all of them may vanish beside "no object"
        odds = np.exp(real - real.max(axis=1, keepdims=True))
    probs = odds / odds.sum(axis=1, keepdims=True)
    return scores.astype(np.float32), probs.astype(np.float32)


def prepared(loaded: Loaded, picture: Image.Image) -> Any:
    """Tensor [3, H, W] as the folder's preprocessor makes it, without padding."""
    made = loaded.processor(picture, do_pad=False, return_tensors="pt")
    return made["pixel_values"][0]


def _batch(loaded: Loaded, pixels: list[Any]) -> list[Detections]:
    import torch

    batch = on_device(loaded, torch.stack(pixels))
    with one_thread():
        out = loaded.model(pixel_values=batch)
        queries = out.logits.shape[1]
        states = out.last_hidden_state[:, -queries:]  # YOLOS: patches stand before the queries
        parts = [part.float().cpu().numpy() for part in (out.logits, out.pred_boxes, states)]
    return [Detections(*rows) for rows in zip(*parts, strict=True)]


def _corners(boxes: np.ndarray) -> np.ndarray:
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], axis=1).clip(0, 1)


def _plain(value: Any) -> Any:
    """What JSON can say."""
    if isinstance(value, dict):
        return {name: int(number) for name, number in value.items() if number}
    if isinstance(value, list | tuple):
        return [float(number) for number in value]
    return value if value is None else float(value)
