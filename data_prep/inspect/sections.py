"""What a page says of one corpus."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from data_prep.inspect.charts import (
    Chart,
    Ranked,
    histogram_chart,
    length_bins,
    ranked,
    share_bins,
    short_number,
)
from data_prep.inspect.filling import Filling, filling_of
from data_prep.inspect.pictures import ClassNames, Picture, class_names, picture_of
from data_prep.inspect.sampling import RegionSample, grid_of, sample_regions, sample_rows
from data_prep.inspect.stages import Neighbour, Rewritten, neighbours, rewritten_captions
from data_prep.inspect.words import Reader, Words
from data_prep.lengths import Lengths, caption_lengths, row_lengths
from data_prep.quarantine import Bad, read_quarantine
from data_prep.stats import size_text
from unimo_ds.data.schema import IMAGES, PAIRS, Manifest
from unimo_ds.data.shards import ImageCorpus, PairCorpus, TextCorpus

_FREQUENT = 24  # classes that are listed
_EXAMPLES, _EXAMPLE_CHARACTERS = 3, 300


class Plan(NamedTuple):
    """What the page was asked for."""

    samples: int
    seed: int
    image_root: Path | None
    reader: Reader


class Card(NamedTuple):
    """A headline number."""

    label: str
    value: str
    note: str


class Shown(NamedTuple):
    """An image with what is said about it, rewritten, and what is related to it."""

    picture: Picture
    captions: Sequence[Words]
    rewrites: Sequence[Rewritten] = ()
    related: Sequence[Neighbour] = ()


class Reason(NamedTuple):
    """Why records were left out, how many, and the first of them."""

    name: str
    count: str
    examples: Sequence[Bad]


class Section(NamedTuple):
    """A corpus on the page."""

    anchor: str
    kind: str
    folder: str
    cards: Sequence[Card]
    charts: Sequence[Chart]
    classes: Sequence[Ranked]
    classes_note: str
    shown: Sequence[Shown]
    texts: Sequence[Words]
    filling: Filling | None
    reasons: Sequence[Reason]
    facts: Sequence[tuple[str, str]]
    command: str


def section_of(
    corpus: TextCorpus | ImageCorpus | PairCorpus, anchor: str, plan: Plan, *, inner: bool = False
) -> Section:
    """All that the page shows of ``corpus``; ``inner``: the pairs above show its images already.

    Raises:
        ValueError: it is damaged.
    """
    manifest, folder = corpus.manifest, corpus.folder
    rows = sample_rows(corpus, plan.samples, plan.seed, purpose=0)
    lengths = row_lengths(folder, manifest)
    charts = [_length_chart(manifest.kind, lengths)]
    shown, classes, classes_note, texts = [], [], "", []
    if isinstance(corpus, PairCorpus):
        charts += _caption_charts(corpus)
        shown = _pairs(corpus, rows, plan)
    elif isinstance(corpus, ImageCorpus):
        sample, names = sample_regions(corpus, plan.seed), class_names(corpus)
        charts += _region_charts(sample)
        classes, classes_note = _class_list(sample, names, corpus.source.num_classes)
        if not inner:
            pictures = [picture_of(corpus, row, names, plan.image_root) for row in rows]
            shown = [Shown(picture, []) for picture in pictures]
    else:
        texts = [plan.reader.words(corpus.tokens(r).tolist(), corpus.row_id(r)) for r in rows]
    filling = filling_of(corpus, plan.seed) if len(corpus) and not inner else None
    return Section(
        anchor=anchor,
        kind=manifest.kind,
        folder=str(folder),
        cards=_cards(manifest, lengths.total, filling),
        charts=charts,
        classes=classes,
        classes_note=classes_note,
        shown=shown,
        texts=texts,
        filling=filling,
        reasons=_reasons(folder, manifest),
        facts=_facts(manifest),
        command=" ".join(manifest.command),
    )


def _length_chart(kind: str, lengths: Lengths) -> Chart:
    unit, of_rows = {
        IMAGES: ("regions", "of an image"),
        PAIRS: ("tokens", "of all captions of an image"),
    }.get(kind, ("tokens", "of a text"))
    note = f"mean {lengths.mean:,.1f}, median {lengths.percentile(0.5):,}, "
    note += f"95 % up to {lengths.percentile(0.95):,}, longest {lengths.longest:,}"
    return histogram_chart(f"{unit.title()} {of_rows}", length_bins(lengths.counts), unit, note)


def _cards(manifest: Manifest, total: int, filling: Filling | None) -> list[Card]:
    unit = "regions" if manifest.kind == IMAGES else "tokens"
    shards = len(manifest.shards)
    size = size_text(sum(shard.bytes for shard in manifest.shards))
    lost = sum(manifest.quarantined.values())
    share = lost / max(lost + manifest.rows, 1)
    cards = [
        Card(manifest.kind.title(), f"{manifest.rows:,}", "rows of the corpus"),
        Card(unit.title(), short_number(total), f"{total:,} in all"),
        Card("Size", size, f"in {shards:,} shard{'s' if shards != 1 else ''}"),
        Card("Quarantined", short_number(lost), f"{share:.2%} of rows and records"),
    ]
    if filling:
        cards.append(Card("Row fill", filling.fill, "of a batch of these alone"))
    return cards


def _caption_charts(corpus: PairCorpus) -> list[Chart]:
    found = caption_lengths(corpus.folder, corpus.manifest)
    captions, tokens = found.captions, found.tokens
    told = f"{captions.total:,} captions, {captions.mean:,.2f} an image"
    note = f"mean {tokens.mean:,.1f}, 95 % up to {tokens.percentile(0.95):,}, "
    note += f"longest {tokens.longest:,}"
    return [
        histogram_chart("Captions of an image", length_bins(captions.counts), "captions", told),
        histogram_chart("Tokens of a caption", length_bins(tokens.counts), "tokens", note),
    ]


def _region_charts(sample: RegionSample) -> list[Chart]:
    if not sample.images:
        return []
    told = f"a sample of {sample.images:,} images"
    long_sides = np.bincount(sample.sizes.max(axis=1))
    charts = [histogram_chart("Longer side of a picture", length_bins(long_sides), "pixels", told)]
    if not grid_of(sample.boxes[: len(sample.boxes) // sample.images])[0]:
        sides = np.sqrt(sample.boxes[:, 4].clip(0, 1))
        axis = "square root of the area, % of the picture's"
        charts.append(histogram_chart("Size of a box", share_bins(sides), axis, told))
        if (sample.probs < 1).any():
            axis = "probability of the likeliest class, %"
            chart = histogram_chart("Certainty of a region", share_bins(sample.probs), axis, told)
            charts.append(chart)
    return charts


def _class_list(
    sample: RegionSample, names: ClassNames, num_classes: int
) -> tuple[list[Ranked], str]:
    counts = Counter(sample.classes.tolist())
    frequent = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_FREQUENT]
    note = (
        f"{len(counts):,} of {num_classes:,} classes occur among the {len(sample.classes):,} "
        f"regions of a sample of {sample.images:,} images."
    )
    return ranked([(names.of(class_id), count) for class_id, count in frequent]), note


def _pairs(corpus: PairCorpus, rows: Sequence[int], plan: Plan) -> list[Shown]:
    names, shown = class_names(corpus.images), []
    for row in rows:
        picture = picture_of(corpus.images, corpus.image_row(row), names, plan.image_root)
        captions = zip(corpus.captions(row), corpus.caption_texts(row), strict=True)
        words = [plan.reader.words(ids.tolist(), text=text) for ids, text in captions]
        rewrites, related = rewritten_captions(corpus, row), neighbours(corpus, row)
        shown.append(Shown(picture, words, rewrites, related))
    return shown


def _reasons(folder: Path, manifest: Manifest) -> list[Reason]:
    """Reads the quarantine no further than all examples are found."""
    wanted = {name: min(n, _EXAMPLES) for name, n in manifest.quarantined.items()}
    found: dict[str, list[Bad]] = {name: [] for name in wanted}
    for bad in read_quarantine(folder) if wanted else ():
        examples = found.get(bad.reason, [])
        if len(examples) < wanted.get(bad.reason, 0):
            examples.append(bad._replace(excerpt=bad.excerpt[:_EXAMPLE_CHARACTERS]))
        if all(len(found[name]) == count for name, count in wanted.items()):
            break
    order = sorted(manifest.quarantined.items(), key=lambda item: (-item[1], item[0]))
    return [Reason(name, f"{count:,}", found[name]) for name, count in order]


def _facts(manifest: Manifest) -> list[tuple[str, str]]:
    facts = [("Seed", str(manifest.seed)), ("Schema version", str(manifest.schema_version))]
    if manifest.tokenizer:
        facts.append(("Tokenizer", f"{manifest.tokenizer}, at most {manifest.max_tokens} tokens"))
    if source := manifest.regions:
        told = (
            f"{source.name}, at most {source.max_regions} an image, {source.feature_size:,} numbers"
        )
        kept = f"{source.num_classes:,}, the {source.kept_classes} likeliest kept"
        facts += [("Regions", told), ("Classes", kept), ("Region fingerprint", source.fingerprint)]
        facts += [(f"Regions: {name}", str(value)) for name, value in source.parameters.items()]
    for stage, told in sorted(manifest.stages.items()):
        counts = ", ".join(f"{count:,} {what}" for what, count in told["counts"].items())
        facts.append((stage.title(), f"{' '.join(told['command'])} ({counts})"))
    facts += [(name, f"SHA-256 {sha256[:16]}…") for name, sha256 in manifest.files.items()]
    return facts
