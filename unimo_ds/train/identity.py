"""What a run shares with the checkpoint that it goes on from: its settings and its corpora's rows.

Corpora are known by what their manifests say, not by where they lie.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from unimo_ds.config import RunConfig
from unimo_ds.data.schema import Manifest, RegionSource, fingerprint_of
from unimo_ds.data.shards import PairCorpus, open_corpus
from unimo_ds.tokenizer import load_tokenizer

CORPORA = ("texts", "images", "pairs", "heldout_pairs")
SECTIONS = ("model", "data", "batch", "corruption", "cmcl", "loss", "optim")
NO_SETTINGS = {"model": ("init",), "data": ("tokenizer", *CORPORA, "workers", "cache")}
"""Fields of `SECTIONS` that say where something lies or how it is read, not what is computed."""
CUT = ("batch.rows", "batch.tokens_per_row")
"""How a step is cut into micro-steps of rows; of a single one the losses do not depend on it."""
SINCE_FINGERPRINTS: dict[str, tuple[str, ...]] = {}
"""Fields of `SECTIONS` that are newer than `fingerprint_of_paths`."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Of a run; a checkpoint's manifest holds it."""

    settings: dict[str, Any]  # by section.field
    corpora: dict[str, list[str]]  # fingerprints, as in data.*
    tokenizer: str  # fingerprint
    regions: str  # fingerprint of the images' source; empty: no images


def identity_of(config: RunConfig) -> Identity:
    """The identity of a run, with its corpora as they are now.

    Raises:
        ValueError: a corpus or tokenizer that cannot be opened.
    """
    corpora = {
        kind: [corpus_fingerprint(folder, config) for folder in getattr(config.data, kind)]
        for kind in CORPORA
    }
    regions = region_source(config)
    return Identity(
        settings=settings_of(config),
        corpora=corpora,
        tokenizer=load_tokenizer(config.data.tokenizer).fingerprint,
        regions=regions.fingerprint if regions else "",
    )


def settings_of(config: RunConfig) -> dict[str, Any]:
    """All values, by section.field, that decide what is computed in a step."""
    settings = {"seed": config.seed, "train.precision": config.train.precision}
    for section in SECTIONS:
        for name, value in asdict(getattr(config, section)).items():
            if name not in NO_SETTINGS.get(section, ()):
                settings[f"{section}.{name}"] = value
    return settings


def corpus_fingerprint(folder: str, config: RunConfig) -> str:
    """Names all of a corpus that ``config`` trains on: rows, regions, columns of later stages."""
    corpus = open_corpus(folder, config.data.cache)
    manifests = [corpus.manifest]
    if isinstance(corpus, PairCorpus):
        manifests.append(corpus.images.manifest)
    return fingerprint_of([_content(manifest, config) for manifest in manifests])


def _content(manifest: Manifest, config: RunConfig) -> list[object]:
    cmcl = config.cmcl
    negatives = cmcl.word_negatives + cmcl.phrase_negatives + cmcl.sentence_negatives
    is_read = {
        "units": config.corruption.phrases,
        "rewrites": cmcl.rewritten_positives + negatives > 0,
        "related": cmcl.retrieved_texts + cmcl.retrieved_images > 0,
    }
    columns = [
        [getattr(shard, f"{name}_sha256") for shard in manifest.shards]
        for name, read in is_read.items()
        if read
    ]
    return [manifest.fingerprint, manifest.regions and manifest.regions.fingerprint, columns]


def region_source(config: RunConfig) -> RegionSource | None:
    """Where the regions of a configuration's images come from; None if it has no images."""
    for folder in (*config.data.pairs, *config.data.images):
        corpus = open_corpus(folder, config.data.cache)
        images = corpus.images if isinstance(corpus, PairCorpus) else corpus
        return images.manifest.regions
    return None


def other_settings(saved: Mapping[str, Any], config: RunConfig) -> Iterator[str]:
    """Says which of the settings that a checkpoint was trained with ``config`` has otherwise.

    A setting that is newer than the checkpoint must have its default value; how a step is cut into
    micro-steps is left to `check_cut`.
    """
    defaults = settings_of(RunConfig())
    for name, value in settings_of(config).items():
        before = saved.get(name, defaults[name])
        if value != before and name not in CUT:
            yield f"{name} {before!r} (here {value!r})"


def other_corpora(saved: Identity, identity: Identity) -> Iterator[str]:
    """Says which of the corpora that a checkpoint was trained on are others, or built anew."""
    if identity.tokenizer != saved.tokenizer:
        yield f"data.tokenizer {saved.tokenizer} (here {identity.tokenizer})"
    for kind, found in identity.corpora.items():
        before = saved.corpora.get(kind, [])
        if found == before:
            continue
        changed = [i for i, pair in enumerate(zip(before, found, strict=False)) if len({*pair}) > 1]
        if sorted(found) == sorted(before):
            yield f"data.{kind} in another order"
        elif len(found) != len(before):
            yield f"{len(before)} data.{kind} (here {len(found)})"
        else:
            where = ", ".join(f"data.{kind}[{i}]" for i in changed)
            yield f"other rows or columns in {where}"


def fingerprint_of_paths(config: RunConfig) -> str:
    """What manifests of earlier releases hold: one value for settings and paths of corpora."""
    kept: dict[str, Any] = {"seed": config.seed, "precision": config.train.precision}
    for section in SECTIONS:
        kept[section] = asdict(getattr(config, section))
        for name in SINCE_FINGERPRINTS.get(section, ()):
            del kept[section][name]
    for name in ("workers", "cache"):
        del kept["data"][name]
    return fingerprint_of(kept)
