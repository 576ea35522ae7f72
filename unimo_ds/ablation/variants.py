"""What the ablation takes away: variants of a run, each of which differs in the stated part alone.

Every variant trains as many steps, with as many samples of pairs in a step, in the same order and
from the same weights. Rewritten captions that are taken away leave their places in the softmax to
captions of other images, so that as many pairs are scored; in "rewriting-off" they leave nothing.
Unpaired data that are taken away leave no gap: a step has fewer samples. They are taken away
wholly, so nothing is retrieved from them either.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from unimo_ds.config import ContrastConfig, DataConfig, RunConfig

FULL = "full"


class Variant(NamedTuple):
    """One row of the table."""

    name: str
    label: str
    applied: Callable[[RunConfig], RunConfig]


def _no_rewriting(*levels: str) -> Callable[[RunConfig], RunConfig]:
    def applied(config: RunConfig) -> RunConfig:
        fields = [f"{level}_negatives" for level in levels]
        freed = sum(getattr(config.cmcl, field) for field in fields)
        changed = dict.fromkeys(fields, 0) | {
            "other_negatives": config.cmcl.other_negatives + freed
        }
        if "sentence" in levels:
            same = config.cmcl.joint_positives + config.cmcl.rewritten_positives
            changed |= {"rewritten_positives": 0, "joint_positives": same}
        return _contrast(config, **changed)

    return applied


def _rewriting_off(config: RunConfig) -> RunConfig:
    counts = ("word_negatives", "phrase_negatives", "sentence_negatives", "rewritten_positives")
    return _contrast(config, **dict.fromkeys(counts, 0))


def _contrast(config: RunConfig, **changed: int | bool) -> RunConfig:
    return replace(config, cmcl=replace(config.cmcl, **changed))  # type: ignore[arg-type]


def _no_cmcl(config: RunConfig) -> RunConfig:
    counts = (name for name, value in vars(ContrastConfig()).items() if type(value) is int)
    off = _contrast(config, **dict.fromkeys(counts, 0))
    return replace(off, loss=replace(off.loss, cmcl=0.0))


def _no_texts(config: RunConfig) -> RunConfig:
    kept = replace(config.data, texts=[], text_weight=0)
    return _contrast(_unpaired_less(config, kept), retrieved_texts=0)


def _no_images(config: RunConfig) -> RunConfig:
    kept = replace(config.data, images=[], image_weight=0)
    return _contrast(_unpaired_less(config, kept), retrieved_images=0)


def _unpaired_less(config: RunConfig, kept: DataConfig) -> RunConfig:
    """``config`` with the data ``kept`` and as many pairs in a step as before.

    Raises:
        ValueError: that is no whole number of samples.
    """
    before, after = _weights(config.data), _weights(kept)
    samples, rest = divmod(config.batch.samples * after, before)
    if rest:
        raise ValueError(
            f"batch.samples {config.batch.samples} times {after}/{before}, the kinds that are "
            f"left, is not whole: set batch.samples to a multiple of {before}, the sum of "
            "data.text_weight, image_weight and pair_weight"
        )
    return replace(config, data=kept, batch=replace(config.batch, samples=samples))


def _weights(data: DataConfig) -> int:
    return data.text_weight + data.image_weight + data.pair_weight


VARIANTS = (
    Variant(FULL, "full", lambda config: config),
    Variant("no-word-rewriting", "without word-level rewriting", _no_rewriting("word")),
    Variant("no-phrase-rewriting", "without phrase-level rewriting", _no_rewriting("phrase")),
    Variant("no-sentence-rewriting", "without sentence-level rewriting", _no_rewriting("sentence")),
    Variant("no-rewriting", "without all rewriting", _no_rewriting("word", "phrase", "sentence")),
    Variant("rewriting-off", "rewriting off, nothing in its place", _rewriting_off),
    Variant(
        "no-retrieved-images",
        "without retrieved images",
        lambda c: _contrast(c, retrieved_images=0),
    ),
    Variant(
        "no-retrieved-texts", "without retrieved texts", lambda c: _contrast(c, retrieved_texts=0)
    ),
    Variant(
        "no-retrieval",
        "without all retrieval",
        lambda c: _contrast(c, retrieved_images=0, retrieved_texts=0),
    ),
    Variant(
        "no-in-batch-negatives",
        "without in-batch negatives",
        lambda c: _contrast(c, in_batch_negatives=False),
    ),
    Variant("no-cmcl", "without all CMCL", _no_cmcl),
    Variant("no-unpaired-texts", "without unpaired texts", _no_texts),
    Variant("no-unpaired-images", "without unpaired images", _no_images),
    Variant("pairs-only", "pairs only", lambda c: _no_images(_no_texts(c))),
)


def variant(name: str) -> Variant:
    """The variant of that name.

    Raises:
        ValueError: there is none.
    """
    for one in VARIANTS:
        if one.name == name:
            return one
    raise ValueError(f"no variant {name!r}; there are {', '.join(v.name for v in VARIANTS)}")
