"""`unimo-prep retrieve`: related texts and images of every pair, as columns beside its shards.

What is searched is made into vectors shard by shard, then into an index; pairs look their
neighbours up in it. All of it lies in the pairs' own work folder until the columns are there.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from data_prep.engine import Options
from data_prep.pool import kept_workers
from data_prep.regions.model_folder import check_weights
from data_prep.retrieve import image_vectors
from data_prep.retrieve.image_vectors import (
    Projection,
    class_masses,
    fit_projection,
    raw_vectors,
)
from data_prep.retrieve.index import KINDS as INDEX_KINDS
from data_prep.retrieve.index import build_index, resolved
from data_prep.retrieve.lookup import NOTHING, Lookup, Retrieval, Searched, masses_of
from data_prep.retrieve.sentence_encoder import Encoder, text_model_fingerprint
from data_prep.retrieve.text_vectors import FITTED_ON, Analysis, fit_analysis
from data_prep.stages import Stage, begin_stage, finish_stage, make_columns
from data_prep.texts import cached_tokenizer
from data_prep.writer import Folder, array_bytes, read_batches, write_bytes
from unimo_ds.data.schema import (
    IMAGES,
    RELATED,
    TEXTS,
    Manifest,
    RegionSource,
    read_manifest,
)
from unimo_ds.tokenizer import load_tokenizer

_FITTED_ON_IMAGES = 20_000


class _Embedding(NamedTuple):
    """A shard whose rows become vectors."""

    path: Folder
    out: Path
    how: Any  # a `_TextSide` or `_ImageSide`


class _TextSide(NamedTuple):
    tokenizer: str
    vectors: Analysis | Encoder

    def embed(self, path: Folder, out: Path) -> None:
        texts = _texts(path, self.tokenizer)
        write_bytes(out, array_bytes(self.vectors.vectors(list(texts))))


class _ImageSide(NamedTuple):
    source: RegionSource
    by: str
    projection: Projection
    with_masses: bool

    def embed(self, path: Folder, out: Path) -> None:
        vectors, masses = [], []
        for batch in read_batches(path):
            vectors.append(self.projection(raw_vectors(batch, self.source, self.by)))
            if self.with_masses:
                masses.append(class_masses(batch, self.source).astype(np.float16))
        if self.with_masses:
            write_bytes(masses_of(out), array_bytes(np.concatenate(masses)))
        write_bytes(out, array_bytes(np.concatenate(vectors)))


def retrieve(
    folder: Folder,
    texts: Folder | None,
    images: Folder | None,
    tokenizer: str,
    retrieval: Retrieval,
    options: Options,
    *,
    again: bool = False,
) -> Manifest | None:
    """Gives the pairs corpus in ``folder`` the columns of related texts and images.

    Returns:
        The new manifest; None if it has just these columns.

    Raises:
        ValueError: corpora that do not fit each other, bad arguments, or see `begin_stage`.
    """
    if not isinstance(folder, Path):
        raise ValueError(f"{folder}: an index cannot lie at a URL: copy the pairs here first")
    _check(texts, images, retrieval)
    parameters: dict[str, Any] = asdict(replace(retrieval, text_model=""))
    pairs = read_manifest(folder)
    told = {TEXTS: _searched(texts, TEXTS, pairs), IMAGES: _searched(images, IMAGES, pairs)}
    parameters |= {kind: facts for kind, (_, facts) in told.items()}
    if retrieval.text_model:
        parameters["text_model"] = text_model_fingerprint(Path(retrieval.text_model))
    parameters["seed"] = options.seed
    stage = begin_stage(folder, RELATED, json.loads(json.dumps(parameters)), options, again)
    if stage is None:
        return None
    with kept_workers():
        maker = Lookup(stage.work, retrieval, None, NOTHING, NOTHING, [])
        if texts is not None:
            manifest = told[TEXTS][0]
            vectors = _index_texts(stage, texts, manifest, tokenizer, retrieval, options)
            maker = maker._replace(text_vectors=vectors, texts=_to_search(texts, manifest))
        if images is not None:
            manifest = told[IMAGES][0]
            own = _index_images(stage, images, manifest, retrieval, options)
            maker = maker._replace(images=_to_search(images, manifest), own=own)
        receipts = make_columns(stage, maker, options)
    return finish_stage(stage, receipts, options)


def _check(texts: Folder | None, images: Folder | None, retrieval: Retrieval) -> None:
    if texts is None and images is None:
        raise ValueError("name what to retrieve from: --texts CORPUS, --images CORPUS or both")
    for name, known in (("index", INDEX_KINDS), ("image_by", image_vectors.KINDS)):
        value = getattr(retrieval, name)
        if value not in known:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {value}: expected one of {', '.join(known)}")
    for name in ("top_k", "dimensions"):
        if getattr(retrieval, name) < 1:
            option = name.replace("_", "-")
            raise ValueError(f"--{option} {getattr(retrieval, name)}: 1 at least")
    if retrieval.text_model:
        check_weights(Path(retrieval.text_model), "--text-model")


def _searched(
    folder: Folder | None, kind: str, pairs: Manifest
) -> tuple[Manifest | Any, dict[str, Any]]:
    """The manifest of a corpus to search, and what the stage's parameters say of it."""
    if folder is None:
        return None, {}
    manifest = read_manifest(folder)
    if manifest.kind != kind:
        raise ValueError(f"--{kind} {folder} holds {manifest.kind}, expected {kind}")
    if kind == TEXTS and manifest.tokenizer != pairs.tokenizer:
        raise ValueError(
            f"{folder} was made with tokenizer {manifest.tokenizer}, the pairs with "
            f"{pairs.tokenizer}: make both with one tokenizer"
        )
    if kind == IMAGES and manifest.regions != pairs.regions:
        raise ValueError(
            f"{folder} has other regions than the pairs: make both with one region source and one "
            "set of visual words (--visual-words)"
        )
    return manifest, {"fingerprint": manifest.fingerprint, "rows": manifest.rows}


def _index_texts(
    stage: Stage,
    folder: Folder,
    manifest: Manifest,
    tokenizer: str,
    retrieval: Retrieval,
    options: Options,
) -> Analysis | Encoder:
    words = load_tokenizer(tokenizer)
    if words.fingerprint != manifest.tokenizer:
        raise ValueError(
            f"{folder} was made with tokenizer {manifest.tokenizer}, {words.source} is "
            f"{words.fingerprint}: name the one it was made with"
        )
    options.on_stage("vectors of texts")
    work = Path(str(stage.work))
    shards = _shards(folder, manifest)
    if retrieval.text_model:
        vectors: Analysis | Encoder = Encoder(retrieval.text_model)
    elif (work / "text_model.npz").is_file():
        vectors = Analysis(work)
    else:
        step = max(1, -(-manifest.rows // FITTED_ON))
        every = chain.from_iterable(_texts(shard, tokenizer) for shard in shards)
        sample = islice(every, 0, None, step)
        vectors = fit_analysis(work, sample, retrieval.dimensions, options.seed)
    parts = _embedded(shards, work, "texts", _TextSide(tokenizer, vectors), options)
    _indexed(work / "texts.index", parts, retrieval, manifest.rows, options)
    return vectors


def _index_images(
    stage: Stage, folder: Folder, manifest: Manifest, retrieval: Retrieval, options: Options
) -> list[Path]:
    """Makes the index of the images; the vectors of the pairs' own ones."""
    options.on_stage("vectors of images")
    work = Path(str(stage.work))
    source = manifest.regions
    assert source is not None
    shards = _shards(folder, manifest)
    sample: list[np.ndarray] = []
    for batch in chain.from_iterable(map(read_batches, shards)):
        sample.append(raw_vectors(batch, source, retrieval.image_by))
        if sum(map(len, sample)) >= _FITTED_ON_IMAGES:
            break
    projection = fit_projection(np.concatenate(sample), retrieval.dimensions, retrieval.image_by)
    side = _ImageSide(source, retrieval.image_by, projection, retrieval.min_overlap > 0)
    parts = _embedded(shards, work, "images", side, options)
    _indexed(work / "images.index", parts, retrieval, manifest.rows, options)
    inner = stage.folder / stage.manifest.images
    return _embedded(_shards(inner, read_manifest(inner)), work, "own", side, options)


def _embedded(
    shards: Sequence[Folder], work: Path, name: str, side: Any, options: Options
) -> list[Path]:
    """One file of vectors for each shard; those of an interrupted run are taken as they are."""
    parts = [work / f"{name}-{n:05d}.npy" for n in range(len(shards))]
    missing = (
        _Embedding(shard, part, side)
        for shard, part in zip(shards, parts, strict=True)
        if not part.is_file()
    )
    for _ in options.run(_embed, missing):
        pass
    return parts


def _embed(task: _Embedding) -> None:
    task.how.embed(task.path, task.out)


def _indexed(
    path: Path, parts: Sequence[Path], retrieval: Retrieval, rows: int, options: Options
) -> None:
    options.on_stage(f"{path.stem}: index")
    if not path.is_file():
        build_index(path, parts, resolved(retrieval.index, rows), options.seed)


def _to_search(folder: Folder, manifest: Manifest) -> Searched:
    return Searched(tuple(_shards(folder, manifest)), manifest.fingerprint)


def _shards(folder: Folder, manifest: Manifest) -> list[Folder]:
    return [folder / shard.name for shard in manifest.shards]


def _texts(path: Folder, tokenizer: str) -> Iterator[str]:
    words = cached_tokenizer(tokenizer)
    for batch in read_batches(path):
        yield from words.decode_batch(batch.column("tokens").to_pylist())
