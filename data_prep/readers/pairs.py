"""Images and their captions out of JSONL, JSON lists, and the JSON of COCO and Karpathy."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.text import check_surrogates, parse_object


class Pair(NamedTuple):
    """An image, named as in the source, with what is said about it."""

    image: str
    captions: tuple[str, ...]
    source: str
    line: int


def read_pairs(source: Path, splits: Sequence[str] = ()) -> Iterator[Pair | Bad]:
    """The pairs of one file, and entries for what cannot be one, empty captions among them.

    ``.jsonl`` holds ``{"image": name, "captions": [text, ...]}`` (or ``"caption": text``) on every
    line; ``.json`` a list of such records, COCO's captions or Karpathy's splits. Where records
    have a ``split``, ``splits`` names those to take; empty = all.

    Raises:
        ValueError: no such file, or JSON of another form.
    """
    if not source.is_file() or source.suffix not in (".jsonl", ".json"):
        raise ValueError(f"{source} is no .jsonl or .json file of images and captions")
    for line, record in _lines(source) if source.suffix == ".jsonl" else _whole(source):
        try:
            if isinstance(record, BadRecord):
                raise record
            if source.suffix == ".json":  # `parse_object` has checked lines
                check_surrogates(record)
            if splits and record.get("split") not in splits:
                continue
            pair, bad = _pair(record, str(source), line)
            yield from bad
            if not pair.captions:
                raise BadRecord(Reason.EMPTY_CAPTION, "no caption is left")
            yield pair
        except BadRecord as error:
            yield error.at(str(source), line)


def _pair(record: dict[str, Any], source: str, line: int) -> tuple[Pair, list[Bad]]:
    image = record.get("image")
    captions = record.get("captions", [record["caption"]] if "caption" in record else None)
    if not isinstance(image, str) or not image:
        raise BadRecord(Reason.MISSING_FIELD, "no name in the field 'image'")
    if not isinstance(captions, list) or not all(isinstance(text, str) for text in captions):
        raise BadRecord(Reason.MISSING_FIELD, "no list of texts in the field 'captions'")
    kept = tuple(" ".join(text.split()) for text in captions if text.strip())
    empty = BadRecord(Reason.EMPTY_CAPTION, "one of the captions is empty").at(source, line, image)
    lost = len(captions) - len(kept) if kept else 0  # a pair that loses all is one entry
    return Pair(image, kept, source, line), [empty] * lost


def _lines(source: Path) -> Iterator[tuple[int, Any]]:
    with source.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    yield number, parse_object(line)
                except BadRecord as error:
                    yield number, error


def _whole(source: Path) -> Iterator[tuple[int, Any]]:
    try:
        content = json.loads(source.read_bytes())
    except ValueError as error:
        raise ValueError(f"{source} is not JSON: {error}") from error
    if isinstance(content, dict) and "annotations" in content:
        records = _coco(content, source)
    elif isinstance(content, dict) and "images" in content:
        records = [_karpathy(image) for image in content["images"]]
    elif isinstance(content, list):
        records = content
    else:
        raise ValueError(f"{source} is neither a list of records nor COCO's or Karpathy's JSON")
    for number, record in enumerate(records, 1):
        is_object = isinstance(record, dict)
        yield number, record if is_object else BadRecord(Reason.BAD_JSON, "no object in the list")


def _coco(content: dict[str, Any], source: Path) -> list[dict[str, Any]]:
    try:
        captions: dict[object, list[str]] = {image["id"]: [] for image in content["images"]}
        for annotation in content["annotations"]:
            captions[annotation["image_id"]].append(annotation["caption"])
        return [
            {"image": image["file_name"], "captions": captions[image["id"]]}
            for image in content["images"]
        ]
    except (KeyError, TypeError) as error:
        raise ValueError(f"{source} is not COCO's captions JSON: {error!r}") from error


def _karpathy(image: Any) -> Any:
    if not isinstance(image, dict) or not isinstance(image.get("sentences"), list):
        return image
    name = "/".join(part for part in (image.get("filepath"), image.get("filename")) if part)
    captions = [sentence.get("raw") for sentence in image["sentences"]]
    return {"image": name, "captions": captions, "split": image.get("split")}
