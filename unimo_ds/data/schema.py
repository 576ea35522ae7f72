"""What lies on disk: the Arrow schemas of the three kinds of corpora and their manifest.

A corpus is a folder: ``manifest.json`` and uncompressed, memory-mapped Arrow IPC *file* shards.
Imports nothing of ours but the ground, and never torch: `unimo-prep` stands on it.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

import pyarrow as pa

from unimo_ds.storage import RemotePath

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
_DIGEST = "digest"
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

# Columns that later stages put beside a shard of pairs: the same rows in the same order.
REWRITES, RELATED = "rewrites", "related"

# Everything but the id is a list with one entry a rewrite.
REWRITE_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # of the pair
        pa.field("caption", pa.list_(pa.uint16()), nullable=False),  # which one was rewritten
        pa.field("level", pa.list_(pa.uint8()), nullable=False),  # a Level
        pa.field("positive", pa.list_(pa.uint8()), nullable=False),  # 1: says the same; 0: is wrong
        pa.field("begin", pa.list_(pa.int32()), nullable=False),  # characters of the caption
        pa.field("end", pa.list_(pa.int32()), nullable=False),  # that were replaced
        pa.field("how", pa.list_(pa.string()), nullable=False),  # object, relation, tf-idf, ...
        pa.field("similarity", pa.list_(pa.float32()), nullable=False),  # 0 unless of a sentence
        pa.field("text", pa.list_(pa.string()), nullable=False),  # the whole rewritten caption
        pa.field("tokens", pa.list_(pa.list_(pa.uint16())), nullable=False),  # no [CLS], no [SEP]
    ]
)

# Nearest first; rows of the one texts and the one images corpus that the manifest names.
RELATED_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string(), nullable=False),  # of the pair
        pa.field("text_rows", pa.list_(pa.int64()), nullable=False),
        pa.field("text_ids", pa.list_(pa.string()), nullable=False),
        pa.field("text_scores", pa.list_(pa.float32()), nullable=False),
        pa.field("image_rows", pa.list_(pa.int64()), nullable=False),
        pa.field("image_ids", pa.list_(pa.string()), nullable=False),
        pa.field("image_scores", pa.list_(pa.float32()), nullable=False),
    ]
)

STAGES = {REWRITES: REWRITE_SCHEMA, RELATED: RELATED_SCHEMA}


class Level(IntEnum):
    """How much of a caption a rewrite changes."""

    WORD = 0  # one object, attribute or relation
    PHRASE = 1  # a combination of them
    SENTENCE = 2  # all of it


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
    units: str = ""  # name of the .npy with the beginnings of words and phrases: bits [length_sum]
    units_sha256: str = ""
    rewrites: str = ""  # pairs: name of the Arrow file with the columns of `unimo-prep rewrite`
    rewrites_sha256: str = ""
    related: str = ""  # pairs: the same of `unimo-prep retrieve`
    related_sha256: str = ""

    @property
    def files(self) -> list[tuple[str, str]]:
        """Name and sha256 of all that a corpus holds for the shard, which comes first."""
        named = [(self.name, self.sha256), (self.lengths, self.lengths_sha256)]
        return named + [(name, sha256) for name, sha256 in self.optional_files if name]

    @property
    def optional_files(self) -> list[tuple[str, str]]:
        """Name and sha256 of what a shard may have; both are empty where it does not."""
        names = ("units", *STAGES)
        return [(getattr(self, name), getattr(self, f"{name}_sha256")) for name in names]


@dataclass(frozen=True, kw_only=True)
class RegionSource:
    """Where the regions of an images corpus come from, and all that is needed to make more."""

    name: str  # "pixels", "grid", "detector" or "precomputed"
    feature_size: int  # F
    num_classes: int  # K of the soft label
    kept_classes: int  # k
    max_regions: int
    parameters: dict[str, Any] = field(
        default_factory=dict
    )  # pixels: see unimo_ds.pixels.PixelGrid; grid, detector: the model and how it sees pictures
    visual_words_sha256: str = ""  # of visual_words.npy, where the classes are k-means centres
    class_names_sha256: str = ""  # of class_names.txt, where the classes have names

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
    images: str = ""  # pairs: folder of the images corpus, in this one
    stages: dict[str, dict[str, Any]] = field(
        default_factory=dict
    )  # pairs: name of a stage -> its parameters, its command and what it counted
    files: dict[str, str] = field(default_factory=dict)  # every other file -> its sha256
    schema_version: int = SCHEMA_VERSION

    def to_json(self) -> str:
        """What the file holds: the fields, and a digest that tells when one of them was changed."""
        return manifest_text(asdict(self))

    @property
    def fingerprint(self) -> str:
        """Names the rows: the same whatever command, folder or later stage stands beside them."""
        return fingerprint_of([self.kind, *(shard.sha256 for shard in self.shards)])


def read_manifest(folder: Path | RemotePath) -> Manifest:
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
        values.pop(_DIGEST, None)
        values["shards"] = [ShardRecord(**shard) for shard in values["shards"]]
        values["regions"] = RegionSource(**values["regions"]) if values["regions"] else None
        manifest = Manifest(**values)
    except (
        json.JSONDecodeError,
        UnicodeDecodeError,
        RecursionError,
        KeyError,
        TypeError,
        AttributeError,
    ) as error:
        raise ValueError(f"{path} is not a manifest ({error!r}): rebuild the corpus") from error
    for problem in _oddities(manifest):
        raise ValueError(f"{path} is not a manifest ({problem}): rebuild the corpus")
    return manifest


def manifest_text(values: dict[str, Any]) -> str:
    """``values`` as a manifest file holds them, in one canonical form."""
    content = {name: value for name, value in values.items() if name != _DIGEST}
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return json.dumps(content | {_DIGEST: digest}, indent=1, sort_keys=True) + "\n"


def _oddities(manifest: Manifest) -> Iterator[str]:
    """What no builder writes: values of another type, names that lead out of the folder."""
    regions = [manifest.regions] if manifest.regions else []
    records: list[Manifest | ShardRecord | RegionSource] = [manifest, *manifest.shards, *regions]
    for record in records:
        for entry in fields(record):
            value = getattr(record, entry.name)
            if not _is(value, entry.type):
                yield f"{entry.name} is {value!r:.80}"
    if manifest.kind not in KINDS:
        yield f"kind is {manifest.kind!r}, expected one of {', '.join(KINDS)}"
    if (manifest.regions is None) != (manifest.kind == TEXTS):
        yield f"regions of {manifest.kind}: {manifest.regions}"
    if bool(manifest.images) != (manifest.kind == PAIRS):
        yield f"images of {manifest.kind}: {manifest.images!r}"
    if manifest.kind == IMAGES and any(shard.units for shard in manifest.shards):
        yield f"units of {manifest.kind}"
    for shard in manifest.shards:
        yield from _stray_digests(shard)
        for stage in STAGES:
            if bool(getattr(shard, stage)) != (stage in manifest.stages):
                yield f"{stage} of {shard.name}: {getattr(shard, stage)!r}"
    if manifest.stages and manifest.kind != PAIRS:
        yield f"stages of {manifest.kind}"
    for stage, told in manifest.stages.items():
        if stage not in STAGES:
            yield f"stage {stage!r}, expected one of {', '.join(STAGES)}"
        yield from _odd_stage(stage, told)
    names = [name for shard in manifest.shards for name, _ in shard.files]
    names += [MANIFEST_NAME, *manifest.files, *([manifest.images] if manifest.images else [])]
    for name, count in Counter(names).items():
        if count > 1:
            yield f"two files are called {name!r}"
        if "/" in name or "\\" in name or name in ("", ".", "..") or not name.isprintable():
            yield f"{name!r} is no name of a file in the folder"


def _odd_stage(stage: str, told: dict[str, Any]) -> Iterator[str]:
    kinds = {"command": list[str], "parameters": dict[str, Any], "counts": dict[str, int]}
    for name, kind in kinds.items():
        if not _is(told.get(name), kind):
            yield f"{name} of {stage} is {told.get(name)!r:.80}"
    for corpus in (TEXTS, IMAGES) if stage == RELATED else ():
        searched = told.get("parameters", {}).get(corpus)
        wanted = {} if searched == {} else {"fingerprint": str, "rows": int}
        if not isinstance(searched, dict) or any(
            not _is(searched.get(name), type_) for name, type_ in wanted.items()
        ):
            yield f"{corpus} of {stage} is {searched!r:.80}"


def _stray_digests(shard: ShardRecord) -> Iterator[str]:
    for name, sha256 in shard.optional_files:
        if bool(name) != bool(sha256):
            yield f"{shard.name} has a file {name!r} with the SHA-256 {sha256!r}"


def _is(value: object, kind: Any) -> bool:
    """Is ``value`` of the annotated type ``kind``? Numbers of a manifest are never negative."""
    if kind is int:
        return type(value) is int and value >= 0
    inner = get_args(kind)
    if isinstance(kind, UnionType):
        return any(_is(value, one) for one in inner)
    if get_origin(kind) is list:
        return isinstance(value, list) and all(_is(item, inner[0]) for item in value)
    if get_origin(kind) is dict:
        return isinstance(value, dict) and all(
            _is(name, inner[0]) and _is(item, inner[1]) for name, item in value.items()
        )
    return kind is Any or isinstance(value, kind)


def fingerprint_of(value: object) -> str:
    """16 hexadecimal digits that name a JSON-able value."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
