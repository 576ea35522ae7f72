"""The commands that make something out of pictures, and demo and tokenizer."""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from data_prep.cli.options import (
    CACHE,
    WORKERS,
    BatchSize,
    Boxes,
    BoxOrder,
    Cache,
    ClassNames,
    Device,
    Engine,
    FormatName,
    Grid,
    ImageRoot,
    KeptClasses,
    MaxBad,
    MaxRegions,
    MaxTokens,
    MinRegions,
    MinScore,
    Model,
    NumClasses,
    Output,
    Patch,
    Phrases,
    Precision,
    Preprocessor,
    RayAddress,
    Regions,
    Resume,
    RowsPerShard,
    Seed,
    Sources,
    TokenizerFile,
    VisualWords,
    Workers,
    build_options,
)
from data_prep.console import (
    building,
    console,
    listing,
    report,
    report_guesses,
    report_left_out,
    waiting,
)
from data_prep.demo.build import DemoSize, build_demo
from data_prep.engine import LOCAL
from data_prep.images import Images, build_images
from data_prep.pairs import build_pairs, group_by_picture, group_by_row
from data_prep.quarantine import UNWANTED, count_reasons
from data_prep.readers.formats import find_sources
from data_prep.readers.images import PICTURE_SUFFIXES
from data_prep.readers.pairs import read_pairs, read_pictures
from data_prep.readers.tables.scan import read_tables
from data_prep.regions.plan import PRECOMPUTED, RegionPlan
from data_prep.sources import localise
from data_prep.tokenizer import Notes, make_tokenizer
from data_prep.writer import Folder
from unimo_ds.storage import location


def demo(
    out: Output,
    pairs: int = 4000,
    texts: int = 800,
    images: int = 800,
    heldout: int = 200,
    seed: Seed = 1,
    workers: Workers = WORKERS,
) -> None:
    """A raw demo corpus: small scenes, five captions each, and prose about the same world."""
    begun = time.monotonic()
    build_demo(out, DemoSize(pairs, heldout, images, texts), seed, workers)
    told = f"{pairs} + {heldout} held-out pairs, {images} images, {texts} texts"
    console.print(f"{out}: {told} in {time.monotonic() - begun:.1f} s", soft_wrap=True)


def tokenizer(
    out: Annotated[Path, typer.Argument(help="tokenizer.json to write")],
    files: Annotated[
        Sources, typer.Argument(help="texts and captions, or a RoBERTa folder", parser=location)
    ],
    vocab_size: int = 50_265,
    cache: Cache = CACHE,
) -> None:
    """A byte-level BPE learned from .txt, .jsonl, .json, .parquet, or taken over from RoBERTa."""
    notes = Notes([], [])
    with waiting("learning a tokenizer"):
        made = make_tokenizer(out, localise(files, cache), vocab_size, notes)
    report_left_out(notes.bad)
    report_guesses(notes.guesses)
    unreadable = count_reasons(entry for entry in notes.bad if entry.reason not in UNWANTED)
    for reason, count in unreadable.items():
        console.print(f"not read: {count:,} records, {reason}", soft_wrap=True)
    console.print(f"{out}: {made.vocab_size} words, fingerprint {made.fingerprint}", soft_wrap=True)


def images(
    ctx: typer.Context,
    out: Output,
    sources: Annotated[
        Sources,
        typer.Argument(
            help="what holds or names pictures, see --format; or tables", parser=location
        ),
    ],
    regions: Regions = "pixels",
    grid: Grid = None,
    patch: Patch = 16,
    model: Model = None,
    preprocessor: Preprocessor = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = 32,
    boxes: Boxes = None,
    class_names: ClassNames = None,
    min_score: MinScore = 0.2,
    min_regions: MinRegions = 10,
    num_classes: NumClasses = 1601,
    visual_words: VisualWords = None,
    max_regions: MaxRegions = 100,
    kept_classes: KeptClasses = 8,
    box_order: BoxOrder = "auto",
    image_root: ImageRoot = None,
    form: FormatName = None,
    rows_per_shard: RowsPerShard = 8192,
    seed: Seed = 1,
    workers: Workers = WORKERS,
    engine: Engine = LOCAL,
    ray_address: RayAddress = "",
    cache: Cache = CACHE,
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """An images corpus: every image a set of regions."""
    plan = _plan(ctx)
    if regions == PRECOMPUTED:
        with waiting("reading tables"):
            found = Images(*read_tables(localise(sources, cache), box_order))
        report_left_out(found.bad)
    else:
        root, beside = _pictures(image_root, cache)
        with waiting("fetching sources"):
            files = localise(sources, cache, beside)
        with listing("pictures") as seen:
            pictures = read_pictures(find_sources(files, form), root, seen)
        report_left_out(pictures.left_out)
        report_guesses(pictures.guesses)
        found = Images(pictures.records, pictures.bad + pictures.left_out)
    with building(out, build_options(ctx), len(found.records), 1, "images") as options:
        manifest = build_images(out, found, plan, options)
    report(out, manifest)


def pairs(
    ctx: typer.Context,
    out: Output,
    sources: Annotated[
        Sources,
        typer.Argument(
            help="what holds captions and names pictures, see --format", parser=location
        ),
    ],
    tokenizer: TokenizerFile,
    features: Annotated[
        Sources | None,
        typer.Option(help="precomputed: table with the images' regions", parser=location),
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="take records of this split only")] = None,
    max_tokens: MaxTokens = 510,
    phrases: Phrases = False,
    regions: Regions = "pixels",
    grid: Grid = None,
    patch: Patch = 16,
    model: Model = None,
    preprocessor: Preprocessor = None,
    device: Device = "auto",
    precision: Precision = "auto",
    batch_size: BatchSize = 32,
    boxes: Boxes = None,
    class_names: ClassNames = None,
    min_score: MinScore = 0.2,
    min_regions: MinRegions = 10,
    num_classes: NumClasses = 1601,
    visual_words: VisualWords = None,
    max_regions: MaxRegions = 100,
    kept_classes: KeptClasses = 8,
    box_order: BoxOrder = "auto",
    image_root: ImageRoot = None,
    form: FormatName = None,
    rows_per_shard: RowsPerShard = 8192,
    seed: Seed = 1,
    workers: Workers = WORKERS,
    engine: Engine = LOCAL,
    ray_address: RayAddress = "",
    cache: Cache = CACHE,
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """A pairs corpus, and inside it the images corpus that its rows refer to."""
    plan = _plan(ctx)
    if (regions == PRECOMPUTED) != bool(features):
        raise ValueError("--regions precomputed and --features TABLE go together, or neither")
    root, beside = (None, ()) if features else _pictures(image_root, cache)
    with waiting("fetching sources"):
        files = localise(sources, cache, beside)
    with listing("pairs") as seen:
        found = read_pairs(find_sources(files, form, captioned=True), split or (), seen)
        if features:
            rows, bad = read_tables(localise(features, cache), box_order)
            report_left_out(bad)
            grouped = group_by_row(found.entries, rows, bad)
        else:
            grouped = group_by_picture(found.entries, root)
    report_left_out(found.left_out)
    report_guesses(found.guesses)
    grouped = grouped._replace(bad=grouped.bad + found.left_out)
    (words,) = localise([tokenizer], cache)
    with building(out, build_options(ctx), len(grouped.images.records), 1, "images") as options:
        manifest = build_pairs(
            out, grouped, plan, str(words), options, max_tokens=max_tokens, phrases=phrases
        )
    report(out, manifest)


def _pictures(image_root: Folder | None, cache: Path) -> tuple[Path | None, Iterable[str]]:
    """The local ``image_root``, and suffixes of what to fetch beside remote files without one."""
    if image_root is None:
        return None, PICTURE_SUFFIXES
    return localise([image_root], cache)[0], ()


def _plan(ctx: typer.Context) -> RegionPlan:
    return RegionPlan(**{name: ctx.params[name] for name in RegionPlan._fields})
