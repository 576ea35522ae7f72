"""Regions as named arrays, in an .npz file or an HDF5 group, under any of their usual names.

features or x [R, F] (x also [F, R]); boxes or bbox [R, 4] pixels; image_w and image_h, or img_w and
img_h; where known probs or cls_prob [R, K], or obj_id and obj_conf [R] (objects_id, objects_conf);
num_bbox or num_boxes, if only the first so many rows count.
"""

from collections.abc import Callable

import numpy as np

from data_prep.quarantine import BadRecord, Reason
from data_prep.readers.tables.rows import NO_CLASSES, NO_NUMBERS, RawRegions

_FEATURES, _BOXES = ("features", "x"), ("boxes", "bbox")
_WIDTH, _HEIGHT = ("image_w", "img_w"), ("image_h", "img_h")
_PROBS = ("probs", "cls_prob")
_CLASSES, _CONFIDENCES = ("obj_id", "objects_id"), ("obj_conf", "objects_conf")
_COUNT = ("num_bbox", "num_boxes")

ReadArray = Callable[[str], np.ndarray | None]
"""Name -> array of numbers; None if there is none of that name."""


def regions_of_arrays(read: ReadArray) -> RawRegions:
    """The regions among the arrays that ``read`` finds.

    Raises:
        BadRecord: arrays are missing, or their shapes do not belong together.
    """
    boxes = _needed(read, _BOXES)
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise BadRecord(Reason.BAD_RECORD, f"boxes {boxes.shape}, expected [regions, 4]")
    features = _needed(read, _FEATURES)
    if features.ndim == 2 and len(features) != len(boxes) and features.shape[1] == len(boxes):
        features = features.T
    if features.ndim < 2 or len(features) != len(boxes):
        told = f"features {features.shape} for {len(boxes)} boxes"
        raise BadRecord(Reason.BAD_RECORD, told)
    count = _first(read, _COUNT)
    kept = slice(len(boxes) if count is None else _count(count, len(boxes)))
    probs, classes = _classes(read, len(boxes))
    return RawRegions(
        _scalar(read, _WIDTH),
        _scalar(read, _HEIGHT),
        boxes[kept].astype(np.float32),
        features[kept].astype(np.float32).reshape(-1),
        probs[kept].astype(np.float32).reshape(-1),
        classes[kept].astype(np.int64),
    )


def _classes(read: ReadArray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities [R, K], or [R] with detected classes [R]; empty if there are none."""
    probs = _first(read, _PROBS)
    if probs is not None:
        if probs.ndim != 2 or len(probs) != count:
            raise BadRecord(Reason.BAD_RECORD, f"probabilities {probs.shape} for {count} boxes")
        return probs, NO_CLASSES
    classes, confidences = _first(read, _CLASSES), _first(read, _CONFIDENCES)
    if classes is None or confidences is None:
        return NO_NUMBERS, NO_CLASSES
    classes, confidences = classes.reshape(-1), confidences.reshape(-1)
    if not len(classes) == len(confidences) == count or classes.dtype.kind not in "iu":
        raise BadRecord(Reason.BAD_RECORD, f"class ids {classes.shape} for {count} boxes")
    return confidences, classes


def _first(read: ReadArray, names: tuple[str, ...]) -> np.ndarray | None:
    found = (read(name) for name in names)
    return next((array for array in found if array is not None), None)


def _needed(read: ReadArray, names: tuple[str, ...]) -> np.ndarray:
    found = _first(read, names)
    if found is None:
        raise BadRecord(Reason.MISSING_FIELD, f"no array {' or '.join(names)}")
    return found


def _scalar(read: ReadArray, names: tuple[str, ...]) -> float:
    array = _needed(read, names)
    if array.size != 1 or not 1 <= float(array.reshape(())) < 2**31:
        raise BadRecord(Reason.BAD_RECORD, f"{names[0]} is {array!r}, expected one size in pixels")
    return float(array.reshape(()))


def _count(array: np.ndarray, most: int) -> int:
    if array.size != 1 or not 1 <= float(array.reshape(())) <= most:
        raise BadRecord(Reason.BAD_RECORD, f"num_bbox is {array!r} for {most} boxes")
    return int(array.reshape(()))
