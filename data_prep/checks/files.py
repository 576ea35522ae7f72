"""Which files a corpus must have and which it may not; the only place where `verify` opens one."""

import json
from collections import Counter
from collections.abc import Iterator

import numpy as np

from data_prep.engine import RECEIPTS_FOLDER
from data_prep.quarantine import QUARANTINE_NAME
from data_prep.regions.class_names import CLASS_NAMES_NAME
from data_prep.regions.visual_words import VISUAL_WORDS_NAME
from data_prep.writer import Folder, read_array, sha256_of
from unimo_ds.data.schema import IMAGES, MANIFEST_NAME, Manifest, manifest_text

CHANGED = "its SHA-256 is not the manifest's: the content has changed"


def file_damage(path: Folder, sha256: str, size: int | None = None, quick: bool = False) -> str:
    """What is wrong with one file, in words; nothing is "". ``quick`` reads none of it."""
    if path.is_symlink():
        return f"{path}: is a link; a corpus holds its files itself"
    if not path.is_file():
        return f"{path}: missing"
    found = path.stat().st_size
    if size is not None and found != size:
        return f"{path}: {found} bytes, the manifest says {size}"
    if not quick and sha256_of(path) != sha256:
        return f"{path}: {CHANGED}"
    return ""


def manifest_damage(folder: Folder) -> Iterator[str]:
    """Was the manifest changed after it was written?"""
    path = folder / MANIFEST_NAME
    if path.is_symlink():
        yield f"{path}: is a link; a corpus holds its files itself"
    text = path.read_text(encoding="utf-8")
    if text != manifest_text(json.loads(text)):
        yield f"{path}: its digest does not fit: it was changed after it was written"


def folder_damage(folder: Folder, manifest: Manifest, quick: bool) -> Iterator[str]:
    """Missing, changed and foreign files besides the shards."""
    known = {name for shard in manifest.shards for name, _ in shard.files}
    known |= {MANIFEST_NAME, *manifest.files}
    for path in sorted(folder.iterdir(), key=str):
        if path.name == RECEIPTS_FOLDER:
            yield f"{folder}: a build was not finished; go on with --resume"
        elif path.name == manifest.images and manifest.images:
            if path.is_symlink():
                yield f"{path}: is a link; a corpus holds its files itself"
        elif path.name not in known:
            yield f"{path}: not in the manifest"
    whole = set()
    for name, sha256 in sorted(manifest.files.items()):
        if told := file_damage(folder / name, sha256, quick=quick):
            yield told
        else:
            whole.add(name)
    if QUARANTINE_NAME not in manifest.files:
        yield f"{folder / MANIFEST_NAME}: names no {QUARANTINE_NAME}"
    elif QUARANTINE_NAME in whole:
        yield from _quarantine_damage(folder / QUARANTINE_NAME, manifest)
    if manifest.kind == IMAGES:
        names = manifest.regions.class_names_sha256 if manifest.regions else ""
        if manifest.files.get(CLASS_NAMES_NAME, "") != names:
            yield f"{folder / CLASS_NAMES_NAME}: not the names that its regions were made with"
        yield from _visual_words_damage(folder / VISUAL_WORDS_NAME, manifest, whole)


def _quarantine_damage(path: Folder, manifest: Manifest) -> Iterator[str]:
    found: Counter[str] = Counter()
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            try:
                found[str(json.loads(line)["reason"])] += 1
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                yield f"{path}: line {number} is no entry ({error!r})"
                return
    if found != manifest.quarantined:
        told, wanted = dict(sorted(found.items())), dict(sorted(manifest.quarantined.items()))
        yield f"{path}: holds {told}, the manifest counts {wanted}"


def _visual_words_damage(path: Folder, manifest: Manifest, whole: set[str]) -> Iterator[str]:
    source = manifest.regions
    assert source is not None
    if not source.visual_words_sha256:
        return
    if manifest.files.get(path.name) != source.visual_words_sha256:
        yield f"{path}: not the visual words that the manifest's regions were made with"
    elif path.name in whole:
        try:
            words = read_array(path)
        except (OSError, ValueError, EOFError) as error:
            yield f"{path}: no array: {error}"
            return
        wanted = (source.num_classes, source.feature_size)
        if words.shape != wanted or words.dtype != np.float32 or not np.isfinite(words).all():
            yield f"{path}: {words.dtype} {words.shape}, expected finite float32 {wanted}"
