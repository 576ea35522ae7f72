"""`unimo-prep`: raw text, images and pairs in, corpora out."""

import json
import sys
import time
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from data_prep.console import building, console, report
from data_prep.demo.build import DemoSize, build_demo
from data_prep.engine import Options, TooManyBad
from data_prep.images import PRECOMPUTED, Images, RegionPlan, build_images
from data_prep.pairs import build_pairs, group_by_picture, group_by_row
from data_prep.pool import default_workers
from data_prep.readers.images import read_pictures
from data_prep.readers.pairs import read_pairs
from data_prep.readers.region_tables import read_tables
from data_prep.readers.text import DocumentReader
from data_prep.stats import corpus_stats, stats_table
from data_prep.texts import build_texts
from data_prep.tokenizer import make_tokenizer
from data_prep.verify import damage

FAILED, USAGE_ERROR, TOO_MANY_BAD = 1, 2, 3

app = typer.Typer(
    help="Makes corpora for unimo_ds out of raw text, images and image-text pairs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

_WORKERS = default_workers()
_NO_EFFECT = ("workers", "resume", "max_bad")  # on the bytes of a corpus

Output = Annotated[Path, typer.Argument(help="folder to fill; it must be new, or --resume")]
Corpora = Annotated[list[Path], typer.Argument(help="folders that builders filled")]
Workers = Annotated[int, typer.Option(help="processes; the result does not depend on it")]
Resume = Annotated[bool, typer.Option("--resume", help="go on with an interrupted build")]
MaxBad = Annotated[float, typer.Option(help="stop (exit code 3) above this share of bad records")]
Seed = Annotated[int, typer.Option(help="of everything drawn at random")]
TokenizerFile = Annotated[str, typer.Option("--tokenizer", help="file of `unimo-prep tokenizer`")]
MaxTokens = Annotated[int, typer.Option(help="of a row or caption, without [CLS] and [SEP]")]
Regions = Annotated[str, typer.Option(help="where regions come from: pixels or precomputed")]
Grid = Annotated[int, typer.Option(help="pixels: patches a side")]
Patch = Annotated[int, typer.Option(help="pixels: pixels a side of a patch")]
NumClasses = Annotated[
    int, typer.Option(help="visual words to fit; the tables' own number of classes wins over it")
]
VisualWords = Annotated[
    Path | None, typer.Option(help="visual_words.npy of another corpus, to share its classes")
]
MaxRegions = Annotated[int, typer.Option(help="precomputed: keep the first N regions of an image")]
KeptClasses = Annotated[int, typer.Option(help="precomputed: keep the N likeliest of a region")]
BoxOrder = Annotated[str, typer.Option(help="precomputed: size columns are wh, hw, or auto")]
RowsPerShard = Annotated[int, typer.Option(help="records in a full shard")]
ImageRoot = Annotated[
    Path | None, typer.Option(help="folder of the named pictures [default: the naming file's own]")
]


@app.command()
def demo(
    out: Output,
    pairs: int = 4000,
    texts: int = 800,
    images: int = 800,
    heldout: int = 200,
    seed: Seed = 1,
    workers: Workers = _WORKERS,
) -> None:
    """A raw demo corpus: small scenes, five captions each, and prose about the same world."""
    begun = time.monotonic()
    build_demo(out, DemoSize(pairs, heldout, images, texts), seed, workers)
    told = f"{pairs} + {heldout} held-out pairs, {images} images, {texts} texts"
    console.print(f"{out}: {told} in {time.monotonic() - begun:.1f} s", soft_wrap=True)


@app.command()
def tokenizer(
    out: Annotated[Path, typer.Argument(help="tokenizer.json to write")],
    files: Annotated[list[Path], typer.Argument(help="texts and captions, or a RoBERTa folder")],
    vocab_size: int = 50_265,
) -> None:
    """A byte-level BPE learned from .txt, .jsonl, .json, .parquet, or taken over from RoBERTa."""
    made = make_tokenizer(out, files, vocab_size)
    console.print(f"{out}: {made.vocab_size} words, fingerprint {made.fingerprint}", soft_wrap=True)


@app.command()
def text(
    ctx: typer.Context,
    out: Output,
    files: Annotated[
        list[Path], typer.Argument(help=".txt, .jsonl (also .gz, .xz), .parquet, dataset folders")
    ],
    tokenizer: TokenizerFile,
    field: Annotated[str, typer.Option(help="of a record that holds the text")] = "text",
    max_tokens: MaxTokens = 510,
    rows_per_shard: RowsPerShard = 65_536,
    seed: Seed = 1,
    workers: Workers = _WORKERS,
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """A texts corpus. Documents longer than a row are cut where sentences end."""
    reader = DocumentReader(files, field)
    with building(out, _options(ctx), reader.total_bytes, 1e6, "MB") as options:
        manifest = build_texts(
            out, reader, tokenizer, options, max_tokens=max_tokens, rows_per_shard=rows_per_shard
        )
    report(out, manifest)


@app.command()
def images(
    ctx: typer.Context,
    out: Output,
    sources: Annotated[
        list[Path], typer.Argument(help="folders of pictures, .jsonl that name them; or tables")
    ],
    regions: Regions = "pixels",
    grid: Grid = 7,
    patch: Patch = 16,
    num_classes: NumClasses = 1601,
    visual_words: VisualWords = None,
    max_regions: MaxRegions = 100,
    kept_classes: KeptClasses = 8,
    box_order: BoxOrder = "auto",
    image_root: ImageRoot = None,
    rows_per_shard: RowsPerShard = 8192,
    seed: Seed = 1,
    workers: Workers = _WORKERS,
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """An images corpus: every image a set of regions."""
    plan = _plan(ctx)
    if regions == PRECOMPUTED:
        found = Images(*read_tables(sources, box_order))
    else:
        found = Images(*read_pictures(sources, image_root))
    with building(out, _options(ctx), len(found.records), 1, "images") as options:
        manifest = build_images(out, found, plan, options)
    report(out, manifest)


@app.command()
def pairs(
    ctx: typer.Context,
    out: Output,
    sources: Annotated[list[Path], typer.Argument(help=".jsonl, or .json of COCO or Karpathy")],
    tokenizer: TokenizerFile,
    features: Annotated[
        list[Path] | None, typer.Option(help="precomputed: table with the images' regions")
    ] = None,
    split: Annotated[list[str] | None, typer.Option(help="take records of this split only")] = None,
    max_tokens: MaxTokens = 510,
    regions: Regions = "pixels",
    grid: Grid = 7,
    patch: Patch = 16,
    num_classes: NumClasses = 1601,
    visual_words: VisualWords = None,
    max_regions: MaxRegions = 100,
    kept_classes: KeptClasses = 8,
    box_order: BoxOrder = "auto",
    image_root: ImageRoot = None,
    rows_per_shard: RowsPerShard = 8192,
    seed: Seed = 1,
    workers: Workers = _WORKERS,
    resume: Resume = False,
    max_bad: MaxBad = 0.01,
) -> None:
    """A pairs corpus, and inside it the images corpus that its rows refer to."""
    plan = _plan(ctx)
    if (regions == PRECOMPUTED) != bool(features):
        raise ValueError("--regions precomputed and --features TABLE go together, or neither")
    entries = [entry for source in sources for entry in read_pairs(source, split or ())]
    if features:
        grouped = group_by_row(entries, *read_tables(features, box_order))
    else:
        grouped = group_by_picture(entries, image_root)
    with building(out, _options(ctx), len(grouped.images.records), 1, "images") as options:
        manifest = build_pairs(out, grouped, plan, tokenizer, options, max_tokens=max_tokens)
    report(out, manifest)


@app.command()
def verify(corpora: Corpora) -> None:
    """Reads every byte of corpora. Exit code 1 if something is not as the manifest says."""
    problems = 0
    for folder in corpora:
        found = list(damage(folder))
        problems += len(found)
        for problem in found:
            typer.echo(problem)
        if not found:
            console.print(f"{folder}: [green]whole[/green]", soft_wrap=True)
    if problems:
        raise typer.Exit(FAILED)


@app.command()
def stats(
    corpora: Corpora,
    as_json: Annotated[bool, typer.Option("--json", help="for programs")] = False,
) -> None:
    """Rows, tokens, lengths, regions, sizes and quarantined records of corpora."""
    found = [entry for folder in corpora for entry in corpus_stats(folder)]
    if as_json:
        typer.echo(json.dumps([entry._asdict() for entry in found], indent=1))
        return
    for entry in found:
        Console().print(stats_table(entry))


def _options(ctx: typer.Context) -> Options:
    given = {name: ctx.params[name] for name in ("seed", "workers", "resume", "max_bad")}
    return Options(command=_command(ctx), **given)


def _plan(ctx: typer.Context) -> RegionPlan:
    return RegionPlan(**{name: ctx.params[name] for name in RegionPlan._fields})


def _command(ctx: typer.Context) -> list[str]:
    """The command as the manifest tells it: all that the bytes depend on, in one order."""
    positional: list[str] = []
    named: list[str] = []
    for parameter in ctx.command.params:
        name = str(parameter.name)
        values = _as_list(ctx.params.get(name))
        if name in _NO_EFFECT:
            continue
        if parameter.param_type_name == "argument":
            positional += values
        else:
            named += [part for value in values for part in (parameter.opts[0], value)]
    return ["unimo-prep", str(ctx.info_name), *positional, *named]


def _as_list(value: Any) -> list[str]:
    if value is None:
        return []
    return [str(item) for item in value] if isinstance(value, list | tuple) else [str(value)]


def main() -> None:
    """Runs the command line; what a user can mend is told in one line, without a traceback."""
    try:
        app()
    except TooManyBad as error:
        console.print("stopped:", str(error), soft_wrap=True, markup=False)
        sys.exit(TOO_MANY_BAD)
    except BrokenProcessPool:
        told = (
            "a worker was killed, perhaps for its memory: go on with --resume and fewer --workers"
        )
        console.print("error:", told, soft_wrap=True, markup=False)
        sys.exit(FAILED)
    except (ValueError, OSError) as error:
        console.print("error:", str(error), soft_wrap=True, markup=False)
        sys.exit(USAGE_ERROR)


if __name__ == "__main__":
    main()
