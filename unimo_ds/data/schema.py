"""What lies on disk: the Arrow schemas of the three kinds of corpora and their manifest.

A corpus is a folder: ``manifest.json`` and uncompressed, memory-mapped Arrow IPC *file* shards.
Imports nothing of ours but the ground, and never torch: `unimo-prep` stands on it.
"""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
IMAGES_FOLDER = "images"
"""Where a pairs corpus keeps the images corpus that its rows refer to."""

TEXTS, IMAGES, PAIRS = "texts", "images", "pairs"
KINDS = (TEXTS, IMAGES, PAIRS)

TEXT_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("tokens", pa.list_(pa.uint16()), nullable=False),  # without [CLS] and [SEP]
    ]
)

# R regions, F features, k kept classes; [IMG] is not stored: it is derived from the regions.
IMAGE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),  # pixels of the picture the boxes refer to
        pa.field("height", pa.int32(), nullable=False),
        pa.field("num_regions", pa.int32(), nullable=False),
        pa.field("features", pa.large_list(pa.float16()), nullable=False),  # R*F, row major
        pa.field("boxes", pa.large_list(pa.float32()), nullable=False),  # R*5
        pa.field("class_ids", pa.large_list(pa.uint16()), nullable=False),  # R*k
        pa.field("class_probs", pa.large_list(pa.float16()), nullable=False),  # R*k
    ]
)

PAIR_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("image_row", pa.int64(), nullable=False),  # row in the images corpus beside it
        pa.field("captions", pa.list_(pa.list_(pa.uint16())), nullable=False),  # no [CLS], no [SEP]
        pa.field("caption_texts", pa.list_(pa.string()), nullable=False),
    ]
)

SCHEMAS = {TEXTS: TEXT_SCHEMA, IMAGES: IMAGE_SCHEMA, PAIRS: PAIR_SCHEMA}


@dataclass(frozen=True, kw_only=True)
class ShardRecord:
    """One shard in the manifest."""

    name: str
    rows: int
    bytes: int
    sha256: str
    lengths: (
        str  # name of the .npy beside it, int32 [rows]: tokens, regions, or summed caption tokens
    )
    lengths_sha256: str
    length_sum: int


@dataclass(frozen=True, kw_only=True)
class RegionSource:
    """Where the regions of an images corpus come from, and all that is needed to make more."""

    name: str  # "pixels" or "precomputed"
    feature_size: int  # F
    num_classes: int  # K of the soft label
    kept_classes: int  # k
    max_regions: int
    parameters: dict[str, Any] = field(
        default_factory=dict
    )  # pixels: see unimo_ds.pixels.PixelGrid
    visual_words_sha256: str = ""  # of visual_words.npy, where the classes are k-means centres

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(asdict(self))


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """``manifest.json`` of a corpus; written last: its presence says that the corpus is whole."""

    kind: str
    rows: int
    shards: list[ShardRecord]
    quarantined: dict[str, int]  # reason -> count; the records stand in quarantine.jsonl
    command: list[str]
    seed: int
    max_tokens: int = 0  # texts and pairs: the longest token sequence, without [CLS] and [SEP]
    tokenizer: str = ""  # texts and pairs: fingerprint of the tokenizer
    regions: RegionSource | None = None  # images (and pairs: that of the images they refer to)
    images: str = ""  # pairs: folder of the images corpus, relative to this one
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1, sort_keys=True) + "\n"


def read_manifest(folder: Path) -> Manifest:
    """The manifest of the corpus in ``folder``.

    Raises:
        ValueError: no corpus there, one of another schema version, or a manifest that is not one.
    """
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise ValueError(
            f"{folder} is no corpus: {MANIFEST_NAME} is missing; build it with unimo-prep, or "
            "finish an interrupted build with --resume"
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        found = values["schema_version"]
        if found != SCHEMA_VERSION:
            raise ValueError(
                f"{path} has schema version {found}, this release reads {SCHEMA_VERSION}: "
                "rebuild it with unimo-prep"
            )
        values["shards"] = [ShardRecord(**shard) for shard in values["shards"]]
        values["regions"] = RegionSource(**values["regions"]) if values["regions"] else None
        return Manifest(**values)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not a manifest ({error!r}): rebuild the corpus") from error


def fingerprint_of(value: object) -> str:
    """16 hexadecimal digits that name a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
