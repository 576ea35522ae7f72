"""Builds an images corpus."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from data_prep.engine import (
    Options,
    Receipt,
    build_shards,
    cut,
    finish,
    is_complete,
    refuse_empty,
    remove_receipts,
    start,
)
from data_prep.quarantine import Bad
from data_prep.regions.class_names import CLASS_NAMES_NAME, names_file
from data_prep.regions.plan import PRECOMPUTED, RegionPlan
from data_prep.regions.rivals import settled
from data_prep.regions.rows import RegionMaker, sample_features
from data_prep.regions.sources import Source, region_source
from data_prep.regions.visual_words import (
    VISUAL_WORDS_NAME,
    fit_visual_words,
    load_visual_words,
)
from data_prep.writer import Folder, array_bytes, sha256_of, write_bytes
from unimo_ds.data.schema import IMAGES, Manifest, RegionSource


class Images(NamedTuple):
    """What is to be made into an images corpus: pictures, or rows of feature tables.

    Several records may have one id: the first that is whole gets it.
    """

    records: Sequence[Any]
    bad: Sequence[Bad]
    one_image: bool = False  # is an id that rows with different regions have nobody's?


class MadeImages(NamedTuple):
    """An images corpus whose receipts are still there."""

    manifest: Manifest
    receipts: list[Receipt]
    records: Sequence[Any]  # of which there are rows, if they were whole


def build_images(
    folder: Folder, images: Images, plan: RegionPlan, options: Options
) -> Manifest | None:
    """Fills ``folder`` with regions of the images; None if it was complete already.

    Raises:
        ValueError: bad arguments, or a folder that holds something else.
        TooManyBad: see `data_prep.engine.finish`.
    """
    if is_complete(folder, options):
        return None
    made = make_images(folder, images, plan, options)
    remove_receipts(folder)
    return made.manifest


def make_images(folder: Folder, images: Images, plan: RegionPlan, options: Options) -> MadeImages:
    """`build_images` that leaves the receipts where they are."""
    plan.check()
    if not images.records:
        refuse_empty(folder, images.bad)
    source = _source(images, plan, options)
    told = source.fields | source.fields.get("parameters", {})
    parameters = plan.parameters() | {"seed": options.seed}
    if plan.regions != PRECOMPUTED:  # a build that was begun before pictures were turned ends here
        parameters["pictures"] = "as shown"
    parameters |= {f"regions.{name}": value for name, value in told.items() if name != "parameters"}
    fields, words_path = dict(source.fields), ""
    path = folder / VISUAL_WORDS_NAME
    words = None
    if not fields["num_classes"] and not path.exists():
        words = _visual_words(folder, source, plan, options)  # before the folder holds anything
    start(folder, parameters)
    if not fields["num_classes"]:
        if words is not None:
            write_bytes(path, array_bytes(words))
        fields["num_classes"] = len(load_visual_words(str(path)))
        fields["visual_words_sha256"] = sha256_of(path)
        words_path = str(path)
    if source.class_names:
        write_bytes(folder / CLASS_NAMES_NAME, names_file(source.class_names))
        fields["class_names_sha256"] = sha256_of(folder / CLASS_NAMES_NAME)
    options.on_stage("regions")
    maker = RegionMaker(source.reader, words_path)
    pieces = cut(source.records, source.bad, plan.rows_per_shard)
    receipts = build_shards(folder, maker, pieces, parameters, options)
    files = [VISUAL_WORDS_NAME] if words_path else []
    files += [CLASS_NAMES_NAME] if source.class_names else []
    regions = RegionSource(**fields)
    manifest = finish(folder, receipts, options, files, kind=IMAGES, regions=regions)
    return MadeImages(manifest, receipts, source.records)


def _source(images: Images, plan: RegionPlan, options: Options) -> Source:
    """The source of the images' regions, of records with an id of their own."""
    source = region_source(images.records, images.bad, plan)
    options.on_stage("records of the same id")
    found = settled(source.reader, source.records, options, one_image=images.one_image)
    options.progress(len(found.bad))
    return source._replace(records=found.records, bad=[*source.bad, *found.bad])


def _visual_words(folder: Folder, source: Source, plan: RegionPlan, options: Options) -> np.ndarray:
    """float32 [K, F]: those of another corpus, or fitted on a sample of this one."""
    feature_size = source.fields["feature_size"]
    if not plan.visual_words:
        options.on_stage("a sample for visual words")
        sample = sample_features(source.reader, source.records, plan.num_classes, options)
        if not len(sample.features):
            refuse_empty(folder, [*source.bad, *sample.bad])
        options.on_stage(f"fitting {plan.num_classes} visual words")
        return fit_visual_words(sample.features, plan.num_classes, options.seed)
    words = load_visual_words(str(plan.visual_words))
    if words.shape[1] != feature_size:
        raise ValueError(
            f"the visual words of {plan.visual_words} are {words.shape[1]} wide, the features here "
            f"{feature_size}: they belong to regions of another kind"
        )
    return words
