"""Captions out of Visual Genome: phrases of regions, sentences made of scene graphs.

The picture of image 7 is ``7.jpg``, in ``VG_100K`` or ``VG_100K_2`` if not in the folder itself.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep.quarantine import Bad, BadRecord, Reason
from data_prep.readers.json_stream import json_items
from data_prep.readers.records import Record

_FOLDERS = ("VG_100K", "VG_100K_2")


def genome_records(file: Path) -> Iterator[Record | Bad]:
    """region_descriptions.json: the phrases of an image. scene_graphs.json: "attribute object" for
    every attribute and "subject predicate object" for every relationship. Each text once."""
    for number, (_, item) in enumerate(json_items(file), 1):
        try:
            if isinstance(item, BadRecord):
                raise item
            image = item["image_id"] if "image_id" in item else item["id"]
            if not isinstance(image, int):
                raise BadRecord(Reason.MISSING_FIELD, "no number in 'image_id' or 'id'")
            texts = _phrases(item) if "regions" in item else _sentences(item)
        except BadRecord as error:
            yield error.at(str(file), number)
            continue
        except (KeyError, TypeError, AttributeError, IndexError) as error:
            detail = f"not of Visual Genome: {error!r}"
            yield BadRecord(Reason.BAD_RECORD, detail).at(str(file), number)
            continue
        others = tuple(f"{folder}/{image}.jpg" for folder in _FOLDERS)
        yield Record(f"{image}.jpg", tuple(dict.fromkeys(texts)), number, others=others)


def _phrases(item: dict[str, Any]) -> list[Any]:
    return [region["phrase"] for region in item["regions"]]


def _sentences(item: dict[str, Any]) -> list[str]:
    names = {thing["object_id"]: _name(thing) for thing in item["objects"]}
    texts = [
        f"{attribute} {_name(thing)}"
        for thing in item["objects"]
        for attribute in thing.get("attributes", ())
    ]
    for relationship in item.get("relationships", ()):
        subject, thing = (names[relationship[f"{end}_id"]] for end in ("subject", "object"))
        texts.append(f"{subject} {relationship['predicate'].lower()} {thing}")
    return texts


def _name(thing: dict[str, Any]) -> str:
    return str(thing["names"][0] if "names" in thing else thing["name"])
